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
from fastnn.kernels.formulas import ACTIVATIONS, UPDATES
from fastnn.kernels.numba_backend import memory
from fastnn.kernels.numpy_backend import NumpyBackend
from fastnn.kernels.tracing import NumpyMath

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import counts, divider, kernels, numpy_library, truth
from bench import roofline as rooflines
from bench import test_activations as activations
from bench import test_kernels as kernel_suite
from bench import test_losses as losses
from bench import test_operations as operations
from bench import test_optimizers as optimizers
from bench import test_products as products
from bench import test_training as training
from bench.cases import Case, time_case
from bench.engines import Engine

WIDTHS = (5, 7, 3)
CASES = {  # a case from backend and dtype, and the operation that makes its result
    "matmul": (lambda b, d: products.matmul(b, d, 5, 6, 7), "matmul"),
    "matmul, a turned": (lambda b, d: products.matmul(b, d, 5, 6, 7, transpose_a=True), "matmul"),
    "matmul, b turned": (lambda b, d: products.matmul(b, d, 5, 6, 7, transpose_b=True), "matmul"),
    "linear relu": (lambda b, d: products.linear(b, d, "relu", 3, 5, 7), "linear"),
    "linear gelu": (lambda b, d: products.linear(b, d, "gelu", 3, 5, 7), "linear"),
    "sigmoid": (lambda b, d: activations.activation(b, d, "sigmoid", 3, 7), "map"),
    "prelu": (lambda b, d: activations.activation(b, d, "prelu", 3, 7), "map"),
    "cross-entropy": (lambda b, d: losses.cross_entropy(b, d, 5, 3), "loss"),
    **{
        name: (lambda b, d, name=name: losses.elementwise(b, d, name, 5, 3), "loss")
        for name in losses.ELEMENTWISE
    },
    **{
        name: (lambda b, d, make=make: make(b, d, 5, 3), name.removesuffix("_of_products"))
        for name, make in operations.OPERATIONS.items()
    },
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
    divider={
        kind: {dtype: {1: rate, 2: 2 * rate} for dtype in DTYPES}
        for kind, rate in zip(divider.KINDS, (2.0, 4.0, 1.0), strict=True)
    },
    bandwidth={
        level: {1: rate, 2: 2 * rate}
        for level, rate in {"L1": 8.0, "L2": 4.0, "L3": 2.0, "memory": 1.0}.items()
    },
)

FREE_OF_FLOPS = ("running_average", "all_finite", "gather")
"""Operations whose few flops nobody counts: bytes decide."""

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
    assert (case.flops > 0) == (CASES[name][1] not in FREE_OF_FLOPS)


def spoiled(operation, output, change):
    """A NumPy backend, one operation of which changes the first element of one output."""

    class Spoiled(NumpyBackend):
        pass

    def wrong(self, *arguments, **keywords):
        result = getattr(NumpyBackend, operation)(self, *arguments, **keywords)
        if output is None:
            return result + change
        place = arguments[output]
        place.reshape(-1)[:1] += change
        return None

    setattr(Spoiled, operation, wrong)
    return Spoiled()


OUTPUTS = {
    "matmul": 2, "linear": 3, "map": 1, "loss": 4, "update": 0, "multiply": 0, "softmax": 1,
    "softmax_grad": 1, "column_sums": 2, "moments": 2, "batch_norm": 7, "batch_norm_grad": 0,
    "running_average": 2, "norm": None, "all_finite": None, "gather": 2,
}  # fmt: skip
"""The place of an output among the arguments; None for what is returned."""


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
    ("flops", "divided", "bytes_", "footprint", "threads", "expected"),
    [
        (100, (0, 0), 8, 50, 1, ("flops", 10.0)),
        (100, (0, 0), 8, 50, 2, ("flops", 5.0)),
        (10, (0, 0), 80, 50, 1, ("L1", 10.0)),
        (0, (0, 0), 80, 200, 1, ("L2", 15.0)),  # half of it stays in L1
        (0, (0, 0), 80, 10**4, 2, ("memory", 27.3)),  # 200, 2000, 3000 and 4800 of it
        (100, (30, 0), 8, 50, 1, ("divider", 15.0)),
        (100, (0, 60), 8, 50, 1, ("divider", 15.0)),
        (100, (24, 20), 8, 50, 2, ("divider", 11.0)),  # pairs, then the roots left over
    ],
)
def test_the_least_time_is_the_largest_of_all(flops, divided, bytes_, footprint, threads, expected):
    case = Case(lambda: None, lambda: None, "float64", bytes_, footprint, flops, *divided)
    bound, seconds = ROOFLINE.least_seconds(case, threads)
    assert (bound, seconds) == (expected[0], pytest.approx(expected[1]))


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


