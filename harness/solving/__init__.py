"""What several solvers share, under the field's names: numpy, pycma and the contract. Nothing here queries the model.

Everything is imported from here::

    from harness.solving import Adam, Calibration, CmaEs, Selection, cross_entropy, minibatches, score

A submission contains what is its own: the loop, what moves, the loss, when dev is used, and the gradients of its heads.
"""

import importlib
import typing

from harness.contract.heads import log_softmax, softmax
from harness.solving.losses import (
    Loss,
    cross_entropy,
    hinge,
    hinge_of_probabilities,
    negative_accuracy,
    negative_log_likelihood,
)
from harness.solving.metrics import accuracy, f1, macro_f1, score

if typing.TYPE_CHECKING:
    from harness.solving.adam import Adam
    from harness.solving.batches import minibatches
    from harness.solving.calibration import Calibration, additive_shift
    from harness.solving.cma_es import CmaEs
    from harness.solving.demonstrations import demonstration, without_braces
    from harness.solving.layerwise import LayerwiseCmaEs
    from harness.solving.selection import Selection

__all__ = [
    "Adam",
    "Calibration",
    "CmaEs",
    "LayerwiseCmaEs",
    "Loss",
    "Selection",
    "accuracy",
    "additive_shift",
    "cross_entropy",
    "demonstration",
    "f1",
    "hinge",
    "hinge_of_probabilities",
    "log_softmax",
    "macro_f1",
    "minibatches",
    "negative_accuracy",
    "negative_log_likelihood",
    "score",
    "softmax",
    "without_braces",
]

_LATER = {
    "Adam": "adam",
    "Calibration": "calibration",
    "additive_shift": "calibration",
    "CmaEs": "cma_es",
    "demonstration": "demonstrations",
    "without_braces": "demonstrations",
    "LayerwiseCmaEs": "layerwise",
    "minibatches": "batches",
    "Selection": "selection",
}
"""Names with their modules. A module is loaded when a name is used; `import harness` needs only losses and metrics."""


def __getattr__(name: str) -> typing.Any:
    """Load a module when one of its names is first used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found
