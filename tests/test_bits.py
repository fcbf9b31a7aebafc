"""The same bits: at any thread count, in either lowering, in any batch, after any interruption."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from checks import Bound, assert_close
from processes import run_python

import fastnn
from fastnn import backend as backends
from fastnn.kernels.contract import Binding
from fastnn.plan import Training, lower

DTYPES = ("float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def many_threads(monkeypatch):
    """However small a step is, and however few cores there are, threads share it."""
    monkeypatch.setattr(backends, "threads_for", lambda plan: backends.get_num_threads())
    with fastnn.use_backend("numba"):
        yield
    fastnn.set_num_threads(None)


def network(dtype="float32"):
    return fastnn.Sequential(
        fastnn.Standardize(np.full(37, 0.5), np.full(37, 0.25)),
        fastnn.Linear(37, 150), fastnn.BatchNorm1d(150), fastnn.GELU(), fastnn.Dropout(0.3),
        fastnn.Linear(150, 70), fastnn.PReLU(70), fastnn.Linear(70, 11), dtype=dtype, seed=1,
    )  # fmt: skip


def plain(dtype="float32"):
    return fastnn.Sequential(
        fastnn.Linear(37, 150), fastnn.Sigmoid(), fastnn.Dropout(0.3), fastnn.Linear(150, 11),
        dtype=dtype, seed=1,
    )  # fmt: skip


def data(rows, dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(rows, 37)).astype(dtype), rng.integers(0, 11, rows)


def state(model) -> dict[str, bytes]:
    """Everything that training left behind, bit for bit."""
    tensors = model.state()[0]
    return {name: array.tobytes() for name, array in tensors.items()} | {
        name: np.array(values).tobytes()
        for name, values in (*model.history.items(), *model.history.updates.items())
    }


def trained(make, dtype, rows, threads=1, **options):
    fastnn.set_num_threads(threads)
    x, y = data(rows, dtype)
    model = make(dtype)
    model.fit(x, y, seed=3, history="update", validation_data=(x[:50], y[:50]), **options)
    return model


@every_dtype
@pytest.mark.parametrize(
    "make, rows, batch_size, optimizer, clip_norm",
    [
        (network, 60, 13, "adam", None),
        (network, 700, "full", "sgd", 0.1),
        (plain, 40, 1, "momentum", None),
        (plain, 400, 32, "adamw", 0.5),
        (plain, 1300, "full", "rmsprop", None),
        (plain, 1300, 600, "adam", 0.1),
    ],
)
def test_any_number_of_threads_gives_the_same_bits(
    make, rows, batch_size, optimizer, clip_norm, dtype
):
    options = {
        "batch_size": batch_size,
        "optimizer": optimizer,
        "clip_norm": clip_norm,
        "epochs": 2,
    }
    expected = state(trained(make, dtype, rows, 1, **options))
    for threads in (2, 3, 4):
        assert state(trained(make, dtype, rows, threads, **options)) == expected


@pytest.mark.parametrize("threads", [2, 3, 4])
@every_dtype
def test_layers_by_hand_give_the_same_bits_at_any_thread_count(threads, dtype):
    x, _ = data(300, dtype)
    grad = np.random.default_rng(1).normal(size=(300, 11)).astype(dtype)
    results = []
    for count in (1, threads):
        fastnn.set_num_threads(count)
        model = network(dtype)
        results.append(
            (model(x).tobytes(), model.backward(grad).tobytes(), model.grads.flat.tobytes())
        )
    assert results[0] == results[1]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("optimizer", [fastnn.SGD(0.1), fastnn.Adam(0.01)], ids=["sgd", "adam"])
@every_dtype
def test_update_in_the_tail_and_stored_gradients_give_the_same_bits(dtype, optimizer, backend):
    x, y = data(200, dtype)
    results = []
    for keep in (False, True):
        model = plain(dtype)
        loss, update = fastnn.CrossEntropyLoss().use, optimizer.formula
        plan = lower(
            model.layers, 37, 32, dtype, loss=loss, training=Training(update, keep_gradients=keep)
        )
        slots = {name: [np.zeros_like(a) for _ in update.slots] for name, a in model.arena.items()}
        with fastnn.use_backend(backend) as chosen:
            run = chosen.start(plan, Binding(x, model.arrays(), y, slots=slots, seed=3))
            run.begin(None, 200, optimizer.scalars(0, np.full(7, 0.1), dtype))
            while run.advance(1.0) == "stopped":
                pass
            run.store()
        results.append(
            (
                model.arena.flat.tobytes(),
                run.losses().tobytes(),
                [s.tobytes() for each in slots.values() for s in each],
            )
        )
    assert results[0] == results[1]


@every_dtype
def test_a_rows_prediction_is_the_same_bits_in_any_batch(dtype):
    x, _ = data(1111, dtype)
    model = network(dtype)
    expected = model.predict(x)
    for rows in (1, 2, 5, 12, 13, 63, 512, 513, 1110):
        np.testing.assert_array_equal(model.predict(x[:rows]), expected[:rows])
        np.testing.assert_array_equal(model.predict(x[-rows:]), expected[-rows:])
    fastnn.set_num_threads(3)
    np.testing.assert_array_equal(model.predict(x), expected)


FEW_COLUMNS_AND_MORE = (1, 2, 3, 8, 11, 16, 17)


@pytest.mark.parametrize("columns", FEW_COLUMNS_AND_MORE)
@pytest.mark.parametrize("kind", ["labels", "probabilities", "values"])
@every_dtype
def test_a_rows_loss_is_the_same_bits_in_any_company(kind, columns, dtype):
    rng = np.random.default_rng(columns)
    rows = 37
    outputs = rng.normal(scale=3, size=(rows, columns)).astype(dtype)
    outputs[3], outputs[4, 0], outputs[5], outputs[6, 0] = np.nan, np.nan, -np.inf, np.inf
    outputs[7], outputs[8, ::2] = 0.0, -0.0
    targets = rng.uniform(size=(rows, columns)).astype(dtype)
    if kind == "labels":
        targets = rng.integers(0, columns, rows)
    weights = rng.uniform(size=rows).astype(dtype)
    loss = (fastnn.BCEWithLogitsLoss() if kind == "values" else fastnn.CrossEntropyLoss()).use

    def results(part: slice) -> list[np.ndarray]:
        made = outputs[part].copy()
        row_losses, row_hits = np.full((2, len(made)), 7.0, dtype)
        fastnn.get_backend().loss(
            made, targets[part], weights[part], 0.25, made, row_losses, row_hits, loss
        )
        # whichever NaN it is
        return [np.where(np.isnan(a), np.nan, a) for a in (made, row_losses, row_hits)]

    alone = [results(slice(row, row + 1)) for row in range(rows)]
    assert np.isnan(alone[3][1]).all()
    for first, end in ((0, rows), (1, 34), (0, 16), (2, 4), (5, 36)):
        for together, singles in zip(
            results(slice(first, end)), zip(*alone[first:end], strict=True), strict=True
        ):
            assert together.tobytes() == np.concatenate(singles).tobytes()


@pytest.mark.parametrize("columns", FEW_COLUMNS_AND_MORE)
@every_dtype
def test_a_rows_softmax_is_the_same_bits_in_any_company(columns, dtype):
    x = np.random.default_rng(columns).normal(scale=3, size=(37, columns)).astype(dtype)
    softmax = fastnn.get_backend().softmax

    def result(part: slice) -> bytes:
        y = np.full_like(x, 7.0)
        softmax(x[part], y[part])
        assert (y[: part.start] == 7.0).all() and (y[part.stop :] == 7.0).all()
        return y[part].tobytes()

    alone = [result(slice(row, row + 1)) for row in range(len(x))]
    for first, end in ((0, 37), (1, 34), (0, 16), (2, 4)):
        assert result(slice(first, end)) == b"".join(alone[first:end])


@pytest.mark.parametrize("rows", [1, 20])
def test_rows_without_columns_lose_nothing(rows):
    nothing = np.zeros((rows, 0), np.float32)
    row_losses, row_hits = np.full((2, rows), 7.0, np.float32)
    fastnn.get_backend().loss(
        nothing, nothing, None, 1.0, nothing.copy(), row_losses, row_hits, fastnn.MSELoss().use
    )
    assert not row_losses.any()


@pytest.mark.parametrize("rows", [20, 300, 1300])  # in one chunk, and in three
@pytest.mark.parametrize("columns", [1, 2, 4, 8])
@every_dtype
def test_the_gradient_of_few_columns_is_that_of_the_same_among_many(columns, rows, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 100)).astype(dtype)
    y = rng.normal(size=(rows, 64)).astype(dtype)
    gradients = []
    for outputs in (columns, 64):
        model = fastnn.Sequential(fastnn.Linear(100, outputs), dtype=dtype)
        for parameter in model.arena.values():
            parameter[...] = 0.0  # so that a step leaves the gradient
        fastnn.set_num_threads(2)
        model.fit(
            x, y[:, :outputs], loss="mse", optimizer=fastnn.SGD(1.0), batch_size="full", seed=0
        )
        # the mean over columns is one over a power of two
        gradients.append([p[..., :columns] * outputs for p in model.arena.values()])
    for few, many in zip(*gradients, strict=True):
        assert np.all(few != 0.0)
        np.testing.assert_array_equal(few, many)


@every_dtype
def test_a_call_that_is_cut_short_goes_on_with_the_same_bits(dtype):
    x, y = data(1300, dtype)
    results = []
    for seconds in (60.0, 0.0):
        model, optimizer = plain(dtype), fastnn.Adam(0.01)
        optimizer.attach(model)
        plan = lower(
            model.layers, 37, 600, dtype, loss=fastnn.CrossEntropyLoss().use,
            training=Training(optimizer.formula),
        )  # fmt: skip
        slots = {name: optimizer.slots_of(name) for name in model.arena}
        run = fastnn.get_backend().start(
            plan, Binding(x, model.arrays(), y, slots=slots, threads=2)
        )
        run.begin(None, 1300, optimizer.scalars(0, np.full(3, 0.01), dtype))
        calls = 1
        while run.advance(seconds) == "stopped":
            calls += 1
        run.store()
        assert (calls > 1) == (seconds == 0.0)
        results.append((model.arena.flat.tobytes(), run.losses().tobytes()))
    assert results[0] == results[1]


@every_dtype
def test_both_backends_train_on_the_same_curve_within_rounding(dtype):
    x, y = data(200, dtype)
    curves = []
    for backend in ("numpy", "numba"):
        with fastnn.use_backend(backend):
            history = network(dtype).fit(
                x, y, epochs=3, optimizer=fastnn.SGD(0.05), history="update", seed=2
            )
        curves.append(history.updates["loss"])
    # 21 steps of sums over 150 inputs; normalisation divides by deviations of about a half
    bound = 21 * 2 * 150 * float(np.finfo(dtype).eps) * (1 + np.abs(curves[0]))
    assert_close(curves[1], curves[0], Bound(bound, bound))


def test_two_python_threads_train_at_once():
    expected = state(trained(plain, "float32", 200, 2, epochs=5))
    results, failures = [], []

    def work():
        try:
            with fastnn.use_backend("numba"):
                results.append(state(trained(plain, "float32", 200, 2, epochs=5)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and results == [expected] * 2


TRAIN = """
    import hashlib, os, numpy as np, fastnn
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 200)).astype("float32"), rng.integers(0, 10, 600)
    def train():
        model = fastnn.Sequential(fastnn.Linear(200, 128), fastnn.Tanh(), fastnn.Linear(128, 10))
        model.fit(x, y, batch_size="full", epochs=2)
        return hashlib.sha256(model.arena.flat.tobytes()).hexdigest()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_after_training_trains_on():
    program = (
        TRAIN
        + """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a process with threads
    fastnn.set_num_threads(2)
    first = train()
    child = os.fork()
    if child == 0:
        os._exit(0 if train() == first else 1)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), train() == first)
    """
    )
    assert run_python(program) == "0 True"


