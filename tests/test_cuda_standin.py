"""The stand-in for CuPy computes what CuPy would, and refuses what CuPy would not or not always."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import sys

import numpy as np
import pytest
from checks import Bound, assert_close, is_poison, magnitude, product_bound
from cuda import compile as cuda
from cuda.compile import KernelError
from cuda.require import require
from cuda.standin import cublas_library, install

KERNELS = """
extern "C" __global__ void __launch_bounds__(256) twice(float *x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= 2;
}
extern "C" __global__ void fill(float *x, int n, float value) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = value;
}
extern "C" __global__ void fill_at(long long *address, int n, float value) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) ((float *)address[0])[i] = value;
}
extern "C" __global__ void read_shared(float *x) {
  x[threadIdx.x] = ((float *)block_memory())[threadIdx.x];
}
extern "C" __global__ void meet(unsigned *arrivals) {
  atomicAdd(arrivals, 1u);
  while (atomicAdd(arrivals, 0u) < gridDim.x * blockDim.x) pause_thread();
}
"""


@pytest.fixture
def cupy():
    require("g++", cuda.why_no_gxx())
    with install() as module:
        yield module


@pytest.fixture
def module(cupy):
    """The kernels, compiled as by CuPy."""
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram(KERNELS, "kernels.cu", (), ())
    nvrtc.compileProgram(program, ("--gpu-architecture=sm_90", "--std=c++17", "--fmad=false"))
    loaded = cupy.cuda.function.Module()
    loaded.load(nvrtc.getCUBIN(program))
    nvrtc.destroyProgram(program)
    return loaded


@pytest.fixture
def twice(module):
    return module.get_function("twice")


@pytest.fixture
def stream(cupy):
    return cupy.cuda.Stream(non_blocking=True)


def launch(function, x, **keywords):
    """A kernel of all the elements of an array."""
    function((1,), (256,), (x, np.int32(x.size)), **keywords)


def ones(cupy, size=8):
    return cupy.ones(size, np.float32)


# ---- in CuPy's place ----


def test_it_stands_where_cupy_would():
    before = sys.modules.get("cupy")
    with install() as module:
        import cupy
        import cupy.cuda.nvrtc
        from cupy.cuda import runtime

        assert cupy is module and runtime.getDeviceCount() == 1
        assert cupy.cuda.Device().compute_capability == "90"
        assert cupy.cuda.Device().attributes["MultiProcessorCount"] == 4
        assert runtime.getDeviceProperties(0)["name"] == b"stand-in"
    assert sys.modules.get("cupy") is before


def test_a_machine_without_a_driver_or_a_device():
    for devices, status in ((None, "cudaErrorInsufficientDriver"), (0, "cudaErrorNoDevice")):
        with install(devices=devices) as cupy:
            assert not cupy.cuda.is_available()
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=status):
                cupy.cuda.runtime.getDeviceCount()
    with install() as cupy, pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"):
        cupy.cuda.Device(1).use()


def test_what_fastnn_does_not_use_is_not_there(cupy):
    for owner, name in ((cupy, "add"), (cupy.cuda, "nvtx"), (cupy.cuda.runtime, "malloc")):
        with pytest.raises(AttributeError, match=f"{owner.__name__} has no '{name}'"):
            getattr(owner, name)


# ---- arrays ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_arrays_come_and_go(dtype, cupy):
    host = (np.arange(24).reshape(4, 6) % 5).astype(dtype)
    x = cupy.asarray(host)
    assert (x.shape, x.dtype, x.size, x.ndim) == ((4, 6), dtype, 24, 2)
    assert (x.nbytes, x.itemsize, x.strides) == (host.nbytes, host.itemsize, host.strides)
    assert x.data.ptr % 512 == 0 and x[1:].data.ptr == x.data.ptr + host.strides[0]
    for view in (
        lambda a: a, lambda a: a[1], lambda a: a[1:3, ::2], lambda a: a[..., 2], lambda a: a.T,
        lambda a: a.reshape(3, 8), lambda a: a.ravel(), lambda a: a[None, :2], lambda a: a[-1, -2],
        lambda a: a.T.reshape(2, 12), lambda a: a[:0],
    ):  # fmt: skip
        np.testing.assert_array_equal(view(x).get(), view(host))
        assert view(x).shape == np.shape(view(host))
        assert view(x).flags.c_contiguous == np.asarray(view(host)).flags.c_contiguous
    np.testing.assert_array_equal(cupy.asnumpy(x), host)
    np.testing.assert_array_equal(x.view(np.uint8).get(), host.view(np.uint8))
    out = np.empty_like(host)
    assert x.get(out=out) is out and (out == host).all()


def test_arrays_are_made_filled_and_copied(cupy):
    np.testing.assert_array_equal(cupy.zeros((2, 3)).get(), np.zeros((2, 3)))
    np.testing.assert_array_equal(cupy.full(3, 7, np.int32).get(), [7, 7, 7])
    np.testing.assert_array_equal(cupy.arange(2, 9, 3).get(), [2, 5, 8])
    x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    y = cupy.empty_like(x)
    y[...] = x
    y[0] = 5
    y[1, 1:] = x[0, :2]
    np.testing.assert_array_equal(y.get(), [[5, 5, 5], [3, 0, 1]])
    np.testing.assert_array_equal(x.astype(np.int64).get(), x.get().astype(np.int64))
    kept = copy.deepcopy(x)
    x.fill(0)
    np.testing.assert_array_equal(kept.get(), np.arange(6).reshape(2, 3))
    assert cupy.asarray(x) is x and cupy.ascontiguousarray(x) is x
    assert cupy.ascontiguousarray(x.T).flags.c_contiguous
    assert cupy.get_array_module(x) is cupy and cupy.get_array_module(np.ones(2)) is np
    assert (float(kept[0, 1]), int(kept[0, 2]), kept[1, 0].item()) == (1.0, 2, 3.0)
    assert bool(cupy.ones(1)) and len(kept) == 2 and kept.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_that_nobody_wrote_is_known_as_such(dtype, cupy):
    x = cupy.empty((3, 5), dtype).get()
    assert np.isnan(x).all() and is_poison(x).all()


def test_arrays_of_no_elements_have_no_address(cupy, twice):
    x = cupy.empty((0, 4), np.float32)
    assert x.data.ptr == 0 and x.get().shape == (0, 4)
    launch(twice, x)
    cupy.cuda.Device().synchronize()


def test_arrays_over_given_memory(cupy):
    x = cupy.asarray(np.arange(12, dtype=np.float32))
    y = cupy.ndarray((2, 3), np.float32, x.data + 8, strides=(16, 4))
    np.testing.assert_array_equal(y.get(), [[2, 3, 4], [6, 7, 8]])
    with pytest.raises(RuntimeError, match=r"40 bytes at .* are no array's"):
        cupy.ndarray(10, np.float32, x.data + 12)
    with pytest.raises(ValueError, match="strides must be 1 numbers of at least 0"):
        cupy.ndarray(2, np.float32, x.data, strides=(-4,))
    memory = cupy.cuda.alloc(64)
    assert cupy.ndarray(8, np.float64, memory).data.ptr == memory.ptr


def test_other_libraries_arrays_are_taken_where_they_lie(cupy):
    x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))[:, 1:]

    class Tensor:
        __cuda_array_interface__ = x.__cuda_array_interface__

    for taken in (cupy.asarray(Tensor()), cupy.from_dlpack(x)):
        assert taken.data.ptr == x.data.ptr and taken.strides == x.strides
        np.testing.assert_array_equal(taken.get(), x.get())
    with pytest.raises(TypeError, match="CPU arrays cannot be directly imported to CuPy"):
        cupy.from_dlpack(np.ones(2))


def test_nothing_goes_to_the_host_in_silence(cupy):
    x = cupy.ones((2, 2))
    for silent in (
        lambda: np.asarray(x), lambda: np.array(x), lambda: np.add(x, x), lambda: np.sum(x),
        lambda: np.concatenate([x, x]), lambda: np.ones((2, 2)) + x, lambda: np.float64(2) * x,
        lambda: x + x, lambda: 2 - x, lambda: x == x, lambda: x < 1, lambda: -x, lambda: x @ x,
        lambda: pickle.dumps(x), lambda: hash(x),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            silent()
    assert np.ndim(x) == 2 and np.shape(x) == (2, 2)


def test_the_host_must_give_what_fits(cupy):
    x = cupy.zeros((2, 3), np.float32)
    for wrong, error in [
        (lambda: x.set(np.zeros((2, 3))), TypeError),
        (lambda: x.set(np.zeros((3, 2), np.float32)), ValueError),
        (lambda: x.set([[0] * 3] * 2), TypeError),
        (lambda: x[:, :2].set(np.zeros((2, 2), np.float32)), RuntimeError),
        (lambda: x.get(out=np.zeros((2, 3))), TypeError),
        (lambda: x.get(out=np.zeros((3, 2), np.float32)), ValueError),
        (lambda: x.get(out=[0]), TypeError),
        (lambda: x.get(out=np.zeros((2, 6), np.float32)[:, ::2]), RuntimeError),
        (lambda: x.__setitem__(..., np.zeros((2, 3), np.float32)), TypeError),
        (lambda: x.__setitem__(0, [1, 2, 3]), TypeError),
        (lambda: x.__setitem__(0, cupy.zeros(2)), ValueError),
        (lambda: x[np.array([0, 1])], IndexError),
        (lambda: x[x], IndexError),
        (lambda: cupy.asarray(["text"]), TypeError),
    ]:
        with pytest.raises(error):
            wrong()


def test_memory_is_counted_and_ends():
    with install(total_bytes=1 << 20) as cupy:
        used = cupy.get_default_memory_pool().used_bytes()
        x = cupy.empty(1000, np.uint8)
        assert cupy.get_default_memory_pool().used_bytes() == used + 1000
        assert cupy.cuda.runtime.memGetInfo() == ((1 << 20) - used - 1000, 1 << 20)
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="allocating 1048576 bytes"):
            cupy.empty(1 << 20, np.uint8)
        del x
        assert cupy.get_default_memory_pool().used_bytes() == used


# ---- kernels ----


def test_kernels_run(cupy, twice):
    x = cupy.asarray(np.arange(1000, dtype=np.float32))
    twice((4,), (256,), (x, np.int32(1000)))
    np.testing.assert_array_equal(x.get(), 2 * np.arange(1000))


def test_arguments_must_be_of_the_parameters_types(cupy, twice):
    x = ones(cupy)
    for arguments in [
        (x, 8), (x, 8.0), (x, np.int64(8)), (x, True), (x, np.float32(8)), (x, None),
        (cupy.ones(8), np.int32(8)), (np.ones(8, np.float32), np.int32(8)),
        (x.data.ptr, np.int32(8)), (np.uint64(x.data.ptr), np.int32(8)), (x,), (x, x),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match="kernel twice"):
            twice((1,), (256,), arguments)
    np.testing.assert_array_equal(x.get(), 1)


def test_launches_must_be_ones_that_a_device_takes(cupy, module):
    twice, x = module.get_function("twice"), ones(cupy)
    arguments = (x, np.int32(8))
    for grid, block in (((0,), (8,)), ((1,), (257,)), ((1, 1, 1, 1), (8,)), ((1, 65536), (8,))):
        with pytest.raises(ValueError, match="kernel twice"):
            twice(grid, block, arguments)
    read_shared = module.get_function("read_shared")
    driver = cupy.cuda.driver
    with pytest.raises(driver.CUDADriverError, match=r"65536 bytes .* not raised from 49152"):
        read_shared((1,), (8,), (x,), shared_mem=65536)
    driver.funcSetAttribute(read_shared.ptr, 8, 65536)
    read_shared((1,), (8,), (x,), shared_mem=65536)
    assert np.isnan(x.get()).all()  # block memory is NaN at first
    with pytest.raises(driver.CUDADriverError, match="attribute 8 cannot be 232449"):
        driver.funcSetAttribute(read_shared.ptr, 8, 232449)
    with pytest.raises(driver.CUDADriverError, match="no function at"):
        driver.funcSetAttribute(1, 8, 65536)
    with pytest.raises(driver.CUDADriverError, match=r"CUDA_ERROR_NOT_FOUND.*nothing"):
        module.get_function("nothing")


def test_blocks_that_wait_for_each_other_are_launched_cooperatively(cupy, module):
    meet = module.get_function("meet")

    def launch(blocks, cooperative):
        arrivals = cupy.zeros(1, np.uint32)
        meet((blocks,), (256,), (arrivals,), enable_cooperative_groups=cooperative)
        return arrivals.get()[0]

    resident = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(meet.ptr, 256, 0)
    assert resident == 8 and launch(32, True) == 32 * 256
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match=r"\(33,\) blocks, of which 32"):
        launch(33, True)
    with pytest.raises(KernelError, match="in a launch that is not cooperative"):
        launch(2, False)
    by_memory = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(meet.ptr, 256, 100_000)
    assert by_memory == 2


@pytest.mark.parametrize("name, arguments", [
    ("twice", lambda x, n: (x, n)), ("fill", lambda x, n: (x, n, np.float32(1))),
])  # fmt: skip
def test_a_write_beside_an_array_is_refused(name, arguments, cupy, module):
    x = ones(cupy)
    module.get_function(name)((1,), (256,), arguments(x, np.int32(9)))
    with pytest.raises(KernelError, match=f"kernel {name} wrote beside an array"):
        x.get()
    cupy.cuda.Device().synchronize()  # told once


def test_a_write_by_address_beside_an_array_is_found_at_the_next_wait(cupy, module, stream):
    x = ones(cupy)
    address = cupy.asarray(np.array([x.data.ptr], np.int64))
    fill_at = module.get_function("fill_at")
    fill_at((1,), (32,), (address, np.int32(8), np.float32(3)))
    np.testing.assert_array_equal(x.get(), 3)
    fill_at((1,), (32,), (address, np.int32(9), np.float32(3)))
    with pytest.raises(KernelError, match="wrote beside an array of 32 bytes"):
        cupy.cuda.Device().synchronize()
    fill_at((1,), (32,), (address, np.int32(9), np.float32(3)))
    address.get()
    x = None
    with pytest.raises(KernelError, match="wrote beside an array that has been freed"):
        cupy.cuda.Device().synchronize()


def test_freed_memory_is_nan_and_not_to_be_written(cupy, module):
    x = ones(cupy)
    address = cupy.asarray(np.array([x.data.ptr], np.int64))
    kept = x._array  # as a stray address would still reach it
    x = None
    cupy.cuda.Device().synchronize()
    assert np.isnan(kept).all()
    module.get_function("fill_at")((1,), (32,), (address, np.int32(1), np.float32(3)))
    with pytest.raises(KernelError, match="wrote to memory that had been freed"):
        cupy.cuda.Device().synchronize()


def test_sources_that_do_not_compile_and_binaries_that_are_none(cupy):
    nvrtc = cupy.cuda.nvrtc
    program = nvrtc.createProgram('extern "C" __global__ void f() { x = 1; }', "f.cu", (), ())
    with pytest.raises(nvrtc.NVRTCError, match="NVRTC_ERROR_COMPILATION"):
        nvrtc.compileProgram(program, ("--gpu-architecture=sm_90",))
    assert "error" in nvrtc.getProgramLog(program) and "'x'" in (
        nvrtc.getProgramLog(program).replace("\u2018", "'").replace("\u2019", "'")
    )
    with pytest.raises(nvrtc.NVRTCError, match="NVRTC_ERROR_INVALID_OPTION: --fast"):
        nvrtc.compileProgram(program, ("--fast",))
    nvrtc.destroyProgram(program)
    with pytest.raises(nvrtc.NVRTCError, match="NVRTC_ERROR_INVALID_PROGRAM"):
        nvrtc.getProgramLog(program)
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_IMAGE"):
        cupy.cuda.function.Module().load(b"nothing")
    assert nvrtc.getVersion()[0] == 13 and 90 in nvrtc.getSupportedArchs()


# ---- streams ----


def test_work_waits_for_who_waits_for_it(cupy, twice, stream):
    x = ones(cupy)
    launch(twice, x, stream=stream)
    seen = x._array.copy()
    stream.synchronize()
    # not even the ones were there: they lie on the default stream, which nobody waited for
    assert np.isnan(seen).all()
    np.testing.assert_array_equal(x.get(), 1)


def test_a_read_before_the_wait_is_refused(cupy, twice, stream):
    x = ones(cupy)
    stream.wait_event(cupy.cuda.get_current_stream().record())
    launch(twice, x, stream=stream)
    with pytest.raises(KernelError, match="read on the host while kernel twice, which uses it"):
        x.get()
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), 2)


def test_streams_wait_for_events(cupy, twice, stream):
    other, x = cupy.cuda.Stream(non_blocking=True), ones(cupy)
    stream.wait_event(cupy.cuda.Stream.null.record())
    with stream:
        assert cupy.cuda.get_current_stream() == stream
        launch(twice, x)
        event = stream.record(cupy.cuda.Event(disable_timing=True))
        launch(twice, x)
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null
    other.wait_event(event)
    launch(twice, x, stream=other)
    event.synchronize()
    assert event.done and x._array[0] == 2
    other.synchronize()
    assert x._array[0] == 4
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), 8)
    assert cupy.cuda.Event().done  # one that was never recorded


def test_the_default_stream_and_blocking_ones_wait_for_each_other(cupy, twice):
    blocking, x = cupy.cuda.Stream(), ones(cupy)
    launch(twice, x, stream=blocking)
    launch(twice, x)
    np.testing.assert_array_equal(x.get(), 4)


def test_asking_whether_work_is_done_lets_it_go_on(cupy, twice, stream):
    x = ones(cupy)
    stream.wait_event(cupy.cuda.Stream.null.record())
    for _ in range(3):
        launch(twice, x, stream=stream)
    event = stream.record()
    assert not event.done
    for _ in range(10):
        if event.done:
            break
    assert event.done and stream.done and x._array[0] == 8


def test_times_between_events(cupy, twice):
    x, begin, end = ones(cupy), cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    launch(twice, x)
    end.record()
    end.synchronize()
    assert cupy.cuda.get_elapsed_time(begin, end) > 0
    with pytest.raises(RuntimeError, match="event without a time"):
        cupy.cuda.get_elapsed_time(begin, cupy.cuda.Event(disable_timing=True))


def test_memory_freed_under_another_streams_work_is_refused(cupy, twice, stream):
    x = ones(cupy)
    cupy.cuda.Device().synchronize()
    launch(twice, x, stream=stream)
    x = None  # CuPy would give it to the next array of the default stream
    with pytest.raises(KernelError, match="freed on its stream while another stream"):
        cupy.cuda.Stream.null.synchronize()


def test_memory_freed_under_its_own_streams_work_is_no_mistake(cupy, twice, stream):
    with stream:
        x = ones(cupy)
        launch(twice, x)
        x = None
        gc.collect()
        stream.synchronize()


def test_the_device_reads_pinned_memory_when_its_turn_comes(cupy, stream):
    memory = cupy.cuda.alloc_pinned_memory(32)
    pinned, plain = np.frombuffer(memory, np.float32, 8), np.ones(8, np.float32)
    assert memory.ptr == pinned.ctypes.data and np.isnan(pinned.view(np.float64)).all()
    pinned[...] = 1
    x, y = cupy.empty(8, np.float32), cupy.empty(8, np.float32)
    x.set(pinned, stream=stream)
    y.set(plain, stream=stream)
    pinned[...] = plain[...] = 2
    stream.synchronize()
    np.testing.assert_array_equal(x.get(), 2)
    np.testing.assert_array_equal(y.get(), 1)
    x.fill(5)
    x.get(out=pinned, blocking=False)
    assert (pinned == 2).all()
    cupy.cuda.Stream.null.synchronize()
    assert (pinned == 5).all()


def test_copies_by_address(cupy, stream):
    runtime = cupy.cuda.runtime
    host, back = np.arange(8, dtype=np.float32), np.zeros(4, np.float32)
    x, y = cupy.zeros(8, np.float32), cupy.zeros(8, np.float32)
    cupy.cuda.Device().synchronize()
    runtime.memcpyAsync(x.data.ptr, host.ctypes.data, 32, runtime.memcpyHostToDevice, stream.ptr)
    runtime.memcpyAsync(y.data.ptr + 16, x.data.ptr, 16, runtime.memcpyDeviceToDevice, stream.ptr)
    runtime.memsetAsync(y.data.ptr, 0, 8, stream.ptr)
    runtime.memcpyAsync(
        back.ctypes.data, y[4:].data.ptr, 16, runtime.memcpyDeviceToHost, stream.ptr
    )
    np.testing.assert_array_equal(back, host[:4])
    np.testing.assert_array_equal(y.get(), [0, 0, 0, 0, 0, 1, 2, 3])
    with pytest.raises(RuntimeError, match=r"cudaErrorIllegalAddress.*36 bytes"):
        runtime.memcpyAsync(x.data.ptr, y.data.ptr, 36, runtime.memcpyDeviceToDevice, 0)
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        runtime.memcpyAsync(host.ctypes.data, y.data.ptr, 4, runtime.memcpyDeviceToDevice, 0)
    with pytest.raises(RuntimeError, match="no stream at 0x1"):
        runtime.memsetAsync(x.data.ptr, 0, 4, 1)


# ---- graphs ----


def captured(stream, *works):
    stream.begin_capture()
    try:
        for work in works:
            work()
    finally:
        graph = stream.end_capture()
    return graph


def test_a_graph_does_again_what_was_captured(cupy, twice, stream):
    x = ones(cupy)
    cupy.cuda.Device().synchronize()
    with stream:
        graph = captured(stream, lambda: launch(twice, x), lambda: launch(twice, x[:4]))
        stream.synchronize()
        assert (x._array == 1).all()  # nothing of it has run
        graph.upload()
        x.fill(1)
        for _ in range(2):
            graph.launch()
        graph.launch(stream)
        np.testing.assert_array_equal(x.get(), [64] * 4 + [8] * 4)


def test_what_cannot_be_captured_is_refused(cupy, module, stream):
    x, host = ones(cupy), np.zeros(8, np.float32)
    event = cupy.cuda.Stream.null.record()
    graph = captured(stream)
    other = cupy.cuda.Stream()
    binary = cuda.build(KERNELS).read_bytes()
    pageable = (host.ctypes.data, 4, cupy.cuda.runtime.memcpyHostToDevice, stream.ptr)
    one = ctypes.c_float(1)
    product = (0, 0, 1, 1, 1, ctypes.addressof(one), x.data.ptr, 1, x.data.ptr, 1,
               ctypes.addressof(one), x.data.ptr, 1)  # fmt: skip
    with stream:
        for forbidden in (
            lambda: cupy.empty(3), lambda: cupy.zeros(3), lambda: cupy.asarray(host), x.get,
            lambda: x.set(host), lambda: float(x[0]), x.copy, stream.synchronize,
            other.synchronize, event.synchronize, cupy.cuda.Device().synchronize, stream.record,
            lambda: stream.wait_event(event), graph.launch, stream.begin_capture,
            lambda: cupy.cuda.alloc_pinned_memory(8), lambda: cupy.cuda.Module().load(binary),
            lambda: cupy.cuda.runtime.memcpyAsync(x.data.ptr, *pageable),
            lambda: cupy.cuda.cublas.sgemm(cupy.cuda.get_cublas_handle(), *product),
        ):  # fmt: skip
            stream.begin_capture()
            assert stream.is_capturing() and cupy.cuda.runtime.streamIsCapturing(stream.ptr)
            with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=r"Capture|IllegalState"):
                forbidden()
            stream.end_capture()
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cupy.cuda.Stream.null.begin_capture()
    with pytest.raises(RuntimeError, match="not being captured"):
        stream.end_capture()


def test_a_graph_whose_array_was_freed_is_refused(cupy, twice, stream):
    x, y = ones(cupy), ones(cupy)
    cupy.cuda.Device().synchronize()
    graph = captured(
        stream, lambda: launch(twice, x, stream=stream), lambda: launch(twice, y[2:], stream=stream)
    )
    graph.launch(stream)
    stream.synchronize()
    y = None
    with pytest.raises(KernelError, match="kernel twice was captured with an array, number 0"):
        graph.launch(stream)


def test_a_capture_must_end():
    require("g++", cuda.why_no_gxx())
    with pytest.raises(KernelError, match="1 captures were begun and not ended"), \
            install() as cupy:  # fmt: skip
        cupy.cuda.Stream(non_blocking=True).begin_capture()
    with install() as cupy:
        cupy.cuda.Device().synchronize()


def test_a_mistake_that_nobody_waited_for_shows_in_the_end(module):
    fill = module.get_function("fill")
    with pytest.raises(KernelError, match="kernel fill wrote beside an array"), install() as cupy:
        fill((1,), (32,), (cupy.empty(8, np.float32), np.int32(9), np.float32(1)))


def test_a_mistake_does_not_outlive_its_test(module):
    fill = module.get_function("fill")
    with pytest.raises(ZeroDivisionError), install() as cupy:
        x = cupy.empty(8, np.float32)
        fill((1,), (32,), (x, np.int32(9), np.float32(1)))
        raise ZeroDivisionError
    with install() as cupy:
        cupy.cuda.Device().synchronize()


# ---- cuBLAS ----


@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_cublas(transposed, dtype, cupy):
    m, n, k = 3, 5, 7
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=size).astype(dtype) for size in ((m, k), (k, n), (m, n)))
    # columns first, with room between the columns
    stored = [
        (matrix.T if flag else matrix)
        for matrix, flag in zip((a, b, c), (*transposed, 0), strict=True)
    ]
    wide = [np.full((s.shape[1], s.shape[0] + 2), np.nan, dtype) for s in stored]
    for whole, matrix in zip(wide, stored, strict=True):
        whole[:, : matrix.shape[0]] = matrix.T
    x, y, z = map(cupy.asarray, wide)
    kind = ctypes.c_float if dtype == np.float32 else ctypes.c_double
    alpha, beta = kind(2), kind(-1)
    name = "sgemm" if dtype == np.float32 else "dgemm"
    getattr(cupy.cuda.cublas, name)(
        cupy.cuda.Device().cublas_handle, *transposed, m, n, k, ctypes.addressof(alpha),
        x.data.ptr, wide[0].shape[1], y.data.ptr, wide[1].shape[1], ctypes.addressof(beta),
        z.data.ptr, wide[2].shape[1],
    )  # fmt: skip
    found = z.get()
    assert np.isnan(found[:, m:]).all()
    a, b, c = (matrix.astype(np.float64) for matrix in (a, b, c))
    assert_close(
        found[:, :m].T, 2 * a @ b - c, product_bound(dtype, k + 2, 2 * magnitude(a, b) + abs(c))
    )


def gemm_ex(a, b, c, m, n, k, compute, **changes):
    kind = 0 if c.dtype == np.float32 else 1
    number = ctypes.c_float if kind == 0 else ctypes.c_double
    given = {"lda": m, "ldb": k, "ldc": m, "type_a": kind, **changes}
    return cublas_library.cublasGemmEx(
        ctypes.c_void_p(1), 0, 0, *map(ctypes.c_int, (m, n, k)), ctypes.byref(number(1)),
        ctypes.c_void_p(a.data.ptr), given["type_a"], given["lda"], ctypes.c_void_p(b.data.ptr),
        kind, given["ldb"], ctypes.byref(number(0)), ctypes.c_void_p(c.data.ptr), kind,
        given["ldc"], ctypes.c_int(compute), -1,
    )  # fmt: skip


@pytest.mark.parametrize("compute, bits", [(68, 23), (77, 10), (75, 7)])
def test_the_librarys_product_rounds_as_it_is_told(compute, bits, cupy, stream):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(5, 6)).astype(np.float32)
    x, y, z = cupy.asarray(a), cupy.asarray(b), cupy.full((5, 4), np.nan, np.float32)
    cupy.cuda.Device().synchronize()
    cublas_library.cublasSetStream_v2(ctypes.c_void_p(1), ctypes.c_void_p(stream.ptr))
    assert gemm_ex(x, y, z, 4, 5, 6, compute) == 0
    stream.synchronize()
    exact = b.astype(np.float64) @ a.astype(np.float64)
    each = np.abs(b).astype(np.float64) @ np.abs(a)
    # two operands, each rounded to so many bits, or the sum's rounding alone
    bound = each * (2.0**-bits + 2.0**-23)
    assert_close(z.get(), exact, Bound(bound, bound))
    if bits < 23:
        assert (np.abs(z.get() - exact) > 2.0**-23 * each).any()


def test_the_library_refuses_what_does_not_fit(cupy, stream):
    x, z = cupy.zeros(24, np.float32), cupy.zeros(16, np.float32)
    cupy.cuda.Device().synchronize()
    cublas_library.cublasSetStream_v2(ctypes.c_void_p(1), ctypes.c_void_p(0))
    for wrong in ({"lda": 3}, {"ldb": 5}, {"ldc": 3}, {"type_a": 1}):
        assert gemm_ex(x, x, z, 4, 4, 6, 68, **wrong) == 7
    assert gemm_ex(x, x, z, 4, 4, 6, 70) == 7
    with pytest.raises(RuntimeError, match=r"96 bytes at .* are no array's"):
        gemm_ex(x[1:], x, z, 4, 4, 6, 68)


def test_the_library_in_a_capture_needs_a_workspace(cupy, stream):
    x, z = cupy.ones(4, np.float32), cupy.zeros(4, np.float32)
    workspace = cupy.empty(1024, np.uint8)
    cupy.cuda.Device().synchronize()
    cublas_library.cublasSetStream_v2(ctypes.c_void_p(1), ctypes.c_void_p(stream.ptr))
    stream.begin_capture()
    with pytest.raises(RuntimeError, match="cuBLAS without a workspace"):
        gemm_ex(x, x, z, 2, 2, 2, 68)
    cublas_library.cublasSetWorkspace_v2(
        ctypes.c_void_p(1), ctypes.c_void_p(workspace.data.ptr), ctypes.c_size_t(1024)
    )
    assert gemm_ex(x, x, z, 2, 2, 2, 68) == 0
    graph = stream.end_capture()
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(z.get(), 2)
