"""Libraries in processes of their own, asked in turn: while one works, the others sleep."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastnn.kernels.numba_backend import machine

from .contenders import PREDICTS_ONLY

CHECKOUT = Path(__file__).parent.parent
STEPS = {1: 300, 8: 100, 13: 80, 32: 50, 128: 16, 512: 6, 2048: 3, 8192: 2}
"""Steps of an epoch by batch size."""
CHECKED_STEPS = 5
"""Steps whose mean loss is compared before anything is timed: over many, roundings drift apart."""
SAME_LOSS = 2e-3
"""How far those losses may lie apart, relatively; scikit-learn's Adam adds eps elsewhere."""
LEAST_SECONDS = 0.03
"""A measurement repeats its work until it has taken so long."""
_NO_BINARY = "sklearn"
"""Trains one output for two classes, which is another function."""
_NEEDS = {
    "jax": ("jax", "optax"),
    "torch": ("torch",),
    "torch compiled": ("torch",),
    "sklearn": ("sklearn",),
    "onnxruntime": ("onnxruntime", "onnx"),
}

Rounds = dict[str, dict[str, list[float]]]
"""Seconds by library, then by number of threads, a number a round."""


@dataclass
class Contender:
    """A library with so many threads, on as many cores unless others are given."""

    library: str
    name: str
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: Sequence[int] = ()

    def __post_init__(self) -> None:
        cores = list(self.cores) or sorted(os.sched_getaffinity(0))[: self.threads]
        counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = dict.fromkeys(counts, str(self.threads)) | dict(self.environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.contenders", self.library, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            cwd=CHECKOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            text=True,
        )

    def ask(self, request: str, *arguments: Any) -> float:
        """What the process answers; it sleeps before and after.

        Idle pools of threads would go on looking for work, on cores that are another's by then.
        """
        assert self._process.stdin and self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        print(json.dumps([request, *arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "see its error above"}
        if isinstance(answer, dict):
            raise RuntimeError(f"{self.name} with {self.threads} threads ended; {answer['error']}")
        self._process.send_signal(signal.SIGSTOP)
        return float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate()

    @property
    def trains(self) -> bool:
        """Whether the library does more than predict."""
        return self.library not in PREDICTS_ONLY

    def takes(self, widths: Sequence[int]) -> bool:
        """Whether the library has this very network."""
        return not (self.library == _NO_BINARY and widths[-1] == 2)


def is_installed(library: str) -> bool:
    """Whether everything that a contender imports is there."""
    return all(importlib.util.find_spec(module) for module in _NEEDS.get(library, ()))


def contenders(names: Iterable[str]) -> Iterator[Contender]:
    """Each library with one thread and with all."""
    everything = len(os.sched_getaffinity(0))
    for name in names:
        for threads in sorted({1, everything}):
            # a pool of compilers would outlive the wait for them
            environment = {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if "compiled" in name else {}
            yield Contender(name, name, threads, environment)
            if name == "numpy" and machine.target().vector_bits == 512:
                best = {"OPENBLAS_CORETYPE": "SkylakeX"}
                yield Contender(name, "numpy, AVX-512", threads, best)


@contextlib.contextmanager
def running(makers: Iterable[Contender]) -> Iterator[list[Contender]]:
    """Contenders inside a ``with`` block, which ends them."""
    runners: list[Contender] = []
    try:
        runners.extend(makers)
        yield runners
    finally:
        for runner in runners:
            runner.close()


def prepare_training(
    runners: Sequence[Contender], widths: Sequence[int], optimizer: str, batch: int, steps: int
) -> None:
    """Get epochs ready, after a check that all train the same function."""
    losses = {}
    for runner in runners:
        runner.ask("prepare", [widths, optimizer, batch, min(CHECKED_STEPS, steps)])
        losses[runner.name, runner.threads] = runner.ask("learn")
    check_losses(losses)
    for runner in runners:
        runner.ask("prepare", [widths, optimizer, batch, steps])
        runner.ask("learn")


def prepare_prediction(runners: Sequence[Contender], widths: Sequence[int]) -> None:
    """Get predictions of one row ready, after a check that all predict the same."""
    losses = {}
    for runner in runners:
        runner.ask("prepare", [widths, "SGD", 1, 1])
        losses[runner.name, runner.threads] = runner.ask("judge")
    check_losses(losses)


def check_losses(losses: Mapping[tuple[str, int], float]) -> None:
    """Raise where two contenders did not compute the same function."""
    middle = statistics.median(losses.values())
    for (name, threads), loss in losses.items():
        if not abs(loss - middle) <= SAME_LOSS * middle:
            raise AssertionError(
                f"{name} with {threads} threads lost {loss:.6g} where the others lost {middle:.6g}"
            )


def time_in_turn(
    runners: Sequence[Contender],
    request: str,
    rounds: int,
    before_round: Callable[[], None] = lambda: None,
) -> Rounds:
    """Ask all in turn for the seconds of a request, ``rounds`` times."""
    seconds: Rounds = {}
    for _ in range(rounds):
        before_round()
        for runner in runners:
            by_threads = seconds.setdefault(runner.name, {})
            by_threads.setdefault(str(runner.threads), []).append(
                runner.ask(request, LEAST_SECONDS)
            )
    return seconds


def best(by_threads: Mapping[str, list[float]]) -> list[float]:
    """The numbers of the count of threads whose median is the least."""
    return min(by_threads.values(), key=statistics.median)
