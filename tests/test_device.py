"""Arrays on a GPU, taken where they lie with the same results, and the choice of the device."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from checks import Bound, assert_close
from cuda.fixtures import stand_in
from cuda.standin import install

import fastnn
from fastnn import arrays, functional
from fastnn import backend as backends
from fastnn.kernels.cupy_backend.device import Device

DTYPES = ("float32", "float64")
SMALL = backends.training_work(weights=1000, batch_rows=32)
LARGE = backends.training_work(weights=100_000, batch_rows=512)
MISSING = "cupy is not installed: pip install 'fastnn-kernels[cuda13]' (fastnn-kernels[cuda12] for"


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    """Nobody has chosen a backend, and no backend was made before."""
    for name in ("_process_choice", "_environment"):
        monkeypatch.setattr(backends, name, None)
    backends._make.cache_clear()
    yield
    backends._make.cache_clear()


@pytest.fixture
def cupy(nothing_chosen, monkeypatch):
    """CuPy, whose arrays lie on a GPU: its stand-in."""
    yield from stand_in(monkeypatch)


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def normal(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def data(rows=60, dtype="float32"):
    x = normal((rows, 6), dtype)
    return x, np.argmax(x[:, :3], axis=1)


def network(dtype="float32", **keywords):
    return fastnn.Sequential(
        fastnn.Linear(6, 9), fastnn.Tanh(), fastnn.Linear(9, 3), dtype=dtype, seed=1, **keywords
    )


def rounding(dtype, roundings, values):
    """The bound of so many roundings of numbers of the size of these or of 1."""
    limit = roundings * float(np.finfo(dtype).eps) * (1 + np.abs(np.asarray(values, np.float64)))
    return Bound(limit, limit)


class Tensor:
    """An array of another library on a GPU, which exports it by DLPack or by CUDA's interface."""

    def __init__(self, array: Any, protocol: str, requires_grad: bool = False) -> None:
        self._memory, self.requires_grad = array, requires_grad
        if protocol == "dlpack":
            self.__dlpack__ = array.__dlpack__
            self.__dlpack_device__ = array.__dlpack_device__
        else:
            self.__cuda_array_interface__ = array.__cuda_array_interface__


