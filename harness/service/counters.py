"""The counters at ``/metrics``, for Prometheus. Labels are tasks, outcomes and reasons, never a token or its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from harness.results.records import LedgerRow

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Start all counters at zero."""
        self._registry = r = CollectorRegistry()
        self._queries = Counter("harness_queries", "Answered queries, retries not counted", ["task"], registry=r)
        self._rows = Counter("harness_rows", "Rows charged", ["task"], registry=r)
        self._tokens = Counter("harness_tokens", "Tokens forwarded", ["task"], registry=r)
        self._bytes = Counter("harness_bytes", "Bytes of charged queries", ["direction"], registry=r)
        self._replays = Counter("harness_replays", "Retries that were answered from the book", registry=r)
        self._refusals = Counter("harness_refusals", "Requests that were refused", ["reason"], registry=r)
        self._answers = Counter("harness_answers", "Answers handed in", ["task"], registry=r)
        self._forward = Histogram(
            "harness_forward_seconds", "Pricing and forward pass of a query", buckets=_BUCKETS_S, registry=r
        )
        self._latency = Histogram(
            "harness_query_seconds", "A query from its last byte in to its reply", buckets=_BUCKETS_S, registry=r
        )
        self.waiting = Gauge("harness_waiting", "Requests in line for the model", registry=r)

    def answered(self, task: str, row: LedgerRow | None, seconds: float) -> None:
        """Count the answer to a query; `row` is None for a retry."""
        self._latency.observe(seconds)
        if row is None:
            self._replays.inc()
            return
        self._queries.labels(task).inc()
        self._rows.labels(task).inc(row.rows)
        self._tokens.labels(task).inc(row.tokens)
        self._bytes.labels("up").inc(row.bytes_up)
        self._bytes.labels("down").inc(row.bytes_down)
        self._forward.observe(row.seconds)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refusals.labels(reason).inc()

    def handed_in(self, task: str) -> None:
        """Count a submitted answer."""
        self._answers.labels(task).inc()

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
