"""Membership inference finds members where answers remember them, and none where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError
from harness.leaks.membership import DEV, OUT, TRAIN, Shadows, attacked, told_by_few
from harness.leaks.shadows import with_splits
from harness.tracks.track import load_track


def made_up(remembered: float, seed: int = 0, count: int = 32, texts: int = 60) -> Shadows:
    """Answers whose logit of a text is the text's own, noise, and more if the text is in train."""
    rng = np.random.default_rng(seed)
    part = np.stack([rng.permutation(np.repeat([OUT, TRAIN, DEV], texts // 3)) for _ in range(count)])
    phi = rng.normal(0, 2, texts) + rng.normal(0, 0.5, (count, texts)) + remembered * (part == TRAIN)
    population = rng.normal(0, 2, 100) + rng.normal(0, 0.5, (count, 100))
    return Shadows(1 / (1 + np.exp(-phi)), part, 1 / (1 + np.exp(-population)))


def at(found: list, attack: str, members: str, rate: float) -> object:
    return next(f for f in found if (f.attack, f.members, f.false_positives) == (attack, members, rate))


def test_what_is_remembered_is_found_by_shadows_and_hardly_without() -> None:
    found = attacked(made_up(2.0))
    lira, plain = at(found, "lira", "train", 0.01), at(found, "confidence", "train", 0.01)
    assert lira.found > 0.7
    assert lira.low <= lira.found <= lira.high
    assert plain.found < 0.15
    assert at(found, "lira offline", "train", 0.05).found > 0.7
    assert at(found, "rmia", "train", 0.05).auc > 0.85
    assert at(found, "lira", "dev", 0.01).found < 0.05, "dev is not remembered here"
    assert (lira.answers, lira.member_texts, lira.other_texts) == (32, 640, 640)


@settings(deadline=None, max_examples=3)
@given(st.integers(0, 100))
def test_nothing_is_found_where_nothing_is_remembered(seed: int) -> None:
    for each in attacked(made_up(0.0, seed, count=24)):
        assert each.found < each.false_positives + 0.12
        assert abs(each.auc - 0.5) < 0.12


def test_an_entrys_own_other_splits_are_shadows_enough_for_what_is_remembered() -> None:
    """Three answers a task, as a track has them; here five tasks."""
    remembered = [made_up(3.0, seed, count=3) for seed in range(5)]
    train, dev = (at(told_by_few(remembered), "rmia", part, 0.1) for part in ("train", "dev"))
    assert train.found > 0.4
    assert train.auc_low > 0.6
    assert train.answers == 15
    assert abs(dev.auc - 0.5) < 0.1, "dev is not remembered here"
    nothing = at(told_by_few([made_up(0.0, seed, count=3) for seed in range(5)]), "rmia", "train", 0.1)
    assert nothing.auc_low < 0.5 < nothing.auc_high


def test_one_answer_a_task_tells_nothing() -> None:
    alone = made_up(3.0, count=1)
    with pytest.raises(InputError, match="outside of any shadow's split"):
        told_by_few([alone])


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert attacked(made_up(1.0), seed=3) == attacked(made_up(1.0), seed=3)


def test_too_few_shadows_are_told() -> None:
    with pytest.raises(InputError, match="4 shadow answers; at least 8"):
        attacked(made_up(1.0, count=4))
    shadows = made_up(1.0)
    with pytest.raises(InputError, match="outside of any shadow's split"):
        attacked(Shadows(shadows.p, np.full_like(shadows.part, TRAIN), shadows.population))


def test_shadow_splits_are_drawn_as_the_track_draws_its_own() -> None:
    mini = load_track("mini")
    many = with_splits(mini, "sst2", 64)
    assert many.tasks["sst2"].splits == tuple(range(1, 65))
    assert many.tasks["sst2"].shots == mini.tasks["sst2"].shots
    assert list(many.tasks) == ["sst2"]
    with pytest.raises(InputError, match="no task 'cola'"):
        with_splits(mini, "cola", 64)
    with pytest.raises(InputError, match="shadow splits are drawn from a pool"):
        with_splits(load_track("kit"), "sst2", 64)
