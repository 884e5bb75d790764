"""Trials in the log formats of other benchmarks: COCO's, which `cocopp` draws, and IOHprofiler's.

COCO's format follows the logger of its own experiments (`data_format = 'bbob-new2'`, coco-experiment 2.8): a file
``.info`` for each function, and for each dimension a ``.dat`` and a ``.tdat`` with a line for each improvement.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.problems.trials import Trial

_COCO_FUNCTIONS = 24
_README = """Logs of `harness bench` in COCO's format, for cocopp: python -m cocopp FOLDER...

cocopp knows no language models. It takes these functions for those of its suite `bbob`, and its figures show their
names. What the numbers mean here:

{functions}

An instance is a seed. Fopt is the lower bound of the loss, {bound:g}, which no prompt need reach: the targets are
distances to it. cocopp shows the dimensions 2, 3, 5, 10, 20 and 40 and passes over others.
"""


def write_coco(folder: Path, trials: Sequence[Trial], bound: float) -> list[Path]:
    """Write a folder of COCO logs for each optimizer, with a README that says what the functions are.

    Args:
        folder: where the folders are made; logs that are there are replaced.
        trials: of all optimizers.
        bound: lower bound of the loss, in the place of the optimum.

    Returns:
        The folder of each optimizer.

    Raises:
        InputError: there are more tasks and splits than the suite `bbob` has functions.
    """
    cells = sorted({(trial.task, trial.split) for trial in trials})
    if len(cells) > _COCO_FUNCTIONS:
        raise InputError(
            f"{len(cells)} tasks and splits; COCO's suite bbob has {_COCO_FUNCTIONS} functions. Take fewer"
        )
    number = {cell: n for n, cell in enumerate(cells, start=1)}
    made = {}
    for optimizer, own in _grouped(trials):
        place = made[optimizer] = folder / file_name(optimizer)
        place.mkdir(parents=True, exist_ok=True)
        infos: dict[int, list[str]] = defaultdict(list)
        for (task, split, variables), some in _by_function(own):
            function = number[task, split]
            infos[function].append(_coco_data(place, optimizer, function, variables, some, bound))
        for function, blocks in infos.items():
            (place / f"bbobexp_f{function}.info").write_text("\n".join(blocks), encoding="utf-8")
    lines = "\n".join(f"f{n}: {task}, split {split}" for (task, split), n in number.items())
    (folder / "README.txt").write_text(_README.format(functions=lines, bound=bound), encoding="utf-8")
    return list(made.values())


def _coco_data(place: Path, optimizer: str, function: int, variables: int, trials: list[Trial], bound: float) -> str:
    """Write the data of one function and dimension, and return its block of the ``.info`` file."""
    data = place / f"data_f{function}"
    data.mkdir(exist_ok=True)
    name = f"bbobexp_f{function}_DIM{variables}"
    head = (
        f"% f evaluations | g evaluations | best noise-free fitness - Fopt ({bound:.12e}) + sum g_i+ | "
        "measured fitness | best measured fitness or single-digit g-values | x1 | x2...\n"
    )
    text, ends = "", []
    for instance, trial in enumerate(trials, start=1):
        steps = [*trial.trajectory]
        if steps[-1][0] < trial.evaluations:
            steps.append((trial.evaluations, trial.loss))
        text += head + "".join(f"{n} 0 {loss - bound:+.9e} {loss:+.9e} {loss:+.9e}\n" for n, loss in steps)
        ends.append(f"{instance}:{trial.evaluations}|{trial.loss - bound:.1e}")
    for suffix in (".dat", ".tdat"):
        (data / f"{name}{suffix}").write_text(text, encoding="utf-8")
    return (
        f"suite = 'bbob', funcId = {function}, DIM = {variables}, Precision = 1.000e-08, algId = '{optimizer}', "
        f"coco_version = '2.8.2', logger = 'bbob', data_format = 'bbob-new2', settings = ''\n% \n"
        f"data_f{function}/{name}.dat, {', '.join(ends)}"
    )


def write_ioh(folder: Path, trials: Sequence[Trial]) -> list[Path]:
    """Write IOHprofiler's logs with IOHexperimenter's own logger, a folder for each optimizer.

    Args:
        folder: where the folders are made; what is there stays, and IOHexperimenter numbers new folders.
        trials: of all optimizers.

    Returns:
        The folder of each optimizer.

    Raises:
        InputError: `ioh` is not installed.
    """
    if importlib.util.find_spec("ioh") is None:
        raise InputError('ioh is not installed; run: pip install -e ".[optimizers]", or leave out --logs ioh')
    ioh: Any = importlib.import_module("ioh")
    made = []
    for optimizer, own in _grouped(trials):
        logger = ioh.logger.Analyzer(
            root=str(folder), folder_name=file_name(optimizer), algorithm_name=optimizer, store_positions=False
        )
        for (task, split, variables), some in _by_function(own):
            told = itertools.chain.from_iterable(_observed(each) for each in some)

            def next_loss(_: object, told: Iterator[float] = told) -> float:
                return next(told)

            function = ioh.wrap_problem(next_loss, name=f"{task}-{split}", dimension=variables, lb=-5, ub=5)
            function.attach_logger(logger)
            for each in some:
                for _ in range(each.evaluations):
                    function(np.zeros(variables))
                function.reset()
            function.detach_logger()
        logger.close()
        made.append(Path(logger.output_directory))
    return made


def _observed(trial: Trial) -> Iterator[float]:
    """A loss for each evaluation: the observed one where it was the lowest so far, else the lowest so far."""
    steps = dict(trial.trajectory)
    lowest = trial.trajectory[0][1]
    for number in range(1, trial.evaluations + 1):
        lowest = steps.get(number, lowest)
        yield lowest


def _grouped(trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Trials of each optimizer."""
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        found[trial.optimizer].append(trial)
    return list(found.items())


def _by_function(trials: list[Trial]) -> list[tuple[tuple[str, int, int], list[Trial]]]:
    """Trials of each task, split and number of variables, in order of their seeds."""
    found: dict[tuple[str, int, int], list[Trial]] = defaultdict(list)
    for trial in sorted(trials, key=lambda each: (each.task, each.split, each.variables, each.seed)):
        found[trial.task, trial.split, trial.variables].append(trial)
    return list(found.items())


def file_name(optimizer: str) -> str:
    """An optimizer's name as that of a folder."""
    return optimizer.replace(":", "-")
