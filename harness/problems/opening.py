"""`harness.problem`: from names to a `Problem`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.evaluation.overrides import Overrides
from harness.problems.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.evaluation.run import Evaluation
    from harness.problems.cells import PlannedRun
    from harness.problems.problem import Problem
    from harness.results.store import Store

FAKE, FAKE_TEXT = "fake", "fake-text"
FAKE_BUDGET = 300


def problem(
    task: str,
    split: int = 1,
    budget: int | None = None,
    space: str = "input",
    dim: int = 100,
    *,
    seed: int = 0,
    loss: str = "cross_entropy",
    minibatch: int | None = None,
    alpha: float = 1.0,
    templates: Sequence[str] | None = None,
    words: Sequence[Sequence[str]] | None = None,
    track: str = "mini",
    model: str | None = None,
    data: str | Path | None = None,
    backend: str | None = None,
    endpoint: str | None = None,
    served_model: str | None = None,
    concurrency: int = 4,
    store: str | None = None,
    name: str = "problem",
    url: str | None = None,
    token: str = "",
) -> Problem:
    """Open a task as an optimisation problem: a function of a vector, computed with a real language model.

    Every evaluation is metered and has its row in the ledger, as a submission's queries have. The same arguments on
    the same machine give the same numbers.

    Args:
        task: name of a task of the track, or ``fake`` for the fake model, which answers in microseconds; ``fake-text``
            is its task whose answer is text.
        split: number of the few-shot split.
        budget: calls; one candidate on the whole training set costs one. None is the track's budget.
        space: ``input`` (soft prompt at the input), ``deep`` (at every layer), ``words`` (label words), ``template``
            (one of `templates`), or ``mixed`` (a soft prompt at the input, label words, and `templates` if given).
        dim: number of coordinates of the soft prompt; in ``deep`` for each layer.
        seed: of the random projection, the words that are drawn and the minibatches.
        loss: ``cross_entropy``, ``hinge`` or ``negative_accuracy``. On a task whose answer is text, ``cross_entropy``
            is the mean negative log-likelihood of the references by token, and there is no other.
        minibatch: evaluate on so many training texts, drawn for each call, at the price of these; None means all. The
            losses are noisy then.
        alpha: standard deviation of the prompts at z ~ N(0, I), in units of that of each layer's input.
        templates: texts with ``{a}`` and ``{mask}`` to choose from.
        words: for each class, the label words to choose from; None draws 31 beside the task's own from the vocabulary.
        track: a track that ships, or a .toml file.
        model: another model than the track's, as ``harness evaluate --model``.
        data: another directory of data, as ``harness evaluate --data``.
        backend: ``openai`` for a server that computes, ``torch`` or ``onnxruntime``; None is the track's.
        endpoint: address of that server, ``http://HOST:PORT``. Most servers take text alone, so search the space
            ``words`` or ``template``. A key comes from the environment variable HARNESS_ENDPOINT_KEY alone.
        served_model: name of the model on that server; None takes the only one.
        concurrency: requests to that server at once.
        store: results database that keeps ledger and result; None keeps them in memory alone. It has one result for
            the same arguments, the first one.
        name: what the optimizer is called in the store.
        url: address of a service that ``harness serve`` runs; the model is there, and so is the ledger.
        token: for the service.

    Returns:
        The problem.

    Raises:
        InputError: an argument is not valid. The message lists the valid values.
        HarnessError: the model or the store cannot be opened, or the service does not answer.

    Example:
        ``problem = harness.problem("sst2", split=1, budget=300, space="input", dim=100); problem(np.zeros(100))``
    """
    if budget is not None and budget < 1:
        raise InputError(f"budget={budget}: a positive number of calls is needed")
    own = {
        "budget": budget, "store": store, "model": model, "data": data, "backend": backend, "endpoint": endpoint,
        "served_model": served_model,
    }  # fmt: skip
    given = [name for name, value in own.items() if value is not None]
    if url is not None and given:
        raise InputError(f"a service has its own model, data, budget and ledger; leave out {', '.join(given)}")
    spec = Spec(space, dim, loss, minibatch, alpha, _fixed(templates), None if words is None else _each(words))
    if url is not None:
        from harness.problems.cells import ServiceCell  # noqa: PLC0415
        from harness.service.client import connect  # noqa: PLC0415

        return spec.on(ServiceCell(connect(url, token, task=task, split=split)), seed)
    if task in {FAKE, FAKE_TEXT}:
        from harness.problems.cells import FakeCell, FakeTextCell  # noqa: PLC0415

        made: type[FakeCell | FakeTextCell] = FakeCell if task == FAKE else FakeTextCell
        return spec.on(made(split, FAKE_BUDGET if budget is None else budget), seed)
    from harness.results.store import Store  # noqa: PLC0415

    kept = Store(store or "sqlite://")
    try:
        choices = Overrides(
            model=model, data=None if data is None else Path(data), backend=backend, endpoint=endpoint,
            served_model=served_model, concurrency=concurrency, tasks=(task,), splits=(split,),
        )  # fmt: skip
        evaluation = prepare(kept, track, budget, choices)
        return on_cell(evaluation, kept, name, task, split, seed, spec, alone=True)
    except BaseException:
        kept.close()
        raise


def _fixed(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Templates as a tuple.

    Raises:
        InputError: they are a single string.
    """
    if isinstance(texts, str):
        raise InputError(f"templates={texts!r}: several are needed to choose from, as a list")
    return None if texts is None else tuple(texts)


