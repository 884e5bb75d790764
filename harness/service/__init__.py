"""The metered black box over HTTP, for solvers that live elsewhere: `harness serve` and `harness.connect`."""
