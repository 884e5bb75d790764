"""Optimizers of other libraries on a `Problem`: a function for each library.

Each function minimises until the budget is spent, which raises `BudgetExhausted`, or until the library stops by itself.
`minimize` takes the name of an optimizer, such as ``cma``, ``scipy:Powell`` or ``nevergrad:NGOpt``, and returns in both
cases. `Problem.best` is the result. All random numbers come from the given seed. Some libraries draw from numpy's
global generator; its state is restored afterwards.

    problem = harness.problem("sst2", dim=10, budget=100)
    minimize("cma", problem, seed=1)
    print(problem.best.loss, problem.test_score())
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import BudgetExhausted, InputError
from harness.problems.spaces import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from harness.problems.problem import Problem

LARGEST_SEED = 2**31
_SCIPY_GLOBAL = ("differential_evolution", "dual_annealing", "direct", "shgo")
_SCIPY_LOCAL = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA", "CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP")


def random(problem: Problem, rng: np.random.Generator, method: str = "uniform") -> None:
    """Random search: each point is uniform in the bounds, or, with ``normal``, z ~ N(0, I) rounded into them.

    Raises:
        InputError: there is no such method.
    """
    low, high = problem.bounds.T
    while True:
        if method == "uniform":
            points = rng.uniform(low, high, (20, problem.dimension))
        elif method == "normal":
            points = (low + high) / 2 + (high - low) / 10 * rng.standard_normal((20, problem.dimension))
        else:
            raise InputError(f"random has no method {method!r}; there are uniform and normal")
        _told(problem, points)


def cma(problem: Problem, rng: np.random.Generator, method: str = "CMAEvolutionStrategy") -> None:
    """CMA-ES of pycma from the centre of the bounds, with a fifth of their width as step size; restarts if it stops.

    Args:
        problem: what is minimised.
        rng: source of all random numbers.
        method: ``CMAEvolutionStrategy``, or ``CMA_diagonal`` for a diagonal covariance matrix (sep-CMA-ES).

    Raises:
        InputError: there is no such method.
    """
    if method not in {"CMAEvolutionStrategy", "CMA_diagonal"}:
        raise InputError(f"cma has no method {method!r}; there are CMAEvolutionStrategy and CMA_diagonal")
    library = _library("cma")
    low, high = problem.bounds.T
    options = {
        "bounds": [low.tolist(), high.tolist()],
        "CMA_stds": (high - low) / 10,
        "CMA_diagonal": method == "CMA_diagonal",
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,  # do not touch numpy's global generator
        "verbose": -9,
    }
    start = (low + high) / 2
    for _ in _rounds(problem):
        search = library.CMAEvolutionStrategy(start, 1.0, dict(options))
        while not search.stop():
            asked = search.ask()
            search.tell(asked, _told(problem, np.array(asked)).tolist())
        start = rng.uniform(low, high)


def nevergrad(problem: Problem, rng: np.random.Generator, method: str = "NGOpt") -> None:
    """Any optimizer of nevergrad's registry. Choices are nevergrad's own, and real coordinates have no bounds.

    Raises:
        InputError: there is no such optimizer.
    """
    ng: Any = _library("nevergrad")
    if method not in ng.optimizers.registry:
        raise InputError(f"nevergrad has no optimizer {method!r}; see nevergrad.optimizers.registry")
    choices = [each for each in problem.variables if isinstance(each, Choice)]
    reals = problem.dimension - len(choices)
    parts = [ng.p.Array(shape=(reals,))] if reals else []
    parts += [ng.p.Choice(range(len(each.values))) for each in choices]
    parametrization = ng.p.Tuple(*parts) if choices else parts[0]
    parametrization.random_state = np.random.RandomState(int(rng.integers(LARGEST_SEED)))
    vars(ng.optimization.metamodel)["float"] = _number  # NGOpt's metamodel fails with numpy 2.4 otherwise
    search = ng.optimizers.registry[method](parametrization, budget=problem.budget_left, num_workers=1)
    while True:
        asked = search.ask()
        values = asked.value if choices else (asked.value,)
        search.tell(asked, problem(np.concatenate([np.atleast_1d(part) for part in values]).astype(float)))


def scipy(problem: Problem, rng: np.random.Generator, method: str = "Powell") -> None:
    """A method of `scipy.optimize.minimize`, or one of scipy's global optimizers by its name.

    Local methods start at the centre of the bounds. A method that ends early starts again at a random point.

    Raises:
        InputError: there is no such method.
    """
    optimize: Any = _library("scipy.optimize")
    bounds = problem.bounds
    if method in _SCIPY_GLOBAL:
        more = {"rng": rng} if method in {"differential_evolution", "dual_annealing"} else {}
        for _ in _rounds(problem):
            getattr(optimize, method)(problem, bounds.tolist(), **more)
            if not more:
                return  # it is deterministic: a restart would ask the same queries
        return
    if method not in _SCIPY_LOCAL:
        raise InputError(f"scipy has no method {method!r} here; there are {', '.join(_SCIPY_LOCAL + _SCIPY_GLOBAL)}")
    bounded = method in {"Nelder-Mead", "Powell", "COBYLA", "COBYQA", "L-BFGS-B", "TNC", "SLSQP"}
    start = bounds.mean(axis=1)
    for _ in _rounds(problem):
        optimize.minimize(problem, start, method=method, bounds=bounds if bounded else None)
        start = rng.uniform(*bounds.T)


def pymoo(problem: Problem, rng: np.random.Generator, method: str = "DE") -> None:
    """A single-objective algorithm of pymoo: DE, GA, PSO, ES, CMAES, NelderMead and others.

    Algorithms that cannot be seeded (PatternSearch) are left out.

    Raises:
        InputError: there is no such algorithm.
    """
    core: Any = _library("pymoo.core.problem")
    algorithms = {
        "BRKGA": "brkga", "CMAES": "cmaes", "DE": "de", "DIRECT": "direct", "ES": "es", "GA": "ga",
        "ISRES": "isres", "NRBO": "nrbo", "NelderMead": "nelder", "PSO": "pso", "SRES": "sres",
    }  # fmt: skip
    if method not in algorithms:
        raise InputError(f"pymoo has no algorithm {method!r} here; there are {', '.join(algorithms)}")
    low, high = problem.bounds.T
    name = f"pymoo.algorithms.soo.nonconvex.{algorithms[method]}"
    made: Any = getattr(_library(name), method)

    class Wrapped(core.Problem):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            super().__init__(n_var=problem.dimension, n_obj=1, xl=low, xu=high)

        def _evaluate(self, x: npt.NDArray[np.float64], out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = _told(problem, np.atleast_2d(x))[:, None]

    minimize_: Any = _library("pymoo.optimize").minimize
    for _ in _rounds(problem):
        minimize_(Wrapped(), made(), ("n_eval", problem.budget_total), seed=int(rng.integers(LARGEST_SEED)))


def optuna(problem: Problem, rng: np.random.Generator, method: str = "TPESampler") -> None:
    """A sampler of Optuna; choices are categorical parameters.

    Raises:
        InputError: there is no such sampler.
    """
    library: Any = _library("optuna")
    made = getattr(library.samplers, method, None)
    if not (isinstance(made, type) and issubclass(made, library.samplers.BaseSampler) and method.endswith("Sampler")):
        raise InputError(f"optuna has no sampler {method!r}; TPESampler, RandomSampler and NSGAIISampler are some")
    library.logging.set_verbosity(library.logging.WARNING)
    try:
        sampler = made(seed=int(rng.integers(LARGEST_SEED)))
    except TypeError as problem_:
        raise InputError(f"optuna's {method} cannot be made of a seed alone: {problem_}") from None
    study = library.create_study(sampler=sampler)
    space = {
        each.name: library.distributions.CategoricalDistribution(tuple(range(len(each.values))))
        if isinstance(each, Choice)
        else library.distributions.FloatDistribution(each.low, each.high)
        for each in problem.variables
    }
    while True:
        trial = study.ask(space)
        study.tell(trial, problem(np.array([trial.params[each.name] for each in problem.variables], dtype=float)))


def as_ioh(problem: Problem, name: str = "harness") -> Any:
    """The problem as one of IOHexperimenter, to which its loggers can be attached.

    Args:
        problem: what is minimised.
        name: of the function in IOHexperimenter's logs.

    Returns:
        A problem of `ioh`, which any algorithm that takes one can be given.

    Raises:
        InputError: `ioh` is not installed.

    Example:
        ``logger = ioh.logger.Analyzer(); f = as_ioh(problem); f.attach_logger(logger); f(np.zeros(problem.dimension))``

    Keep the logger in a variable: IOHexperimenter does not hold it, and reads freed memory once it is gone.
    """
    library: Any = _library("ioh")
    made = library.wrap_problem(
        problem, name=name, problem_class=library.ProblemClass.REAL, dimension=problem.dimension,
    )  # fmt: skip
    low, high = problem.bounds.T
    made.bounds.lb, made.bounds.ub = low, high
    return made


OPTIMIZERS = {"random": random, "cma": cma, "nevergrad": nevergrad, "scipy": scipy, "pymoo": pymoo, "optuna": optuna}
"""The adapters by the name of their library. A method follows after a colon."""


def parsed(optimizer: str) -> tuple[str, str]:
    """Library and method in an optimizer's name. The method is empty if it is the library's default.

    Raises:
        InputError: no adapter has this name.
    """
    library, colon, method = optimizer.partition(":")
    if library not in OPTIMIZERS or (colon and not method):
        raise InputError(f"no optimizer {optimizer!r}; there are {', '.join(OPTIMIZERS)}, and LIBRARY:METHOD")
    return library, method


def minimize(optimizer: str, problem: Problem, seed: int) -> None:
    """Minimise until the budget is spent or the optimizer ends.

    Args:
        optimizer: a name of `OPTIMIZERS`, and the method after a colon if it is not the library's first.
        problem: what is minimised.
        seed: of the optimizer.

    Raises:
        InputError: there is no such optimizer, or its library is not installed.
    """
    library, method = parsed(optimizer)
    rng = np.random.default_rng(seed)
    with _global_chance(rng), contextlib.suppress(BudgetExhausted):
        try:
            OPTIMIZERS[library](problem, rng, **({"method": method} if method else {}))
        except ModuleNotFoundError as lacking:
            raise InputError(f"{optimizer} needs {lacking.name}, which is not installed") from None


@contextlib.contextmanager
def _global_chance(rng: np.random.Generator) -> Iterator[None]:
    """Seed numpy's global generator, from which some libraries draw, and restore its state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(rng.integers(LARGEST_SEED)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _number(value: Any) -> float:
    """A float from a number or from an array of one number, which numpy 2.4's own conversion refuses."""
    return float(np.asarray(value).reshape(()))


def _rounds(problem: Problem) -> Iterator[int]:
    """Numbers of restarts, as long as each round evaluates something."""
    for number in itertools.count():
        before = problem.evaluations
        yield number
        if problem.evaluations == before:
            return


def _told(problem: Problem, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Losses of a population. If it costs more than the budget, only the first candidates are evaluated.

    Raises:
        BudgetExhausted: the population cost more than the budget that was left.
    """
    left = problem.budget_left
    if 0 < left < len(points):
        problem.evaluate(points[:left])
    return problem.evaluate(points)


def _library(name: str) -> Any:
    """A module of a library that an adapter needs.

    Raises:
        InputError: the library is not installed.
    """
    top = name.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        raise InputError(f'{top} is not installed; run: pip install -e ".[optimizers]"')
    return importlib.import_module(name)
