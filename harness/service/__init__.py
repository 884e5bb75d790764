"""The metered black box over HTTP, for solvers on other machines: `harness serve` and `harness.connect`."""
