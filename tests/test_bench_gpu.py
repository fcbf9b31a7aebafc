"""The benchmarks of a CUDA device: verified, kept as they come, judged; without a device."""

from __future__ import annotations

import functools
import json
import math
import os
import select
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

import fastnn
from fastnn.kernels.cupy_backend import products

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import (
    gpu,
    gpu_machine,
    gpu_networks,
    gpu_optimizers,
    gpu_products,
    gpu_targets,
    gpu_timing,
    pictures,
    tables,
)
from bench.cases import BATCHES
from bench.files import write_json
from bench.peers import Network

# Results


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "results.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_figures_are_put_in_their_place():
    results = {"a": {"b": 1}}
    gpu.put(results, ("a", "c", "d"), [2.0])
    gpu.put(results, ("e",), 3)
    assert results == {"a": {"b": 1, "c": {"d": [2.0]}}, "e": 3}


def test_figures_of_other_parts_are_kept_if_of_the_same_device(tmp_path):
    file = tmp_path / "gpu.json"
    new = {"device": {"name": "one"}, "failures": {}}
    assert gpu.kept(file, new) == new
    write_json(file, {"device": {"name": "one", "GPU": "5 GB free"}, "machine": {"a": 1}})
    assert gpu.kept(file, new) == new | {"machine": {"a": 1}}
    write_json(file, {"device": {"name": "two"}, "machine": {"a": 1}})
    assert gpu.kept(file, new) == new


def test_a_failure_is_named():
    def fails():
        raise ValueError("no such thing")

    assert gpu_timing.attempt(lambda: 1.0, "a", "b") == (("a", "b"), 1.0)
    assert gpu_timing.attempt(fails, "a", "b") == (("failures", "a b"), "ValueError: no such thing")


def test_works_take_turns():
    done = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    found = gpu_timing.in_turn(works, lambda: done.append("wait"), rounds=3, least=0.0)
    warming = ["a", "wait"] * 2 + ["b", "wait"] * 2
    assert done == warming + ["a", "wait", "b", "wait"] * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}
    assert all(0 <= each < 1 for seconds in found.values() for each in seconds)


# Parts


def part_that(monkeypatch, tmp_path, code):
    """The figures of a part whose process does this."""
    script = tmp_path / "part"
    script.write_text(f"#!{sys.executable}\n{code}")
    script.chmod(0o700)
    monkeypatch.setattr(gpu.sys, "executable", str(script))
    return gpu.figures_of("machine", None, quick=True)


def test_figures_come_one_by_one(monkeypatch, tmp_path):
    figures = part_that(
        monkeypatch, tmp_path,
        "import sys\nassert sys.argv[1:] == ['-m', 'bench.gpu', '--part', 'machine', '--quick']\n"
        """print('[["a", "b"], 1.5]', flush=True)""",
    )  # fmt: skip
    assert list(figures) == [(("a", "b"), 1.5)]


def test_what_a_part_had_is_kept_when_it_breaks(monkeypatch, tmp_path):
    code = """print('[["a"], 1]', flush=True)\nraise SystemExit(3)"""
    figures = part_that(monkeypatch, tmp_path, code)
    assert list(figures) == [(("a",), 1), (("failures", "machine"), "ended with status 3")]


def test_a_part_ends_with_its_time_and_so_do_its_processes(monkeypatch, tmp_path):
    code = (
        "import subprocess, sys, time, signal\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "child.send_signal(signal.SIGSTOP)\n"
        "print('[[\"child\"], %d]' % child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    measure, _ = gpu.PARTS["machine"]
    monkeypatch.setitem(gpu.PARTS, "machine", (measure, 0.5))
    (where, child), failure = part_that(monkeypatch, tmp_path, code)
    assert where == ("child",)
    assert failure == (("failures", "machine"), "took more than 0 s")
    assert is_gone(child)


def is_gone(process):
    try:
        end = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    with os.fdopen(end):
        return bool(select.select([end], [], [], 10.0)[0])


def test_an_error_inside_a_part_is_a_figure(monkeypatch, capfd):
    def measure(rounds, quick):
        assert (rounds, quick) == (3, True)
        yield ("a",), 1
        raise RuntimeError("no more")

    monkeypatch.setitem(gpu.PARTS, "machine", (measure, 10.0))
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # it is put back
    gpu._answer("machine", None, quick=True)
    out, err = capfd.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        [["a"], 1],
        [["failures", "machine"], "RuntimeError: no more"],
    ]
    assert "no more" in err


