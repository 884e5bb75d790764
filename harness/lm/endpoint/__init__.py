"""A served language model as the black box: any server that speaks the OpenAI protocol, asked over HTTP."""