class HostTensor:
    """An array of another library in host memory, which exports it by DLPack alone."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **keywords):
        return self._array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


# ---- where an array lies ----


def test_what_lies_on_the_host_is_an_array_of_numpy():
    for value in ([1.0], 1.0, np.ones(2), np.float32(1.0), HostTensor(np.ones(2))):
        assert not arrays.is_on_gpu(value)
        assert type(arrays.as_array("x", value)) is np.ndarray
    x = np.ones((2, 3))
    assert arrays.as_array("x", x) is x
    assert np.shares_memory(arrays.as_array("x", HostTensor(x)), x)


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_what_lies_on_a_gpu_is_an_array_of_cupy_over_the_same_memory(protocol, cupy):
    x = cupy.asarray(normal((2, 3)))
    assert arrays.is_on_gpu(x) and arrays.as_array("x", x) is x
    taken = arrays.as_array("x", Tensor(x, protocol))
    assert isinstance(taken, cupy.ndarray) and taken.data.ptr == x.data.ptr
    np.testing.assert_array_equal(arrays.to_host("x", Tensor(x, protocol)), x.get())


@pytest.mark.parametrize("call", [
    functional.relu, network().predict, lambda x: fastnn.MSELoss().value(x, x),
    lambda x: network().fit(normal((4, 6)), x),
])  # fmt: skip
def test_a_tensor_that_requires_grad_is_refused(call, cupy):
    tensor = Tensor(cupy.asarray(normal((4, 6))), "dlpack", requires_grad=True)
    with pytest.raises(TypeError, match=r"requires grad; give \w+\.detach\(\)"):
        call(tensor)


def test_layers_work_on_the_host(cupy):
    x = cupy.asarray(normal((4, 6)))
    for call in (network(), network()[0], fastnn.Flatten(), fastnn.Standardize.fit):
        with pytest.raises(TypeError, match=r"[xX] is a \w+\.ndarray on a GPU; .*host memory"):
            call(x)


@pytest.mark.parametrize("a, b, expected", [
    ((slice(0, 4), slice(0, 3)), (slice(3, 9), slice(0, 3)), True),
    ((slice(0, 4), slice(0, 3)), (slice(4, 9), slice(0, 3)), False),
    ((slice(0, 9), slice(0, 1)), (slice(0, 9), slice(2, 3)), True),  # between the others' rows
    ((slice(0, 1), slice(0, 1)), (slice(0, 1), slice(1, 3)), False),
    ((slice(8, None, -1), slice(0, 3)), (slice(0, 1), slice(0, 1)), True),
    ((slice(0, 0), slice(0, 3)), (slice(0, 9), slice(0, 3)), False),
])  # fmt: skip
def test_overlap(a, b, expected):
    memory = np.zeros((9, 3))
    assert arrays.overlap(memory[a], memory[b]) is expected
    assert arrays.overlap(memory[b], memory[a]) is expected


# ---- the choice of the device ----


def test_a_missing_package_is_named_with_what_installs_it(no_cupy):
    with pytest.raises(RuntimeError) as caught:
        fastnn.get_backend("cupy")
    assert MISSING in str(caught.value)
    model = network()
    before = model.arena.flat.copy()
    with pytest.raises(RuntimeError, match="cupy is not installed"):
        model.fit(*data(), device="cuda")
    assert model.history is None and (model.arena.flat == before).all()


@pytest.mark.parametrize("devices, words", [
    (None, "no NVIDIA driver or device answers: cudaErrorInsufficientDriver"),
    (0, "no NVIDIA driver or device answers: cudaErrorNoDevice"),
])  # fmt: skip
def test_a_missing_driver_or_device_is_named(devices, words, capsys):
    with install(devices=devices):
        with pytest.raises(RuntimeError, match=words):
            network().fit(*data(), device="cuda")
        assert backends.for_device("auto", LARGE).name == "numba"
        assert words in capsys.readouterr().err


def test_a_device_that_is_too_old_is_named(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.Device, "compute_capability", "75")
    with pytest.raises(RuntimeError, match=r"compute capability 7\.5; expected 8\.0 or newer"):
        network().fit(*data(), device="cuda")


@pytest.mark.parametrize("device, chosen, expected", [
    ("cuda", None, "cupy"), ("cuda", "cupy", "cupy"), (None, "cupy", "cupy"), (None, None, "numba"),
])  # fmt: skip
def test_cuda_is_the_cupy_backend(device, chosen, expected, cupy):
    if chosen:
        fastnn.set_backend(chosen)
    assert backends.for_device(device, SMALL).name == expected


def test_shuffles_are_made_by_a_cpu_backend(cupy, monkeypatch):
    assert fastnn.get_backend("cupy")._host.name == "numba"
    backends._make.cache_clear()
    monkeypatch.setitem(backends._CLASSES, "numba", ("no_such_backend", "Nothing"))
    assert fastnn.get_backend("cupy")._host.name == "numpy"


def test_a_device_that_contradicts_the_backend_is_refused(cupy):
    with fastnn.use_backend("cupy"), pytest.raises(ValueError, match=r"'cpu'.*works on 'cuda'"):
        network().fit(*data(), device="cpu")


@pytest.mark.parametrize("work, chosen, expected, words", [
    (SMALL, None, "numba", "picked the CPU: a training step is 0.192 Mflop, below the 20 Mflop"),
    (LARGE, None, "cupy", "picked the GPU: a training step is 307 Mflop, at least the 20 Mflop"),
    (LARGE, "numpy", "numpy", "picked the CPU: the numpy backend is in use"),
    (SMALL, "cupy", "cupy", "picked the GPU: the cupy backend is in use"),
])  # fmt: skip
def test_auto_says_in_one_line_what_it_picked_and_why(work, chosen, expected, words, cupy, capsys):
    if chosen:
        fastnn.set_backend(chosen)
    assert backends.for_device("auto", work).name == expected
    said = capsys.readouterr().err
    assert said.startswith(f"fastnn: device='auto' {words}") and said.count("\n") == 1
    assert ("(an estimate, not measured)" in said) == (chosen is None)


def test_auto_without_a_gpu_says_what_is_missing(no_cupy, capsys):
    assert backends.for_device("auto", LARGE).name == "numba"
    said = capsys.readouterr().err
    assert said.startswith("fastnn: device='auto' picked the CPU: ") and MISSING in said


def test_auto_asks_for_no_gpu_where_the_work_is_small(monkeypatch):
    monkeypatch.setattr(backends, "why_missing", lambda name: pytest.fail("looked for a GPU"))
    assert backends.for_device("auto", SMALL).name == "numba"


def test_auto_of_fit_knows_the_size_of_a_step(cupy, capsys):
    model, (x, y) = network(), data()
    model.fit(x, y, batch_size=20, device="auto")
    flops = 6 * model.parameter_count * 20
    assert f"a training step is {flops / 1e6:.3g} Mflop" in capsys.readouterr().err
    model.evaluate(x, y, device="auto")
    model.predict(x[:1], device="auto")
    first, second = capsys.readouterr().err.splitlines()
    assert f"a pass over the rows is {2 * model.parameter_count * 60 / 1e6:.3g} Mflop" in first
    assert f"a pass over the rows is {2 * model.parameter_count / 1e6:.3g} Mflop" in second


def test_the_cli_takes_auto(capsys, tmp_path, monkeypatch):
    from fastnn.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["train", "--epochs", "1", "--layers", "8", "--quiet", "--device", "auto"]) == 0
    assert main(["predict", "digits.safetensors", "digits", "--device", "auto"]) == 0
    captured = capsys.readouterr()
    assert "a training step is" in captured.err and "a pass over the rows is" in captured.err
    assert captured.err.count("device='auto'") == 2
    assert main(["train", "--epochs", "1", "--device", "gpu"]) == 2


# ---- data on a GPU ----


def test_the_device_follows_the_data(cupy, capsys):
    x, y = data()
    on_gpu = cupy.asarray(x)
    for device in (None, "cuda", "auto"):
        model = network()
        model.fit(on_gpu, y, device=device)
        assert isinstance(model.predict(on_gpu, device=device), cupy.ndarray)
        assert model.evaluate(on_gpu, y, device=device)["loss"] > 0
        assert type(model[0].weight) is np.ndarray
    said = capsys.readouterr().err.splitlines()
    assert said == ["fastnn: device='auto' picked the GPU: X is there"] * 3


@pytest.mark.parametrize("call", [
    lambda model, x, y, **device: model.fit(x, y, **device),
    lambda model, x, y, **device: model.evaluate(x, y, **device),
    lambda model, x, y, **device: model.predict(x, **device),
    lambda model, x, y, **device: model.predict_proba(x, **device),
])  # fmt: skip
@pytest.mark.parametrize("chosen, device", [("numba", None), ("numpy", "auto"), (None, "cpu")])
def test_a_cpu_backend_refuses_data_on_a_gpu(chosen, device, call, cupy):
    model, (x, y) = network(), data()
    before = model.arena.flat.copy()
    if chosen:
        fastnn.set_backend(chosen)
    message = rf"X is a \w+\.ndarray on a GPU, and the {chosen or 'numba'} .*X\.get\(\)"
    with pytest.raises(TypeError, match=message):
        call(model, cupy.asarray(x), y, device=device)
    assert model.history is None and (model.arena.flat == before).all()


def test_validation_rows_on_a_gpu_need_a_fit_there(cupy):
    x, y = data()
    with pytest.raises(TypeError, match=r"validation_data: X is a \w+\.ndarray on a GPU"):
        network().fit(x, y, validation_data=(cupy.asarray(x), y))
    with pytest.raises(TypeError, match=r"augment\(X\) is a \w+\.ndarray on a GPU"):
        network().fit(x, y, augment=lambda x, generator: cupy.asarray(x))


EXTRA = {
    "plain": list,
    "normalised": lambda: [fastnn.BatchNorm1d(6)],
    "dropped": lambda: [fastnn.Linear(6, 6), fastnn.Dropout(0.25)],
}


@pytest.mark.parametrize("extra, dtype", [
    ("plain", "float32"), ("normalised", "float64"), ("dropped", "float32"),
])  # fmt: skip
def test_training_where_the_data_lie(extra, dtype, cupy):
    x, y = data(dtype=dtype)
    weight = np.arange(1.0, 61.0).astype(dtype)

    def trained(place):
        model = fastnn.Sequential(*EXTRA[extra](), *network(dtype), dtype=dtype, seed=1)
        history = model.fit(
            place(x), place(y), epochs=2, batch_size=16, optimizer=fastnn.SGD(0.1),
            sample_weight=place(weight), validation_data=(place(x[:9]), place(y[:9])),
            clip_norm=1.0, history="update", metrics=["accuracy", right],
        )  # fmt: skip
        return model, history, model.evaluate(place(x), place(y), sample_weight=place(weight))

    def right(outputs, targets):
        assert type(outputs) is type(targets) is np.ndarray
        return fastnn.metrics.accuracy(outputs, targets)

    with fastnn.use_backend("numpy"):
        expected, known, scores = trained(np.asarray)
    model, history, measured = trained(cupy.asarray)
    roundings = 8 * (16 + 9) * 2  # eight updates, each some sums over rows and columns
    for name, array in expected.arrays().items():
        assert_close(model.arrays()[name], array, rounding(dtype, roundings, array))
    for name in ("loss", "accuracy", "right", "val_loss", "val_accuracy"):
        assert_close(history[name], known[name], rounding(dtype, roundings, known[name]))
    losses = known.updates["loss"]
    assert_close(history.updates["loss"], losses, rounding(dtype, roundings, losses))
    for name, value in scores.items():
        assert_close(measured[name], value, rounding(dtype, roundings, value))


def test_rows_on_a_full_gpu_are_trained_on_where_they_lie(cupy, monkeypatch):
    x, y = data()
    model, other = network(), network()
    other.fit(x, y, device="cuda")
    monkeypatch.setattr(Device, "free_bytes", lambda self: 600)
    model.fit(cupy.asarray(x), y)
    np.testing.assert_array_equal(model.arena.flat, other.arena.flat)
    assert model.evaluate(cupy.asarray(x), y) == other.evaluate(cupy.asarray(x), y)


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_tensors_of_another_library_train_without_a_copy(protocol, cupy):
    x, y = data()
    model, other, on_gpu = network(), network(), cupy.asarray(x)
    model.fit(Tensor(on_gpu, protocol), Tensor(cupy.asarray(y), protocol))
    other.fit(x, y, device="cuda")
    np.testing.assert_array_equal(model.arena.flat, other.arena.flat)
    assert isinstance(model.predict(Tensor(on_gpu, protocol)), cupy.ndarray)


def test_probabilities_where_the_data_lie(cupy):
    x = data()[0]
    three = network()
    three.loss = fastnn.CrossEntropyLoss()
    one = fastnn.Sequential(fastnn.Linear(6, 1), seed=1)
    one.loss = fastnn.BCEWithLogitsLoss()
    for model, columns in ((three, 3), (one, 2), (fastnn.Sequential(*one, fastnn.Sigmoid()), 2)):
        expected = model.predict_proba(x)
        assert expected.shape == (60, columns)
        assert_close(expected.sum(axis=1), np.ones(60), rounding("float32", columns, 1.0))
        probabilities = model.predict_proba(cupy.asarray(x))
        assert isinstance(probabilities, cupy.ndarray)
        assert_close(probabilities.get(), expected, rounding("float32", 16, expected))


LAYOUTS = {
    "rows": lambda cupy, x: cupy.asarray(x),
    "columns": lambda cupy, x: cupy.asarray(np.ascontiguousarray(x.T)).T,
    "gaps": lambda cupy, x: cupy.asarray(np.repeat(x, 2, axis=1))[:, ::2],
    "wide": lambda cupy, x: cupy.asarray(np.hstack([-x, x]))[:, 6:],
    "images": lambda cupy, x: cupy.asarray(x.reshape(-1, 2, 3)),
}


@pytest.mark.parametrize("kind, layout", [
    *((kind, "rows") for kind in ("float16", "float64", "uint8", "int64", "bool")),
    *(("float32", layout) for layout in LAYOUTS), ("float16", "columns"),
])  # fmt: skip
def test_rows_of_any_dtype_and_layout(kind, layout, cupy):
    x = (4 * normal((9, 6))).astype(kind)
    expected = network().predict(x)
    model = fastnn.Sequential(fastnn.Flatten(), *network(), seed=1)
    result = model.predict(LAYOUTS[layout](cupy, x))
    assert_close(result.get(), expected, rounding("float32", 32, np.abs(x).max()))


@pytest.mark.parametrize("value, error, words", [
    (lambda x: x[:, :5], ValueError, "X has 5 columns; the network takes 6"),
    (lambda x: x[:0], ValueError, "X has no rows"),
    (lambda x: x[0], ValueError, "X must have 2 dimensions"),
    (lambda x: x * np.where(x == x.max(), np.nan, 1), ValueError, "X contains NaN or infinity"),
    (lambda x: x * np.where(x == x.max(), np.inf, 1), ValueError, "X contains NaN or infinity"),
])  # fmt: skip
def test_rows_on_a_gpu_are_checked_there(value, error, words, cupy):
    x, y = data()
    wrong = cupy.asarray(np.ascontiguousarray(value(x)))
    for call in (network().predict, lambda rows: network().fit(rows, y)):
        with pytest.raises(error, match=words):
            call(wrong)


def test_targets_on_a_gpu_are_checked(cupy):
    x, y = data()
    for wrong, words in ((y + 1, "class numbers from 1 to 3"), (y[1:], "as many rows")):
        with pytest.raises(ValueError, match=words):
            network().fit(x, cupy.asarray(wrong))
    with pytest.raises(ValueError, match="sample_weight must be finite"):
        network().fit(x, y, sample_weight=cupy.asarray(np.full(60, np.nan)))


class Same(fastnn.Layer):
    """An identity that fastnn does not know for one."""

    def forward(self, x):
        assert type(x) is np.ndarray
        assert fastnn.get_backend().name == "cupy"
        return x

    def backward(self, grad):
        return grad


@pytest.mark.filterwarnings("ignore:Same is not:fastnn.EagerWarning")
def test_layers_of_ones_own_train_on_the_device_of_the_fit(cupy):
    x, y = data(dtype="float64")

    def trained(*layers, place=np.asarray, **options):
        model = fastnn.Sequential(*layers, *network("float64"), seed=1, dtype="float64")
        model.fit(place(x), y, validation_data=(x, y), **options)
        return model

    expected = trained()
    for place in (np.asarray, cupy.asarray):
        model = trained(Same(), place=place, device="cuda")
        assert_close(
            model.arena.flat, expected.arena.flat, rounding("float64", 512, expected.arena.flat)
        )
        with fastnn.use_backend("cupy"):
            outputs = model.predict(place(x))
        assert type(outputs) is type(place(x))


def test_augmentation_cannot_write_into_data_on_a_gpu(cupy):
    x, y = data()
    on_gpu = cupy.asarray(x)

    def zeros(rows, generator):
        rows[:] = 0.0
        return rows

    network().fit(on_gpu, y, augment=zeros)
    np.testing.assert_array_equal(on_gpu.get(), x)


def test_everything_of_a_fit_follows_its_device(cupy):
    x, y = data()
    seen = []

    def metric(outputs, targets):
        seen.append(fastnn.get_backend().name)
        return 0.0

    network().fit(
        x, y, validation_data=(x, y), metrics=[metric], device="cuda", epochs=1,
        callbacks=[lambda info: seen.append(fastnn.get_backend().name)],
    )  # fmt: skip
    assert seen == ["cupy"] * 3
    assert fastnn.get_backend().name == "numba"


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_the_precision_of_products_reaches_the_plan(precision, cupy, monkeypatch):
    plans = []
    start = type(fastnn.get_backend("cupy")).start

    def record(self, plan, *rest):
        plans.append(plan)
        return start(self, plan, *rest)

    monkeypatch.setattr(type(fastnn.get_backend("cupy")), "start", record)
    x, y = data(rows=600)
    model, options = network(), {"device": "cuda", "precision": precision}
    model.fit(x, y, batch_size="full", validation_data=(x, y), **options)
    model.predict(x, device="cuda")
    assert [plan.precision for plan in plans] == [precision, "float32", "float32"]
    assert [plan.chunk_rows for plan in plans] == [600] * 3  # a GPU walks them all at once


def test_a_precision_is_refused_for_float64_and_on_the_cpu(cupy):
    x, y = data()
    model = network("float64")
    with pytest.raises(ValueError, match="'tf32', which is for float32; the dtype is float64"):
        model.fit(x, y, precision="tf32", device="cuda")
    with pytest.raises(ValueError, match="'tf32', which only the cupy backend has; the numba"):
        model.fit(x, y, precision="tf32")
    assert model.history is None


# ---- functions on arrays ----

CALLS = {
    "matmul": lambda f, a: f.matmul(a(5, 4), a(4, 3)),
    "matmul turned": lambda f, a: f.matmul(a(4, 5).T, a(3, 4), None, False, True),
    "linear": lambda f, a: f.linear(a(5, 4), a(4, 3), a(3)),
    "linear relu": lambda f, a: f.linear(a(5, 4), a(4, 3), a(3), "relu"),
    "linear gaps": lambda f, a: f.linear(a(5, 8)[:, 2:6], a(8, 3)[::2]),
    "linear backward": lambda f, a: f.linear_backward(a(5, 4), a(4, 3), a(5, 3)),
    **{
        name: lambda f, a, name=name: getattr(f, name)(a(3, 5, 2))
        for name in (
            "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh", "softplus",
        )
    },
    "prelu": lambda f, a: f.prelu(a(5, 4), a(4)),
    "prelu backward": lambda f, a: f.prelu_backward(a(5, 4), a(4), a(5, 4)),
    "activation backward": lambda f, a: f.activation_backward("gelu", a(7), a(7)),
    "softmax": lambda f, a: f.softmax(a(5, 4)),
    "softmax backward": lambda f, a: f.softmax_backward(f.softmax(a(5, 4)), a(5, 4)),
    "mse": lambda f, a: f.mse(a(5, 4), a(5, 4), abs(a)(5)),
    "mae": lambda f, a: f.mae(a(5, 4), a(5, 4)),
    "huber": lambda f, a: f.huber(a(5, 4), a(5, 4)),
    "poisson": lambda f, a: f.poisson(a(5, 4), abs(a)(5, 4)),
    "cross entropy": lambda f, a: f.cross_entropy(a(5, 4), a.numbers(5) , abs(a)(5), 0.1),
    "binary cross entropy": lambda f, a: f.binary_cross_entropy(a(5, 1), a.numbers(5)),
    "dropout": lambda f, a: f.dropout(a(5, 70), 0.3, seed=3),
    "batch norm": lambda f, a: f.batch_norm(a(9, 4), a(4), a(4)),
    "batch norm predict": lambda f, a: f.batch_norm_predict(a(5, 4), a(4), abs(a)(4), a(4), a(4)),
    "batch norm backward": lambda f, a: f.batch_norm_backward(a(5, 4), a(5, 4), abs(a)(4), a(4)),
}  # fmt: skip


class Draw:
    """Arrays of random numbers, the same at every run, where ``place`` puts them."""

    def __init__(self, place, dtype, draw=None) -> None:
        self._place, self._dtype = place, dtype
        self._rng = np.random.default_rng(0)
        self._draw = draw or self._rng.normal

    def __call__(self, *shape):
        return self._place(self._draw(size=shape).astype(self._dtype))

    def __abs__(self):
        return Draw(self._place, self._dtype, lambda size: self._rng.uniform(0.5, 2.0, size))

    def numbers(self, count):
        return self._place(self._rng.integers(0, 2, count))


def test_every_function_is_called_here():
    public = {
        name for name, value in vars(functional).items()
        if callable(value) and getattr(value, "__module__", "") == functional.__name__
        and not name.startswith("_")
    }  # fmt: skip
    called = {name.replace(" ", "_") for name in CALLS}
    assert public <= called


@pytest.mark.parametrize("name", CALLS)
def test_functions_on_a_gpu(name, cupy):
    dtype = DTYPES[len(name) % 2]
    with fastnn.use_backend("numpy"):
        expected = CALLS[name](functional, Draw(np.asarray, dtype))
        results = CALLS[name](functional, Draw(cupy.asarray, dtype))  # whatever is in use
    if not isinstance(expected, tuple):
        expected, results = (expected,), (results,)
    for wanted, result in zip(expected, results, strict=True):
        if isinstance(wanted, float):
            assert isinstance(result, float)
        else:
            assert isinstance(result, cupy.ndarray) and result.dtype == dtype
            result = result.get()
        largest = np.abs(wanted).max()
        assert_close(result, wanted, rounding(dtype, 64, np.full(np.shape(wanted), largest)))


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_functions_take_tensors_without_a_copy(protocol, cupy):
    x = cupy.asarray(normal((4, 3)))
    result = functional.relu(Tensor(x, protocol))
    assert isinstance(result, cupy.ndarray)
    functional.relu(Tensor(x, protocol), out=x)
    np.testing.assert_array_equal(x.get(), result.get())


def test_an_output_on_a_gpu(cupy):
    x = cupy.asarray(normal((4, 4)))
    expected = functional.matmul(x.get(), x.get())
    assert functional.matmul(x, x, out=x) is x  # over its own arguments
    assert_close(x.get(), expected, rounding("float32", 4, expected))
    line = cupy.asarray(normal(9))
    shifted = functional.silu(line[:8].copy())
    functional.silu(line[:8], out=line[1:])
    np.testing.assert_array_equal(line.get()[1:], shifted.get())
    wide = cupy.asarray(normal((4, 9)))
    out = wide[:, 2:6]
    assert functional.tanh(x, out=out) is out
    assert_close(wide.get()[:, 2:6], np.tanh(x.get()), rounding("float32", 8, 1.0))
    for wrong, words in (
        (np.empty((4, 4), "float32"), "out must be an array of float32 on a GPU, got ndarray"),
        (cupy.empty((4, 4), "float64"), "out must be an array of float32 on a GPU, got float64"),
    ):
        with pytest.raises(TypeError, match=words):
            functional.relu(x, out=wrong)
    with pytest.raises(TypeError, match="out must be an array of float32 on the host, got ndarray"):
        functional.relu(x.get(), out=x)


@pytest.mark.parametrize("call, names", [
    (lambda on, off: functional.matmul(on, off), "a is on a GPU and b is in host memory"),
    (lambda on, off: functional.matmul(off, on), "b is on a GPU and a is in host memory"),
    (lambda on, off: functional.linear(on, on, [1.0, 2.0]), "x is on a GPU and bias is in host"),
    (lambda on, off: functional.mse(on, off), "outputs is on a GPU and targets is in host"),
    (lambda on, off: functional.mse(on, on, [1.0, 2.0]), "outputs .* and sample_weight is in host"),
])  # fmt: skip
def test_arrays_in_two_places_are_refused(call, names, cupy):
    off = normal((2, 2))
    with pytest.raises(TypeError, match=names + ".*expected both in one place"):
        call(cupy.asarray(off), off)


# ---- optimizers on arrays ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Nesterov", "Adagrad", "RMSprop", "AdamW"])
def test_steps_on_a_gpu(name, dtype, cupy):
    def moved(place):
        optimizer, draw = getattr(fastnn, name)(0.1, weight_decay=0.1), Draw(place, dtype)
        params = [draw(3, 7), draw(7), draw(2, 3, 2)]
        for _ in range(3):
            optimizer.step(params, [draw(*param.shape) for param in params])
        return params

    with fastnn.use_backend("numpy"):
        expected, params = moved(np.asarray), moved(cupy.asarray)
    for param, wanted in zip(params, expected, strict=True):
        assert isinstance(param, cupy.ndarray)
        assert_close(param.get(), wanted, rounding(dtype, 3 * 16, wanted))


def test_steps_on_a_gpu_are_checked(cupy):
    host = np.ones((2, 3))
    param = cupy.asarray(host)
    adam = fastnn.Adam(0.1)
    for params, grads, error, words in (
        ([param], [host], ValueError, r"grads\[0\] is float64 \(2, 3\); expected .* on the GPU"),
        ([host], [param], ValueError, r"grads\[0\] is float64 \(2, 3\) on the GPU; expected"),
        ([param], [cupy.asarray(np.ones(3))], ValueError, r"grads\[0\] is float64 \(3,\)"),
        ([param], [cupy.asarray(host.astype("f"))], ValueError, r"grads\[0\] is float32"),
        ([param.T], [param.T], ValueError, "must be C-contiguous"),
        ([cupy.asarray(np.ones(3, int))], [param], TypeError, r"params\[0\] is int64"),
        ([Tensor(param, "dlpack")], [param], TypeError, r"params\[0\] is Tensor; expected"),
    ):
        with pytest.raises(error, match=words):
            adam.step(params, grads)
    np.testing.assert_array_equal(param.get(), host)
    adam.step([param], [param.copy()])
    with pytest.raises(ValueError, match=r"params has .*; the steps before had .* on the GPU"):
        adam.step([host], [host])


# ---- doctor ----


def test_doctor_describes_the_device(cupy, capsys):
    from fastnn.cli import main

    assert main(["doctor"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["cupy"] == "found"
    assert lines["GPU"].startswith("stand-in, compute capability 9.0, ") and "GB" in lines["GPU"]
    assert lines["CUDA"].startswith("driver for ") and "NVRTC" in lines["CUDA"]


def test_doctor_says_what_is_missing(no_cupy, capsys):
    from fastnn.cli import main

    assert main(["doctor"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert MISSING in lines["cupy"] and "GPU" not in lines
