"""Every wrong argument: the error names it, what came and what was expected; nothing changes."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn
from fastnn import model_files, optim

ROWS, INPUTS, CLASSES = 20, 4, 3
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(ROWS, INPUTS)).astype(np.float32), RNG.integers(0, CLASSES, ROWS)
ONE = np.ones((2, 2))
TARGETS = np.eye(CLASSES, dtype=np.float32)[Y]

pytestmark = pytest.mark.usefixtures("backend")


def with_value(array: np.ndarray, value: float, place: Any = (7, 2)) -> np.ndarray:
    changed = np.array(array, np.float64 if np.asarray(array).dtype.kind == "f" else None)
    changed[place] = value
    return changed


def network(*layers: fastnn.Layer) -> fastnn.Sequential:
    layers = layers or (fastnn.Linear(INPUTS, 5), fastnn.Tanh(), fastnn.Linear(5, CLASSES))
    return fastnn.Sequential(*layers)


def assert_refused(
    call: Callable[[], Any], error: type[Exception], words: str, model: fastnn.Sequential
) -> None:
    """The call raises an error of exactly this type, whose message has all the words in order."""
    before = {name: array.copy() for name, array in model.arrays().items()}
    known = model.optimizer, model.history, model.loss
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    assert re.search(".*".join(map(re.escape, words.split(" … "))), message, re.DOTALL), message
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert (model.optimizer, model.history, model.loss) == known


# fit: X and y

DATA: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "one axis": (X[0], Y, ValueError, "X must have 2 dimensions … (4,) … X.reshape(-1, 1)"),
    "a column too many": (np.ones((20, 5)), Y, ValueError, "X has 5 columns … takes 4"),
    "text": ([["a"] * 4] * 20, Y, TypeError, "X must hold numbers … <U1"),
    "objects": (X.astype(object), Y, TypeError, "X must hold numbers … object"),
    "complex": (X.astype(complex), Y, TypeError, "X must hold numbers … complex"),
    "no rows": (X[:0], Y[:0], ValueError, "X has no rows"),
    "NaN": (with_value(X, np.nan), Y, ValueError, "X contains NaN or infinity … finite"),
    "infinity": (with_value(X, -np.inf), Y, ValueError, "X contains NaN or infinity"),
    "NaN in float16": (
        with_value(X, np.nan).astype(np.float16), Y, ValueError, "X contains NaN",
    ),
    "NaN in a slice": (with_value(X, np.nan)[::-1], Y, ValueError, "X contains NaN"),
    "more rows than labels": (X, Y[:-1], ValueError, "y and X … (19,) … (20, 4)"),
    "a label too large": (X, with_value(Y, 3, 5), ValueError, "y has class numbers … 3 … 0 to 2"),
    "a negative label": (X, with_value(Y, -1, 5), ValueError, "y has class numbers from -1"),
    "labels of text": (X, ["a"] * 20, TypeError, "y has dtype <U1; expected numbers"),
    "labels of three axes": (X, np.ones((20, 3, 1), int), ValueError, "y has shape (20, 3, 1)"),
    "labels of two columns": (X, np.ones((20, 2), int), ValueError, "y has shape (20, 2)"),
    "targets of two columns": (X, np.ones((20, 2)), ValueError, "y has shape (20, 2) … (20, 3)"),
    "a scalar": (X, 1, ValueError, "y and X"),
    "NaN in the targets": (X, with_value(TARGETS, np.nan), ValueError, "y contains NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data_that_do_not_fit(name):
    x, y, error, words = DATA[name]
    model = network()
    assert_refused(lambda: model.fit(x, y), error, words, model)
    assert_refused(lambda: model.evaluate(x, y), error, words, model)


@pytest.mark.parametrize("name", [name for name in DATA if DATA[name][3].startswith("X ")])
def test_data_that_do_not_fit_in_prediction(name):
    x, _, error, words = DATA[name]
    model = network()
    assert_refused(lambda: model.predict(x), error, words, model)


@pytest.mark.parametrize("loss, y, words", [
    ("cross_entropy", Y + 0.5, "y has dtype float64; expected whole class numbers"),
    ("cross_entropy", -TARGETS, "y has a negative probability, -1"),
    ("cross_entropy", with_value(TARGETS, np.inf), "y contains NaN or infinity"),
    ("bce", 2 * TARGETS, "y lies in [0, 2]; expected values in [0, 1]"),
    ("poisson", -TARGETS, "y has a negative count, -1; expected 0 or more"),
    ("poisson", with_value(TARGETS, np.inf), "y contains NaN or infinity"),
    ("bce", Y, "y has shape (20,); expected (20, 3) for 3 outputs"),
    ("mse", Y, "y has shape (20,); expected (20, 3) for 3 outputs"),
])  # fmt: skip
def test_targets_that_the_loss_cannot_take(loss, y, words):
    model = network()
    assert_refused(lambda: model.fit(X, y, loss=loss), ValueError, words, model)


# fit: everything else

OPTIONS: list[tuple[str, Any, type[Exception], str]] = [
    ("loss", "cross_entorpy", ValueError, "loss 'cross_entorpy': did you mean 'cross_entropy'"),
    ("loss", 3, TypeError, "loss is a int; expected"),
    ("optimizer", "adma", ValueError, "optimizer 'adma': did you mean 'adam'"),
    ("optimizer", 0.1, TypeError, "optimizer is a float; expected"),
    ("optimizer", fastnn.Adam, TypeError, "optimizer is a type; expected"),
    ("batch_size", 0, ValueError, "batch_size must be at least 1, got 0"),
    ("batch_size", -3, ValueError, "batch_size must be at least 1, got -3"),
    ("batch_size", 2.5, TypeError, "batch_size must be an integer, got 2.5"),
    ("batch_size", True, TypeError, "batch_size must be an integer, got True"),
    ("batch_size", "all", ValueError, "batch_size is 'all'; expected … 'full'"),
    ("epochs", -1, ValueError, "epochs must be at least 0, got -1"),
    ("epochs", 1.0, TypeError, "epochs must be an integer, got 1.0"),
    ("epochs", 2**25, ValueError, "epochs is 33554432; at most"),
    ("shuffle", "replacement", TypeError, "shuffle must be True or False, got 'replacement'"),
    ("sampling", "replace", ValueError, "sampling 'replace': did you mean 'replacement'"),
    ("seed", -1, ValueError, "seed must be at least 0, got -1"),
    ("seed", 0.5, TypeError, "seed must be an integer, got 0.5"),
    ("seed", 2**64, ValueError, "seed is 18446744073709551616; expected less than 2**64"),
    ("validation_data", X, TypeError, "validation_data is a ndarray; expected (X, y)"),
    ("validation_data", 0.2, TypeError, "validation_data is a float; expected (X, y)"),
    ("validation_data", (X,), ValueError, "validation_data has 1 parts; expected (X, y)"),
    ("validation_data", (X, Y[:3]), ValueError, "validation_data: y and X"),
    ("validation_data", (X[:, :2], Y), ValueError, "validation_data: X has 2 columns"),
    ("validation_data", (X, Y, -np.ones(20)), ValueError, "validation_data: sample_weight"),
    ("schedule", "cosin", ValueError, "schedule 'cosin': did you mean 'cosine'"),
    ("schedule", 0.1, TypeError, "schedule must be … got 0.1"),
    ("schedule", "reduce_on_plateau", ValueError, "quantity to monitor 'val_loss': did you mean"),
    ("early_stopping", 0, ValueError, "patience must be at least 1, got 0"),
    ("early_stopping", True, TypeError, "early_stopping is True; expected"),
    ("early_stopping", "val_loss", TypeError, "early_stopping is 'val_loss'; expected"),
    (
        "early_stopping", fastnn.EarlyStopping(monitor="val_accuracy"), ValueError,
        "quantity to monitor 'val_accuracy': did you mean 'accuracy'",
    ),
    ("early_stopping", 2.5, TypeError, "early_stopping is 2.5; expected"),
    ("callbacks", [None], TypeError, "callbacks is [None]; expected"),
    ("callbacks", print, TypeError, "callbacks is <built-in function print>; expected"),
    ("sample_weight", np.ones(19), ValueError, "sample_weight has shape (19,); expected (20,)"),
    ("sample_weight", np.zeros(20), ValueError, "sample_weight must be … not all zero"),
    ("sample_weight", -np.ones(20), ValueError, "sample_weight must be … none negative"),
    ("sample_weight", np.full(20, np.nan), ValueError, "sample_weight must be finite"),
    ("sample_weight", np.full(20, 1e38), ValueError, "sample_weight has the sum 2e+39, beyond"),
    ("sample_weight", np.full(20, 1e-40), ValueError, "sample_weight has the sum 2e-39, beyond"),
    ("sample_weight", ["a"] * 20, TypeError, "sample_weight has dtype <U1; expected numbers"),
    ("class_weight", "balance", ValueError, "class_weight 'balance': did you mean 'balanced'"),
    ("class_weight", {3: 1.0}, ValueError, "class_weight names class 3; expected 0 to 2"),
    ("class_weight", [1.0, 2.0], ValueError, "class_weight has shape (2,); expected (3,)"),
    ("class_weight", {0: -1.0}, ValueError, "class_weight is {0: -1.0}; expected finite weights"),
    ("class_weight", {0: np.nan}, ValueError, "class_weight is {0: nan}; expected finite weights"),
    ("clip_norm", 0, ValueError, "clip_norm must be above 0"),
    ("clip_norm", "1", TypeError, "clip_norm must be a number, got '1'"),
    ("clip_value", -1.0, ValueError, "clip_value must be above 0.0, got -1.0"),
    ("clip_value", np.inf, ValueError, "clip_value must be finite, got inf"),
    ("augment", 3, TypeError, "augment is 3; expected a function"),
    ("metrics", ["acuracy"], ValueError, "metric 'acuracy': did you mean"),
    ("metrics", [3], ValueError, "metric 3"),
    ("metrics", 3, TypeError, "metrics is 3; expected a list"),
    ("metrics", ["r2", "r2"], ValueError, "metrics has two that are named 'r2'"),
    ("history", "batch", ValueError, "history 'batch': expected one of 'epoch', 'update'"),
    ("resume", True, ValueError, "resume=True needs checkpoint="),
    ("resume", "no", TypeError, "resume must be True or False, got 'no'"),
    ("checkpoint", tempfile.gettempdir(), IsADirectoryError, "a folder; expected a file"),
    ("checkpoint", "no/such/folder/file", FileNotFoundError, "checkpoint is no/such/folder/file"),
    ("device", "gpu", ValueError, "device is 'gpu'; expected 'cpu', 'cuda', 'auto' or None"),
    ("device", "cuda", ValueError, "device is 'cuda', but the"),
    ("precision", "fp16", ValueError, "unknown precision 'fp16': did you mean 'bf16'"),
    ("precision", "tf32", ValueError, "precision is 'tf32', which only the cupy backend has"),
]  # fmt: skip


@pytest.mark.parametrize("name, value, error, words", OPTIONS)
def test_wrong_options_of_fit(name, value, error, words):
    model = network()
    assert_refused(lambda: model.fit(X, Y, **{name: value}), error, words, model)


def test_an_unknown_option_is_a_type_error():
    model = network()
    assert_refused(lambda: model.fit(X, Y, batchsize=3), TypeError, "batchsize", model)


@pytest.mark.parametrize("rows, batch_size", [(20, 1), (20, 19), (9, 4), (1, "full")])
def test_normalisation_of_a_batch_of_one_row(rows, batch_size):
    model = network(fastnn.Linear(INPUTS, 3), fastnn.BatchNorm1d(3))
    words = f"batch_size {1 if rows == 1 else batch_size} leaves a batch of one row out of {rows}"
    assert_refused(
        lambda: model.fit(X[:rows], Y[:rows], batch_size=batch_size), ValueError, words, model
    )


def test_class_weights_of_a_loss_without_classes():
    model = network()
    assert_refused(
        lambda: model.fit(X, TARGETS, class_weight="balanced"), ValueError,
        "class_weight needs a cross-entropy", model,
    )  # fmt: skip


@pytest.mark.parametrize("value", [None, "a", np.ones(2), [1.0]])
def test_a_metric_that_gives_no_number(value):
    def measured(outputs, targets):
        return value

    with pytest.raises(TypeError, match=r"the metric 'measured' gave .*; expected a number"):
        network().fit(X, Y, metrics=[measured])


def test_an_optimizer_that_the_backend_refuses_leaves_everything(backend):
    if backend != "numba":
        pytest.skip("the numpy backend takes any number of slots")
    model, slots = network(), ("a", "b", "c", "d")
    model.fit(X, Y, optimizer="sgd")
    optimizer = fastnn.Optimizer(lambda m, weight, grad, slots, h: (weight, slots), slots=slots)
    assert_refused(
        lambda: model.fit(X, TARGETS, optimizer=optimizer), ValueError, "4 slots … at most 3", model
    )
    assert not optimizer.trains(model)
    assert model.fit(X, Y).epochs == 1


def test_augmentation_that_changes_the_shape():
    model = network()
    before = model.arena.flat.copy()
    with pytest.raises(ValueError, match=r"augment gave shape \(10, 4\); expected .*\(20, 4\)"):
        model.fit(X, Y, augment=lambda rows, generator: rows[:10])
    np.testing.assert_array_equal(model.arena.flat, before)


# Networks, layers, losses, optimizers

CONSTRUCTIONS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fastnn.Sequential(), ValueError, "layers is empty; expected at least one"),
    (lambda: fastnn.Sequential(3), TypeError, "layer 0 is a int; expected a Layer"),
    (lambda: fastnn.Sequential([fastnn.ReLU()]), TypeError, "layer 0 is a list"),
    (lambda: fastnn.Sequential(*[fastnn.ReLU()] * 2), ValueError, "stands in the network twice"),
    (
        lambda: fastnn.Sequential(fastnn.Linear(4, 5), fastnn.Linear(4, 3)), ValueError,
        "layer 1: Linear(inputs=4, outputs=3) takes 4 inputs, got 5",
    ),
    (
        lambda: fastnn.Sequential(fastnn.Linear(4, 5), fastnn.BatchNorm1d(3)), ValueError,
        "layer 1: BatchNorm1d(features=3 … takes 3 inputs, got 5",
    ),
    (
        lambda: fastnn.Sequential(fastnn.Linear(4, 5), fastnn.PReLU(3)), ValueError,
        "layer 1: PReLU(num_parameters=3 … takes 3 inputs, got 5",
    ),
    (
        lambda: fastnn.Sequential(fastnn.Standardize([0.0] * 3, [1.0] * 3), fastnn.Linear(4, 5)),
        ValueError, "layer 1: Linear(inputs=4, outputs=5) takes 4 inputs, got 3",
    ),
    (
        lambda: fastnn.Sequential(fastnn.Linear(2, 2), dtype="float23"), ValueError,
        "dtype 'float23': did you mean 'float32'",
    ),
    (lambda: fastnn.Sequential(fastnn.Linear(2, 2), dtype=np.int64), ValueError, "dtype 'int64'"),
    (lambda: fastnn.Sequential(fastnn.ReLU(), seed=-1), ValueError, "seed must be at least 0"),
    (lambda: fastnn.Linear(0, 3), ValueError, "inputs must be at least 1, got 0"),
    (lambda: fastnn.Linear(3, 2.0), TypeError, "outputs must be an integer, got 2.0"),
    (lambda: fastnn.Linear(3, 2, init="he_unifrom"), ValueError, "did you mean 'he_uniform'"),
    (lambda: fastnn.Linear(3, 2, bias="no"), TypeError, "bias must be True or False, got 'no'"),
    (
        lambda: network(fastnn.Linear(3, 2, init=lambda generator, shape, dtype: None)),
        ValueError, "init gave object of shape (); expected float32 of shape (3, 2)",
    ),
    (
        lambda: network(fastnn.Linear(3, 2, init=lambda generator, shape, dtype: np.ones(2))),
        ValueError, "init gave float64 of shape (2,); expected",
    ),
    (
        lambda: network(fastnn.Linear(1, 1, init=lambda generator, shape, dtype: [[np.nan]])),
        ValueError, "init gave NaN or infinity",
    ),
    (lambda: fastnn.Dropout(1.0), ValueError, "p must be below 1, got 1.0"),
    (lambda: fastnn.Dropout(-0.1), ValueError, "p must be at least 0, got -0.1"),
    (lambda: fastnn.Dropout("half"), TypeError, "p must be a number, got 'half'"),
    (lambda: fastnn.BatchNorm1d(0), ValueError, "features must be at least 1, got 0"),
    (lambda: fastnn.BatchNorm1d(3, eps=0.0), ValueError, "eps must be above 0.0, got 0.0"),
    (lambda: fastnn.BatchNorm1d(3, momentum=2), ValueError, "momentum must be at most 1.0, got 2"),
    (lambda: fastnn.Standardize([0.0], [0.0]), ValueError, "scale finite and above 0"),
    (lambda: fastnn.Standardize([0.0], [1.0, 2.0]), ValueError, "mean has shape (1,) and scale (2"),
    (lambda: fastnn.Standardize.fit([[np.nan]]), ValueError, "X … contains NaN"),
    (lambda: fastnn.Standardize.fit(np.ones((0, 2))), ValueError, "X has no rows"),
    (lambda: fastnn.Standardize([1j], [1.0]), TypeError, "mean and scale have dtypes complex128"),
    (lambda: fastnn.LeakyReLU(10**400), ValueError, "negative_slope must be finite"),
    (lambda: fastnn.LeakyReLU(np.nan), ValueError, "negative_slope must be finite, got nan"),
    (lambda: fastnn.ELU("1"), TypeError, "alpha must be a number, got '1'"),
    (lambda: fastnn.GELU("tan"), ValueError, "approximation 'tan': did you mean 'tanh'"),
    (lambda: fastnn.Softplus(0.0), ValueError, "beta must be above 0.0, got 0.0"),
    (lambda: fastnn.PReLU(0), ValueError, "num_parameters must be at least 1, got 0"),
    (lambda: fastnn.Activation("relu", name="x"), TypeError, "formula is 'relu'; expected a func"),
    (lambda: fastnn.Loss(3), TypeError, "formula is 3; expected a function(m, output, target)"),
    (lambda: fastnn.Optimizer(None), TypeError, "formula is None; expected a function"),
    (lambda: fastnn.CrossEntropyLoss(1.0), ValueError, "label_smoothing must be below 1, got 1"),
    (lambda: fastnn.HuberLoss(0), ValueError, "delta must be above 0.0, got 0"),
    (lambda: fastnn.SGD(0.0), ValueError, "lr must be above 0.0, got 0.0"),
    (lambda: fastnn.SGD(np.inf), ValueError, "lr must be finite, got inf"),
    (lambda: fastnn.SGD("fast"), TypeError, "lr must be a number, got 'fast'"),
    (lambda: fastnn.SGD(0.1, nesterov=True), ValueError, "nesterov needs momentum"),
    (lambda: fastnn.SGD(0.1, momentum=-0.5), ValueError, "momentum must be at least 0.0"),
    (lambda: fastnn.SGD(dampening="a"), TypeError, "dampening must be a number, got 'a'"),
    (lambda: fastnn.SGD(nesterov=1), TypeError, "nesterov must be True or False, got 1"),
    (lambda: fastnn.RMSprop(momentum=()), TypeError, "momentum must be a number, got ()"),
    (lambda: fastnn.RMSprop(centered="no"), TypeError, "centered must be True or False"),
    (lambda: fastnn.Momentum(0.1, 0.0), ValueError, "momentum must be above 0.0, got 0.0"),
    (lambda: fastnn.Adam(betas=0.9), TypeError, "betas is 0.9; expected two numbers"),
    (lambda: fastnn.Adam(betas=(0.9, 1.0)), ValueError, "betas[1] must be below 1, got 1.0"),
    (lambda: fastnn.Adam(eps=-1e-8), ValueError, "eps must be at least 0.0"),
    (lambda: fastnn.AdamW(weight_decay=-1), ValueError, "weight_decay must be at least 0.0"),
    (lambda: fastnn.RMSprop(alpha=1.0), ValueError, "alpha must be below 1, got 1.0"),
    (lambda: fastnn.Adagrad(lr_decay=np.nan), ValueError, "lr_decay must be"),
    (lambda: fastnn.EarlyStopping(0), ValueError, "patience must be at least 1, got 0"),
    (lambda: fastnn.EarlyStopping(monitor=3), TypeError, "monitor is 3; expected a name"),
    (lambda: fastnn.EarlyStopping(restore_best=0), TypeError, "restore_best must be True or"),
    (lambda: fastnn.schedules.ReduceOnPlateau(monitor=3), TypeError, "monitor is 3; expected"),
    (lambda: fastnn.EarlyStopping(min_delta=-1), ValueError, "min_delta must be at least 0.0"),
]  # fmt: skip


@pytest.mark.parametrize("call, error, words", CONSTRUCTIONS)
def test_wrong_constructions(call, error, words):
    assert_refused(call, error, words, network())


def test_every_optimizer_checks_its_rate():
    for make in optim.OPTIMIZERS.values():
        with pytest.raises(ValueError, match="lr must be above"):
            make(-1.0)


# Calls layer by layer


LAYERS = [
    fastnn.Linear(4, 3), fastnn.Tanh(), fastnn.PReLU(), fastnn.Softmax(), fastnn.Dropout(),
    fastnn.BatchNorm1d(4), fastnn.Standardize(np.zeros(4), np.ones(4)),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_gradients_that_do_not_fit_the_last_outputs(layer):
    layer = copy.deepcopy(layer)
    model = network(layer)
    assert_refused(
        lambda: layer.backward(np.ones((20, 4))), RuntimeError, "backward() follows a forward()",
        model,
    )  # fmt: skip
    rows, columns = model(X).shape
    for shape in ((rows - 1, columns), (rows, columns + 1)):
        words = f"grad has shape {shape}; expected ({rows}, {columns})"
        with pytest.raises(ValueError, match=re.escape(words)):
            layer.backward(np.ones(shape))


def calls(model: fastnn.Sequential) -> list[tuple[Callable[[], Any], type[Exception], str]]:
    loss, weight = fastnn.CrossEntropyLoss(), fastnn.MSELoss()
    return [
        (lambda: model([[1.0, 2.0]]), ValueError, "x has 2 columns; the network takes 4"),
        (lambda: model(X[0]), ValueError, "x must have 2 dimensions"),
        (lambda: model([["a"] * 4]), TypeError, "x must hold numbers"),
        (lambda: model[0](X[:, :2]), ValueError, "takes 4 inputs, got 2"),
        (lambda: model.backward(np.ones(3)), ValueError, "grad must have 2 dimensions"),
        (lambda: model.backward(ONE), RuntimeError, "Linear(inputs=5 … backward() follows"),
        (lambda: loss(X[:0], Y[:0]), ValueError, "outputs has no rows"),
        (lambda: model.plan(0), ValueError, "batch_size must be at least 1"),
        (lambda: model.plan(optimizer="nothing"), ValueError, "unknown optimizer 'nothing'"),
        (lambda: setattr(model[0], "weight", np.ones((5, 4))), ValueError,
         "weight has shape (5, 4); expected (4, 5)"),
        (lambda: setattr(model[0], "bias", 1j * np.ones(5)), TypeError, "bias has dtype complex"),
        (lambda: setattr(fastnn.Linear(2, 2, bias=False), "bias", [0, 0]), ValueError,
         "bias=False"),
        (lambda: fastnn.Flatten()(np.ones(3)), ValueError, "x has shape (3,)"),
        (lambda: fastnn.check_gradients(model, X, Y), ValueError, "float32; expected float64"),
        (lambda: loss(X, [9] * 20), ValueError, "y has class numbers from 9 to 9; expected 0 to 3"),
        (lambda: loss(X[:, :3], Y[:4]), ValueError, "y has shape (4,)"),
        (lambda: weight(X, X[:, :2]), ValueError, "y has shape (20, 2); expected (20, 4)"),
        (lambda: loss([[1j]], [0]), TypeError, "outputs must hold numbers"),
        (lambda: loss(X[:, :3], Y, np.ones(3)), ValueError, "sample_weight has shape (3,)"),
        (lambda: model.evaluate(X, Y, metrics=["r3"]), ValueError, "metric 'r3': expected one of"),
        (lambda: model.predict_proba(X), ValueError, "predict_proba needs"),
        (lambda: network(fastnn.ReLU()).plan(), ValueError, "no layer says how many inputs"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(calls(network()))))
def test_wrong_calls(number):
    model = network()
    call, error, words = calls(model)[number]
    assert_refused(call, error, words, model)


STEPS: list[tuple[Any, Any, type[Exception], str]] = [
    ([ONE], [], ValueError, "grads has 0 arrays; expected 1"),
    ([ONE], None, ValueError, "grads has 0 arrays; expected 1"),
    (3, [ONE], TypeError, "params is a int; expected a list of arrays"),
    ([ONE], 3, TypeError, "grads is a int; expected a list of arrays"),
    ([ONE], [np.ones((2, 3))], ValueError, "grads[0] is float64 (2, 3); expected float64 (2, 2)"),
    ([ONE], [np.ones((2, 2), np.float32)], ValueError, "grads[0] is float32"),
    ([ONE.astype(int)], [ONE], TypeError, "params[0] is int64; expected a float32 or float64"),
    ([[1.0]], [ONE], TypeError, "params[0] is list"),
    ([np.ones((2, 4))[:, ::2]], [ONE], ValueError, "params[0] … C-contiguous … writable"),
    ([np.frombuffer(bytes(32)).reshape(2, 2)], [ONE], ValueError, "params[0] … writable"),
    ([ONE, ONE], [ONE, [1.0]], TypeError, "grads[1] is list"),
]


@pytest.mark.parametrize("params, grads, error, words", STEPS)
def test_wrong_arrays_of_a_step(params, grads, error, words):
    optimizer = fastnn.Adam()
    assert_refused(lambda: optimizer.step(params, grads), error, words, network())
    assert optimizer.updates == 0 and (ONE == 1).all()


@pytest.mark.parametrize("later", [[np.ones(3)], [ONE, ONE], [ONE.astype(np.float32)], []])
def test_other_arrays_than_those_of_the_step_before(later):
    optimizer = fastnn.Adam()
    optimizer.step([ONE.copy()], [ONE])
    before = [array.copy() for array in later]
    with pytest.raises(ValueError, match="the steps before had"):
        optimizer.step(later, [np.ones_like(array) for array in later])
    assert optimizer.updates == 1
    for array, kept in zip(later, before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_an_optimizer_of_arrays_and_one_of_a_model_do_not_mix():
    model, optimizer = network(), fastnn.Adam()
    optimizer.step([ONE.copy()], [ONE])
    assert_refused(
        lambda: model.fit(X, Y, optimizer=optimizer), ValueError, "state of something else", model
    )
    model.fit(X, Y, optimizer="sgd")
    with pytest.raises(ValueError, match="state of a model"):
        model.optimizer.step([ONE.copy()], [ONE])


# Model files


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:4], lambda content: content[:-1],
    lambda content: b"\xff" * 8 + content[8:], lambda content: content[:8] + b"x" + content[9:],
    lambda content: content + b"\0", lambda content: content.replace(b"Linear", b"Linaer"),
    lambda content: content.replace(b"layers", b"lasers"),
])  # fmt: skip
def test_a_damaged_model_file(damage, tmp_path):
    path = tmp_path / "model"
    network().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        fastnn.load(path)


def _of_another_width(tensors, metadata):
    metadata["layers"][-1]["arguments"]["outputs"] = 2**50  # must not be allocated


def _of_another_dtype(tensors, metadata):
    metadata["dtype"] = "float64"


def _with_a_slot_of_another_shape(tensors, metadata):
    tensors["slot 0 0.bias"] = np.ones(1, np.float32)  # would be broadcast


def _without_slots(tensors, metadata):
    del tensors["slot 1 2.weight"]


def _with_other_settings(tensors, metadata):
    metadata["optimizer"]["settings"]["alpha"] = 0.5


def _with_classes_of_numbers(tensors, metadata):
    metadata["classes"] = [1, 2, 3]


def _with_counts_of_text(tensors, metadata):
    metadata["optimizer"]["updates"] = "many"


@pytest.mark.parametrize(
    "change",
    [
        _of_another_width,
        _of_another_dtype,
        _with_a_slot_of_another_shape,
        _without_slots,
        _with_other_settings,
        _with_counts_of_text,
        _with_classes_of_numbers,
    ],
)
def test_a_model_file_that_contradicts_itself(change, tmp_path):
    path, model = tmp_path / "model", network()
    model.fit(X, Y)
    tensors, metadata = model.state()
    change(tensors, metadata)
    model_files.save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        fastnn.load(path)


def test_a_model_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastnn.load(tmp_path / "nothing")


def test_a_checkpoint_that_is_no_checkpoint(tmp_path):
    path, model = tmp_path / "model", network()
    network().save(path)
    assert_refused(
        lambda: model.fit(X, Y, checkpoint=path, resume=True), ValueError,
        "is not a checkpoint of fit", model,
    )  # fmt: skip
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError):
        model.fit(X, Y, checkpoint=path, resume=True)
    assert model.history is None


@pytest.mark.parametrize("part, value", [
    ("training", 3), ("training", {}), ("optimizer", None), ("layers", 3),
])  # fmt: skip
def test_a_checkpoint_that_contradicts_itself(part, value, tmp_path):
    path, model = tmp_path / "run", network()
    network().fit(X, Y, checkpoint=path)
    tensors, metadata = model_files.load_tensors(path)
    model_files.save_tensors(path, tensors, metadata | {part: value})
    assert_refused(
        lambda: model.fit(X, Y, checkpoint=path, resume=True), ValueError,
        f"{path} is not a checkpoint of fit", model,
    )  # fmt: skip
