"""The black box as an optimisation problem: `harness.problem`, adapters of optimizers, and a suite of benchmarks."""