def test_everything_is_measured_written_and_drawn(monkeypatch, tmp_path, capsys):
    def figures(part, rounds, quick):
        if part == "description":
            yield ("device",), RESULTS["device"]
            yield ("host",), RESULTS["host"]
        elif part == "networks":
            yield ("training",), RESULTS["training"]
        elif part == "machine":
            yield ("failures", "machine"), "none of it"

    monkeypatch.setattr(gpu, "figures_of", figures)
    gpu.main(["--out", str(tmp_path)])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["training"] == RESULTS["training"]
    assert written["failures"] == {"machine": "none of it"}
    assert written["pays from"] == RESULTS["pays from"]
    assert {target["what"] for target in written["targets"]} == set(RESULTS["training"])
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    assert "FAILED machine: none of it" in capsys.readouterr().out


def test_without_a_device_nothing_is_written(monkeypatch, tmp_path):
    missing = iter([(("failures", "description"), "RuntimeError: no driver")])
    monkeypatch.setattr(gpu, "figures_of", lambda *arguments, **keywords: missing)
    with pytest.raises(SystemExit, match="no driver"):
        gpu.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


# Networks


@dataclass
class Fake:
    """A contender that answers at once."""

    name: str
    threads: int = 1
    loss: float = math.nan
    dies_at: str = ""
    asked: list = field(default_factory=list, init=False)
    closed: bool = field(default=False, init=False)

    def ask(self, request, *arguments):
        self.asked.append(request)
        if request == self.dies_at:
            raise RuntimeError(f"{self.name} ended")
        return self.loss if request == "learn" else 1e-6 * self.threads

    def close(self):
        self.closed = True


def right_loss(network, batch):
    steps = min(gpu_networks.CHECKED_STEPS, gpu_networks.steps_of(batch))
    task = gpu_networks.contenders.Task(network.widths, network.optimizer, batch, steps)
    return gpu_networks.contenders.numpy(task, 1).epoch()()


def test_only_what_is_right_is_timed_and_the_others_are_named():
    network = Network("5-7-3", "Adam")
    loss = right_loss(network, 8)
    good, wrong, nan = Fake("fastnn", 2, loss), Fake("jax", 1, loss * 1.01), Fake("torch")
    rounded = Fake("bf16", 1, loss * 1.01)
    late = Fake("torch graph", 1, loss, dies_at="train")
    broken = Fake("torch compiled", 1, loss, dies_at="prepare")
    runners = [good, wrong, nan, rounded, late, broken]
    cell = gpu_networks.measure_cell(runners, network, 8, rounds=3)
    assert cell.seconds == {"fastnn": {"2": [2e-6] * 3}, "bf16": {"1": [1e-6] * 3}}
    assert cell.errors == pytest.approx({"fastnn": 0, "bf16": 0.01, "torch graph": 0}, abs=1e-9)
    assert set(cell.failures) == {"jax", "torch", "torch graph", "torch compiled"}
    assert "NumPy's is" in cell.failures["jax"]
    assert cell.failures["torch graph"] == "torch graph ended"
    assert "train" not in wrong.asked + nan.asked
    assert late.asked.count("train") == 1
    assert runners[0] is good
    assert runners[3] is rounded
    for place, old in ((1, wrong), (2, nan), (4, late), (5, broken)):
        assert old.closed
        assert runners[place] is not old
        assert runners[place].name == old.name


def test_every_network_batch_and_failure_comes(monkeypatch):
    made = []

    def contender(library, name, threads, environment=None):
        made.append(Fake(name, threads, dies_at="prepare"))
        return made[-1]

    monkeypatch.setattr(gpu_networks, "Contender", contender)
    monkeypatch.setattr(gpu_networks, "is_installed", lambda library: library != "jax")
    monkeypatch.setattr(gpu_networks.contenders, "numpy", lambda task, threads: Known())
    figures = dict(gpu_networks.measure(2, quick=False))
    for network in gpu_networks.NETWORKS:
        for batch in BATCHES:
            assert figures["training", str(network), str(batch)] == {}
            for name in (*gpu_networks.LIBRARIES.keys() - {"jax"}, gpu_networks.CPU):
                assert figures["failures", f"{network} {batch} {name}"] == f"{name} ended"
    assert figures["failures", "networks jax"] == "not installed"
    rounded = dict(gpu_networks.measure_precision(2, quick=True))
    assert rounded["precision", "784-512-512-10 Adam", "8192", "seconds"] == {}
    assert all(each.closed for each in made)


