"""Everything that needs a CUDA device, measured in minutes: ``python -m bench.gpu``.

Each part runs in a process of its own and verifies before it times: what a device can do
(``machine``), every optimizer on 50 million parameters (``optimizers``), products beside cuBLAS
(``products``), products with rounded operands (``precision``), and steps of networks beside PyTorch
and JAX, float32 products in all, and ours on the CPU (``networks``). Figures are kept as they come,
in ``bench/results/gpu.json``; what failed, was missing or took too long is named there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fastnn
from fastnn import doctor

from . import gpu_machine, gpu_networks, gpu_optimizers, gpu_products, gpu_targets, gpu_timing
from .files import write_json
from .gpu_timing import FAILURES, Figure
from .peers import RESULTS, versions
from .pictures import draw_device
from .processes import CHECKOUT
from .tables import device_tables

Measure = Callable[[int, bool], Iterator[Figure]]
"""A part's figures, from a number of rounds and whether the part is to be quick."""

_ROUNDS, _QUICK_ROUNDS = 7, 3
_GRACE_SECONDS = 20.0
"""A part that is told to end has so long to end its own processes."""
_PACKAGES = (
    "numpy", "numba", "cupy-cuda13x", "cupy-cuda12x", "torch", "jax", "optax",
    "jax-cuda13-plugin", "jax-cuda12-plugin",
)  # fmt: skip
_SMI = ("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv")


def describe(rounds: int, quick: bool) -> Iterator[Figure]:
    """The device, the host and the software."""
    facts = dict(doctor.facts())
    name = gpu_timing.device_name(gpu_timing.device())
    device = {"name": name, "GPU": facts["GPU"], "CUDA": facts["CUDA"]}
    with contextlib.suppress(OSError):
        device["nvidia-smi"] = subprocess.run(_SMI, capture_output=True, text=True).stdout.strip()
    yield ("device",), device
    yield ("host",), {"CPU": facts["CPU"], "threads": fastnn.get_num_threads()}
    yield ("versions",), versions(_PACKAGES)


def _on_device(measure: Callable[..., Iterator[Figure]]) -> Measure:
    return lambda rounds, quick: measure(gpu_timing.device(), rounds, quick)


_DESCRIPTION = "description"
PARTS: dict[str, tuple[Measure, float]] = {
    _DESCRIPTION: (describe, 30.0),
    "machine": (_on_device(gpu_machine.measure), 40.0),
    "optimizers": (_on_device(gpu_optimizers.measure), 60.0),
    "products": (_on_device(gpu_products.measure), 60.0),
    "precision": (gpu_networks.measure_precision, 40.0),
    "networks": (gpu_networks.measure, 240.0),
}
"""What gives each part's figures, and the most seconds that it may take."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure part after part, write, draw and print."""
    options = _parser().parse_args(arguments)
    # whoever ends this means the processes that it has started too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.part:
        _answer(options.part, options.rounds, options.quick)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "gpu.json"
    ask = functools.partial(figures_of, rounds=options.rounds, quick=options.quick)
    results: dict[str, Any] = {FAILURES: {}}
    for figure in ask(_DESCRIPTION):
        put(results, *figure)
    if "device" not in results:
        sys.exit("\n".join(results[FAILURES].values()))
    if options.only:
        results = kept(file, results)
    results["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for part in options.only or list(PARTS)[1:]:
        for figure in ask(part):
            put(results, *figure)
            write_json(file, results)
    conclude(results)
    write_json(file, results)
    print(device_tables(results, gpu_targets.outcomes(results)))
    if results.get("training"):
        draw_device(results, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer figures and rounds")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS)[1:], metavar="NAME",
        help="these parts; of the others the figures in the file are kept, if of this device",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help=f"of each figure ({_ROUNDS}; {_QUICK_ROUNDS})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder (%(default)s)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser


# ---- results ----


def put(results: dict[str, Any], where: Sequence[str], what: Any) -> None:
    """Add a figure at its place."""
    *path, last = where
    for name in path:
        results = results.setdefault(name, {})
    results[last] = what


def kept(file: Path, new: dict[str, Any]) -> dict[str, Any]:
    """The figures of a file with the new ones in their place, if they are of the same device."""
    try:
        old = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return new
    return old | new if old["device"]["name"] == new["device"]["name"] else new


def conclude(results: dict[str, Any]) -> None:
    """Add what follows from the figures: where the device pays, and the targets."""
    results["pays from"] = {
        title: gpu_targets.pays_from(by_batch)
        for title, by_batch in results.get("training", {}).items()
    }
    results["targets"] = [outcome._asdict() for outcome in gpu_targets.outcomes(results)]


# ---- a process for each part ----


def figures_of(part: str, rounds: int | None, quick: bool) -> Iterator[Figure]:
    """The figures of a part as they come, and why it ended early if it did."""
    print(f"{part} ...", file=sys.stderr)
    command = [sys.executable, "-m", "bench.gpu", "--part", part]
    command += ["--quick"] * quick + (["--rounds", str(rounds)] if rounds else [])
    most, begun = PARTS[part][1], time.monotonic()
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    limit = threading.Timer(most, _stop, [process])
    limit.start()
    try:
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                where, what = json.loads(line)
                yield tuple(where), what
        status = process.wait()
    finally:
        limit.cancel()
        if process.poll() != 0:
            _stop(process)
    if status != 0:
        is_late = time.monotonic() - begun >= most
        reason = f"took more than {most:.0f} s" if is_late else f"ended with status {status}"
        yield (FAILURES, part), reason


def _stop(process: subprocess.Popen[str]) -> None:
    """Tell a part to end; end what is left of it and of the processes that it has started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # some may sleep until they are asked, for ever


def _answer(part: str, rounds: int | None, quick: bool) -> None:
    """The figures of a part on standard output, a line of JSON each."""
    answers, sys.stdout = sys.stdout, sys.stderr
    measure, _ = PARTS[part]
    figures = measure(rounds or (_QUICK_ROUNDS if quick else _ROUNDS), quick)
    try:
        for figure in figures:
            print(json.dumps(figure), file=answers, flush=True)
    except Exception as error:
        if part != _DESCRIPTION:  # without a device, what is missing says all
            traceback.print_exc()
        print(json.dumps(gpu_timing.failure(error, part)), file=answers, flush=True)


if __name__ == "__main__":
    main()
