"""The fake model is a real black box with a planted optimum."""

from __future__ import annotations

import time

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Prompt, QueryError, Subspace, cross_entropy
from harness.blackbox.fake import FakeLM, fake_examples, fake_shots, fake_task
from harness.blackbox.projection import matrix
from harness.solving.answers import probabilities


def make(classes: int = 2, calls: int = 50, seed: int = 0) -> FakeLM:
    """A fake with 16 training texts per class."""
    task = fake_task(classes)
    return FakeLM.for_task(task, fake_shots(task, np.random.default_rng(seed)), calls, seed)


@pytest.mark.parametrize("classes", [2, 3, 14])
def test_the_planted_prompt_is_far_better_than_none(classes: int) -> None:
    """Without a prompt the model is poor, at the optimum nearly perfect."""
    lm = make(classes)
    task = lm.free.task
    test = fake_examples(task, 1000, np.random.default_rng(9))
    scores = [
        (probabilities(Answer.of(task, prompt), task, lm.free, test.texts).argmax(axis=1) == test.labels).mean()
        for prompt in (None, lm.free.optimum)
    ]
    assert scores[0] < 0.7
    assert scores[1] > 0.93


def test_the_loss_falls_all_the_way_to_the_optimum() -> None:
    """Along the straight line from no prompt, training loss falls at every step but the last, which is flat."""
    lm = make()
    shots = fake_shots(lm.free.task, np.random.default_rng(0))
    values = np.linspace(0, 1, 11)[:, None, None, None] * lm.free.optimum.values
    losses = cross_entropy(lm.logits(Prompt(values), shots.train.texts), shots.train.labels)
    assert (np.diff(losses)[:-1] < 0).all()
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_every_layer_contributes(layer: int) -> None:
    """A prompt at any one layer moves the logits."""
    lm = make()
    values = np.zeros((1, 3, 4, 16))
    values[0, layer] = 0.5
    text = ("w1 w2",)
    assert not np.array_equal(lm.logits(Prompt(values), [text]), lm.logits(None, [text]))


def test_coordinates_are_the_projected_prompt() -> None:
    """A @ z from the shared projection, layer by layer."""
    lm = make()
    space = Subspace(10, (0.5, 0.1), 4, seed=7)
    z = np.random.default_rng(0).normal(size=(3, 2, 10)).astype(np.float32)
    values = np.stack([(z[:, n] @ matrix(space, n, 16).T).reshape(3, 4, 16) for n in range(2)], axis=1)
    texts = [("w1 w2 w3",), ("w4",)]
    np.testing.assert_allclose(lm.logits(space.at(z), texts), lm.logits(Prompt(values), texts), atol=1e-5)


def test_a_row_is_the_same_in_any_batch() -> None:
    """The order of candidates and texts, and the other rows of a query, do not change a bit."""
    lm = make()
    space = Subspace(30, (0.5, 0.1, 0.1), 4, seed=1)
    z = np.random.default_rng(1).normal(size=(6, 3, 30))
    texts = fake_examples(lm.free.task, 8, np.random.default_rng(2)).texts
    together = lm.outputs(space.at(z), texts)
    for c in range(6):
        for t in range(8):
            alone = lm.outputs(space.at(z[c : c + 1]), [texts[t]])
            assert (alone.logits[0, 0] == together.logits[c, t]).all()
            assert (alone.features[0, 0] == together.features[c, t]).all()
    turned = lm.outputs(space.at(z[::-1]), texts[::-1])
    np.testing.assert_array_equal(turned.logits, together.logits[::-1, ::-1])


def test_rows_are_charged_and_refused_queries_cost_nothing() -> None:
    """Candidates x texts; BudgetExhausted carries the numbers."""
    lm = make(calls=1)  # 32 rows
    texts = [("w1",)] * 5
    space = Subspace(4, (1.0,), 4, seed=0)
    lm.logits(space.at(np.zeros((6, 4))), texts)
    assert lm.budget.rows_left == 2
    with pytest.raises(BudgetExhausted) as refused:
        lm.logits(None, texts)
    assert (refused.value.rows_asked, refused.value.rows_left, refused.value.rows_total) == (5, 2, 32)
    assert lm.budget.rows_left == 2
    lm.outputs(None, texts[:2], features="cls")
    assert lm.budget.rows_left == 0


@pytest.mark.parametrize(
    "prompts",
    [
        Prompt(np.zeros((1, 1, 4, 15))),
        Prompt(np.zeros((1, 4, 4, 16))),
        Prompt(np.zeros((1, 1, 5, 16))),
        Prompt(np.zeros((4, 16))),
        Prompt(np.zeros((0, 1, 4, 16))),
        Prompt(np.full((1, 1, 4, 16), np.nan)),
        Subspace(4, (1.0,) * 4, 4, seed=0).at(np.zeros((1, 4, 4))),
        Subspace(4, (1.0,), 5, seed=0).at(np.zeros(4)),
    ],
)
def test_malformed_prompts_are_refused_and_cost_nothing(prompts: Prompt) -> None:
    """Width, layers, tokens, dimensions, no candidates, not finite."""
    lm = make()
    with pytest.raises(QueryError):
        lm.logits(prompts, [("w1",)])
    assert lm.meter.spent == 0


