"""What a submission makes the referee do has limits, in every tier: the price of answers, the clock, real memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from outer_models import WIDTH

from harness.blackbox import memory
from harness.results.audit import audit

if TYPE_CHECKING:
    from outer_models import Arena

    from harness.tracks.tiers import Tier

LONG = """
def tune(lm, task, shots, rng, config):
    long = "word " * 100 + task.template
    yield Answer(tuple(Member(long, task.words, shift=(n / 8, 0.0)) for n in range(64)))
"""


@pytest.fixture
def slow(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A model whose chunks are small and take 50 ms each; the list counts them."""
    hidden, chunks = arena.lm.backbone.hidden, []

    def slowed(batch: Any) -> Any:
        chunks.append(len(batch.ids))
        time.sleep(0.05)
        return hidden(batch)

    monkeypatch.setattr(arena.lm.backbone, "hidden", slowed)
    monkeypatch.setattr(arena.lm, "chunk_tokens", 64)
    return chunks


def test_an_answer_above_the_track_s_price_is_refused_with_the_numbers_when_it_is_offered(
    arena: Arena, tier: Tier
) -> None:
    run = arena.run(LONG, tier=tier, test_tokens=1000)
    assert run.status == "invalid_answer"
    assert "tokens for each test text; 1,000 are allowed" in run.record.detail
    assert run.stored.predictions == {}
    assert run.record.test_s < 1  # nothing was applied


@pytest.mark.parametrize(
    ("body", "limits", "said"),
    [
        (
            "yield Answer.of(task, Subspace(20_000, (1.0,), 2, seed=1).at(np.zeros(20_000)))",
            {"projection_mb": 2},
            f"projections take {4 * 20_000 * 2 * WIDTH:,} bytes; {2 << 20:,} are allowed",
        ),
        (
            """from harness import MlpHead
    head = MlpHead(np.zeros((40_000, 16)), np.zeros(40_000), np.zeros((2, 40_000)), np.zeros(2))
    yield Answer((Member(task.template, task.words, head=head, alpha=0.5),))""",
            {"head_mb": 2},
            f"heads take {4 * (40_000 * 19 + 2):,} bytes; {2 << 20:,} are allowed",
        ),
    ],
)
def test_projections_and_heads_of_an_answer_have_a_price(
    arena: Arena, tier: Tier, body: str, limits: dict[str, int], said: str
) -> None:
    source = f"def tune(lm, task, shots, rng, config):\n    {body}\n"
    refused = arena.run(source, tier=tier, **limits)
    assert (refused.status, said in refused.record.detail) == ("invalid_answer", True), refused.record.detail
    assert arena.run(source, tier=tier).status == "ok"


def test_all_answers_that_are_kept_of_a_cell_have_a_size_together(arena: Arena, tier: Tier) -> None:
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            from harness import MlpHead
            while True:
                first = rng.standard_normal((10_000, 16))
                head = MlpHead(first, np.zeros(10_000), np.zeros((2, 10_000)), np.zeros(2))  # 760 KB
                for again in range(3):  # within one mark only the last is kept
                    yield Answer((Member(task.template, task.words, head=head, alpha=0.5),))
                lm.logits(None, shots.train.texts)
    """,
        tier=tier,
        kept_mb=2,
    )
    assert run.status == "invalid_answer"
    assert "and the answers kept at 2 marks before make" in run.record.detail
    assert "2,097,152 are kept of a cell" in run.record.detail


def test_answers_that_take_too_long_to_apply_are_a_status_of_the_cell(
    arena: Arena, tier: Tier, slow: list[int]
) -> None:
    """64 members on 200 texts, a chunk of one text each: 640 s of forward passes."""
    before = time.monotonic()
    run = arena.run(LONG, tier=tier, test_s=1)
    assert run.status == "too_costly"
    assert "0 of 1 answers were applied to the 200 test texts in 1 s" in run.record.detail
    assert time.monotonic() - before < 20
    assert 1 <= run.record.test_s < 10
    assert len(slow) > 5
    assert run.stored.predictions == {}
    assert run.verdict.score is None


def test_the_time_for_the_test_set_is_the_wall_clock_s_where_the_track_names_none(arena: Arena) -> None:
    assert arena.cell(wall_s=7).limits.answers.seconds == 7
    assert arena.cell(wall_s=7, test_s=3).limits.answers.seconds == 3


def test_a_query_begun_just_before_the_deadline_ends_with_it_and_is_not_charged(
    arena: Arena, tier: Tier, slow: list[int]
) -> None:
    """80 texts, two in a chunk, are 2 s a query."""
    before = time.monotonic()
    run = arena.run(
        """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            while True:
                lm.logits(None, shots.train.texts * 10)
    """,
        tier=tier,
        wall_s=5,
        test_s=30,
        calls=1000,
    )
    assert run.status == "timeout"
    assert run.record.tuning_s < 20
    assert time.monotonic() - before < 60
    assert sum(row.rows for row in run.ledger) == run.record.rows_spent <= 160
    assert run.record.rows_spent % 80 == 0
    assert audit(run.store).findings == ()
    assert slow


def test_a_projection_that_does_not_fit_into_memory_is_a_status_of_the_cell(
    arena: Arena, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory ends nobody knows for sure; here the system says so before it is taken."""
    monkeypatch.setattr(memory, "available", lambda: 300 << 20)
    body = """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task)
            space = Subspace(1_000_000, (1.0,), 2, seed=1, distribution="uniform")
            lm.logits(space.at(np.zeros(1_000_000)), shots.train.texts)
    """
    run = arena.run(body, tier=tier)
    assert run.status == "out_of_memory"
    assert "122 MiB are needed at once, and 300 MiB are free" in run.record.detail
    assert run.record.rows_spent == 0 == len(run.ledger)
    assert audit(run.store).findings == ()
    assert arena.run("tune = search", tier=tier).status == "budget_exhausted", "the next one is not concerned"


def test_an_answer_for_which_memory_does_not_suffice_is_a_status_of_the_cell(
    arena: Arena, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 300 << 20)
    body = """
        def tune(lm, task, shots, rng, config):
            yield Answer.of(task, Subspace(1_000_000, (1.0,), 2, seed=1).at(np.zeros(1_000_000)))
    """
    run = arena.run(body, tier=tier)
    assert run.status == "out_of_memory"
    assert "too little memory to apply an answer" in run.record.detail
    assert run.stored.predictions == {}


def test_a_memory_error_of_a_forward_pass_is_a_status_of_the_cell(
    arena: Arena, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_batch: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    def broken(_batch: Any) -> Any:
        raise RuntimeError("an error of this program's own")

    monkeypatch.setattr(arena.lm.backbone, "hidden", full)
    run = arena.run("tune = search", tier=tier)
    assert run.status == "out_of_memory"
    assert "you tried to allocate 99 bytes" in run.record.detail
    monkeypatch.setattr(arena.lm.backbone, "hidden", broken)
    with pytest.raises(RuntimeError, match="this program's own"):
        arena.run("tune = search", tier=tier)
