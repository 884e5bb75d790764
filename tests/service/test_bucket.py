"""The token bucket, on a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.service.rate_limit import Bucket


def test_a_full_bucket_gives_its_burst_and_then_one_at_a_time() -> None:
    bucket = Bucket(per_s=10, burst=3)
    assert [bucket.take(5.0) for _ in range(3)] == [0, 0, 0]
    assert abs(bucket.take(5.0) - 0.1) < 1e-6
    assert bucket.take(5.11) == 0
    assert bucket.take(5.11) > 0


@given(st.floats(0.1, 1000), st.integers(1, 50), st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_no_span_of_time_sees_more_than_burst_and_rate_allow(per_s: float, burst: int, gaps: list[float]) -> None:
    bucket, now, taken = Bucket(per_s, burst), 0.0, []
    for gap in gaps:
        now += gap
        if bucket.take(now) == 0:
            taken.append(now)
    for i, start in enumerate(taken):
        for j in range(i, len(taken)):
            assert j - i + 1 <= burst + per_s * (taken[j] - start) + 1e-3


@given(st.floats(0.1, 1000), st.integers(1, 50))
def test_who_waits_as_long_as_was_said_is_let_through(per_s: float, burst: int) -> None:
    bucket = Bucket(per_s, burst)
    for _ in range(burst):
        assert bucket.take(1.0) == 0
    wait_s = bucket.take(1.0)
    assert 0 < wait_s <= 1 / per_s + 1e-9
    assert bucket.take(1.0 + wait_s + 1e-6) == 0