@pytest.mark.parametrize(
    ("texts", "template", "words"),
    [
        ([("w1",)], "{a} .", None),
        ([("w1",)], "{a} {b} {mask}", None),
        ([("w1", "w2")], None, None),
        ([("w1",)], None, ["two words"]),
        ([("w1",)], None, [""]),
        ([("w1",)], None, []),
        ([], None, None),
    ],
)
def test_malformed_queries_are_refused_and_cost_nothing(
    texts: list[tuple[str, ...]], template: str | None, words: list[str] | None
) -> None:
    """Templates, text fields, words, no texts."""
    lm = make()
    with pytest.raises(QueryError):
        lm.logits(None, texts, template, words)
    assert lm.meter.spent == 0


def test_columns_follow_the_words() -> None:
    """Label words may be asked in any order; other words are noise."""
    lm = make()
    task = lm.free.task
    texts = fake_examples(task, 6, np.random.default_rng(0)).texts
    q = lm.logits(None, texts)
    turned = lm.logits(None, texts, words=[task.words[1], " other", task.words[0]])
    np.testing.assert_array_equal(turned[..., [2, 0]], q)
    assert lm.word_ids([" other", "two words"])[0] != lm.word_ids(["other"])[0]
    assert [len(ids) for ids in lm.word_ids(["one", "two words"])] == [1, 2]


def test_hidden_states_carry_the_label_linearly() -> None:
    """Least squares on many texts beats the bare template. The first token has more noise than the mask."""
    lm = make(calls=500)
    task = lm.free.task
    train, test = (fake_examples(task, 1000, np.random.default_rng(n)) for n in (5, 6))
    scores = {}
    for kind in ("mask", "cls"):
        a, b = (lm.outputs(None, part.texts, features=kind).features[0] for part in (train, test))  # type: ignore[arg-type]
        w = np.linalg.lstsq(a, train.labels - 0.5, rcond=None)[0]
        scores[kind] = ((b @ w > 0) == test.labels).mean()
    assert 0.6 < scores["cls"] < scores["mask"]
    assert scores["mask"] > 0.7


def test_states_of_all_words_add_up_to_what_the_text_says() -> None:
    """Their sum over words predicts the label, too. A shorter text has zeros after its end."""
    lm = make(calls=500)
    task = lm.free.task
    train = fake_examples(task, 600, np.random.default_rng(5))
    out = lm.outputs(None, (*train.texts, ("w1",)), features="all")
    assert out.lengths is not None
    assert out.lengths.tolist() == [9] * 600 + [1]
    assert not out.features[0, -1, 1:].any()
    summed = out.features[0, :-1].sum(axis=1)
    w = np.linalg.lstsq(summed[:400], train.labels[:400] - 0.5, rcond=None)[0]
    assert ((summed[400:] @ w > 0) == train.labels[400:]).mean() > 0.7


def test_its_vocabulary_and_its_log_probabilities_fit_together() -> None:
    lm = make()
    task, words = lm.free.task, lm.vocabulary()
    assert all(lm.word_ids([word]) == [[i]] for i, word in enumerate(words) if word)
    assert set(task.words) <= set(words)
    texts = (("w1 w2",), ("w3",))
    p, q = lm.logits(None, texts, normalize=True), lm.logits(None, texts)
    assert np.ptp(q - p, axis=-1).max() < 1e-5
    assert (np.exp(p).sum(axis=-1) < 1).all()


@pytest.mark.parametrize("classes", [2, 5])
def test_labels_are_balanced_and_pairs_have_two_fields(classes: int) -> None:
    """The numbers of examples per class differ by at most one."""
    task = fake_task(classes, fields=2)
    shots = fake_shots(task, np.random.default_rng(0), per_class=3)
    assert np.bincount(shots.train.labels).tolist() == [3] * classes
    assert {len(text) for text in shots.dev.texts} == {2}
    lm = FakeLM.for_task(task, shots, 1)
    assert lm.logits(None, shots.train.texts).shape == (1, 3 * classes, classes)


def test_it_answers_in_microseconds() -> None:
    """A population of 20 over 32 texts takes well under a tenth of a second."""
    lm = make(calls=200)
    space = Subspace(50, (0.5,), 4, seed=0)
    texts = fake_examples(lm.free.task, 32, np.random.default_rng(0)).texts
    lm.logits(space.at(np.zeros((20, 50))), texts)
    took = []
    for _ in range(5):
        start = time.perf_counter()
        lm.logits(space.at(np.zeros((20, 50))), texts)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1
