"""The benchmarks: what they time is verified, wrong results are refused, the roofline adds up."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import fastnn
from fastnn.kernels.contract import DTYPES
from fastnn.kernels.numba_backend import memory
from fastnn.kernels.numpy_backend import NumpyBackend

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import roofline as rooflines
from bench import test_activations as activations
from bench import test_losses as losses
from bench import test_optimizers as optimizers
from bench import test_products as products
from bench import test_training as training
from bench import truth
from bench.cases import Case, time_case
from bench.engines import Engine

WIDTHS = (5, 7, 3)
CASES = {  # a case from backend and dtype, and the operation that makes its result
    "matmul": (lambda b, d: products.matmul(b, d, 5, 6, 7), "matmul"),
    "linear relu": (lambda b, d: products.linear(b, d, "relu", 3, 5, 7), "linear"),
    "linear gelu": (lambda b, d: products.linear(b, d, "gelu", 3, 5, 7), "linear"),
    "sigmoid": (lambda b, d: activations.activation(b, d, "sigmoid", 3, 7), "map"),
    "prelu": (lambda b, d: activations.activation(b, d, "prelu", 3, 7), "map"),
    "cross-entropy": (lambda b, d: losses.cross_entropy(b, d, 5, 3), "loss"),
    **{
        name: (lambda b, d, name=name: optimizers.update(b, d, name, 13), "update")
        for name in optimizers.OPTIMIZERS
    },
    "SGD step": (lambda b, d: training.training_step(b, WIDTHS, "SGD", 4, d), "linear"),
    "Adam step": (lambda b, d: training.training_step(b, WIDTHS, "Adam", 4, d), "linear"),
    "step in chunks": (lambda b, d: training.training_step(b, WIDTHS, "SGD", 515, d), "loss"),
    "prediction": (lambda b, d: training.prediction(WIDTHS, 3, d), None),
}
ROOFLINE = rooflines.Roofline(
    description={"CPU": "a slow one"},
    caches={"L1": 100, "L2": 1000, "L3": 3000},
    peak={dtype: {1: 10.0, 2: 20.0} for dtype in DTYPES},
    bandwidth={
        level: {1: rate, 2: 2 * rate}
        for level, rate in {"L1": 8.0, "L2": 4.0, "L3": 2.0, "memory": 1.0}.items()
    },
)

every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.parametrize("engine", [Engine("numpy", 1), Engine("numba", 2)], ids=str)
@every_dtype
@every_case
def test_what_is_timed_is_verified(engine, dtype, name):
    make, _ = CASES[name]
    with engine.in_use() as backend:
        case = make(backend, dtype)
        case.verify()
        case.run()
    assert case.bytes > 0
    assert case.footprint > 0
    assert (case.flops > 0) == (CASES[name][1] not in ("map", "update") and "entropy" not in name)


def spoiled(operation, output, change):
    """A NumPy backend, one operation of which changes the first element of one output."""

    class Spoiled(NumpyBackend):
        pass

    def wrong(self, *arguments, **keywords):
        getattr(NumpyBackend, operation)(self, *arguments, **keywords)
        place = arguments[output]
        place.reshape(-1)[:1] += change

    setattr(Spoiled, operation, wrong)
    return Spoiled()


OUTPUTS = {"matmul": 2, "linear": 3, "map": 1, "loss": 4, "update": 0}


@pytest.mark.parametrize("change", [0.01, math.nan])
@every_dtype
@every_case
def test_a_wrong_result_is_refused_before_it_is_timed(monkeypatch, dtype, name, change):
    make, operation = CASES[name]
    if operation is None:
        predict = fastnn.Sequential.predict
        monkeypatch.setattr(fastnn.Sequential, "predict", lambda m, x: predict(m, x) + change)
        backend = NumpyBackend()
    else:
        backend = spoiled(operation, OUTPUTS[operation], change)

    def benchmark(work):
        raise RuntimeError("a wrong result is being timed")

    refusals = (AssertionError, ArithmeticError) if "step" in name else AssertionError
    with fastnn.use_backend("numpy"), pytest.raises(refusals):
        time_case(benchmark, make(backend, dtype), ROOFLINE, 1)


def test_an_update_left_out_is_refused():
    """Weights that have not moved are close to weights that moved by a small rate."""
    backend = NumpyBackend()
    backend.update = lambda *arguments, **keywords: None
    for name in ("SGD", "Adam"):
        with pytest.raises(AssertionError):
            training.training_step(backend, WIDTHS, name, 4).verify()


def test_times_are_put_beside_the_roofline():
    order = []
    case = Case(
        lambda: order.append("run"), lambda: order.append("verify"), "float32", bytes=16,
        footprint=50, flops=30, steps=2,
    )  # fmt: skip

    class Benchmark:
        def __init__(self):
            self.stats = SimpleNamespace(stats=SimpleNamespace(median=12.0))
            self.extra_info = {}

        def __call__(self, work):
            work()

    benchmark = Benchmark()
    time_case(benchmark, case, ROOFLINE, 1)
    assert order == ["verify", "run"]
    assert benchmark.extra_info == {
        "seconds per step": 6.0,
        "GF/s": 5e-9,
        "GB/s": 16 / 6e9,
        "percent of roofline": 50.0,
        "bound by": "flops",
    }


# The roofline


@pytest.mark.parametrize(
    ("footprint", "threads", "level"),
    [(100, 1, "L1"), (101, 1, "L2"), (200, 2, "L1"), (2000, 2, "L2"), (3000, 2, "L3"),
     (3001, 2, "memory")],
)  # fmt: skip
def test_private_caches_add_up(footprint, threads, level):
    assert ROOFLINE.level(footprint, threads) == level


@pytest.mark.parametrize(
    ("flops", "bytes_", "footprint", "threads", "expected"),
    [
        (100, 8, 50, 1, ("flops", 10.0)),
        (100, 8, 50, 2, ("flops", 5.0)),
        (10, 80, 50, 1, ("L1", 10.0)),
        (0, 80, 10**6, 2, ("memory", 40.0)),
    ],
)
def test_the_least_time_is_the_larger_of_two(flops, bytes_, footprint, threads, expected):
    case = Case(lambda: None, lambda: None, "float64", bytes_, footprint, flops)
    assert ROOFLINE.least_seconds(case, threads) == expected


@every_dtype
def test_tiles_do_the_flops_that_they_count(dtype):
    most = memory.panel_columns(dtype)
    a, b, c = (np.full(size, 1.0, dtype) for size in (1 << 17, most, 12 * most))
    for work, flops in rooflines.tile_works([(a, b, c)]):
        c[:] = 0.0
        work(0)
        inner = c.max()
        assert flops == 2 * inner * np.count_nonzero(c == inner)
        assert np.count_nonzero(c) == np.count_nonzero(c == inner)


def test_streams_move_the_bytes_that_they_count():
    array = np.ones(256, np.float32)
    (read, read_bytes), (copy, copied), (triad, moved) = rooflines.stream_works([array])
    assert (copied, moved) == (read_bytes, read_bytes * 3 // 2)
    passes = read_bytes // array.nbytes
    array[128:] = 2.0**20
    triad(0)
    np.testing.assert_array_equal(array[:128], 1 - passes * 2.0**-10)
    read(0)
    copy(0)
    np.testing.assert_array_equal(array[128:], array[:128])


def test_rates_are_of_all_threads_together():
    for threads in (1, 2):
        rate = rooflines._rate(lambda me: None, 100, threads)
        assert math.isfinite(rate)
        assert rate > 0


def test_cache_sizes_grow():
    sizes, source = rooflines.cache_sizes()
    assert source
    assert list(sizes.values()) == sorted(sizes.values())
    assert min(sizes.values()) >= 1 << 12


def test_the_command_prints_and_writes_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rooflines, "measure", lambda: ROOFLINE)
    out = tmp_path / "new" / "roofline.json"
    rooflines.main(["--out", str(out)])
    assert "a slow one" in capsys.readouterr().out
    assert json.loads(out.read_text())["bandwidth"]["L2"] == {"1": 4.0, "2": 8.0}
    assert [path.name for path in out.parent.iterdir()] == ["roofline.json"]


# The truth of a training step


def test_errors_are_carried_through_a_step():
    """Inputs moved within their errors stay within those of the result."""
    rng = np.random.default_rng(0)
    off = 1e-3
    a, b = truth.Known(rng.normal(size=(4, 5)), np.full((4, 5), off)), rng.normal(size=(5, 3))
    known = truth.product("float64", a, truth.exact(b))
    for _ in range(20):
        moved = (a.value + rng.choice([-off, off], a.value.shape)) @ b
        known.check(moved)
    assert (known.error <= 1.001 * off * np.abs(b).sum(axis=0)).all()
    with pytest.raises(AssertionError):
        known.check(known.value + 1.01 * known.error)


@pytest.mark.parametrize("name", training.LEARNING_RATES)
def test_an_update_is_bounded_by_its_ends(name):
    optimizer = partial(getattr(truth.reference, name), 0.1)
    grad = truth.Known(np.array([1e-3, 1.0]), np.array([2e-3, 0.0]))
    known = truth.updated("float64", np.zeros(2), grad, optimizer)
    for value in (-1e-3, 0.0, 2e-3, 3e-3):
        known.check(optimizer().step(np.zeros(2), np.array([value, 1.0])))
    assert known.error[1] < 1e-14
