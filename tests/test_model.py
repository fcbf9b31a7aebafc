"""Sequential: data of every kind, prediction, files, copies, and what a network prints."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, product_bound

import fastnn
from fastnn.layers import LAYERS, Layer

DTYPES = ("float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

pytestmark = pytest.mark.usefixtures("backend")


def network(dtype="float32", *, inputs=12, seed=0):
    return fastnn.Sequential(
        fastnn.Linear(inputs, 20), fastnn.BatchNorm1d(20), fastnn.PReLU(), fastnn.Dropout(0.1),
        fastnn.Linear(20, 3), dtype=dtype, seed=seed,
    )  # fmt: skip


def data(rows=60):
    rng = np.random.default_rng(0)
    return rng.integers(0, 100, size=(rows, 12)).astype(np.float64), rng.integers(0, 3, rows)


def trained(**options):
    x, y = data()
    model = network()
    model.fit(x, y, epochs=2, **options)
    return model


# Construction


def test_the_arena_holds_everything_and_layers_hold_views():
    model = network()
    assert list(model.arena) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "2.slope", "4.weight", "4.bias",
    ]  # fmt: skip
    assert model.parameter_count == model.arena.flat.size == 12 * 20 + 20 + 40 + 1 + 60 + 3
    assert model.arena.flat.ctypes.data % 64 == 0
    assert model.arena.decayed == 12 * 20 + 60
    for name, array in model.arena.items():
        assert np.shares_memory(array, model.arena.flat[: model.arena.decayed]) == (
            name in ("0.weight", "4.weight")
        )
    model.arena.flat[:] = 2.0
    assert (model[4].weight == 2.0).all() and (model[2].slope == 2.0).all()


@pytest.mark.parametrize(
    "activation, kind",
    [(fastnn.ReLU, "he"), (fastnn.GELU, "he"), (fastnn.SELU, "lecun"), (fastnn.Tanh, "glorot")],
)
def test_weights_begin_by_the_activation_that_follows(activation, kind):
    model = fastnn.Sequential(fastnn.Linear(300, 200), activation(), fastnn.Linear(200, 1))
    deviation = reference.initialiser_deviation(kind, 300, 200)
    # the deviation of 60,000 draws is known to about 0.3 %; five times that
    assert abs(model[0].weight.std() / deviation - 1) <= 0.015
    assert not model[0].bias.any()


def test_an_initialiser_may_be_named_or_a_function():
    model = fastnn.Sequential(
        fastnn.Linear(3, 4, init="zeros"),
        fastnn.Linear(4, 2, init=lambda generator, shape, dtype: np.full(shape, 0.5, dtype)),
    )
    assert not model[0].weight.any() and (model[1].weight == 0.5).all()


def test_float32_and_float64_begin_at_the_same_place():
    single, double = network("float32"), network("float64")
    np.testing.assert_array_equal(double.arena.flat.astype(np.float32), single.arena.flat)


@pytest.mark.parametrize("bias", [True, False])
def test_a_first_layer_of_one_input(bias):
    model = fastnn.Sequential(fastnn.Linear(1, 5, bias=bias), fastnn.ReLU(), fastnn.Linear(5, 2))
    assert model.inputs == 1
    assert model.predict([[1.0], [2.0]]).shape == (2, 2)


def test_a_network_prints_its_layers():
    text = repr(network())
    assert "Sequential(364 parameters, float32" in text
    assert "Linear(inputs=12, outputs=20)" in text and "12 -> 20" in text and "260 param" in text
    assert "Dropout(p=0.1)" in text
    assert len(network()) == 5 and [type(layer) for layer in network()][4] is fastnn.Linear


# Data


class Table:
    """What pandas gives: something that NumPy can see as an array, with an index of its own."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __len__(self):
        return len(self.values)


KINDS = {
    "list": lambda x: x.tolist(),
    "float16": lambda x: x.astype(np.float16),
    "float64": lambda x: x,
    "longdouble": lambda x: x.astype(np.longdouble),
    "big-endian": lambda x: x.astype(">f4"),
    "uint8": lambda x: x.astype(np.uint8),
    "int8": lambda x: x.astype(np.int8),
    "int32": lambda x: x.astype(np.int32),
    "uint64": lambda x: x.astype(np.uint64),
    "Fortran order": lambda x: np.asfortranarray(x),
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every second column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "columns of a wider array": lambda x: np.hstack([x, x])[:, :12],
    "rows backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "three axes": lambda x: x.reshape(-1, 3, 4),
    "table": Table,
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_any_kind_trains_and_predicts_the_same(kind):
    x, y = data()
    model, expected = network(), network()
    for each, rows in ((model, KINDS[kind](x)), (expected, x.astype(np.float32))):
        each.fit(rows, Table(y) if kind == "table" else y, epochs=2)
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)
    np.testing.assert_array_equal(model.predict(KINDS[kind](x)), expected.predict(x))


