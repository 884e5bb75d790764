"""The author's API: everything a submission imports."""

from harness.contract import (
    Answer,
    BlackBox,
    Budget,
    Coordinates,
    Examples,
    FeatureKind,
    LinearHead,
    Member,
    MlpHead,
    ModelInfo,
    Outputs,
    Prompt,
    Prompts,
    Shots,
    Subspace,
    Task,
)
from harness.errors import BudgetExhausted, HarnessError, QueryError
from harness.losses import cross_entropy, hinge, log_softmax, negative_accuracy, negative_log_likelihood, softmax
from harness.metrics import accuracy, macro_f1

__all__ = [
    "Answer",
    "BlackBox",
    "Budget",
    "BudgetExhausted",
    "Coordinates",
    "Examples",
    "FeatureKind",
    "HarnessError",
    "LinearHead",
    "Member",
    "MlpHead",
    "ModelInfo",
    "Outputs",
    "Prompt",
    "Prompts",
    "QueryError",
    "Shots",
    "Subspace",
    "Task",
    "accuracy",
    "cross_entropy",
    "hinge",
    "log_softmax",
    "macro_f1",
    "negative_accuracy",
    "negative_log_likelihood",
    "softmax",
]
