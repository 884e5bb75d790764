"""How a white-box reference is run: its code is imported, trained to its end, and its predictors are kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DeviceMemoryError, SubmissionError
from harness.evaluation.white_box import OutOfForwardsError, OutOfTimeError
from harness.lm.device import seeded
from harness.lm.gradients import fast_products
from harness.results.records import KeptAnswer
from harness.results.status import COUNTS, MARKS
from harness.sandbox import answering, traces
from harness.sandbox.snapshot import as_given, snapshot
from harness.sandbox.submission import loaded
from harness.solving.answers import finite_note

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping

    from harness.contract import Examples, IntArray, Shots, Task, TextTask
    from harness.evaluation.white_box import Predictor, WhiteBox
    from harness.sandbox.submission import Solver, Submission


@dataclass
class Training:
    """The result of a reference's `tune`."""

    status: str = "no_answer"
    detail: str = ""
    last: Predictor | None = None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """For each predictor, the forward passes that were used if there is a budget of them, else 0; and its note."""
    incumbents: dict[float, tuple[int, Predictor]] = field(default_factory=dict)
    """The last predictor at each mark of a budget of forward passes, and how many were used when it came."""

    @property
    def note(self) -> dict[str, float]:
        """Note of the last predictor."""
        return self.history[-1][1] if self.history else {}

    def kept(self, test: Examples, task: Task | TextTask) -> list[KeptAnswer]:
        """What is predicted on the test set: by the last predictor, or with a budget by that of each mark."""
        if self.last is None:
            return []
        known: dict[int, tuple[IntArray, tuple[str, ...] | None]] = {}
        found = []
        for mark, (used, predictor) in sorted((self.incumbents or {MARKS[-1]: (0, self.last)}).items()):
            if id(predictor) not in known:
                with fast_products():
                    known[id(predictor)] = predictor.on(test, task)
            found.append(KeptAnswer(mark, used, b"", *known[id(predictor)]))
        return found


def train(
    solver: Solver,
    lm: WhiteBox,
    task: Task | TextTask,
    shots: Shots,
    seed: int,
    watch: Callable[[int, dict[str, float]], None],
) -> Training:
    """Run a reference to its end. Torch's global generators are seeded for that time."""
    training, ended = Training(), "ok"

    def offer(predictor: Predictor) -> None:
        note = finite_note(predictor.note)
        training.last, used = predictor, 0
        if lm.most_forwards < np.inf:
            used = lm.forwards
            reached = [mark for mark in MARKS if used <= mark * lm.most_forwards]
            training.incumbents |= dict.fromkeys(reached, (used, predictor))
        training.history.append((used, note))
        watch(used, note)

    with seeded(lm.device, seed), fast_products():
        try:
            answering.offered(solver.tune(lm, task, shots, np.random.default_rng(seed), solver.config), offer, task)
        except OutOfTimeError:
            ended = "timeout"
        except OutOfForwardsError:
            ended = "budget_exhausted"
        except DeviceMemoryError as problem:
            ended, training.detail = "out_of_memory", str(problem)
        except SubmissionError as problem:
            ended, training.detail = "crashed", str(problem)
        except Exception as problem:  # noqa: BLE001 - whatever the author's code raises is reported
            ended, training.detail = "crashed", traces.authors(problem, solver.folder)
    if training.last is not None or ended not in COUNTS:
        training.status = ended
    return training


def imported(stack: contextlib.ExitStack, submission: Submission, options: Mapping[str, str]) -> Solver:
    """Import a reference's code. When the stack closes, its modules are removed from this process."""
    folder = submission.path
    try:
        folder = stack.enter_context(snapshot(submission))
        return stack.enter_context(loaded(folder, options))
    except SubmissionError:
        raise
    except ModuleNotFoundError as problem:
        raise SubmissionError(
            f"{submission.path}: the module {problem.name!r} is not installed. What the references that ship need "
            'comes with: pip install -e ".[references]"'
        ) from problem
    except (Exception, SystemExit) as problem:
        said = as_given(traces.authors(problem, folder), folder, submission)
        raise SubmissionError(f"{submission.path}: cannot be imported:\n{said}") from problem


def shown(config: Any) -> dict[str, object]:
    """A reference's configuration in its stored form: plain data unchanged, anything else as text."""
    plain = (bool, int, float, str, type(None))
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value if isinstance(value, plain) else repr(value) for name, value in values.items()}