class Known:
    """A truth for tests that need none."""

    def epoch(self):
        return lambda: 1.0


def test_what_is_on_the_device_is_a_contender():
    libraries = {*gpu_networks.LIBRARIES.values(), *gpu_networks.PRECISIONS.values()}
    assert libraries <= set(gpu_networks.contenders.CONTENDERS)
    assert {*gpu_networks.LIBRARIES, gpu_networks.CPU} <= set(pictures._COLOURS)


# Targets


def cell(ours, cpu, **peers):
    found = {"fastnn": {"16": [ours]}, gpu_networks.CPU: {"1": [cpu * 2], "16": [cpu]}}
    return found | {name.replace("_", " "): {"16": [each]} for name, each in peers.items()}


CELL = cell(8e-6, 9e-6, jax=20e-6, torch=90e-6, torch_graph=15e-6)
RESULTS = {
    "device": {"name": "a made-up device"},
    "host": {"CPU": "a slow one"},
    "failures": {},
    "training": {
        str(network): {str(batch): CELL for batch in BATCHES} for network in gpu_networks.NETWORKS
    },
    "pays from": {str(network): 1 for network in gpu_networks.NETWORKS},
    "optimizers": {
        "Adam": {
            "bytes": 1000,
            "how": {"torch": "fused"},
            "seconds": {"fastnn": [1.0, 1.25], "torch": [1.0], "copy": [1e-3]},
        },
        "SGD": {"bytes": 1000, "how": {}, "seconds": {"fastnn": [1.0], "copy": [1e-3]}},
        "AdamW": {"bytes": 1000, "how": {}},
    },
    "products": {
        "1024 cubed": {"fastnn": [1.0], "cublas": [0.1]},
        "4096 cubed": {"fastnn": [1.0], "cublas": [0.81]},
    },
    "layers": {
        "NN 32x128x784": {"fastnn": [1.0], "cublas": [1.1], "chosen": "fastnn"},
        "NN 8192x128x784": {"fastnn": [1.0], "cublas": [0.5], "chosen": "cublas"},
        "TN 784x128x32": {"fastnn": [1.0], "cublas": [0.5], "chosen": "fastnn"},
    },
}


@pytest.mark.parametrize(
    ("what", "batch", "beside", "median", "met"),
    [
        ("Adam, an update", 0, "percent of a copy", 100 / 1.125, False),
        ("Adam, an update", 0, "PyTorch, fused", 1 / 1.125, False),
        ("SGD, an update", 0, "percent of a copy", 100.0, True),
        ("784-128-10 Adam", 32, "a step", 8e-6, True),
        ("784-128-10 Adam", 128, "PyTorch eager", 11.25, True),
        ("8-64-64-2 Adam", 1, "the best peer", 1.875, False),
        ("784-512-512-10 Adam", 8192, "the best peer", 1.875, True),
        ("4096 cubed, a product", 0, "percent of cuBLAS", 81.0, True),
        ("NN 32x128x784, a layer", 0, "cuBLAS and a tail", 1.1, True),
    ],
)
def test_figures_are_put_beside_their_targets(what, batch, beside, median, met):
    found = [
        each for each in gpu_targets.outcomes(RESULTS)
        if (each.what, each.batch, each.beside) == (what, batch, beside)
    ]  # fmt: skip
    assert [each.median for each in found] == [pytest.approx(median)]
    assert found[0].met == met


def test_every_target_is_judged_once_and_nothing_else():
    found = gpu_targets.outcomes(RESULTS)
    assert len({each[:3] for each in found}) == len(found)
    assert len(found) == 3 + 2 * 4 * 3 + 1 + 1 + 1
    assert gpu_targets.outcomes({}) == []


