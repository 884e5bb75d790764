"""The author's API: everything a submission imports."""

import typing

from harness.contract import (
    Answer,
    BlackBox,
    Budget,
    Coordinates,
    Count,
    Examples,
    FeatureKind,
    Member,
    ModelInfo,
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
    from harness.service.client import connect

__all__ = [
    "Answer",
    "BiLstmHead",
    "BlackBox",
    "Budget",
    "BudgetExhausted",
    "Coordinates",
    "Count",
    "Examples",
    "FeatureKind",
    "HarnessError",
    "LinearHead",
    "Member",
    "MlpHead",
    "ModelInfo",
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
    "accuracy",
    "connect",
    "cross_entropy",
    "hinge",
    "log_softmax",
    "macro_f1",
    "negative_accuracy",
    "negative_log_likelihood",
    "softmax",
]


def __getattr__(name: str) -> typing.Any:
    """Load `connect` when it is asked for: it is for solvers elsewhere, and no worker can see its module."""
    if name != "connect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from harness.service.client import connect  # noqa: PLC0415

    return connect
