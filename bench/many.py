"""Many small networks: ``fit_many``, ``fit`` in turn, scikit-learn with joblib, and JAX's vmap.

``python -m bench.many`` (JAX and scikit-learn from the ``bench`` extra, where they are installed)
trains networks of 8-32-2 on 1,000 rows with Adam at batch 32 for 20 epochs, each with its own
initial weights and shuffles. It checks first that ``fit_many`` gives the bits of ``fit`` and that
the others learn as much, then times all in turn, in this process (scikit-learn in as many processes
as there are cores).

- scikit-learn trains fewer networks, and its time is that of all in proportion.
- JAX is a compiled scan over steps of a vmap over networks, all of them at once or in groups; we
  are to be ahead of both. Compilation is not timed. It is given each network's order of rows ready
  made, and passes over the 8 rows that are left behind the last whole batch.

The networks are made before the clock runs, but those of scikit-learn, which makes them as it fits.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastnn

from .files import write_json
from .peers import RESULTS, versions
from .quiet import Quiet

INPUTS, HIDDEN, CLASSES = 8, 32, 2
ROWS, BATCH, EPOCHS, RATE = 1000, 32, 20, 1e-3
NETWORKS, QUICK_NETWORKS = 1000, 200
GROUP = 50
"""Networks of a group, for JAX: what they need fits a cache."""
SHARE_OF_SKLEARN = 20
"""Of so many networks, scikit-learn trains one."""
ROUNDS, QUICK_ROUNDS = 7, 3
PATIENCE, QUICK_PATIENCE = 300.0, 10.0
"""Seconds to wait, in all, for a machine that has its cores to itself."""
TARGETS = {"fit in turn": 1.8, "scikit-learn": 20.0, "JAX": 1.0}
"""The least times that each takes of ``fit_many``, on two cores."""
LEARNS_AS_MUCH = 0.1
"""How far a peer's mean loss at the end may lie from ours, relatively."""


Work = Callable[[], Any]


class Contender(NamedTuple):
    """A way to train networks, and how to know their mean loss at the end.

    ``prepare(count)`` makes the networks, and gives what is timed; ``loss`` takes what that gave.
    """

    name: str
    prepare: Callable[[int], Work]
    loss: Callable[[Any], float]
    share: int = 1


class Outcome(NamedTuple):
    """Seconds a network, and how many times ours goes into them, beside the least that it is to.

    The ratio is the median of those of the rounds, in which all ran in turn.
    """

    title: str
    seconds: float
    ratio: float
    target: float
    met: bool


# ---- the work ----


def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows with two classes that no line divides."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, INPUTS)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


X, Y = data()


def networks(count: int) -> list[fastnn.Sequential]:
    """Each with initial weights of its own."""
    return [
        fastnn.Sequential(
            fastnn.Linear(INPUTS, HIDDEN), fastnn.ReLU(), fastnn.Linear(HIDDEN, CLASSES), seed=seed
        )
        for seed in range(count)
    ]


def by_fit_many(count: int) -> Callable[[], list[fastnn.Sequential]]:
    """All in one call."""
    models = networks(count)

    def train() -> list[fastnn.Sequential]:
        optimizer, seeds = fastnn.Adam(RATE), range(count)
        fastnn.fit_many(
            models, X, Y, optimizers=optimizer, seeds=seeds, epochs=EPOCHS, batch_size=BATCH
        )
        return models

    return train


def by_fit(count: int) -> Callable[[], list[fastnn.Sequential]]:
    """One after the other."""
    models = networks(count)

    def train() -> list[fastnn.Sequential]:
        for seed, model in enumerate(models):
            optimizer = fastnn.Adam(RATE)
            model.fit(X, Y, optimizer=optimizer, seed=seed, epochs=EPOCHS, batch_size=BATCH)
        return models

    return train


def last_loss(models: Sequence[fastnn.Sequential]) -> float:
    """The mean of the networks' losses in their last epoch."""
    return statistics.fmean(model.history["loss"][-1] for model in models)


def by_sklearn(count: int) -> Callable[[], list[float]]:
    """The same by scikit-learn, in a process for each core."""
    from joblib import Parallel, delayed

    jobs = [delayed(_one_by_sklearn)(seed) for seed in range(count)]
    pool = Parallel(n_jobs=fastnn.get_num_threads())
    return lambda: pool(jobs)