@pytest.mark.parametrize("rows, columns", [(5, 1), (1, 3), (1, 1)])
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_the_stride_of_an_axis_of_one_element_says_nothing(rows, columns, kind):
    """As of a table's one column, which begins elsewhere than the others."""
    table = np.arange(50).reshape(5, 10).astype(kind)
    x, y = np.asfortranarray(table)[:rows, :columns], np.arange(rows) % 2
    model = fastnn.Sequential(fastnn.Linear(columns, 2), seed=0)
    other = fastnn.Sequential(fastnn.Linear(columns, 2), seed=0)
    model.fit(x, y)
    other.fit(np.array(x.tolist(), kind), y)
    np.testing.assert_array_equal(model.arena.flat, other.arena.flat)


def test_a_memory_map_is_read_in_place(tmp_path):
    x, y = data()
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model, expected = network(), network()
    assert np.shares_memory(model.rows("X", mapped), mapped)
    model.fit(mapped, y)
    expected.fit(x, y)
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)


def test_the_data_stay_as_they_were():
    x, y = data()
    kept = x.copy(), y.copy()
    network().fit(x, y, epochs=2)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_a_list_of_labels_is_as_good_as_an_array():
    x, y = data()
    assert dict(network().fit(x, y.tolist())) == dict(network().fit(x, y))


# Prediction


@every_dtype
@pytest.mark.parametrize("rows", [1, 60, 1025])
def test_predict(rows, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 12)).astype(dtype)
    model = fastnn.Sequential(fastnn.Linear(12, 3), dtype=dtype)
    size = np.abs(x).astype(float) @ np.abs(model[0].weight)
    expected = reference.linear(x, model[0].weight, model[0].bias)
    assert_close(model.predict(x), expected, product_bound(dtype, 13, size))
    assert model.predict(x).dtype == dtype


def test_predict_behaves_as_in_evaluation_and_leaves_the_mode():
    model, (x, _) = trained(), data()
    assert model.training
    expected = model.eval()(x)
    model.train()
    predicted = model.predict(x)
    bound = 64 * float(np.finfo(np.float32).eps) * np.abs(expected).max()
    assert_close(predicted, expected, Bound(bound, bound))
    np.testing.assert_array_equal(model.predict(x), predicted)
    assert model.training


def test_predict_proba_of_a_trained_classifier():
    model, (x, _) = trained(), data()
    proba = model.predict_proba(x)
    expected = reference.softmax(model.predict(x))
    assert_close(proba, expected, Bound(1e-6, 1e-6))


def test_evaluate_of_one_row_with_normalisation():
    model, (x, y) = trained(), data()
    expected, _ = reference.cross_entropy(model.predict(x[:1]), y[:1])
    assert abs(model.evaluate(x[:1], y[:1])["loss"] - expected) <= 1e-6 * (1 + expected)


# Files and copies


def assert_goes_on_alike(one, other):
    """The same predictions, and the same bits after more training."""
    x, y = data()
    np.testing.assert_array_equal(one.predict(x), other.predict(x))
    for model in (one, other):
        model.fit(x, y, epochs=2)
    np.testing.assert_array_equal(one.arena.flat, other.arena.flat)
    np.testing.assert_array_equal(one.constants.flat, other.constants.flat)
    assert one.optimizer.updates == other.optimizer.updates == 8
    assert one.optimizer is not other.optimizer
    assert not np.shares_memory(one.arena.flat, other.arena.flat)


def saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    return fastnn.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "again",
    [
        saved_and_loaded,
        lambda model, _: copy.deepcopy(model),
        lambda model, _: pickle.loads(pickle.dumps(model)),
    ],
    ids=["saved and loaded", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_copy_goes_on_by_itself(again, optimizer, tmp_path):
    model = trained(optimizer=optimizer)
    model.classes = ["a", "b", "c"]
    other = again(model, tmp_path)
    assert other.classes == model.classes and repr(other) == repr(model)
    assert_goes_on_alike(model, other)


def test_a_formula_without_a_name_in_a_module_is_deepcopied():
    model, (x, _) = (
        fastnn.Sequential(
            fastnn.Linear(12, 3), fastnn.Activation(lambda m, x: x * x, name="square")
        ),
        data(),
    )
    other = copy.deepcopy(model)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    other.arena.flat[:] = 0.0
    assert model.predict(x).any() and not other.predict(x).any()


def test_an_untrained_network_is_saved_and_loaded(tmp_path):
    model, (x, _) = network("float64"), data()
    other = saved_and_loaded(model, tmp_path)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    assert other.dtype == "float64" and other.optimizer is None and other.loss is None


@pytest.mark.parametrize("loss", [
    fastnn.CrossEntropyLoss(0.1), fastnn.HuberLoss(0.5), fastnn.MSELoss(), fastnn.L1Loss(),
    fastnn.BCEWithLogitsLoss(), fastnn.PoissonNLLLoss(),
], ids=repr)  # fmt: skip
def test_the_loss_comes_back(loss, tmp_path):
    x, y = data()
    model = network()
    model.fit(x, np.eye(3)[y], loss=loss)
    other = saved_and_loaded(model, tmp_path)
    assert repr(other.loss) == repr(loss)
    assert other.evaluate(x, np.eye(3)[y]) == model.evaluate(x, np.eye(3)[y])


def test_every_layer_is_saved_and_loaded_with_its_arguments(tmp_path):
    layers = (
        fastnn.Flatten(), fastnn.Standardize(np.arange(12.0), np.full(12, 30.0)),
        fastnn.Linear(12, 6, bias=False, init="he_normal", decay_bias=True), fastnn.Identity(),
        fastnn.Sigmoid(), fastnn.Tanh(), fastnn.ReLU(), fastnn.LeakyReLU(0.3), fastnn.PReLU(6, 0.1),
        fastnn.ELU(0.7), fastnn.SELU(), fastnn.GELU("tanh"), fastnn.SiLU(),
        fastnn.Softplus(2.0, 5.0), fastnn.BatchNorm1d(6, eps=1e-3, momentum=0.2),
        fastnn.Dropout(0.3), fastnn.Softmax(),
    )  # fmt: skip
    assert {type(layer).__name__ for layer in layers} == set(LAYERS)
    model, (x, _) = fastnn.Sequential(*layers), data()
    other = saved_and_loaded(model, tmp_path)
    assert repr(other) == repr(model)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


class Doubled(Layer):
    """A layer of one's own with an argument."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return self.factor * x

    def backward(self, grad):
        return self.factor * grad

    def arguments(self):
        return {"factor": self.factor}


def test_a_layer_of_ones_own_is_loaded_by_its_class(tmp_path):
    model, (x, _) = fastnn.Sequential(fastnn.Linear(12, 3), Doubled(2.0)), data()
    model.save(tmp_path / "own")
    other = fastnn.load(tmp_path / "own", custom=[Doubled])
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    with pytest.raises(ValueError, match=r"'Doubled'.*custom="):
        fastnn.load(tmp_path / "own")


def scaled(m, x, factor):
    return factor * m.tanh(x)


def weighted(m, output, target, factor):
    return factor * (output - target) * (output - target)


def descent(m, weight, grad, slots, h):
    return m.fma(-h.learning_rate * h.factor, grad, weight), ()


def own_parts(factor):
    return [
        fastnn.Activation(scaled, name="scaled", factor=factor),
        fastnn.Loss(weighted, name="weighted", factor=factor),
        fastnn.Optimizer(descent, 0.1, name="descent", factor=factor),
    ]


def own_model():
    x, y = data()
    activation, loss, optimizer = own_parts(2.0)
    model = fastnn.Sequential(fastnn.Linear(12, 3), activation)
    model.fit(x / 100, np.eye(3)[y], loss=loss, optimizer=optimizer)
    return model


def test_settings_of_formulas_come_from_the_file(tmp_path):
    model, path, (x, y) = own_model(), tmp_path / "own", data()
    model.save(path)
    parts = own_parts(factor=-1.0)
    other = fastnn.load(path, custom=parts)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    assert other.evaluate(x, np.eye(3)[y]) == model.evaluate(x, np.eye(3)[y])
    assert other.optimizer.settings == {"factor": 2.0} and other.optimizer is not parts[2]


def test_loading_leaves_an_optimizer_alone_that_trains_another_network(tmp_path):
    model, path = own_model(), tmp_path / "own"
    model.save(path)
    fastnn.load(path, custom=[*own_parts(2.0)[:2], model.optimizer])
    assert model.optimizer.trains(model) and model.optimizer.updates == 2


@pytest.mark.parametrize("missing, name", [(0, "scaled"), (1, "weighted"), (2, "descent")])
def test_a_formula_that_the_file_names_must_be_given(missing, name, tmp_path):
    own_model().save(tmp_path / "own")
    parts = own_parts(2.0)
    del parts[missing]
    with pytest.raises(ValueError, match=f"{name!r}.*custom="):
        fastnn.load(tmp_path / "own", custom=parts)


def test_a_network_whose_optimizer_went_elsewhere_saves_no_state_of_it(tmp_path):
    model, other = trained(), fastnn.Sequential(fastnn.Linear(12, 3))
    optimizer = model.optimizer
    optimizer.reset()
    other.fit(*data(), optimizer=optimizer)
    loaded = saved_and_loaded(model, tmp_path)
    assert loaded.optimizer is None
    np.testing.assert_array_equal(loaded.arena.flat, model.arena.flat)


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    model, path = trained(), tmp_path / "model"
    model.save(path)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        network(seed=5).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_a_file_goes_to_another_process(tmp_path):
    model, (x, _) = trained(), data()
    model.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, numpy as np, fastnn; fastnn.set_backend(sys.argv[2]); folder = sys.argv[1];"
        "np.save(folder + '/y.npy', fastnn.load(folder + '/model').predict(np.load(folder "
        "+ '/x.npy')))"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), fastnn.get_backend().name], check=True,
        timeout=60, cwd=Path(fastnn.__file__).parents[1],
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(x))
