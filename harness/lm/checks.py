"""What a loaded model must be, so that no submission is blamed for what it is not."""

from __future__ import annotations

from typing import Any

import torch

from harness.errors import ModelError


def check_finite(name: str, model: Any) -> None:
    """Refuse weights that are not finite: no answer could be applied by them.

    Args:
        name: of the model, for the message.
        model: transformers' model, in the number format that it is computed in.

    Raises:
        ModelError: the first such weight, with the numbers.
    """
    for weight, values in model.named_parameters():
        wrong = int((~torch.isfinite(values)).sum())
        if wrong:
            raise ModelError(
                f"{name}: {wrong:,} of {values.numel():,} values of {weight} are not finite in {values.dtype}. "
                "Get the weights anew; if they are large, take a wider number format (model.dtype)"
            )


def check_tokenizer(name: str, tokenizer: Any, model: Any) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for.

    Args:
        name: of the model, for the message.
        tokenizer: transformers' tokenizer.
        model: the model that it came with.

    Raises:
        ModelError: with both numbers.
    """
    most, rows = max(tokenizer.get_vocab().values(), default=-1) + 1, model.get_input_embeddings().num_embeddings
    if most > rows:
        raise ModelError(
            f"{name}: its tokenizer has {most:,} token ids, the model {rows:,} embeddings. "
            "Give the tokenizer that the model was trained with"
        )