def _one_by_sklearn(seed: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier(
        (HIDDEN,), alpha=0.0, batch_size=BATCH, learning_rate_init=RATE, max_iter=EPOCHS,
        n_iter_no_change=EPOCHS, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(network.fit(X, Y).loss_)


def by_jax(group: int, count: int) -> Callable[[], list[float]]:
    """The same by JAX, ``group`` networks at a time."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer, x, labels = optax.adam(RATE), jnp.asarray(X), jnp.asarray(Y)
    rng, steps = np.random.default_rng(0), ROWS // BATCH
    orders = np.stack([rng.permutation(ROWS)[: steps * BATCH] for _ in range(count * EPOCHS)])
    batches = orders.astype("int32").reshape(-1, group, EPOCHS * steps, BATCH)
    weights = [[np.array(array) for array in model.arena.values()] for model in networks(count)]
    parameters = [
        np.stack(arrays).reshape(-1, group, *arrays[0].shape)
        for arrays in zip(*weights, strict=True)
    ]

    def loss(parameters: Any, rows: Any) -> Any:
        weight, bias, weight_out, bias_out = parameters
        logits = jax.nn.relu(x[rows] @ weight + bias) @ weight_out + bias_out
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry: Any, rows: Any) -> tuple[Any, Any]:
        parameters, state = carry
        value, grads = jax.vmap(jax.value_and_grad(loss))(parameters, rows)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(parameters, updates), state), value

    @jax.jit
    def train(parameters: Any, batches: Any) -> Any:
        carry = parameters, optimizer.init(parameters)
        carry, losses = jax.lax.scan(step, carry, batches.swapaxes(0, 1))
        return carry[0], losses[-steps:].mean()

    groups = [
        ([jnp.asarray(array[number]) for array in parameters], jnp.asarray(batches[number]))
        for number in range(count // group)
    ]

    return lambda: [float(loss) for _, loss in [train(*one) for one in groups]]


# ---- timing ----


def contenders(count: int) -> list[Contender]:
    """All that can work here, ours first."""
    found = [
        Contender("fit_many", by_fit_many, last_loss),
        Contender("fit in turn", by_fit, last_loss),
    ]
    if find_spec("sklearn"):
        found.append(Contender("scikit-learn", by_sklearn, statistics.fmean, SHARE_OF_SKLEARN))
    if find_spec("jax") and find_spec("optax"):
        for group in (count, GROUP):
            work = functools.cache(functools.partial(by_jax, group))  # compiled once
            found.append(Contender(f"JAX, {group} at a time", work, statistics.fmean))
    return found


def check(found: Sequence[Contender], count: int) -> None:
    """Raise where bits differ from those of ``fit``, or a peer has learnt something else."""
    check_bits(by_fit_many(GROUP)(), by_fit(GROUP)())
    ours = last_loss(by_fit_many(count)())
    for contender in found:
        theirs = contender.loss(contender.prepare(count // contender.share)())
        if not abs(theirs - ours) <= LEARNS_AS_MUCH * ours:
            raise AssertionError(
                f"{contender.name} ends at a loss of {theirs:.3g}, ours {ours:.3g}"
            )


def check_bits(models: Sequence[fastnn.Sequential], expected: Sequence[fastnn.Sequential]) -> None:
    """Raise where a network differs from what ``fit`` made of it."""
    for model, by_itself in zip(models, expected, strict=True):
        if not np.array_equal(model.arena.flat, by_itself.arena.flat):
            raise AssertionError(f"network {model.seed} does not have the bits of fit")


def measure(quick: bool) -> list[Outcome]:
    """Verify, then time in turn; a line each is printed."""
    count, rounds = (QUICK_NETWORKS, QUICK_ROUNDS) if quick else (NETWORKS, ROUNDS)
    quiet = Quiet(fastnn.get_num_threads(), QUICK_PATIENCE if quick else PATIENCE)
    found = contenders(count)
    check(found, count)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in found}
    for _ in range(rounds):
        quiet()
        for contender in found:
            part = count // contender.share
            work = contender.prepare(part)
            begun = time.perf_counter()
            work()
            seconds[contender.name].append((time.perf_counter() - begun) / part)
    print(f"{count} networks, {fastnn.get_num_threads()} threads: microseconds a network, "
          "times fit_many (least), ! where missed")  # fmt: skip
    outcomes = outcomes_of(seconds)
    for outcome in outcomes:
        print(line(outcome))
    print(", ".join(f"{name} {number:g}" for name, number in quiet.report().items()))
    return outcomes


def outcomes_of(seconds: dict[str, list[float]]) -> list[Outcome]:
    """Medians beside their targets, from the seconds a network of each round."""
    ours, outcomes = seconds["fit_many"], []
    for name, theirs in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        target = TARGETS.get(name.partition(",")[0], 0.0)
        outcomes.append(Outcome(name, statistics.median(theirs), ratio, target, ratio >= target))
    return outcomes


def line(outcome: Outcome) -> str:
    """An outcome in words."""
    against = f" ({outcome.target:.1f}) {' ' if outcome.met else '!'}" if outcome.target else ""
    return f"{outcome.title:<24}{outcome.seconds * 1e6:10.0f}{outcome.ratio:8.2f}{against}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer networks and rounds")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "many.json", help="file (%(default)s)"
    )
    options = parser.parse_args(arguments)
    outcomes = measure(options.quick)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "threads": fastnn.get_num_threads(),
        "versions": versions(("numpy", "numba", "scikit-learn", "joblib", "jax", "optax")),
        "outcomes": [outcome._asdict() for outcome in outcomes],
    }
    write_json(options.out, results)


if __name__ == "__main__":
    main()
