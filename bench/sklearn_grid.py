"""fastnn's estimators beside scikit-learn's own, over a grid of networks, batches and data.

``python -m bench.sklearn_grid`` trains and predicts with both in this process on the same data,
checks first that they agree, then times them in turn. A fit is timed whole: validation, initial
weights, shuffles and all. Either side uses as many threads as it takes by itself, scikit-learn's
BLAS and fastnn alike all cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

import fastnn
import fastnn.sklearn

from .files import write_json
from .peers import RESULTS, versions
from .quiet import Quiet

NETWORKS = ("8-64-64-2", "784-128-10", "784-512-512-10")
STEPS = {1: 100, 32: 50, 200: 20, 2000: 3}
"""Steps of an epoch by batch size."""
SOLVERS, DTYPES, DENSITIES = ("sgd", "adam", "lbfgs"), ("float32", "float64"), (1.0, 0.1, 0.01)
LBFGS_ROWS = 1000
EPOCHS = {"8-64-64-2": 20, "784-128-10": 4, "784-512-512-10": 2}
PREDICTED_ROWS = (1, 100, 10_000)
TARGETS = {
    "784-128-10 adam, batch 32, float32": 5.0,
    "784-128-10 adam, batch 32, float64": 4.0,
    "784-128-10 adam, batch 200, float32": 3.0,
    "784-128-10 adam, batch 200, float64": 3.0,
    "8-64-64-2 adam, batch 32, float32": 15.0,
    "8-64-64-2 adam, batch 32, float64": 15.0,
    **{f"{network} predict, 1 row, {dtype}": 3.0 for network in NETWORKS[:2] for dtype in DTYPES},
}
"""The least times that scikit-learn takes of ours."""
NOWHERE_SLOWER = 1 / 1.05
SAME = {"float64": 1e-8, "float32": 1e-3}
"""How far losses and outputs may lie apart, relatively to the largest."""
PATIENCE, QUICK_PATIENCE = 300.0, 20.0
"""Seconds to wait, in all, for a machine that has its cores to itself."""
SPIN_SECONDS = 0.1
"""How long threads of a BLAS go on looking for work, and keep a core from whoever comes next."""
LEAST_SECONDS = 0.02
"""A measurement repeats its work until it has taken so long."""


class Pair(NamedTuple):
    """The same work by either, and how many steps it is."""

    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    steps: int
    engine: str


class Case(NamedTuple):
    """What is timed; a pair of works is prepared, and verified, when its turn comes."""

    title: str
    prepare: Callable[[], Pair]


class Outcome(NamedTuple):
    """Seconds of a step, and how many times ours goes into theirs, beside the least that it is to.

    The ratio is the median of those of the rounds, in which both ran side by side.
    """

    title: str
    engine: str
    theirs: float
    ours: float
    ratio: float
    target: float
    met: bool


# ---- what is timed ----


def every_case() -> Iterator[Case]:
    """The grid, then what a call costs beside its arithmetic."""
    for network, solver, dtype, density in product(NETWORKS, SOLVERS, DTYPES, DENSITIES):
        for batch in STEPS if solver != "lbfgs" else (None,):
            yield fit_case(network, solver, batch, dtype, density)
    yield Case("iris-sized, fit of 1 epoch", fit_of_little)
    for network, dtype in product(NETWORKS[:2], DTYPES):
        yield partial_fit_case(network, dtype)
        for rows in PREDICTED_ROWS:
            yield predict_case(network, rows, dtype)


def quick_cases() -> Iterator[Case]:
    """Those that have a target of their own, and a few more."""
    more = ("784-128-10 sgd, batch 32, float32, 1 % dense", "784-128-10 lbfgs, float64", "iris")
    for case in every_case():
        if case.title in TARGETS or case.title.startswith(more) or "partial_fit" in case.title:
            yield case


def fit_case(
    network: str, solver: str, batch: int | None, dtype: str, density: float = 1.0
) -> Case:
    """A fit of a few epochs; L-BFGS has iterations instead, and takes all rows at once."""
    words = [f"{network} {solver}", *([f"batch {batch}"] if batch else []), dtype]
    title = ", ".join([*words, *([f"{density:.0%} dense"] if density < 1 else [])])
    return Case(title.replace("%", " %"), partial(_fits, network, solver, batch, dtype, density))


def _fits(network: str, solver: str, batch: int | None, dtype: str, density: float) -> Pair:
    rows = batch * STEPS[batch] if batch else LBFGS_ROWS
    x, labels = data(network, rows, dtype, density)
    settings: dict[str, Any] = {"hidden_layer_sizes": hidden(network), "solver": solver}
    if batch:
        settings |= {"batch_size": batch, "max_iter": EPOCHS[network]}
    else:
        settings |= {"max_iter": 10}
    steps = EPOCHS[network] * STEPS[batch] if batch else settings["max_iter"]
    return _pair_of_fits(x, labels, steps, dtype, **settings)


def fit_of_little() -> Pair:
    """What scikit-learn's users try first."""
    x, labels = data("4-100-3", 150, "float64")
    return _pair_of_fits(x, labels, 1, "float64", hidden_layer_sizes=(100,), max_iter=1)


def _pair_of_fits(x: Any, labels: np.ndarray, steps: int, dtype: str, **settings: Any) -> Pair:
    def fit(home: Any, rows: int | None = None, **others: Any) -> Any:
        estimator = home.MLPClassifier(random_state=0, **(settings | others))
        return estimator.fit(x[:rows], labels[:rows])

    theirs, ours = partial(fit, neural_network), partial(fit, fastnn.sklearn)
    # in float32 either may go its own way, as soon as rounding puts a unit beyond its kink
    few = {"rows": 2 * settings.get("batch_size", len(labels)), "max_iter": 1}
    expected, found = (work(**(few if dtype == "float32" else {})) for work in (theirs, ours))
    check_same(found.loss_, expected.loss_, dtype)
    check_same(found.predict_proba(x), expected.predict_proba(x), dtype)
    return Pair(theirs, ours, steps, ours().engine_)


