"""The author's API: everything a submission imports."""

from harness.contract import (
    Answer,
    BiLstmHead,
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
    PrototypeHead,
    Shots,
    Subspace,
    Task,
)
from harness.errors import BudgetExhausted, HarnessError, QueryError
from harness.losses import cross_entropy, hinge, log_softmax, negative_accuracy, negative_log_likelihood, softmax
from harness.metrics import accuracy, macro_f1
from harness.service.client import connect

__all__ = [
    "Answer",
    "BiLstmHead",
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
    "PrototypeHead",
    "QueryError",
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
