"""Whole trainings on the CUDA backend, by each of its ways, through the stand-in for CuPy.

`test_plans` runs every kind of plan there; here stand the ways themselves (graphs, one block, many
blocks, cuBLAS, blocks of data that pass through the device), which all come to the same result, and
what `fit` makes of them.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from checks import assert_close
from cuda.compile import fibres, nvrtc_each, why_no_nvrtc
from cuda.fixtures import stand_in
from cuda.require import require
from cuda.standin import cublas_library
from test_plans import (
    Session,
    assert_same_bits,
    assert_trained,
    dense_plan,
    labelled,
    rounding,
    trained,
)

from fastnn import backend as backends
from fastnn.backend import get_backend
from fastnn.kernels.contract import Plan
from fastnn.kernels.cupy_backend import choice, persistent, products, run
from fastnn.kernels.cupy_backend.calls import THREADS
from fastnn.kernels.cupy_backend.device import Device
from fastnn.kernels.cupy_backend.program import Item

WAYS = ("graph", "block", "grid", "cublas", "streamed")


@pytest.fixture
def cupy(monkeypatch):
    yield from stand_in(monkeypatch)


@pytest.fixture
def take(cupy, monkeypatch):
    """Call it with a way, and trainings take that one."""

    def choose(way: str) -> None:
        is_persistent = way in ("block", "grid")
        monkeypatch.setattr(run, "suits", lambda plan: is_persistent)
        monkeypatch.setattr(persistent, "_MOST_ROWS_OF_A_BLOCK", 512 if way == "block" else 0)
        monkeypatch.setattr(choice, "_by_cublas", lambda *sizes: way == "cublas")
        if way == "streamed":
            monkeypatch.setattr(Device, "free_bytes", lambda self: 20_000)

    return choose


def plan_of(dtype: str, **options) -> Plan:
    return dense_plan((19, 33, 17, 5), batch=24, hidden="tanh", dtype=dtype, **options)


PLANS = [
    ("float32", {"update": "sgd"}),
    ("float32", {"update": "momentum", "clip_norm": 0.05}),
    ("float32", {"update": "adam", "clip_value": 0.001}),
    ("float64", {"update": "adam", "dropout": 0.3}),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("dtype", "options"), PLANS)
def test_every_way_trains_as_the_cpu_does(take, dtype, options, way):
    plan, data = plan_of(dtype, **options), labelled(110, 19, 5, dtype)
    take(way)
    session = trained("cupy", plan, data)
    expected = trained("numpy", plan, data)
    assert_trained(session, expected.arrays, expected.run.losses())
    np.testing.assert_array_equal(session.run.hits(), expected.run.hits())
    for name, slots in expected.slots.items():
        for got, slot in zip(session.slots[name], slots, strict=True):
            assert_close(got, slot, rounding(plan, session.steps, slot))


@pytest.mark.parametrize("way", ["graph", "block", "grid"])
def test_the_order_of_threads_changes_no_bit(take, way):
    plan, data = plan_of("float32", update="adam", dropout=0.2), labelled(70, 19, 5)
    take(way)
    ascending = trained("cupy", plan, data)
    with fibres("descending"):
        descending = trained("cupy", plan, data)
    assert_same_bits(ascending, descending)


@pytest.mark.parametrize("way", ["graph", "grid"])
def test_a_run_cut_short_goes_on_to_the_same_bits(take, way):
    plan, data = plan_of("float32", update="adam"), labelled(700, 19, 5)
    take(way)
    whole = trained("cupy", plan, data)
    session = Session("cupy", plan, data)
    session.begin()
    stops = 0
    while session.run.advance(0.0) == "stopped":
        stops += 1
    session.run.store()
    assert stops > 2
    assert_same_bits(session, whole)


def test_many_steps_are_one_replay(take, cupy, monkeypatch):
    take("graph")
    launched = []
    capture = Device.capture

    def counting(self, stream, works):
        works = list(works)
        graph = capture(self, stream, works)
        launched.append(len(works))
        return graph

    monkeypatch.setattr(Device, "capture", counting)
    plan, data = plan_of("float32"), labelled(24 * 20 + 5, 19, 5)
    session = Session("cupy", plan, data)
    for epoch in range(3):
        session.begin(epoch)
        assert session.finish() == "done"
    # sixteen steps at once and single ones, whole or short; the first two of a size need none
    single = len(session.run._works(24))
    assert sorted(launched) == [single, single, 16 * single]
    assert single < 20


@pytest.mark.parametrize("way", ["graph", "block", "grid", "streamed"])
def test_divergence_leaves_the_weights_of_the_last_good_step(take, way):
    plan, data = plan_of("float32", update="adam"), labelled(110, 19, 5)
    data.x[data.order[60]] = np.nan  # in the third of five steps
    take(way)
    session, expected = Session("cupy", plan, data), Session("numpy", plan, data)
    for one in (session, expected):
        one.begin()
        assert one.finish() == "diverged"
        assert one.run.step == 2
    assert np.isnan(session.run.losses()[2])
    for name, array in expected.arrays.items():
        assert_close(session.arrays[name], array, rounding(plan, 2, array))


# ---- products of cuBLAS ----


def test_threads_and_streams_share_cublas(cupy, monkeypatch):
    """Each product goes to its own thread's stream, with that stream's own workspace."""
    backend, meeting = get_backend("cupy"), threading.Barrier(2)
    x = np.eye(3, dtype=np.float32)
    monkeypatch.setattr(choice, "_by_cublas", lambda *sizes: True)
    backend.matmul(x, x, np.empty_like(x))  # loads the library
    taken: dict[int, set[int]] = {}
    current: list[int] = []
    set_stream = cublas_library.cublasSetStream_v2
    set_workspace = cublas_library.cublasSetWorkspace_v2

    def setting_stream(handle, stream):
        current[:] = [stream.value]
        return set_stream(handle, stream)

    def setting_workspace(handle, workspace, size):
        taken.setdefault(current[0], set()).add(workspace.value)
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.2)  # where another thread can come in between, it does now
        return set_workspace(handle, workspace, size)

    monkeypatch.setattr(cublas_library, "cublasSetStream_v2", setting_stream)
    monkeypatch.setattr(cublas_library, "cublasSetWorkspace_v2", setting_workspace)

    def product(stream) -> np.ndarray:
        with stream:
            factor = cupy.asarray(x)
            out = cupy.empty((3, 3), np.float32)
            backend.matmul(factor, factor, out)
            return out.get()  # waits for this stream alone

    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(product, streams):
            np.testing.assert_array_equal(result, x)
    assert sorted(taken) == sorted(stream.ptr for stream in streams)
    assert len(set.union(*taken.values())) == 2


ROWS = {
    "one below another": lambda x: x[:3],
    "with gaps": lambda x: x[::2],
    "from the last": lambda x: x[::-1],
    "one": lambda x: x[1][None],
    "one of many": lambda x: x[::-1][:1],
}


@pytest.mark.parametrize("taken", ROWS)
def test_rows_that_cublas_does_not_take_are_multiplied_too(cupy, monkeypatch, taken):
    monkeypatch.setattr(products, "uses_cublas", lambda *product: True)
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    rows, weight = ROWS[taken](x), np.ones((6, 5), np.float32)
    there, out = ROWS[taken](cupy.asarray(x)), ROWS[taken](cupy.zeros((4, 5), np.float32))
    get_backend("cupy").matmul(there, cupy.asarray(weight), out)
    np.testing.assert_array_equal(out.get(), rows @ weight)


# ---- data ----


def test_data_come_to_the_device_without_pinned_memory(take, cupy, monkeypatch):
    """As much of it as a data set has would be taken, and kept, by `cupy.asarray`."""

    def refused(*_, **__):
        raise AssertionError("pins memory")

    for name in ("asarray", "array"):
        monkeypatch.setattr(cupy, name, refused)
    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", refused)
    plan, data = plan_of("float32"), labelled(110, 19, 5)
    take("graph")
    assert trained("cupy", plan, data).run.step == 5


# ---- streams of data ----


def test_what_fits_no_block_says_so(cupy, monkeypatch):
    monkeypatch.setattr(Device, "free_bytes", lambda self: 1_000)
    with pytest.raises(MemoryError, match=r"a step of 24 rows .* smaller batch_size"):
        Session("cupy", plan_of("float32"), labelled(110, 19, 5))


def test_blocks_of_data_take_turns(take, cupy):
    """More blocks than there are places, gathered in order, to the bits of resident data."""
    plan, data = plan_of("float32", update="adam"), labelled(24 * 30, 19, 5)
    take("graph")
    resident = trained("cupy", plan, data)
    take("streamed")
    session = Session("cupy", plan, data)
    assert type(session.run._data).__name__ == "_Streamed"
    assert session.run._data._block_rows < len(data.x) // 4
    session.begin()
    assert session.finish() == "done"
    assert_same_bits(session, resident)


# ---- the kernel of a small network ----


def item(reads: str, writes: str, everywhere: bool = False) -> Item:
    return Item(None, frozenset(reads.split()), frozenset(writes.split()), everywhere)


def test_barriers_stand_where_one_needs_another():
    items = [
        item("progress", "x"),  # the loop's end wrote the table, which every block has
        item("x w", "y"),
        item("x", "z"),  # beside the one before
        item("y z", "w"),
        item("", "progress"),
    ]
    assert persistent.barriers(items) == ["block", "grid", None, "grid", None]


def test_blocks_meet_as_often_as_they_like(take):
    """No barrier leaves anything to count up to the largest number."""
    plan, data = plan_of("float32"), labelled(24 * 3, 19, 5)
    take("grid")
    kernel = trained("cupy", plan, data).run._persistent
    assert kernel.blocks > 2
    assert kernel._arrivals.get()[0] % 2**31 == 0


def test_deep_networks_are_many_kernels():
    """One that did all their operations would take minutes to compile, and spill."""
    assert persistent.suits(dense_plan((19, *[16] * 8, 5), batch=24))
    assert not persistent.suits(dense_plan((19, *[16] * 12, 5), batch=24))


def test_chunks_share_their_kernels(take, cupy):
    def kernels(chunks: int) -> int:
        backends._make.cache_clear()  # the backend that knows kernels already
        plan = dense_plan((7, 6, 5), batch=8 * chunks, chunk=8, dropout=0.2)
        session = trained("cupy", plan, labelled(8 * chunks, 7, 5))
        return len(session.run._device._functions)

    take("graph")
    assert kernels(5) == kernels(2)


def test_a_barrier_less_is_seen(take, monkeypatch):
    """Without one of its barriers a kernel mostly gives other bits in one order of threads."""
    plan, data = plan_of("float32", update="sgd"), labelled(24 * 3, 19, 5)
    take("grid")
    expected = trained("cupy", plan, data)
    found = persistent.barriers
    places = [place for place, wait in enumerate(found(list(_items(plan, data)))) if wait == "grid"]
    assert len(places) > 4
    unseen = []
    for place in places:
        monkeypatch.setattr(
            persistent,
            "barriers",
            lambda items, without=place: [
                None if number == without else wait for number, wait in enumerate(found(items))
            ],
        )
        unseen.append(all(_same_bits(plan, data, order, expected) for order in ORDERS))
    # some are needed by the letter only: what they hold apart happens not to meet here
    assert sum(unseen) <= len(places) // 2


ORDERS = ("ascending", "descending")


def _items(plan, data):
    session = Session("cupy", plan, data)
    return session.run._program.any_step()


def _same_bits(plan, data, order, expected) -> bool:
    with fibres(order):
        session = Session("cupy", plan, data)
        session.begin()
        if session.finish() != "done":
            return False
    return all(
        np.array_equal(session.arrays[name], expected.arrays[name]) for name in expected.arrays
    )


# ---- what NVIDIA's compiler says ----


@pytest.mark.parametrize("way", ["block", "grid"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_of_a_small_network_has_the_registers_it_needs(take, dtype, way):
    require("nvrtc", why_no_nvrtc())
    take(way)
    plan = plan_of(dtype, update="adam", dropout=0.1, clip_value=1.0)
    kernel = Session("cupy", plan, labelled(50, 19, 5, dtype)).run._persistent
    assert (kernel.blocks == 1) == (way == "block")
    for report in nvrtc_each(kernel.source):
        assert report.spill_bytes == report.stack_bytes == 0, report.log
        assert report.registers * THREADS <= 65_536, report.log
        assert dtype == "float64" or ".f64" not in report.ptx
        # what one block writes another reads: no load may go past the coherent caches
        assert "ld.global.nc" not in report.ptx


# ---- rounded operands ----

UNITS = {"tf32": 2.0**-11, "bf16": 2.0**-8}


@pytest.mark.parametrize("precision", UNITS)
@pytest.mark.parametrize("way", ["graph", "cublas"])
def test_products_of_rounded_operands(take, way, precision):
    """Losses are those of float32 but for the rounding of the operands, and not the same."""
    plan, data = plan_of("float32", update="sgd"), labelled(110, 19, 5)
    take(way)
    session = trained("cupy", replace(plan, precision=precision), data)
    exact = trained("cupy", plan, data)
    losses, expected = session.run.losses(), exact.run.losses()
    assert not np.array_equal(losses, expected)
    error = np.abs(losses - expected) / expected
    # a logit is a sum of products of two operands each rounded, through three layers
    assert error.max() <= 6 * UNITS[precision]
