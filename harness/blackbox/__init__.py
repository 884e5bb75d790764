"""One query from a submission's call to the model: what it is, what it costs, how it travels, what it spends."""
