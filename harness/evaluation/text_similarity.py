"""How like its reference an output is in meaning: the cosine of two sentence embeddings. A diagnostic, never ranked.

The encoder is MiniLM (all-MiniLM-L6-v2; Reimers & Gurevych, EMNLP 2019) from the package that the embedded model is
made of, without this project's head. An embedding is the mean of the last layer's states over all tokens. Such a
similarity says little of facts: "open on Monday" and "open on Tuesday" are nearly the same to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.lm import embedded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_TEXTS_AT_ONCE = 64
_MOST_TOKENS = 256
"""Longest text in tokens, as the encoder was trained."""


class SentenceEncoder:
    """The encoder, loaded once."""

    def __init__(self) -> None:
        """Load it.

        Raises:
            ModelError: its package is missing or damaged.
        """
        folder = embedded.package_folder()
        self._model = embedded.base_model(folder).bert
        self._tokenizer = embedded.tokenizer(folder)

    def embedded(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings of length 1.

        Args:
            texts: any; an empty one has the embedding of no words.

        Returns:
            (texts, width).
        """
        parts = []
        order = sorted(range(len(texts)), key=lambda n: (len(texts[n]), n))
        with torch.inference_mode():
            for first in range(0, len(order), _TEXTS_AT_ONCE):
                some = [texts[n] for n in order[first : first + _TEXTS_AT_ONCE]]
                coded = self._tokenizer(
                    some, return_tensors="pt", padding=True, truncation=True, max_length=_MOST_TOKENS
                )
                mask = coded["attention_mask"]
                states = self._model(input_ids=coded["input_ids"], attention_mask=mask).last_hidden_state
                mean = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
                parts.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
        found = np.concatenate(parts)
        out = np.empty_like(found)
        out[order] = found
        return out

    def similarities(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """Cosine of each output to its nearest reference.

        Args:
            outputs: one for each text.
            references: of each text the right answers, at least one.

        Returns:
            (texts,), from -1 to 1.

        Raises:
            ValueError: there is not one list of references for each output.
        """
        every = [(n, right) for n, some in enumerate(references) for right in some]
        if len(outputs) != len(references) or not all(references):
            raise ValueError(f"{len(outputs)} outputs and {len(references)} lists of references")
        said, right = self.embedded(outputs), self.embedded([text for _, text in every])
        best = np.full(len(outputs), -1.0)
        np.maximum.at(best, [n for n, _ in every], (said[[n for n, _ in every]] * right).sum(axis=1))
        return best
