"""The contract between the harness and a submission: everything that an author must know.

A submission is one function, a generator::

    def tune(lm: BlackBox, task: Task, shots: Shots, rng: Generator, config: Config) -> Iterator[Answer]

It asks `lm` for label-word logits, which costs budget, and yields better and better `Answer`s. When the budget or the
time is used up, the last answer is scored on test texts that the submission never sees.

The price of everything is the *row*: one candidate prompt x one text forwarded once. A *call* is one
prompt over the whole few-shot training set, as in Sun et al., ICML 2022: `calls = rows / len(train)`.
A population of 20 prompts costs 20 calls, however it is batched.

Shapes are written as comments, e.g. ``(candidates, texts, words)``. Nothing here needs torch.
"""

from harness.contract.answers import Answer, Member
from harness.contract.arrays import (
    Beside,
    ClassMetric,
    Distribution,
    FeatureKind,
    FloatArray,
    IntArray,
    Metric,
    Mix,
    Mode,
    Noise,
    Text,
    TextMetric,
    WeightGroup,
    WidthFrom,
)
from harness.contract.black_box import BlackBox
from harness.contract.heads import BiLstmHead, Head, LinearHead, MlpHead, PrototypeHead
from harness.contract.options import Count, NonNegative, Positive, Several, Share
from harness.contract.prompts import Coordinates, Outputs, Prompt, SoftPrompts, Subspace
from harness.contract.tasks import Budget, Examples, ModelInfo, Shots, Task, WeightFacts
from harness.contract.text import Generated, Likelihoods, TextBlackBox, TextTask
from harness.contract.weights import Prompts, Weights, WeightSpace

__all__ = [
    "Answer",
    "Beside",
    "BiLstmHead",
    "BlackBox",
    "Budget",
    "ClassMetric",
    "Coordinates",
    "Count",
    "Distribution",
    "Examples",
    "FeatureKind",
    "FloatArray",
    "Generated",
    "Head",
    "IntArray",
    "Likelihoods",
    "LinearHead",
    "Member",
    "Metric",
    "Mix",
    "MlpHead",
    "Mode",
    "ModelInfo",
    "Noise",
    "NonNegative",
    "Outputs",
    "Positive",
    "Prompt",
    "Prompts",
    "PrototypeHead",
    "Several",
    "Share",
    "Shots",
    "SoftPrompts",
    "Subspace",
    "Task",
    "Text",
    "TextBlackBox",
    "TextMetric",
    "TextTask",
    "WeightFacts",
    "WeightGroup",
    "WeightSpace",
    "Weights",
    "WidthFrom",
]
