"""Array types, and the names of choices, that the whole contract uses."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating]

IntArray: TypeAlias = npt.NDArray[np.int64]

Text: TypeAlias = tuple[str, ...]
"""One example's text fields: one for SST-2 and DBPedia, two for the pair tasks."""

Mode: TypeAlias = Literal["add", "prepend"]

ClassMetric: TypeAlias = Literal["accuracy", "macro_f1", "f1"]
"""Metrics of predicted classes. ``f1`` is the F1 of class 1, for tasks with two classes."""

TextMetric: TypeAlias = Literal["chrf", "bleu", "rouge_l", "exact_match", "token_f1"]
"""Metrics of generated texts, each a mean over texts of a score from 0 to 1 (`harness.evaluation.text_metrics`)."""

Metric: TypeAlias = ClassMetric | TextMetric

Mix: TypeAlias = Literal["probabilities", "logits"]

FeatureKind: TypeAlias = Literal["mask", "cls", "all"]

Distribution: TypeAlias = Literal["normal", "uniform"]

WidthFrom: TypeAlias = Literal["hidden", "embedding", "unit"]
"""What the width of prompts is measured in, see `ModelInfo.widths`."""

WeightGroup: TypeAlias = Literal["biases", "norms", "attention", "feed_forward", "lora", "adapter", "all"]
"""Parameters that a candidate changes, see `WeightSpace`."""

Beside: TypeAlias = Literal["query", "key", "value", "output", "up", "down"]
"""A matrix of a layer beside which a LoRA stands."""

Noise: TypeAlias = Literal["normal", "rademacher"]
"""How the noise of weights is distributed."""
