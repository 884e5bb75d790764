"""The author's API: everything a submission imports."""

import importlib
import typing

from harness.contract import (
    Answer,
    Beside,
    BlackBox,
    Budget,
    Coordinates,
    Count,
    Examples,
    FeatureKind,
    Generated,
    Likelihoods,
    Member,
    ModelInfo,
    Noise,
    NonNegative,
    Outputs,
    Positive,
    Prompt,
    Prompts,
    Several,
    Share,
    Shots,
    Subspace,
    Task,
    TextBlackBox,
    TextTask,
    WeightGroup,
    Weights,
    WeightSpace,
    WidthFrom,
)
from harness.contract.heads import BiLstmHead, LinearHead, MlpHead, PrototypeHead
from harness.errors import BudgetExhausted, HarnessError, QueryError
from harness.solving import (
    accuracy,
    cross_entropy,
    hinge,
    log_softmax,
    macro_f1,
    negative_accuracy,
    negative_log_likelihood,
    softmax,
)

if typing.TYPE_CHECKING:
    from harness.leaderboard.frames import cells, ranking
    from harness.problems.opening import problem
    from harness.service.client import connect

__all__ = [
    "Answer",
    "Beside",
    "BiLstmHead",
    "BlackBox",
    "Budget",
    "BudgetExhausted",
    "Coordinates",
    "Count",
    "Examples",
    "FeatureKind",
    "Generated",
    "HarnessError",
    "Likelihoods",
    "LinearHead",
    "Member",
    "MlpHead",
    "ModelInfo",
    "Noise",
    "NonNegative",
    "Outputs",
    "Positive",
    "Prompt",
    "Prompts",
    "PrototypeHead",
    "QueryError",
    "Several",
    "Share",
    "Shots",
    "Subspace",
    "Task",
    "TextBlackBox",
    "TextTask",
    "WeightGroup",
    "WeightSpace",
    "Weights",
    "WidthFrom",
    "accuracy",
    "cells",
    "connect",
    "cross_entropy",
    "hinge",
    "log_softmax",
    "macro_f1",
    "negative_accuracy",
    "negative_log_likelihood",
    "problem",
    "ranking",
    "softmax",
]


_FRAMES = "harness.leaderboard.frames"
_LATER = {
    "cells": _FRAMES,
    "connect": "harness.service.client",
    "problem": "harness.problems.opening",
    "ranking": _FRAMES,
}
"""What is loaded when it is asked for: it is for organisers and notebooks, and no worker can see its module."""


def __getattr__(name: str) -> typing.Any:
    """Load a name of `_LATER`."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
