"""House: the classifier's objective, judging by held-out fits, members, price."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Outputs, Shots, cross_entropy, softmax
from harness.blackbox.fake import FakeLM, fake_examples, fake_task
from harness.solving import Calibration
from harness.solving.answers import check, from_bytes, probabilities, to_bytes

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Bench

FAST = {"dim": 10}
LAYERS = 3


@pytest.fixture(scope="module")
def house(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("house")


def play(
    house: ModuleType,
    calls: int = 200,
    sizes: tuple[int, int] = (32, 32),
    seed: int = 0,
    classes: int = 2,
    **options: Any,
) -> tuple[list[Answer], FakeLM]:
    """All answers of one run on the fake model."""
    task, rng = fake_task(classes), np.random.default_rng(7)
    shots = Shots(*(fake_examples(task, count, rng) for count in sizes))
    lm, answers = FakeLM.for_task(task, shots, calls, layers=LAYERS), []
    with contextlib.suppress(BudgetExhausted):
        for answer in house.tune(lm, task, shots, np.random.default_rng(seed), house.Config(**{**FAST, **options})):
            check(answer, task, lm.info.width)
            answers.append(answer)
    return answers, lm


def accuracy(answer: Answer, lm: FakeLM) -> float:
    """Test accuracy on texts it never saw."""
    test = fake_examples(lm.free.task, 1000, np.random.default_rng(999))
    p = probabilities(answer, lm.free.task, lm.free, test.texts)
    return float((p.argmax(axis=1) == test.labels).mean())


def view(texts: int = 24, classes: int = 3, width: int = 40, seed: int = 0) -> tuple[Any, Any]:
    """Logits and features with something to learn in both, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(texts) % classes
    q = rng.normal(size=(texts, classes)) + np.eye(classes)[labels] + [2.0, 0, 0][:classes]
    h = 5 + 0.1 * rng.normal(size=(texts, width))
    h[:, :classes] += 0.3 * np.eye(classes)[labels]
    return Outputs(q[None], h[None]), labels


def test_the_fit_is_the_minimum_of_its_objective(house: ModuleType) -> None:
    """No step in any direction of (t, b, V) lowers the loss on plain features, written out afresh here."""
    seen, labels = view()
    (q,), (h,), config = seen.logits, seen.features, house.Config()
    fitted = house.fit(fake_task(3), q, h, labels, config)
    p_mean, mean = softmax(q).mean(axis=0), h.mean(axis=0)
    c = np.log(p_mean).mean() - np.log(p_mean)
    unit = h.std(axis=0).mean() * np.sqrt(h.shape[1])
    scale, weight = fitted.scale[0], fitted.head.weight
    assert (set(fitted.scale), fitted.mix, fitted.alpha) == ({scale}, "logits", 1.0)
    free = np.array(fitted.shift) - scale * c + weight @ mean  # b of the objective

    def objective(t: float, b: Any, weight: Any) -> float:
        scores = t * (q + c) + b + (h - mean) @ weight.T
        loss = -np.log(softmax(scores)[np.arange(len(labels)), labels]).mean()
        penalty = config.ridge * ((weight * unit) ** 2).sum() / 2 + 0.005 * (b**2).sum() + 0.05 * np.log(t) ** 2
        return float(loss + penalty)

    best, rng = objective(scale, free, weight), np.random.default_rng(1)
    for _ in range(50):
        dt, db, dw = rng.normal(), rng.normal(size=3), rng.normal(size=weight.shape)
        for step in (0.01, -0.01):
            assert objective(scale + step * dt, free + step * db, weight + step * dw) > best - 1e-7


def test_a_strong_ridge_leaves_the_calibrated_label_words(house: ModuleType) -> None:
    """With V at 0, texts are ranked by t (q + c) + b, where t and b are near 1 and 0."""
    seen, labels = view()
    fitted, plain = (
        house.fit(fake_task(3), seen.logits[0], seen.features[0], labels, house.Config(**options))
        for options in ({"ridge": 1e6}, {"head": False})
    )
    assert np.abs(fitted.head.weight).max() < 1e-4
    assert (plain.scale, plain.head, plain.alpha) == ((1.0,) * 3, None, 0.0)
    np.testing.assert_allclose(plain.shift, Calibration.additive(seen.logits[0]).shift)
    said = [member.probabilities(seen)[0].argmax(axis=1) for member in (fitted, plain)]
    assert (said[0] == said[1]).mean() > 0.7


def test_a_text_is_judged_by_a_fit_that_never_saw_it(house: ModuleType) -> None:
    """Changing a text's label changes nothing about how that text is judged."""
    seen, labels = view()
    order = np.random.default_rng(3).permutation(len(labels))
    changed = labels.copy()
    changed[5] = (labels[5] + 1) % 3
    rows = []
    for each in (labels, changed):
        judge = house.Judge(fake_task(3), each, 12, house.Config(), order)
        rows.append(judge.candidate(None, seen).held_out)
    np.testing.assert_array_equal(rows[0][5], rows[1][5])
    assert (rows[0] != rows[1]).any()