def test_a_figure_that_is_not_a_number_has_missed():
    spoiled = cell(math.nan, 1e-6, torch=1e-6)
    results = {"training": {"784-128-10 Adam": {"1": spoiled}}}
    assert [each.met for each in gpu_targets.outcomes(results)] == [False] * 3


def test_where_the_device_pays():
    slow, fast = cell(2.0, 1.0), cell(1.0, 2.0)
    assert gpu_targets.pays_from({"1": slow, "8": fast, "32": fast}) == 8
    assert gpu_targets.pays_from({"1": fast, "8": slow, "128": fast, "32": fast}) == 32
    assert gpu_targets.pays_from({"1": fast, "8": slow}) is None
    assert gpu_targets.pays_from({"1": fast, "8": {"fastnn": {"1": [1.0]}}}) is None


def test_tables_have_gaps_where_a_peer_failed(tmp_path):
    without = {name: of for name, of in CELL.items() if name != "torch"}
    ours = {"fastnn": CELL["fastnn"]}
    failed = {"jax": CELL["jax"]}
    title = "784-128-10 Adam"
    by_batch = {"1": without, "8": CELL, "32": ours, "128": failed}
    results = RESULTS | {"training": {title: by_batch}, "pays from": {title: None}}
    text = tables.device_tables(results, gpu_targets.outcomes(results))
    assert "90.0 (90.0)  11.25x" in text
    assert "from batch None" not in text
    pictures.draw_device(results, tmp_path)
    assert (tmp_path / "gpu.png").stat().st_size > 0


# On a device, or its stand-in


@pytest.fixture
def device(cupy_module, monkeypatch):
    """A device, where the little work that each measurement does is quickly done."""
    for module in (gpu_machine, gpu_optimizers):
        monkeypatch.setattr(module, "COPIED_BYTES", 1 << 12)
    for name in ("FEW_NODES", "FEW_MEETINGS", "LAUNCHES"):
        monkeypatch.setattr(gpu_machine, f"_{name}", 2)
    for name in ("MANY_NODES", "MANY_MEETINGS"):
        monkeypatch.setattr(gpu_machine, f"_{name}", 5)
    monkeypatch.setattr(gpu_timing, "_WORKS_A_GRAPH", 2)
    monkeypatch.setattr(gpu_timing, "LEAST_SECONDS", 0.0)
    return gpu_timing.device()


def all_of(figures):
    """The figures by place; none is a failure."""
    found = dict(figures)
    assert [what for where, what in found.items() if where[0] == "failures"] == []
    return found


def test_the_machine_is_measured(device, monkeypatch):
    monkeypatch.setattr(gpu_machine, "FMA_STEPS", 2)
    found = all_of(gpu_machine.measure(device, 2, quick=False))
    blocks = [where[2] for where in found if where[1] == "seconds of a grid barrier"]
    assert blocks == [str(count) for count in gpu_machine.meeting_blocks(device, quick=False)]
    assert blocks[0] == "1"
    assert blocks[-1] == str(device.processors)
    assert len(found) == 4 + len(blocks)
    assert all(len(rates) == 2 and all(map(math.isfinite, rates)) for rates in found.values())


WAITS_FOR_AN_EARLY_ONE = """
    if (blockIdx.x == 1 && threadIdx.x == 0)
      while (!*(volatile int *)early) pause_thread();
    if (blockIdx.x == 1) places[1] = 0;
"""


def test_a_barrier_that_lets_a_block_go_is_refused(device, monkeypatch):
    broken = gpu_machine._SEEN_MEETINGS.replace("grid_barrier(arrivals);", WAITS_FOR_AN_EARLY_ONE)
    monkeypatch.setattr(gpu_machine, "_SEEN_MEETINGS", broken)
    with pytest.raises(AssertionError, match="before another had come"):
        gpu_machine.meetings(device, 2, 1)


def test_every_optimizer_is_measured(device):
    figures = dict(gpu_optimizers.measure(device, 2, quick=False, parameters=5000))
    for name in gpu_optimizers.OPTIMIZERS:
        assert set(figures["optimizers", name, "seconds"]) >= {"fastnn", "copy"}
        assert figures["optimizers", name, "how"]["fastnn"] == "one pass"
    assert figures["optimizers", "SGD", "bytes"] == 3 * 4 * 5000
    assert figures["optimizers", "Adam", "bytes"] == 7 * 4 * 5000
    assert {where for where in figures if where[0] == "failures"} <= {
        ("failures", f"optimizers {name} torch") for name in gpu_optimizers.OPTIMIZERS
    }


