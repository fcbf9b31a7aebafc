"""What only a real device can show: ``FASTNN_REQUIRE=cuda python -m pytest -m gpu``.

The tests of the operations, of plans and of whole trainings run on it too, as they run on the
stand-in elsewhere. Here stand its own matters: networks at their full size, streams, graphs and
memory, tensors of other libraries, and that CuPy and the driver do what the stand-in says they do.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, product_bound
from cuda.fixtures import why_no_device
from cuda.require import require

import fastnn
from fastnn import functional
from fastnn.backend import get_backend
from fastnn.kernels.cupy_backend import data
from fastnn.kernels.cupy_backend.calls import THREADS
from fastnn.kernels.cupy_backend.cublas import Gemm
from fastnn.kernels.cupy_backend.device import Device

pytestmark = pytest.mark.gpu

CLASSES = 10
STEPS = 40


@pytest.fixture
def cupy():
    """CuPy on a real device."""
    require("cuda", why_no_device())
    return get_backend("cupy").module


@pytest.fixture
def device(cupy):
    return Device(cupy)


# Trainings

NETWORKS = {
    "one block": ((8, 64, 64, CLASSES), 32),
    "many blocks": ((784, 128, CLASSES), 128),
    "a graph": ((784, 512, 512, CLASSES), 1024),
}


def layers_of(widths, *between):
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [
            fastnn.Linear(inputs, outputs),
            fastnn.ReLU(),
            *(make(outputs) for make in between),
        ]
    return layers[: -1 - len(between)]


def trained(device, widths, batch, between=(), dtype="float32", **settings):
    """A network after two epochs, and its losses; the same data and start for every device."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch * STEPS // 2, widths[0])).astype(dtype)
    labels = np.argmax(x[:, :CLASSES] if widths[0] >= CLASSES else x, axis=1)
    model = fastnn.Sequential(*layers_of(widths, *between), seed=3, dtype=dtype)
    history = model.fit(
        x, labels, epochs=2, batch_size=batch, device=device, history="update", **settings
    )
    return model, np.array(history.updates["loss"])


