"""fastnn beside its peers: whole training steps over batch sizes, and predictions of one row.

``python -m bench.peers`` (needs the ``bench`` extra) runs every library in a process of its own, in
turn and alone, after it has checked that all train the same function; prints tables, and writes
them with pictures to ``bench/results/``. Each library is given one thread and all of them, and is
judged by the better. NumPy runs twice: as its BLAS configures itself, and, on a CPU with AVX-512,
with the kernels of that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import fastnn
from fastnn.kernels.numba_backend import machine

from .cases import BATCHES
from .roofline import Roofline, measure
from .test_training import training_step

NETWORKS = (
    ("784-128-10", "SGD"),
    ("784-128-10", "Adam"),
    ("784-512-512-10", "Adam"),
    ("8-64-64-2", "Adam"),
)
STEPS = {1: 300, 8: 100, 32: 50, 128: 16, 512: 6, 2048: 3, 8192: 2}
"""Steps of an epoch by batch size."""
PREDICTED = ("8-64-64-2", "784-128-10")
CHECKED_STEPS = 5
"""Steps whose mean loss is compared before anything is timed: over many, roundings drift apart."""
SAME_LOSS = 2e-3
"""How far those losses may lie apart, relatively; scikit-learn's Adam adds eps elsewhere."""
RESULTS = Path(__file__).parent / "results"
_NO_BINARY = "sklearn"
"""Trains one output for two classes, which is another function."""