def _each(words: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Words of each class as tuples.

    Raises:
        InputError: the words of a class are a single string.
    """
    for some in words:
        if isinstance(some, str):
            raise InputError(f"words={words!r}: a list of words for each class is needed, [[...], [...]]")
    return tuple(tuple(some) for some in words)


def prepare(store: Store, track: str, budget: int | None, choices: Overrides) -> Evaluation:
    """Load a track's model and data, or connect to the server that has the model.

    Args:
        store: where ledgers and results will be kept.
        track: a track that ships, or a .toml file.
        budget: calls of a cell; None is the track's.
        choices: tasks and splits, and what replaces the track's choices, without `calls`.

    Raises:
        InputError: there is no such track, task or split.
        HarnessError: the model cannot be loaded.
    """
    from harness.evaluation.run import Evaluation  # noqa: PLC0415 - torch
    from harness.tracks.track import load_track  # noqa: PLC0415

    chosen = load_track(track)
    usual = {spec.calls for name, spec in chosen.tasks.items() if name in choices.tasks}
    calls = None if budget is None or usual == {budget} else budget  # the track's own is no trial
    return Evaluation(chosen, replace(choices, calls=calls), store)


def on_cell(
    evaluation: Evaluation,
    store: Store,
    name: str,
    task: str,
    split: int,
    seed: int,
    spec: Spec,
    *,
    alone: bool = False,
) -> Problem:
    """A problem on one cell of a loaded track, as part of a run.

    Args:
        evaluation: made by `prepare`.
        store: where ledger and result are kept.
        name: of the optimizer.
        task: of the cell.
        split: of the cell.
        seed: of the run.
        spec: what is searched.
        alone: whether closing the problem closes the store, and the connections to the server of a served model.

    Raises:
        InputError: the search space or the loss is not valid on this cell.
    """
    from harness.problems.cells import LocalCell  # noqa: PLC0415 - torch

    (cell,) = [each for each in evaluation.cells if (each.task.name, each.split) == (task, split)]
    run = planned(name, seed, spec)
    return spec.on(LocalCell(evaluation, cell, store, run, alone=alone), seed)


def planned(name: str, seed: int, spec: Spec) -> PlannedRun:
    """The run of an optimizer on a problem, before anything of it is recorded."""
    from harness.problems.cells import PlannedRun  # noqa: PLC0415 - torch

    return PlannedRun(name, spec.options(), seed, {"seed": seed, **spec.plain()})