def test_trained_on_train_alone_dev_labels_matter_to_no_fit(house: ModuleType) -> None:
    """With `texts` = "train" the classifier is the same whatever dev says."""
    seen, labels = view()
    other = labels.copy()
    other[12:] = (other[12:] + 1) % 3
    order = np.arange(len(labels))
    config = house.Config(texts="train")
    first, second = (house.Judge(fake_task(3), each, 12, config, order).fit(seen, order) for each in (labels, other))
    np.testing.assert_array_equal(first.head.weight, second.head.weight)


def test_the_answer_says_what_the_judge_fitted(house: ModuleType) -> None:
    """Members over the wire give the mean of the fits' probabilities on the model's own outputs."""
    answers, lm = play(house, classes=3, sizes=(30, 30))
    last = answers[-1]
    texts = fake_examples(lm.free.task, 20, np.random.default_rng(4)).texts
    expected = []
    for member in last.members:
        out = lm.free.outputs(member.prompt, texts, member.template, member.words)
        assert member.head is not None
        scores = np.asarray(member.scale) * out.logits[0] + np.asarray(member.shift)
        expected.append(softmax(scores + out.features[0] @ member.head.weight.T))  # type: ignore[union-attr]
    got = probabilities(from_bytes(to_bytes(last)), lm.free.task, lm.free, texts)
    np.testing.assert_allclose(got, np.mean(expected, axis=0), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_beats_the_bare_template_and_then_itself(house: ModuleType, classes: int) -> None:
    """The classifier is better than the template, searched prompts better than the classifier alone."""
    answers, lm = play(house, classes=classes, calls=400, dim=30)
    scores = [accuracy(answer, lm) for answer in answers]
    assert scores[1] > scores[0] + 0.1
    assert scores[-1] > scores[1]
    assert len(answers[-1].members) > 1
    assert answers[-1].members[0].prompt is None


@pytest.mark.parametrize("calibrate", [True, False])
def test_candidates_are_calibrated_before_their_loss_is_taken(house: ModuleType, bench: Bench, calibrate: bool) -> None:
    """Each by its own mean probabilities, if at all; that is what the search is told."""
    run = bench.run("house", calls=130, head=False, calibrate=calibrate)
    generations = [prompts for prompts in run.train if prompts is not None and len(prompts.z) == 20]
    assert len(generations) == len(run.told) > 3
    for prompts, told in zip(generations, run.told, strict=True):
        q = run.outputs(prompts, run.shots.train).logits
        seen = [Calibration.additive(each)(each) for each in q] if calibrate else q
        np.testing.assert_allclose(told.losses, cross_entropy(np.array(seen), run.shots.train.labels))


@pytest.mark.parametrize("calls", [1, 2, 3, 23, 24, 47, 131, 300])
@pytest.mark.parametrize("texts", [(12, 20), (20, 6)])
@pytest.mark.parametrize("dev_every", [1, 2, 5])
def test_rows_are_those_of_the_readmes_formula(
    house: ModuleType, calls: int, texts: tuple[int, int], dev_every: int
) -> None:
    """Train and dev once; then generations, and looks at two stacks, while the next one and a look fit."""
    train, dev = texts
    answers, lm = play(house, calls, texts, dev_every=dev_every, folds=2)
    left, look, generation, spent = calls * train - train - dev, 2 * (train + dev), 20 * train, 0
    assert answers
    if left < 0:
        assert lm.meter.spent == train  # dev did not fit
        return
    n = 0
    while left - spent >= generation + look:
        spent += generation
        n += 1
        if n % dev_every == 0 or left - spent < generation + look:
            spent += look
    assert lm.meter.spent == train + dev + spent


@pytest.mark.parametrize(
    "options", [{"head": False}, {"calibrate": False}, {"texts": "train"}, {"search": False}, {"keep_bare": False}]
)
def test_each_part_can_be_left_out(house: ModuleType, options: dict[str, Any]) -> None:
    """The ablations run, and none is worse than the bare template."""
    answers, lm = play(house, **options)
    assert accuracy(answers[-1], lm) > accuracy(answers[0], lm)
    assert (lm.meter.spent == 64) == (options == {"search": False})
    assert (answers[-1].members[0].head is None) == ("head" in options)


def test_same_seed_same_bytes_another_seed_others(house: ModuleType) -> None:
    """All chance comes from the generator."""
    blobs = [to_bytes(play(house, seed=seed)[0][-1]) for seed in (3, 3, 4)]
    assert blobs[0] == blobs[1] != blobs[2]