@dataclass
class Contender:
    """A library with so many threads, in a process of its own."""

    library: str
    name: str
    threads: int
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))[: self.threads]
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = dict.fromkeys(counts, str(self.threads)) | self.environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.contenders", self.library, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            text=True,
        )

    def ask(self, request: Any) -> float:
        """What the process answers; it sleeps before and after.

        Idle pools of threads would go on looking for work, on cores that are another's by then.
        """
        assert self._process.stdin and self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        self._process.send_signal(signal.SIGSTOP)
        if not answer:
            raise RuntimeError(
                f"{self.name} with {self.threads} threads ended; see its error above"
            )
        return float(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()

    def takes(self, widths: Sequence[int]) -> bool:
        """Whether the library trains this very network."""
        return not (self.library == _NO_BINARY and widths[-1] == 2)


def contenders(names: Sequence[str]) -> Iterator[Contender]:
    """Each library with one thread and with all."""
    everything = len(os.sched_getaffinity(0))
    for name in names:
        for threads in sorted({1, everything}):
            yield Contender(name, name, threads)
            if name == "numpy" and machine.target().vector_bits == 512:
                best = {"OPENBLAS_CORETYPE": "SkylakeX"}
                yield Contender(name, "numpy, AVX-512", threads, best)


# ---- measuring ----


def measure_training(
    network: str, optimizer: str, batch: int, runners: Sequence[Contender], rounds: int
) -> dict[str, list[float]]:
    """Seconds of a step by library, a number a round, of its better count of threads."""
    widths = [int(width) for width in network.split("-")]
    runners = [runner for runner in runners if runner.takes(widths)]
    few = {"prepare": [widths, optimizer, batch, min(CHECKED_STEPS, STEPS[batch])]}
    check_losses({(r.name, r.threads): r.ask(few) for r in runners})
    for runner in runners:
        runner.ask({"prepare": [widths, optimizer, batch, STEPS[batch]]})
    return _rounds(runners, "train", rounds)


def check_losses(losses: dict[tuple[str, int], float]) -> None:
    """Raise where two contenders did not train the same function."""
    middle = statistics.median(losses.values())
    for (name, threads), loss in losses.items():
        if not abs(loss - middle) <= SAME_LOSS * middle:
            raise AssertionError(
                f"{name} with {threads} threads lost {loss:.6g} where the others lost {middle:.6g}"
            )


def _rounds(runners: Sequence[Contender], request: str, rounds: int) -> dict[str, list[float]]:
    """Ask all in turn, ``rounds`` times; of each library, the numbers of its better threads."""
    seconds: dict[str, dict[int, list[float]]] = {}
    for _ in range(rounds):
        for runner in runners:
            of_library = seconds.setdefault(runner.name, {})
            of_library.setdefault(runner.threads, []).append(runner.ask(request))
    return {name: min(of.values(), key=statistics.median) for name, of in seconds.items()}


def measure_all(names: Sequence[str], batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Everything: training by network, optimizer and batch; predictions by network."""
    runners = list(contenders(names))
    training: dict[str, dict[str, Any]] = {}
    prediction: dict[str, Any] = {}
    try:
        for network, optimizer in NETWORKS:
            of_network = training.setdefault(f"{network} {optimizer}", {})
            for batch in batches:
                found = measure_training(network, optimizer, batch, runners, rounds)
                of_network[str(batch)] = found
                print(_line(f"{network} {optimizer} {batch}", found), file=sys.stderr)
        for network in PREDICTED:
            widths = [int(width) for width in network.split("-")]
            taking = [runner for runner in runners if runner.takes(widths)]
            for runner in taking:
                runner.ask({"prepare": [widths, "SGD", 1, 2]})
            prediction[network] = _rounds(taking, "predict", rounds)
    finally:
        for runner in runners:
            runner.close()
    return {"training": training, "prediction": prediction}


def _line(title: str, seconds: dict[str, list[float]]) -> str:
    parts = [f"{name} {statistics.median(of) * 1e6:.1f}" for name, of in seconds.items()]
    return f"{title}: {', '.join(parts)} us"


# ---- showing ----


def tables(results: dict[str, Any]) -> str:
    """The results in words: microseconds (median, minimum), and ratios of medians."""
    lines = []
    for title, by_batch in results["training"].items():
        lines += ["", f"{title}: microseconds a step, median (minimum); times that of fastnn"]
        names = list(next(iter(by_batch.values())))
        lines.append(_row("batch", names))
        for batch, seconds in by_batch.items():
            lines.append(_row(batch, [_cell(seconds, name) for name in names]))
    lines += ["", "prediction of one row: microseconds a call"]
    for network, seconds in results["prediction"].items():
        lines.append(_row("", list(seconds)))
        lines.append(_row(network, [_cell(seconds, name) for name in seconds]))
    return "\n".join(lines)


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:<12}" + "".join(f"{cell:>32}" for cell in cells)


def _cell(seconds: dict[str, list[float]], name: str) -> str:
    ours, theirs = statistics.median(seconds["fastnn"]), statistics.median(seconds[name])
    return f"{theirs * 1e6:.1f} ({min(seconds[name]) * 1e6:.1f})  {theirs / ours:5.2f}x"


def percent_of_roofline(results: dict[str, Any], roofline: Roofline) -> dict[str, dict[str, float]]:
    """Ours by network and batch: the least that a step can take here, over what it took."""
    threads = max(roofline.peak["float32"])
    percents: dict[str, dict[str, float]] = {}
    for title, by_batch in results["training"].items():
        network, optimizer = title.split()
        widths = tuple(int(width) for width in network.split("-"))
        for batch, seconds in by_batch.items():
            case = training_step(fastnn.get_backend(), widths, optimizer, int(batch))
            _, least = roofline.least_seconds(case, threads)
            taken = statistics.median(seconds["fastnn"])
            percents.setdefault(title, {})[batch] = 100 * least / taken
    return percents


def draw(results: dict[str, Any], folder: Path) -> None:
    """Time a sample against batch size for all; percent of the roofline for ours."""
    from fastnn.optional import require

    pyplot = require("matplotlib.pyplot", extra="plot")
    pyplot.switch_backend("Agg")
    names = next(iter(next(iter(results["training"].values())).values()))
    colours = {name: f"C{number}" for number, name in enumerate(names)}
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), sharex=True, layout="constrained")
    for axis, (title, by_batch) in zip(axes.flat, results["training"].items(), strict=True):
        batches = [int(batch) for batch in by_batch]
        for name in next(iter(by_batch.values())):
            samples = [
                statistics.median(seconds[name]) / batch * 1e6
                for batch, seconds in zip(batches, by_batch.values(), strict=True)
            ]
            style = {"lw": 3, "zorder": 3} if name == "fastnn" else {"lw": 1.2}
            axis.plot(batches, samples, "o-", label=name, color=colours[name], **style)
        axis.set(xscale="log", yscale="log", title=title, xticks=batches)
        axis.set_xticklabels(batches)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("µs a sample (training)")
    for axis in axes[1]:
        axis.set_xlabel("batch size")
    axes[0, 0].legend()
    figure.suptitle(f"One training step: {results['machine']['CPU']}, {results['threads']} threads")
    figure.savefig(folder / "time_per_sample.png", dpi=120)

    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for title, percents in results["percent of roofline"].items():
        axis.plot([int(batch) for batch in percents], list(percents.values()), "o-", label=title)
    axis.set(xscale="log", xlabel="batch size", ylabel="percent of the roofline", ylim=(0, 105))
    axis.set_xticks(batches)
    axis.set_xticklabels(batches)
    axis.grid(alpha=0.3)
    axis.legend()
    axis.set_title(f"fastnn: {results['machine']['CPU']}, {results['threads']} threads")
    figure.savefig(folder / "percent_of_roofline.png", dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    libraries = ["fastnn", "jax", "torch", "sklearn", "numpy"]
    parser.add_argument("--libraries", nargs="+", default=libraries, help="(%(default)s)")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too (minutes more)")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, choices=BATCHES)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (%(default)s)")
    options = parser.parse_args(arguments)
    names = [*options.libraries, *(["torch compiled"] if options.compiled else [])]
    results = measure_all(names, options.batches, options.rounds)
    roofline = measure()
    versions = {
        name: metadata.version(name)
        for name in ("numpy", "numba", "jax", "torch", "scikit-learn")
        if _installed(name)
    }
    results |= {
        "machine": roofline.description,
        "threads": fastnn.get_num_threads(),
        "versions": versions,
        "percent of roofline": percent_of_roofline(results, roofline),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out)
    print(tables(results))


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