CURVE = (
    TRAIN
    + """
    model = fastnn.Sequential(fastnn.Linear(200, 128), fastnn.Tanh(), fastnn.Linear(128, 10))
    history = model.fit(x, y, epochs=2, optimizer="sgd")
    print(*[loss.hex() for loss in history["loss"]])
"""
)
DIGEST = TRAIN + "\n    print(train())"
HOMELESS = """
    import pathlib
    def home():
        raise RuntimeError("no home")
    pathlib.Path.home = home
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """By name: a future of what a program prints that may have to compile all of its kernels."""
    occupied = tmp_path_factory.mktemp("occupied") / "a file"
    occupied.write_text("no folder")
    programs = {
        "256": (CURVE, {"FASTNN_VECTOR_BITS": "256"}),
        "128": (CURVE, {"FASTNN_VECTOR_BITS": "128"}),
        "truth": (CURVE, {"FASTNN_BACKEND": "numpy"}),
        "usual": (DIGEST, {}),
        "no home": (HOMELESS + DIGEST, {"FASTNN_CACHE_DIR": "", "XDG_CACHE_HOME": ""}),
        "no folder": (DIGEST, {"FASTNN_CACHE_DIR": str(occupied), "HOME": str(occupied)}),
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {
            name: pool.submit(run_python, program, **environment)
            for name, (program, environment) in programs.items()
        }


@pytest.mark.parametrize("bits", ["256", "128"])
def test_narrower_vectors_train_on_the_same_curve(bits, printed):
    narrow, truth = (
        [float.fromhex(text) for text in printed[name].result().split()] for name in (bits, "truth")
    )
    bound = 2 * 200 * float(np.finfo(np.float32).eps) * np.abs(truth)
    assert len(truth) == 2
    assert_close(narrow, truth, Bound(bound, bound))


@pytest.mark.parametrize("where", ["no home", "no folder"])
def test_nothing_breaks_where_kernels_cannot_be_kept(where, printed):
    assert printed[where].result() == printed["usual"].result()