def rounded(values, widths, dtype="float32"):
    """Roundings of the sums of a step, as they add up over all steps."""
    limit = np.finfo(dtype).eps * STEPS * sum(widths) * (1 + np.abs(np.asarray(values, np.float64)))
    return Bound(limit, limit)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_is_that_of_the_cpu(cupy, name, dtype):
    widths, batch = NETWORKS[name]
    (ours, losses), (cpu, expected) = (
        trained(where, widths, batch, dtype=dtype) for where in ("cuda", "cpu")
    )
    assert len(losses) == STEPS
    assert_close(losses, expected, rounded(expected, widths, dtype))
    assert losses[STEPS // 2 :].mean() < losses[: STEPS // 2].mean()
    for layer, other in zip(ours.layers[::2], cpu.layers[::2], strict=True):
        assert_close(layer.weight, other.weight, rounded(other.weight, widths, dtype))


@pytest.mark.parametrize("optimizer", ["SGD", "Nesterov", "RMSprop", "AdamW"])
@pytest.mark.parametrize("between", [(lambda columns: fastnn.Dropout(0.3),), (fastnn.BatchNorm1d,)])
def test_masks_statistics_and_clipping_are_those_of_the_cpu(cupy, between, optimizer):
    widths, batch = (20, 48, CLASSES), 64
    settings = {"clip_norm": 0.5, "clip_value": 0.1, "dtype": "float64"}
    losses = [
        trained(
            where, widths, batch, between, optimizer=getattr(fastnn, optimizer)(1e-3), **settings
        )[1]
        for where in ("cuda", "cpu")
    ]
    assert_close(losses[0], losses[1], rounded(losses[1], widths, "float64"))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_gives_the_same_bits(cupy, name):
    (first, losses), (second, again) = (trained("cuda", *NETWORKS[name]) for _ in range(2))
    assert losses.tobytes() == again.tobytes()
    for one, other in zip(first.layers[::2], second.layers[::2], strict=True):
        assert one.weight.tobytes() == other.weight.tobytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_data_that_stream_through_the_device_give_the_same_bits(cupy, name, monkeypatch):
    _, whole = trained("cuda", *NETWORKS[name])
    widths, batch = NETWORKS[name]
    free = 6 * batch * (4 * widths[0] + 8)
    monkeypatch.setattr(Device, "free_bytes", lambda self: free / data._SHARE_OF_MEMORY)
    _, streamed = trained("cuda", *NETWORKS[name])
    assert streamed.tobytes() == whole.tobytes()


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 10), ("bf16", 7)])
def test_rounded_products_train_nearly_the_same(cupy, precision, bits):
    widths, batch = NETWORKS["a graph"]
    _, losses = trained("cuda", widths, batch, precision=precision)
    _, expected = trained("cuda", widths, batch)
    assert losses.tobytes() != expected.tobytes()
    # the first loss has seen no update: its operands are off by half a unit, twice a layer
    limit = 2 * (len(widths) - 1) * 2.0 ** -(bits + 1) * np.abs(expected[0]) * np.sqrt(CLASSES)
    assert abs(losses[0] - expected[0]) <= limit
    assert losses[STEPS // 2 :].mean() < losses[: STEPS // 2].mean()


# Streams, graphs, memory


def test_functions_follow_the_callers_stream(cupy):
    x = np.random.default_rng(0).standard_normal((500, 300)).astype(np.float32)
    expected = x @ x.T
    for stream in (cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(), cupy.cuda.Stream.null):
        with stream:
            there = cupy.empty_like(cupy.asarray(x))
            later = cupy.asarray(x)
            for _ in range(100):
                there[...] = later  # still on its way when the product is asked for
            product = functional.matmul(there, there, transpose_b=True)
            result = product.get()
        bound = product_bound("float32", 300, np.abs(x) @ np.abs(x).T)
        assert_close(result, expected.astype(np.float64), bound)


def test_a_graph_can_be_replayed(device):
    cupy, stream = device.cupy, device.stream()
    rng = np.random.default_rng(0)
    a, b = (device.array(rng.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    out = device.zeros((64, 64), np.float32)
    with device.on(stream):
        works = [Gemm(a, b, out, adds=True)] * 3
        device.prepare(works)
        graph = device.capture(stream, works)
        assert not out.get().any()  # nothing has run
        for _ in range(2):
            graph.launch(stream)
        total = out.get()
    product = a.get().astype(np.float64) @ b.get()
    sizes = np.abs(a.get()) @ np.abs(b.get())
    assert_close(total, 6 * product, product_bound("float32", 6 * 65, 6 * sizes))
    assert not cupy.cuda.get_current_stream().is_capturing()


def test_trainings_give_their_memory_back(cupy):
    pool = cupy.get_default_memory_pool()
    trained("cuda", *NETWORKS["a graph"])
    before = pool.used_bytes()
    for _ in range(3):
        trained("cuda", *NETWORKS["a graph"])
    assert pool.used_bytes() <= before


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "float64"])
@pytest.mark.parametrize("transposed", list(itertools.product((False, True), repeat=2)))
def test_cublas_makes_the_product_that_is_asked_for(device, transposed, precision):
    dtype = "float64" if precision == "float64" else "float32"
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((70, 50)), rng.standard_normal((50, 30))
    expected, scale = a @ b, np.abs(a) @ np.abs(b)
    there = [
        device.array(np.ascontiguousarray((x.T if turned else x).astype(dtype)))
        for x, turned in zip((a, b), transposed, strict=True)
    ]
    wide = device.zeros((70, 40), dtype)
    Gemm(*there, wide[:, :30], *transposed, precision=precision).launch(device)
    bound = product_bound(dtype, 52, scale).maximum  # and the rounding of each operand
    bound = bound + {"tf32": 2.0**-10, "bf16": 2.0**-7}.get(precision, 0.0) * scale
    result = wide.get()
    assert_close(result[:, :30], expected, Bound(bound, bound))
    assert not result[:, 30:].any()


# Tensors of other libraries


def test_tensors_of_pytorch_are_taken_where_they_lie(cupy):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no device")
    x = torch.arange(12, dtype=torch.float32, device="cuda").reshape(3, 4)
    weight = torch.ones((4, 2), dtype=torch.float32, device="cuda")
    y = functional.linear(x, weight)
    assert isinstance(y, cupy.ndarray)
    assert_close(y.get(), reference.float64(x.cpu().numpy()).sum(axis=1)[:, None] * np.ones(2),
                 product_bound("float32", 4, np.full((3, 2), 40.0)))  # fmt: skip
    assert torch.from_dlpack(y).data_ptr() == y.data.ptr
    parameter = torch.ones(100, device="cuda")
    fastnn.SGD(0.5).step([cupy.from_dlpack(parameter)], [cupy.ones(100, np.float32)])
    assert parameter.cpu().numpy().tolist() == [0.5] * 100


def test_arrays_of_jax_are_taken_where_they_lie(cupy):
    jax = pytest.importorskip("jax")
    try:
        where = jax.devices("cuda")[0]
    except RuntimeError as error:
        pytest.skip(f"JAX sees no device: {error}")
    x = jax.device_put(np.ones((3, 4), np.float32), where)
    y = functional.matmul(x, x, transpose_b=True)
    assert isinstance(y, cupy.ndarray)
    assert y.get().tolist() == [[4.0] * 3] * 3


# What the stand-in says about CuPy and the driver

COPY_WORDS = (
    'extern "C" __global__ void kernel(int *out, int first, double second, long long third)'
    "{ out[0] = first; out[1] = (int)second; out[2] = (int)third; }"
)


def function_of(device, source, shared=0):
    return device.function(source, shared)


def test_numbers_of_numpy_pass_as_they_are(device):
    out = device.zeros(3, np.int32)
    values = (out, np.int32(7), np.float64(8), np.int64(9))
    function_of(device, COPY_WORDS)((1,), (1,), values)
    assert out.get().tolist() == [7, 8, 9]


def test_numbers_of_python_pass_with_eight_bytes(device):
    out = device.zeros(3, np.int32)
    function_of(device, COPY_WORDS)((1,), (1,), (out, np.int32(7), 8.0, 9))
    assert out.get().tolist() == [7, 8, 9]


def test_arrays_do_not_come_to_the_host_unasked(cupy):
    there = cupy.zeros(3, np.float32)
    with pytest.raises(TypeError):
        np.asarray(there)
    with pytest.raises((TypeError, ValueError)):
        there[...] = np.ones(3, np.float32)
    with pytest.raises((TypeError, ValueError)):
        there.set(np.ones(4, np.float32))


def test_block_memory_beyond_48_kib_has_to_be_asked_for(device):
    driver = device.cupy.cuda.driver
    source = 'extern "C" __global__ void kernel(int *out) { out[0] = 1; }'
    out, most = device.zeros(1, np.int32), device.block_memory
    unasked = function_of(device, source)
    with pytest.raises(driver.CUDADriverError):
        unasked((1,), (1,), (out,), shared_mem=49 * 1024)
    function_of(device, source, most)((1,), (1,), (out,), shared_mem=most)
    assert out.get()[0] == 1


def test_a_grid_that_meets_has_to_be_resident(device):
    driver = device.cupy.cuda.driver
    source = f'extern "C" __global__ void __launch_bounds__({THREADS}) kernel() {{}}'
    kernel = function_of(device, source)
    kernel((device.processors,), (THREADS,), (), enable_cooperative_groups=True)
    with pytest.raises(driver.CUDADriverError):
        kernel((64 * device.processors,), (THREADS,), (), enable_cooperative_groups=True)


def test_only_a_stream_of_our_own_is_captured(device):
    cupy = device.cupy
    with pytest.raises((RuntimeError, cupy.cuda.runtime.CUDARuntimeError)):
        cupy.cuda.Stream.null.begin_capture()


def test_nobody_waits_in_a_capture(device):
    cupy, stream = device.cupy, device.stream()
    with stream:
        stream.begin_capture()
        with pytest.raises((RuntimeError, cupy.cuda.runtime.CUDARuntimeError)):
            stream.synchronize()
        with pytest.raises((RuntimeError, cupy.cuda.runtime.CUDARuntimeError)):
            stream.end_capture()  # what was wrong in it has spoiled it
    assert not stream.is_capturing()


def test_what_is_captured_runs_later(device):
    out = device.zeros(3, np.int32)
    values = (out, np.int32(7), np.float64(8), np.int64(9))
    kernel, stream = function_of(device, COPY_WORDS), device.stream()
    with device.on(stream):
        stream.begin_capture()
        kernel((1,), (1,), values)
        graph = stream.end_capture()
        assert out.get().tolist() == [0, 0, 0]
        graph.launch(stream)
        assert out.get().tolist() == [7, 8, 9]


def test_pinned_memory_is_copied_from_in_order(device):
    cupy, stream = device.cupy, device.stream()
    here, there = device.pinned((1000,), np.float32), device.empty(1000, np.float32)
    here[...] = 5.0
    with device.on(stream):
        cupy.cuda.runtime.memcpyAsync(
            there.data.ptr, here.ctypes.data, here.nbytes, 1, stream.ptr
        )  # 1: from host to device
        assert there.get().tolist() == [5.0] * 1000