def partial_fit_case(network: str, dtype: str) -> Case:
    """Calls with a batch each, as a program does that reads its data bit by bit."""
    return Case(f"{network} partial_fit of 32 rows, {dtype}", partial(_feeds, network, dtype))


def _feeds(network: str, dtype: str, calls: int = 20) -> Pair:
    x, labels = data(network, 32 * calls, dtype)
    classes = np.unique(labels)
    batches = [slice(start, start + 32) for start in range(0, len(x), 32)]
    theirs, ours = (
        home.MLPClassifier(hidden(network), random_state=0)
        for home in (neural_network, fastnn.sklearn)
    )

    def feed(estimator: Any) -> None:
        for batch in batches:
            estimator.partial_fit(x[batch], labels[batch], classes=classes)

    feed(theirs)
    feed(ours)
    check_same(ours.predict_proba(x), theirs.predict_proba(x), dtype)
    return Pair(partial(feed, theirs), partial(feed, ours), calls, ours.engine_)


def predict_case(network: str, rows: int, dtype: str) -> Case:
    """Classes of a few rows or many."""
    words = f"{rows:,} row{'s' if rows > 1 else ''}"
    return Case(f"{network} predict, {words}, {dtype}", partial(_predicts, network, rows, dtype))


def _predicts(network: str, rows: int, dtype: str) -> Pair:
    x, labels = data(network, 1000, dtype)
    theirs, ours = (
        home.MLPClassifier(hidden(network), max_iter=1, random_state=0).fit(x, labels)
        for home in (neural_network, fastnn.sklearn)
    )
    asked, _ = data(network, rows, dtype)
    check_same(ours.predict_proba(asked), theirs.predict_proba(asked), dtype)
    return Pair(partial(theirs.predict, asked), partial(ours.predict, asked), 1, ours.engine_)


def data(network: str, rows: int, dtype: str, density: float = 1.0) -> tuple[Any, np.ndarray]:
    """Rows that can be learnt, in a sparse matrix if not all is there; every class occurs."""
    inputs, *_, classes = map(int, network.split("-"))
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, inputs))
    x[rng.random(x.shape) >= density] = 0.0
    labels = np.argmax(x @ rng.normal(size=(inputs, classes)), axis=1)
    labels[: min(rows, classes)] = np.arange(min(rows, classes))
    x = x.astype(dtype)
    return (scipy.sparse.csr_matrix(x) if density < 1 else x), labels


def hidden(network: str) -> tuple[int, ...]:
    """The widths between inputs and outputs."""
    return tuple(map(int, network.split("-")))[1:-1]


def check_same(found: Any, expected: Any, dtype: str) -> None:
    """Raise where ours computed something else."""
    error, scale = np.max(np.abs(found - expected)), np.max(np.abs(expected))
    if not error <= SAME[dtype] * scale:
        raise AssertionError(f"off by {error:.3g} where scikit-learn has up to {scale:.3g}")


# ---- timing ----


def judge(case: Case, rounds: int, quiet: Callable[[], None]) -> Outcome:
    """Verify, then time in turn, each once the other's threads are still."""
    pair = case.prepare()
    theirs, ours = [], []
    for _ in range(rounds):
        for times, work in ((theirs, pair.theirs), (ours, pair.ours)):
            time.sleep(SPIN_SECONDS)
            quiet()
            times.append(seconds(work) / pair.steps)
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    target = TARGETS.get(case.title, NOWHERE_SLOWER)
    medians = statistics.median(theirs), statistics.median(ours)
    return Outcome(case.title, pair.engine, *medians, ratio, target, ratio >= target)


def seconds(work: Callable[[], Any]) -> float:
    """Of one call, on average over as many as last long enough."""
    begun, calls = time.perf_counter(), 0
    while True:
        work()
        calls += 1
        lasted = time.perf_counter() - begun
        if lasted >= LEAST_SECONDS:
            return lasted / calls


def measure(quick: bool) -> list[Outcome]:
    """Every case, or the few; a line each is printed as it is known."""
    print("microseconds a step or call: scikit-learn, fastnn; ratio (least), ! where missed")
    outcomes = []
    wait = Quiet(fastnn.get_num_threads(), QUICK_PATIENCE if quick else PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for case in quick_cases() if quick else every_case():
            outcomes.append(judge(case, 3 if quick else 5, wait))
            print(line(outcomes[-1]), flush=True)
    missed = [outcome for outcome in outcomes if not outcome.met]
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} met")
    return outcomes


def line(outcome: Outcome) -> str:
    """An outcome in words; an engine that is not ours is named."""
    times = f"{outcome.theirs * 1e6:11.1f}{outcome.ours * 1e6:11.1f}"
    against = f"{outcome.ratio:8.2f} ({outcome.target:.2f}) {' ' if outcome.met else '!'}"
    engine = "" if outcome.engine == "fastnn" else f"  by {outcome.engine}"
    return f"{outcome.title:<52}{times}{against}{engine}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.sklearn_grid", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, within a minute")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "sklearn_grid.json", help="file (%(default)s)"
    )
    options = parser.parse_args(arguments)
    outcomes = measure(options.quick)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "threads": fastnn.get_num_threads(),
        "versions": versions(("numpy", "numba", "scikit-learn")),
        "outcomes": [outcome._asdict() for outcome in outcomes],
    }
    write_json(options.out, results)


if __name__ == "__main__":
    main()
