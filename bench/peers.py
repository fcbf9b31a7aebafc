"""fastnn beside its peers: whole training steps over batch sizes, and predictions of one row.

``python -m bench.peers`` (needs the ``bench`` extra) runs every library in a process of its own, in
turn and alone, after it has checked that all compute the same function; prints tables, and writes
them with pictures to ``bench/results/``. Each library is given one thread and all of them, and is
judged by the better. A round waits until the machine has all its cores at hand, up to
``--patience`` seconds in all. NumPy runs twice: as its BLAS configures itself, and, on a CPU with
AVX-512, with the kernels of that. onnxruntime only predicts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import fastnn

from . import targets
from .cases import BATCHES
from .pictures import draw
from .processes import (
    STEPS,
    Contender,
    Rounds,
    best,
    contenders,
    prepare_prediction,
    prepare_training,
    running,
    time_in_turn,
)
from .quiet import Quiet
from .roofline import Roofline, measure
from .tables import tables
from .test_training import training_step


class Network(NamedTuple):
    """A network to train, and with which batches."""

    layers: str
    optimizer: str
    batches: tuple[int, ...] = BATCHES

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden units and outputs."""
        return tuple(map(int, self.layers.split("-")))

    def __str__(self) -> str:
        return f"{self.layers} {self.optimizer}"


NETWORKS = (
    Network("784-128-10", "SGD"),
    Network("784-128-10", "Adam"),
    Network("784-512-512-10", "Adam"),
    Network("8-64-64-2", "Adam"),
    Network("37-101-53-7", "Adam", tuple(sorted({*BATCHES, 13}))),
)
LIBRARIES = ("fastnn", "jax", "torch", "sklearn", "numpy", "onnxruntime")
RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "numba", "jax", "optax", "torch", "scikit-learn", "onnxruntime")


def measure_all(
    names: Sequence[str],
    batches: Sequence[int],
    rounds: int,
    quiet: Quiet,
    networks: Sequence[Network] = NETWORKS,
) -> dict[str, Any]:
    """Everything that is timed, in seconds, a number a round, by library and number of threads."""
    training: dict[str, dict[str, Rounds]] = {}
    with running(contenders(names)) as runners:
        trainers = [runner for runner in runners if runner.trains]
        for network in networks:
            for batch in network.batches:
                if batch in batches:
                    found = measure_training(network, batch, trainers, rounds, quiet)
                    training.setdefault(str(network), {})[str(batch)] = found
        prediction = {
            layers: measure_prediction(layers, runners, rounds, quiet)
            for layers in targets.PREDICTION
        }
        alone = {
            title: measure_one_thread(title, runners, rounds, quiet) for title in targets.ONE_THREAD
        }
    return {"training": training, "prediction": prediction, "one thread": alone}


def measure_training(
    network: Network, batch: int, trainers: Sequence[Contender], rounds: int, quiet: Quiet
) -> Rounds:
    """Steps of a network."""
    taking = [runner for runner in trainers if runner.takes(network.widths)]
    prepare_training(taking, network.widths, network.optimizer, batch, STEPS[batch])
    found = time_in_turn(taking, "train", rounds, quiet)
    medians = {name: statistics.median(best(of)) * 1e6 for name, of in found.items()}
    parts = [f"{name} {microseconds:.1f}" for name, microseconds in medians.items()]
    print(f"{network} {batch}: {', '.join(parts)} us", file=sys.stderr)
    return found


def measure_prediction(
    layers: str, runners: Sequence[Contender], rounds: int, quiet: Quiet
) -> Rounds:
    """Predictions of one row."""
    widths = Network(layers, "").widths
    taking = [runner for runner in runners if runner.takes(widths)]
    prepare_prediction(taking, widths)
    return time_in_turn(taking, "predict", rounds, quiet)


def measure_one_thread(
    title: str, runners: Sequence[Contender], rounds: int, quiet: Quiet
) -> list[float]:
    """Steps of one row by one thread of ours."""
    network = Network(*title.split())
    ours = [runner for runner in runners if (runner.library, runner.threads) == ("fastnn", 1)]
    prepare_training(ours, network.widths, network.optimizer, 1, STEPS[1])
    return time_in_turn(ours, "train", rounds, quiet)["fastnn"]["1"]


def percent_of_roofline(
    training: dict[str, dict[str, Rounds]], roofline: Roofline
) -> dict[str, dict[str, dict[str, Any]]]:
    """Ours by network and batch: the least that a step can take here, over what it took."""
    threads = max(roofline.peak["float32"])
    percents: dict[str, dict[str, dict[str, Any]]] = {}
    for title, by_batch in training.items():
        network = Network(*title.split())
        for batch, found in by_batch.items():
            case = training_step(
                fastnn.get_backend(), network.widths, network.optimizer, int(batch)
            )
            bound, least = roofline.least_seconds(case, threads)
            seconds = best(found["fastnn"])
            percents.setdefault(title, {})[batch] = {
                "median": 100 * least / statistics.median(seconds),
                "best": 100 * least / min(seconds),
                "bound by": bound,
            }
    return percents


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    every_batch = sorted(STEPS)
    parser.add_argument("--libraries", nargs="+", default=LIBRARIES, help="(%(default)s)")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too (minutes more)")
    parser.add_argument(
        "--batches", nargs="+", type=int, default=every_batch, choices=every_batch,
        metavar="BATCH", help="(%(default)s)",
    )  # fmt: skip
    titles = list(map(str, NETWORKS))
    parser.add_argument(
        "--networks", nargs="+", default=titles, choices=titles, metavar="NETWORK",
        help="again; of the others the figures in the file are kept (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (%(default)s)")
    parser.add_argument(
        "--patience", type=float, default=600.0, help="seconds to wait for cores (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (%(default)s)")
    options = parser.parse_args(arguments)
    # whoever ends this means the libraries' processes too, which sleep until they are asked
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = [*options.libraries, *(["torch compiled"] if options.compiled else [])]
    quiet = Quiet(fastnn.get_num_threads(), options.patience)
    networks = [network for network in NETWORKS if str(network) in options.networks]
    results = measure_all(names, options.batches, options.rounds, quiet, networks)
    file = options.out / "peers.json"
    if len(networks) < len(NETWORKS):
        results["training"] = json.loads(file.read_text())["training"] | results["training"]
    roofline = measure()
    results = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": roofline.description,
        "threads": fastnn.get_num_threads(),
        "versions": versions(_PACKAGES),
        "rounds": options.rounds,
        **quiet.report(),
        **results,
        "percent of roofline": percent_of_roofline(results["training"], roofline),
    }
    outcomes = targets.outcomes(results)
    results["targets"] = [outcome._asdict() for outcome in outcomes]
    options.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out)
    print(tables(results, outcomes))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python, of fastnn and of those packages that are installed."""
    found = {"python": sys.version.split()[0], "fastnn": fastnn.__version__}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