def test_an_optimizer_that_does_something_else_is_not_timed(device, monkeypatch):
    monkeypatch.setattr(fastnn, "Adam", fastnn.SGD)
    figures = dict(gpu_optimizers.measure(device, 1, quick=True, parameters=100))
    assert "AssertionError" in figures["failures", "optimizers Adam fastnn"]
    assert "fastnn" not in figures["optimizers", "Adam", "seconds"]


@pytest.mark.parametrize("name", gpu_optimizers.OPTIMIZERS)
def test_the_optimizers_of_pytorch_are_the_same(name):
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    weight, grad = (rng.standard_normal(100, np.float32) for _ in range(2))
    make = functools.partial(gpu_optimizers.theirs, where="cpu")
    update = gpu_optimizers.checked(make, None, name, weight, grad)
    assert update.how in ("fused", "default")


@pytest.mark.parametrize(("name", "library"), gpu_networks.PRECISIONS.items())
def test_ours_trains_the_same_on_the_device(cupy_module, name, library):
    task = gpu_networks.contenders.Task((20, 40, 10), "Adam", batch=32, steps=5)
    known = gpu_networks.contenders.numpy(task, 1).epoch()()
    loss = gpu_networks.contenders.CONTENDERS[library](task, 1).epoch()()
    assert abs(loss - known) <= gpu_networks._WITHIN.get(name, 1e-5) * known
    assert loss != known or name == "float32"


@pytest.fixture
def few_products(monkeypatch):
    monkeypatch.setattr(gpu_products, "LAYERS", ((7, 5),))
    monkeypatch.setattr(gpu_products, "_QUICK_SQUARES", (20,))
    monkeypatch.setattr(gpu_products, "_QUICK_BATCHES", (1, 9))
    monkeypatch.setattr(gpu_products, "_ROUNDED_SIZE", 16)


def test_products_are_measured_both_ways(device, few_products):
    found = all_of(gpu_products.measure(device, 2, quick=True))
    ways = {"fastnn": 2, "cublas": 2}
    for where, what in found.items():
        if where[0] != "rounding":
            assert {name: len(what[name]) for name in ways} == ways
    assert found["layers", "TN 7x5x9"]["chosen"] == "fastnn"
    assert len(found) == 1 + 2 * 3 + 3
    exact, tf32, bf16 = (found["rounding", each]["fastnn"] for each in gpu_products.PRECISIONS)
    assert 0 < exact < tf32 < bf16 < 2 * 2.0**-8


@pytest.mark.parametrize("form", gpu_products.FORMS)
def test_a_wrong_product_is_refused(device, form):
    product = gpu_products.MAKERS[form](device, 9, 7, 5, "float32")
    product.verify(device)
    product.expected[-1, -1] += 0.01
    with pytest.raises(AssertionError, match="fastnn"):
        product.verify(device)


def test_the_table_is_one_that_the_backend_reads(device, few_products, monkeypatch, tmp_path):
    file = tmp_path / "products.json"
    monkeypatch.setattr(gpu_products, "_TABLE", file)
    monkeypatch.setattr(gpu_products, "BATCHES", (9,))
    monkeypatch.setattr(gpu_products, "DTYPES", ("float32",))
    gpu_products.main(["--rounds", "1", "--write"])
    written = json.loads(file.read_text())
    assert written.keys() == products.product_table().keys()
    assert written["device"] == gpu_timing.device_name(device)
    assert len(written["measured"]) == len(gpu_products.FORMS)
    point = written["measured"][0]
    monkeypatch.setattr(products, "product_table", lambda: written)
    for ours, theirs in ((1.0, 2.0), (2.0, 1.0)):
        point |= {"ours": ours, "cublas": theirs}
        sizes = (point["rows"], point["columns"], point["inner"])
        found = products.uses_cublas(point["form"], *sizes, point["dtype"], point["precision"])
        assert found == (theirs < ours)
