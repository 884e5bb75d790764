"""BBT-RGB: the two search stages, the search for label words, the text before the input, and what they cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness import Answer, BudgetExhausted, Examples, Member, Outputs, Shots, Subspace, Task, cross_entropy, softmax
from harness.contract import ModelInfo
from harness.solving import Selection, demonstration
from harness.solving.answers import from_bytes, probabilities, to_bytes
from harness.tracks.tasks import template_problem

if TYPE_CHECKING:
    from types import ModuleType

    from harness.blackbox.fake import FakeLM

    from .conftest import Bench

N = D = 32
"""Training and dev texts of the fake's two-class task."""


@pytest.fixture(scope="module")
def rgb(bench: Bench) -> ModuleType:
    """The submission's module."""
    return bench.load("bbt_rgb")


@pytest.fixture(scope="module")
def wording(rgb: ModuleType) -> ModuleType:
    """Its module of texts and label words."""
    return sys.modules[rgb.choose_words.__module__]


@pytest.fixture(scope="module")
def prompts(rgb: ModuleType) -> ModuleType:
    """Its module of prompts."""
    return sys.modules[rgb.polish.__module__]


def expected_rows(rgb: ModuleType, calls: int, layers: int = 3, demos: int = 8, **options: Any) -> int:
    """Rows by the README's formula, if COBYLA does not converge early."""
    c = rgb.Config(dim=30, **options)
    total, g, look, k = calls * N, c.population * N, 2 * D, c.dev_every
    fixed = D + ((2 + min(c.demonstrations, demos)) * N if c.instruction else 0) + (N + D if c.words else 0)
    kept = int(c.polish * total)
    kept = kept if kept >= 3 * layers * N + D else 0
    r = max(0, total - fixed - kept)
    b, rest = divmod(r, k * g + look)
    s = max(0, (rest - look) // g)
    first = b * (k * g + look) + (s * g + look if s else 0)
    n = (total - fixed - first - D) // (layers * N)
    return fixed + first + (layers * n * N + D if c.polish and n >= 3 else 0)


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("classes", [2, 3])
def test_final_answer_beats_the_manual_prompt(bench: Bench, classes: int) -> None:
    """The last answer is far above the first, which is the bare template."""
    run = bench.run("bbt_rgb", classes=classes)
    manual = run.accuracy(Answer.of(run.task))
    assert run.accuracy(run.answers[0]) == manual < 0.7
    assert run.accuracy(run.answers[-1]) > manual + 0.15


@pytest.mark.parametrize("calls", [13, 30, 41, 60, 97, 130, 200, 300])
@pytest.mark.parametrize(
    "options",
    [{}, {"words": 0}, {"instruction": False}, {"demonstrations": 3}, {"polish": 0.0}, {"polish": 0.5}],
    ids=str,
)
def test_rows_are_those_of_the_formula(bench: Bench, rgb: ModuleType, calls: int, options: dict[str, Any]) -> None:
    """Texts, words, generations, looks and evaluations of COBYLA add up to what the README says."""
    run = bench.run("bbt_rgb", calls=calls, **options)
    assert not run.ended_by_budget
    assert run.lm.meter.spent == expected_rows(rgb, calls, **options)


@pytest.mark.parametrize("calls", [1, 2, 3, 20, 41])
def test_a_tiny_budget_still_gives_an_answer(bench: Bench, calls: int) -> None:
    """The bare template comes before the first query; where not even the words can be paid for, the budget ends it."""
    run = bench.run("bbt_rgb", calls=calls)
    assert run.answers[0] == Answer.of(run.task)
    assert run.ended_by_budget == (calls < 13)


def test_same_seed_gives_the_same_bytes(bench: Bench) -> None:
    """All chance comes from the generator that is handed in; another seed gives another answer."""
    first, other = bench.run("bbt_rgb", seed=3), bench.run("bbt_rgb", seed=4)
    np.random.seed(5)  # noqa: NPY002 - to show that it does not matter
    again = bench.run("bbt_rgb", seed=3)
    assert [to_bytes(a) for a in first.answers] == [to_bytes(a) for a in again.answers]
    assert to_bytes(first.answers[-1]) != to_bytes(other.answers[-1])


def test_answers_survive_the_wire(bench: Bench) -> None:
    """An answer read back from its bytes scores the same."""
    run = bench.run("bbt_rgb")
    assert run.accuracy(from_bytes(to_bytes(run.answers[-1]))) == run.accuracy(run.answers[-1])


def test_answers_only_get_better_on_dev(bench: Bench) -> None:
    """Each answer's dev accuracy is at least that of the one before."""
    noted = [a.note["dev"] for a in bench.run("bbt_rgb").answers[1:]]
    assert len(noted) > 1
    assert noted == sorted(noted)


@pytest.mark.parametrize(
    "options", [{"schedule": "lin"}, {"schedule": "exp"}, {"select": "loss"}, {"polish": 0.4}, {"likely": 20}], ids=str
)
def test_options_work(bench: Bench, options: dict[str, Any]) -> None:
    """Every option's other values run to the end and beat the manual prompt."""
    run = bench.run("bbt_rgb", **options)
    assert run.accuracy(run.answers[-1]) > run.accuracy(run.answers[0]) + 0.15


# ── B: the text ──────────────────────────────────────────────────────────────────────────────────────────────


def chosen(bench: Bench, **options: Any) -> tuple[Any, list[str], list[float], FakeLM]:
    """Run the choice of a text on the fake: its result, the templates that were tried, their losses, and the model."""
    module = bench.load("bbt_rgb")
    lm, task, shots = bench.setting()
    space = Subspace(10, lm.info.hidden_std, lm.info.prompt_tokens, seed=0)
    tried: list[str] = []
    losses: list[float] = []
    outputs = lm.outputs

    def watched(prompts: Any, texts: Any, template: str, *rest: Any, **more: Any) -> Any:
        out = outputs(prompts, texts, template, *rest, **more)
        assert texts == shots.train.texts
        assert not prompts.z.any()
        tried.append(template)
        losses.append(float(cross_entropy(out.logits, shots.train.labels)[0]))
        return out

    lm.outputs = watched  # type: ignore[method-assign]
    model = module.Prompted(lm, task, shots, space, Member.of(task), np.zeros((3, 10)))
    config = module.Config(**options)
    found = module.choose_text(model, config.demonstrations, config.demo_tokens, np.random.default_rng(0))
    return found, tried, losses, lm


def test_text_with_the_least_training_loss_is_taken(bench: Bench, wording: ModuleType) -> None:
    """The template alone, the instruction, and demonstrations after it; one call each, at z = 0."""
    model, tried, losses, lm = chosen(bench)
    assert model.cloze.template == tried[int(np.argmin(losses))]
    assert len(set(tried)) == 10
    assert lm.meter.spent == 10 * N
    start = wording.instruction(model.task)
    assert tried[0] == model.task.template
    assert tried[1] == f"{start} {model.task.template}"
    assert all(text.startswith(f"{start} For example , ") for text in tried[2:])
    assert all(text.endswith(f" . {model.task.template}") for text in tried[2:])


def test_long_demonstrations_are_passed_over(bench: Bench) -> None:
    """A demonstration of the fake has nine words of text and five of the template."""
    assert len(chosen(bench, demo_tokens=14)[1]) == 10
    assert len(chosen(bench, demo_tokens=13)[1]) == 2
    assert len(chosen(bench, demonstrations=100)[1]) == 2 + N
    assert len(chosen(bench, demonstrations=0)[1]) == 2


def test_length_of_a_text_is_counted_word_by_word(bench: Bench, wording: ModuleType) -> None:
    """Texts and words too long to ask about are infinitely long."""
    lm, _, _ = bench.setting()
    assert wording.tokens(lm, "a few words .") == 4
    assert wording.tokens(lm, "x" * 300) == wording.tokens(lm, "word " * 300) == np.inf


def test_texts_are_valid_templates(wording: ModuleType) -> None:
    """Hand-made cases: braces go, the mask becomes the label word, the instruction names all words."""
    task = Task("pairs", ("a", "b", "c"), "accuracy", "{a} ? {mask} , {b}", (" yes", " maybe", " no"), 2)
    demo = demonstration(task, Examples((("see {mask}", " x {b} "),), np.array([1])), 0)
    assert demo == "see mask ? maybe , x b"
    text = wording.instruction(task)
    assert text == "Read the two texts and choose the word that fits : yes , maybe or no ."
    assert template_problem(f"{text} For example , {demo} {task.template}", 2, causal=False) is None


# ── G: label words ───────────────────────────────────────────────────────────────────────────────────────────

LOGP = np.array([
    # own0  own1  good0  good1  rare   same
    [-2.0, -2.0, -1.0, -4.0, -20.0, -3.0],
    [-2.0, -1.0, -2.0, -3.0, -30.0, -3.0],
    [-2.0, -2.0, -3.0, -2.0, -40.0, -3.0],
    [-3.0, -2.0, -4.0, -1.0, -40.0, -3.0],
])  # fmt: skip
LABELS = np.array([0, 0, 1, 1])


def test_pools_hold_the_words_that_a_class_raises(wording: ModuleType) -> None:
    """Class 0 raises rare by 15, good0 by 2, own0 and own1 by 0.5, same by 0, good1 by -2; class 1 the opposite."""
    assert wording.pools(LOGP, LABELS, [0, 1], 3, 6) == [[0, 4, 2], [1, 3, 5]]
    assert wording.pools(LOGP, LABELS, [0, 1], 3, 5) == [[0, 2, 1], [1, 3, 5]]  # without the rarest
    assert wording.pools(LOGP, LABELS, [0, 1], 1, 5) == [[0], [1]]
    assert wording.pools(LOGP, LABELS, [4, 1], 2, 5) == [[4, 2], [1, 3]]


def test_combinations_are_ranked_by_accuracy_then_by_loss(wording: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four are right with (2, 3), three with (0, 3), by margins 2 1 0 2, and (2, 1), by 1 -1 1 2; two with (0, 1)."""
    for at_once in (1, 3, 100):
        monkeypatch.setattr(wording, "AT_ONCE", at_once)
        assert wording.rank(LOGP, LABELS, [[0, 2], [1, 3]]).tolist() == [[2, 3], [0, 3], [2, 1], [0, 1]]


class Words:
    """A model that knows six words and says of each text (its number among all) what a table holds."""

    info = ModelInfo("table", "masked", 1, 4, 8, 64, 2, 1.0, (1.0,))

    def __init__(self, table: Any, vocabulary: tuple[str, ...]) -> None:
        self.table, self.known, self.rows, self.queries = table, vocabulary, 0, 0

    def vocabulary(self) -> tuple[str, ...]:
        """All words."""
        return self.known

    def word_ids(self, words: Any) -> list[list[int]]:
        """As a tokenizer that does not mind spaces, if the vocabulary has none."""
        return [[self.known.index(word if word in self.known else word.strip())] for word in words]

    def logits(self, prompts: Any, texts: Any, template: Any, words: Any, normalize: bool = False) -> Any:
        """Rows of the table."""
        assert normalize
        assert not prompts.z.any()
        self.rows, self.queries = self.rows + len(texts), self.queries + 1
        return self.table[[int(text[0]) for text in texts]][:, [i for (i,) in self.word_ids(words)]][None]

    def outputs(self, prompts: Any, texts: Any, template: Any, words: Any, *_: Any, **more: Any) -> Outputs:
        """The same, as the referee asks for it."""
        return Outputs(self.logits(prompts, texts, template, words, normalize=True), np.zeros((1, len(texts), 4)))


def words_case(
    rgb: ModuleType, dev_table: Any, vocabulary: tuple[str, ...] = ("no", "yes", "sad", "glad", "odd", "same")
) -> tuple[Words, Any]:
    """The table above at the texts 0 to 3, another one at the dev texts 4 to 7."""
    lm = Words(np.concatenate([LOGP, dev_table]), vocabulary)
    task = Task("words", ("a", "b"), "accuracy", "{a} {mask}", (" no", " yes"))
    shots = Shots(*(Examples(tuple((f"{n}",) for n in part), LABELS) for part in (range(4), range(4, 8))))
    cloze = Member("{a} {mask} !", task.words)
    return lm, rgb.Prompted(lm, task, shots, Subspace(3, (1.0,), 2, 0), cloze, np.zeros((1, 3)))


def choose(rgb: ModuleType, model: Any, **options: Any) -> tuple[Any, float, float]:
    """The model with the words that were chosen, and its metric and loss on dev."""
    config, dev = rgb.Config(**options), model.shots.dev
    found, q = rgb.choose_words(model, Selection(model.task, dev), config.words, config.pool, config.likely)
    assert q.shape == (1, 4, 2)
    return found, float((q[0].argmax(axis=1) == dev.labels).mean()), float(cross_entropy(q, dev.labels)[0])


def test_words_are_searched_on_train_and_chosen_on_dev(rgb: ModuleType) -> None:
    """Where dev is like train the best combination is taken, for a call and the dev texts; the template stays."""
    lm, model = words_case(rgb, LOGP)
    found, metric, loss = choose(rgb, model, words=1, pool=2, likely=5)
    assert found.cloze == Member("{a} {mask} !", ("sad", "glad"))
    assert (metric, loss) == (1.0, pytest.approx(float(cross_entropy(LOGP[:, [2, 3]], LABELS))))
    assert (lm.rows, lm.queries) == (8, 2)


def test_own_words_stay_if_dev_prefers_them(rgb: ModuleType) -> None:
    """On dev every other word says the wrong thing."""
    dev = np.array(
        [[0.0, -4, -9, -1, -5, -5], [0.0, -4, -9, -1, -5, -5], [-4.0, 0, -1, -9, -5, -5], [-4.0, 0] + [-5] * 4]
    )
    _, model = words_case(rgb, dev)
    found, metric, _ = choose(rgb, model)
    assert found.cloze == model.cloze
    assert metric == 1.0


def test_a_class_has_the_words_of_the_best_combinations(rgb: ModuleType) -> None:
    """Dev needs two combinations: (sad, glad) fails on text 4, (no, glad) on 5, their means on none."""
    dev = np.full((4, 6), -5.0)
    dev[:, [0, 2, 3]] = [[-1, -4, -3], [-4, -1, -3], [-6, -6, -3], [-6, -6, -3]]
    dev[:, 1] = 0  # yes: the other words of the task always lose
    lm, model = words_case(rgb, dev)
    found, metric, _ = choose(rgb, model, words=2, pool=2, likely=5)
    assert found.cloze.words == ("sad", " no", "glad", "glad")  # class by class
    assert metric == 1.0
    q = dev[:, [2, 0, 3, 3]]
    p = probabilities(found.answer(np.zeros((1, 3))), model.task, lm, [(str(n),) for n in range(4, 8)])
    np.testing.assert_allclose(p, softmax(np.stack([q[:, :2].mean(axis=1), q[:, 2:].mean(axis=1)], axis=1)))


def test_only_whole_words_like_the_label_words_are_candidates(wording: ModuleType) -> None:
    """Words with a leading space, if the label words have one in the vocabulary; no numbers, signs or gaps."""
    task = Task("words", ("a", "b"), "accuracy", "{a} {mask}", (" no", " 7"))
    spaced = (" no", "no", "", " yes", " 7", " 8", "ing", " b2")
    assert wording.candidate_words(Words(None, spaced), task) == ([" no", " yes", " 7"], [0, 2])
    bare = ("7", "no", "", "yes", ".", "b2")
    assert wording.candidate_words(Words(None, bare), task) == ([" 7", " no", "yes"], [1, 0])


def test_long_replies_are_asked_for_in_pieces(
    rgb: ModuleType, wording: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of one text cost and give the same as all at once."""
    monkeypatch.setattr(wording, "REPLY_BYTES", 1)
    lm, model = words_case(rgb, LOGP)
    got = wording.log_probabilities(model, model.shots.train, lm.known)
    np.testing.assert_array_equal(got, LOGP)
    assert (lm.rows, lm.queries) == (4, 4)


@pytest.mark.parametrize(
    ("classes", "size", "most"),
    [(2, 50, 1 << 16), (3, 40, 1 << 16), (4, 16, 1 << 16), (14, 2, 1 << 16), (16, 2, 1 << 16), (4, 1, 15)],
)
def test_pools_shrink_until_all_combinations_can_be_scored(
    bench: Bench, wording: ModuleType, monkeypatch: pytest.MonkeyPatch, classes: int, size: int, most: int
) -> None:
    """At most 2^16 combinations (here also 15), and 50 words per class."""
    asked: list[int] = []

    def watched(logp: Any, labels: Any, own: Any, size: int, most: int) -> list[list[int]]:
        asked.append(size)
        return [[word] for word in own]

    monkeypatch.setattr(wording, "pools", watched)
    if most != wording.COMBINATIONS:
        monkeypatch.setattr(wording, "COMBINATIONS", most)
    bench.run("bbt_rgb", classes=classes, calls=12, instruction=False)
    assert asked == [size]
    assert size**classes <= most


def test_fourteen_classes_get_words(bench: Bench) -> None:
    """The largest of the tasks, on a model that was made for it."""
    run = bench.run("bbt_rgb", classes=14, calls=30)
    assert len(run.answers[-1].members[0].words) % 14 == 0


# ── R: prompts ───────────────────────────────────────────────────────────────────────────────────────────────


def test_step_sizes_follow_the_schedule(rgb: ModuleType) -> None:
    """From sigma_1 at the input to sigma_2: at once, linearly, or by exp(-l / 5)."""
    config = {name: rgb.Config(schedule=name, sigma=1.0, sigma_deep=0.2) for name in ("bbt2", "lin", "exp")}
    np.testing.assert_allclose(rgb.step_sizes(config["bbt2"], 3), [1, 0.2, 0.2])
    np.testing.assert_allclose(rgb.step_sizes(config["lin"], 5), [1, 0.8, 0.6, 0.4, 0.2])
    np.testing.assert_allclose(rgb.step_sizes(config["exp"], 6)[[0, 5]], [1, 0.2 + 0.8 * np.exp(-1)])
    for one in config.values():
        np.testing.assert_allclose(rgb.step_sizes(one, 1), [1])


def test_first_samples_have_the_step_size_of_their_layer(bench: Bench, rgb: ModuleType) -> None:
    """Projections are divided by sigma_1 at every layer, as in the code; CMA-ES starts with sigma_l."""
    lm, task, shots = bench.setting(calls=100)
    asked: list[Any] = []
    outputs = lm.outputs

    def watched(prompts: Any, texts: Any, *rest: Any, **more: Any) -> Any:
        if prompts is not None and len(prompts.z) == 20:
            asked.append(prompts)
        return outputs(prompts, texts, *rest, **more)

    lm.outputs = watched  # type: ignore[method-assign]
    config = rgb.Config(dim=50, words=0, instruction=False, sigma=2.0, sigma_deep=0.5, alpha=0.5)
    list(rgb.tune(lm, task, shots, np.random.default_rng(0), config))
    np.testing.assert_allclose(asked[0].space.std, 0.25 * np.array(lm.info.hidden_std))
    for layer, sigma in enumerate((2.0, 0.5, 0.5)):
        assert asked[layer].z[:, layer].std() == pytest.approx(sigma, rel=0.1)
        others = [other for other in range(3) if other != layer]
        assert (asked[layer].z[:, others] == asked[layer].z[:1, others]).all()


STEPS = 0.3 * np.array([1.0, 0.2, 0.2])
"""First steps of the layers, as by default."""


class Bowl:
    """A training loss |z - goal|^2 with a count of calls, in place of `Prompted`."""

    shots = Shots(Examples((), LABELS[:0]), Examples((), LABELS[:0]))

    def __init__(self, goal: Any, calls: int = 1000) -> None:
        self.goal, self.calls, self.asked = goal, calls, []

    def ask(self, stacks: Any, examples: Any) -> Any:
        """One candidate at a time, on the training texts."""
        assert examples is self.shots.train
        assert len(stacks) == 1
        if len(self.asked) == self.calls:
            raise BudgetExhausted(1, 0, self.calls)
        self.asked.append(stacks[0].copy())
        return None, ((stacks - self.goal) ** 2).sum(axis=(1, 2))


def test_cobyla_moves_one_layer_after_the_other_and_keeps_improvements_only(prompts: ModuleType) -> None:
    """What is fixed in a layer's turn is the best so far, whose loss falls from turn to turn."""
    goal = np.array([[3.0, -2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    bowl, zero = Bowl(goal), np.zeros((3, 3))
    start = float((goal**2).sum())
    best, loss = prompts.polish(bowl, zero, start, STEPS, 10, 12, np.random.default_rng(0))
    assert len(bowl.asked) == 3 * 12
    assert loss == pytest.approx(((best - goal) ** 2).sum())
    assert loss < 0.8 * start
    np.testing.assert_array_equal(best[1], 0)  # it was optimal: nothing tried there was better
    for layer in range(3):
        fixed = [other for other in range(3) if other != layer]
        current = np.where(np.arange(3)[:, None] < layer, best, zero)
        for stack in bowl.asked[12 * layer : 12 * (layer + 1)]:
            np.testing.assert_array_equal(stack[fixed], current[fixed])


def test_nothing_is_accepted_at_the_optimum(prompts: ModuleType) -> None:
    """Every evaluation is worse: the very same stack comes back."""
    zero = np.zeros((2, 4))
    best, loss = prompts.polish(Bowl(zero), zero, 0.0, STEPS[:2], 10, 8, np.random.default_rng(0))
    assert best is zero
    assert loss == 0


@pytest.mark.parametrize(("evaluations", "directions"), [(3, 1), (4, 2), (5, 2), (12, 6), (40, 10)])
def test_half_of_the_evaluations_may_build_the_simplex(prompts: ModuleType, evaluations: int, directions: int) -> None:
    """All of them are used and no more; the simplex's points are rhobeg apart, in as many directions."""
    bowl = Bowl(np.full((1, 50), 7.0))
    prompts.polish(bowl, np.zeros((1, 50)), np.inf, STEPS[:1], 10, evaluations, np.random.default_rng(0))
    assert len(bowl.asked) == evaluations
    simplex = np.stack(bowl.asked[: directions + 1])[:, 0]
    assert np.linalg.matrix_rank(simplex) == directions
    assert np.linalg.matrix_rank(np.stack(bowl.asked)[:, 0]) == directions
    first = np.random.default_rng(0).standard_normal((50, directions))[:, 0]
    np.testing.assert_allclose(simplex[1], 0.3 * first)


def test_the_end_of_the_budget_passes_through_cobyla(prompts: ModuleType) -> None:
    """SciPy neither swallows it nor wraps it."""
    bowl = Bowl(np.ones((2, 4)), calls=11)
    with pytest.raises(BudgetExhausted, match="1 rows asked"):
        prompts.polish(bowl, np.zeros((2, 4)), np.inf, STEPS[:2], 10, 8, np.random.default_rng(0))
    assert len(bowl.asked) == 11


def test_second_stage_lowers_the_training_loss(bench: Bench) -> None:
    """On the fake, from the stack that the first stage leaves: means over seeds."""
    module = bench.load("bbt_rgb")
    falls = []
    for seed in range(4):
        lm, task, shots = bench.setting(calls=300, seed=seed)
        space = Subspace(30, tuple(0.5 * s for s in lm.info.hidden_std), lm.info.prompt_tokens, seed)
        zero = np.zeros((3, 30))
        model = module.Prompted(lm, task, shots, space, Member.of(task), zero)
        _, (before,) = model.ask(zero[None], shots.train)
        _, after = module.polish(model, zero, before, STEPS, 10, 20, np.random.default_rng(seed))
        assert after <= before
        falls.append(1 - after / before)
    assert np.mean(falls) > 0.1