@pytest.mark.parametrize("kind", divider.KINDS)
@every_dtype
def test_the_divider_does_what_it_counts(dtype, kind):
    """Every vector goes through as many steps as there are turns, and never comes to rest at 1."""
    operands = [divider.divider_operands(dtype) for _ in range(2)]
    expected, math = operands[0].astype(np.float64), NumpyMath("float64")
    work, elements = divider.divider_work(kind, operands)
    turns, rest = divmod(elements, expected.size)
    assert rest == 0
    for _ in range(turns):
        expected = divider.divider_step(math, kind, expected)
    for me, own in enumerate(operands):
        work(me)
        # a division by a number that is off is as far off again: roundings add up
        roundings = turns if kind == divider.DIVISIONS else 4
        np.testing.assert_allclose(own, expected, rtol=roundings * np.finfo(dtype).eps)
        assert (np.abs(own - 1) > 0.01).all()


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
    monkeypatch.setattr(kernels, "table", lambda roofline: "every kernel")
    out = tmp_path / "new" / "roofline.json"
    rooflines.main(["--out", str(out)])
    printed = capsys.readouterr().out
    assert "a slow one" in printed
    assert "every kernel" not in printed
    rooflines.main(["--out", str(out), "--kernels"])
    assert "every kernel" in capsys.readouterr().out
    assert json.loads(out.read_text())["bandwidth"]["L2"] == {"1": 4.0, "2": 8.0}
    assert [path.name for path in out.parent.iterdir()] == ["roofline.json"]


# Every kernel


def raw_kernels():
    """The kernels that are called as the engine calls them."""
    wanted = ("product_", "dots", "transpose", "squares", "outer", "sweep")
    return {name: make for name, make in kernels.kernels(NumpyBackend()) if name.startswith(wanted)}


@pytest.mark.parametrize("name", raw_kernels())
def test_a_kernel_is_verified_and_one_that_does_nothing_is_refused(monkeypatch, name):
    case = raw_kernels()[name]()
    case.verify()
    case.run()
    monkeypatch.setattr(kernel_suite, "apply", lambda *arguments: 0)
    with pytest.raises(AssertionError):
        raw_kernels()[name]().verify()


def test_every_kernel_has_a_line(monkeypatch):
    case = Case(lambda: None, lambda: None, "float32", bytes=8, footprint=50, flops=4)
    make = {"first": lambda: case, "the second": lambda: case}
    monkeypatch.setattr(kernels, "kernels", lambda backend: make.items())
    monkeypatch.setattr(kernels, "seconds_a_step", lambda case: 2.0)
    titles, *lines = kernels.table(ROOFLINE).splitlines()
    assert "of roofline" in titles
    assert [line.split()[-3:] for line in lines] == [["50.0", "%", "L1"]] * 2


def test_seconds_are_of_a_step():
    count = []
    case = Case(lambda: count.append(1), lambda: None, "float32", 1, 1, steps=10**6)
    assert 0 < rooflines.seconds_a_step(case) < 1e-6
    assert count


# What formulas cost


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sgd", (4, 0, 0)), ("momentum", (7, 0, 0)), ("adam", (15, 1, 1)), ("adagrad", (7, 1, 1))],
)
def test_operations_of_an_update(name, expected):
    assert counts.count_update(UPDATES[name]) == expected


@pytest.mark.parametrize(
    ("name", "divisions"), [("relu", 0), ("sigmoid", 1), ("tanh", 1), ("softplus", 2)]
)
def test_divisions_of_an_activation(name, divisions):
    formula = ACTIVATIONS[name]
    counted = counts.count_activation(formula, dict.fromkeys(formula.settings, 0.5))
    assert (counted.roots, counted.divisions) == (0, divisions)


def test_counts_are_multiplied():
    counted = counts.Counts(flops=3, roots=1, divisions=2)
    assert counted.of(10) == {"flops": 30, "roots": 10, "divisions": 20}
    assert counted.divided(10) == {"roots": 10, "divisions": 20}


def test_a_step_at_batch_1_knows_its_roots():
    with fastnn.use_backend("numpy") as backend:
        case = training.training_step(backend, WIDTHS, "Adam", 1)
    parameters = 5 * 7 + 7 + 7 * 3 + 3
    assert (case.roots, case.divisions) == (parameters, parameters)


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


# ---- NumPy network code ----


@pytest.mark.parametrize("case", numpy_library.CASES, ids=lambda case: case.title)
def test_numpy_network_code_is_verified(case):
    numpy_library.verify(case, batch=9)


def test_a_wrong_step_of_numpy_network_code_is_refused():
    def make(ours, dtype, batch):
        return lambda: 1.0 + 1e-3 * ours

    with pytest.raises(AssertionError, match="wrong"):
        numpy_library.verify(numpy_library.Case("wrong", "float32", make), batch=9)


def test_a_ratio_is_of_numpys_time_over_ours():
    timing = numpy_library.Timing("net", "float32", 32, numpy=6e-6, fastnn=2e-6)
    assert timing.ratio == pytest.approx(3.0)
    assert "3.00" in numpy_library.table([timing])
