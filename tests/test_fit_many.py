"""Many networks in one call: each ends as ``fit`` would leave it, bit for bit."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest
from conftest import each_backend

import fastnn
from fastnn import schedules
from fastnn.layers import Layer
from fastnn.progress import Progress
from fastnn.steps import EagerWarning

ROWS, INPUTS, HIDDEN, CLASSES = 53, 5, 7, 3

backend = each_backend("numpy", "numba")
pytestmark = pytest.mark.usefixtures("backend")


# Networks and data


def data(seed=0):
    """Noisy labels of one of three directions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, INPUTS))
    return x, (x[:, :CLASSES] + 0.5 * rng.normal(size=(ROWS, CLASSES))).argmax(axis=1)


def plain(seed=1, dtype="float64", hidden=HIDDEN):
    return fastnn.Sequential(
        fastnn.Linear(INPUTS, hidden), fastnn.Tanh(), fastnn.Linear(hidden, CLASSES),
        dtype=dtype, seed=seed,
    )  # fmt: skip


def elaborate(seed=1, dtype="float32"):
    return fastnn.Sequential(
        fastnn.Linear(INPUTS, HIDDEN), fastnn.BatchNorm1d(HIDDEN), fastnn.PReLU(HIDDEN),
        fastnn.Dropout(0.2), fastnn.Linear(HIDDEN, CLASSES), fastnn.Softmax(),
        dtype=dtype, seed=seed,
    )  # fmt: skip


def assorted():
    """Networks that differ in layers, width and dtype, and some that do not."""
    return [
        plain(1), elaborate(2), plain(3), plain(4, dtype="float32"), elaborate(5),
        plain(6, hidden=19), elaborate(7, dtype="float64"),
    ]  # fmt: skip


def some_rows(count, seed=0):
    """Row numbers of different lengths; with repetitions, in no order. No batch of 8 has one."""
    rng = np.random.default_rng(seed)
    return [rng.choice(ROWS, size=20 + 3 * (number % 4) + number // 4) for number in range(count)]


def one_by_one(models, x, y, *, rows=None, optimizers=None, seeds=None, stopping=None, **options):
    """What ``fit_many`` promises the results of."""
    histories = []
    weight = options.pop("sample_weight", None)
    for number, model in enumerate(models):
        chosen = slice(None) if rows is None else rows[number]
        history = model.fit(
            x[chosen], y[chosen],
            optimizer=optimizers[number] if optimizers else None,
            seed=seeds[number] if seeds else 0,
            early_stopping=stopping[number] if stopping else None,
            sample_weight=None if weight is None else weight[chosen],
            **options,
        )  # fmt: skip
        histories.append(history)
    return histories


def assert_as_by_fit(model, expected):
    """The same bits in everything that a training leaves behind, and in what a next one does."""
    assert_same_state(model, expected)
    x, y = data(seed=9)
    for network in (model, expected):
        network.fit(x, y, epochs=1, batch_size=10)
    assert_same_state(model, expected)


def assert_same_state(model, expected):
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(model.arrays()[name], array, err_msg=name)
    mine, other = model.optimizer, expected.optimizer
    assert (mine.name, mine.updates, mine.epochs) == (other.name, other.updates, other.epochs)
    for slot, slot_expected in zip(mine.slots, other.slots, strict=True):
        np.testing.assert_array_equal(slot.flat, slot_expected.flat)
    assert model.loss.name == expected.loss.name
    assert dict(model.history) == dict(expected.history) and model.history.epochs > 0
    assert model.history.updates == expected.history.updates
    assert model.history.stopped_early == expected.history.stopped_early


# The bits of fit


X, Y = data()
EVERY_OPTION = {
    "plain": {},
    "small batches": {"batch_size": 3},
    "full batch": {"batch_size": "full"},
    "rows as they stand": {"shuffle": False},
    "rows drawn": {"sampling": "replacement"},
    "weights": {"sample_weight": np.linspace(0.0, 2.0, ROWS)},
    "class weights": {"class_weight": {0: 2.0, 2: 0.5}},
    "both": {"sample_weight": np.linspace(0.5, 2.0, ROWS), "class_weight": "balanced"},
    "validation": {"validation_data": (X[:21], Y[:21], np.linspace(0.5, 1.0, 21))},
    "metrics": {"metrics": ["accuracy", lambda outputs, y: (outputs.argmax(axis=1) - y).std()]},
    "clipping": {"clip_norm": 0.5, "clip_value": 0.1, "history": "update"},
    "schedule": {"schedule": "cosine", "history": "update"},
    "schedule that watches": {"schedule": schedules.ReduceOnPlateau(0.5, 0, monitor="loss")},
    "loss": {"loss": fastnn.CrossEntropyLoss(label_smoothing=0.1)},
}


@pytest.mark.parametrize("with_rows", [False, True])
@pytest.mark.parametrize("options", EVERY_OPTION.values(), ids=EVERY_OPTION)
def test_networks_have_the_bits_of_fit(options, with_rows):
    models, expected = assorted(), assorted()
    settings = {"epochs": 4, "batch_size": 8} | options
    settings["rows"] = some_rows(len(models)) if with_rows else None
    seeds = [3, 0, 2**64 - 1, 3, 7, 8, 9]
    histories = fastnn.fit_many(models, X, Y, seeds=seeds, **settings)
    one_by_one(expected, X, Y, seeds=seeds, **settings)
    for model, other, history in zip(models, expected, histories, strict=True):
        assert history is model.history
        assert_as_by_fit(model, other)


def test_regression_has_the_bits_of_fit():
    def networks():
        return [fastnn.Sequential(fastnn.Linear(INPUTS, 1), seed=seed) for seed in range(3)]

    models, expected, target = networks(), networks(), X[:, 0] * X[:, 1]
    fastnn.fit_many(models, X, target, optimizers="sgd", epochs=3)
    one_by_one(expected, X, target, optimizers=["sgd"] * 3, epochs=3)
    for model, other in zip(models, expected, strict=True):
        assert isinstance(model.loss, fastnn.MSELoss)
        assert_same_state(model, other)


def test_each_network_has_its_own_optimizer_and_early_stopping():
    def optimizers():
        return [
            fastnn.Adam(0.05), fastnn.SGD(0.1, momentum=0.9), "rmsprop", None, fastnn.AdamW(0.01),
            fastnn.SGD(0.5), fastnn.Adam(0.3),
        ]  # fmt: skip

    def stopping():
        early = fastnn.EarlyStopping
        return [
            early(2, monitor="loss"), None, 1, early(2, restore_best=False),
            early(1, min_delta=0.1),
            None, early(3, monitor="val_accuracy"),
        ]  # fmt: skip

    models, expected = assorted(), assorted()
    options = {"epochs": 12, "batch_size": 10, "validation_data": (X[::3], Y[::3])}
    fastnn.fit_many(models, X, Y, optimizers=optimizers(), early_stopping=stopping(), **options)
    one_by_one(expected, X, Y, optimizers=optimizers(), stopping=stopping(), **options)
    stopped = [model.history.stopped_early for model in models]
    assert any(stopped) and not all(stopped)
    for model, other in zip(models, expected, strict=True):
        assert_as_by_fit(model, other)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_number_of_threads_changes_no_bit(threads):
    models, expected = [plain(seed) for seed in range(9)], [plain(seed) for seed in range(9)]
    before = fastnn.get_num_threads()
    fastnn.set_num_threads(threads)
    try:
        fastnn.fit_many(models, X, Y, epochs=3, seeds=range(9))
        assert fastnn.get_num_threads() == threads
    finally:
        fastnn.set_num_threads(before)
    one_by_one(expected, X, Y, epochs=3, seeds=range(9))
    for model, other in zip(models, expected, strict=True):
        assert_as_by_fit(model, other)


def test_networks_that_differ_in_a_setting_keep_it():
    def networks():
        linear, last = (INPUTS, HIDDEN), (HIDDEN, CLASSES)
        parts = [
            fastnn.Dropout(0.2), fastnn.Dropout(0.5), fastnn.BatchNorm1d(HIDDEN),
            fastnn.BatchNorm1d(HIDDEN, eps=0.1), fastnn.BatchNorm1d(HIDDEN, momentum=0.5),
            fastnn.LeakyReLU(0.1), fastnn.LeakyReLU(0.2), fastnn.PReLU(), fastnn.PReLU(HIDDEN),
            fastnn.Activation(lambda m, x: 0.1 * x, name="scale"),
            fastnn.Activation(lambda m, x: 0.2 * x, name="scale"),
        ]  # fmt: skip
        return [fastnn.Sequential(fastnn.Linear(*linear), p, fastnn.Linear(*last)) for p in parts]

    models, expected = networks(), networks()
    fastnn.fit_many(models, X, Y, epochs=2, batch_size=8)
    one_by_one(expected, X, Y, epochs=2, batch_size=8)
    for model, other in zip(models, expected, strict=True):
        assert_same_state(model, other)


def test_training_goes_on_where_the_last_call_ended():
    models, expected = assorted(), assorted()
    for epochs in (2, 3):
        fastnn.fit_many(models, X, Y, epochs=epochs, seeds=5)
        one_by_one(expected, X, Y, epochs=epochs, seeds=[5] * len(expected))
    for model, other in zip(models, expected, strict=True):
        assert model.optimizer.epochs == 5
        assert_same_state(model, other)


def test_one_optimizer_is_copied_for_each_network():
    adam, models = fastnn.Adam(0.02), [plain(1), plain(2)]
    fastnn.fit_many(models, X, Y, optimizers=adam)
    assert adam.updates == 0 and adam.slots == []
    assert len({id(adam), *(id(model.optimizer) for model in models)}) == 3
    assert [model.optimizer.lr for model in models] == [0.02, 0.02]


def test_no_networks_and_no_epochs():
    assert fastnn.fit_many([], X, Y) == []
    model = plain()
    before = model.arena.flat.copy()
    (history,) = fastnn.fit_many([model], X, Y, epochs=0)
    assert history.epochs == 0 and model.history is history
    np.testing.assert_array_equal(model.arena.flat, before)


def test_the_bar_counts_the_updates_of_all_even_of_those_that_end_early(monkeypatch):
    moves = []
    monkeypatch.setattr(Progress, "move", lambda bar, updates: moves.append(updates))
    stopping = [None, fastnn.EarlyStopping(1, min_delta=10.0), None]
    fastnn.fit_many(
        [plain(1), plain(2), plain(3)], X, Y, epochs=5, batch_size=10, early_stopping=stopping
    )
    assert sum(moves) == 3 * 5 * 6


@pytest.mark.parametrize("other", ["cupy"])
def test_networks_on_a_gpu_have_the_bits_of_fit(other):
    models, expected = ([plain(1, "float32"), elaborate(2)] for _ in range(2))
    rows = some_rows(2)
    with fastnn.use_backend(other):
        fastnn.fit_many(models, X, Y, rows=rows, epochs=2, seeds=[1, 2])
        one_by_one(expected, X, Y, rows=rows, epochs=2, seeds=[1, 2])
    for model, trained in zip(models, expected, strict=True):
        assert_same_state(model, trained)


# Divergence, interrupts, errors in the midst


def test_a_network_that_diverges_does_not_disturb_the_others():
    def optimizers():
        return [fastnn.SGD(0.1), fastnn.SGD(1e30), fastnn.SGD(0.1), fastnn.SGD(1e30)]

    models, expected = ([plain(seed) for seed in range(4)] for _ in range(2))
    target = np.eye(CLASSES)[Y]
    with pytest.warns(RuntimeWarning, match=r"2 of 4 .*: models\[1\], models\[3\];") as warned:
        fastnn.fit_many(models, X, target, optimizers=optimizers(), epochs=40, history="update")
    assert warned[0].filename == __file__
    for model, other, optimizer in zip(models, expected, optimizers(), strict=True):
        fit = {"optimizer": optimizer, "epochs": 40, "history": "update"}
        if optimizer.lr < 1.0:
            other.fit(X, target, **fit)
            assert model.history.diverged is None
        else:
            with pytest.raises(fastnn.DivergedError) as caught:
                other.fit(X, target, **fit)
            assert model.history.diverged == other.history.diverged == str(caught.value)
        np.testing.assert_array_equal(model.arena.flat, other.arena.flat)
        assert np.isfinite(model.arena.flat).all()
        assert model.optimizer.updates == other.optimizer.updates
        assert dict(model.history) == dict(other.history)
        np.testing.assert_equal(model.history.updates, other.history.updates)


def threads_at_work():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fit_many")]


def test_ctrl_c_ends_all_at_their_last_good_step():
    models = [plain(seed) for seed in range(20)]
    untouched, calls = plain(19), []

    def interrupting(epoch):
        calls.append(epoch)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return 1e-3

    with pytest.raises(KeyboardInterrupt):
        fastnn.fit_many(
            models, X, Y, epochs=10**6, batch_size="full", history="update", schedule=interrupting
        )
    assert threads_at_work() == []
    begun = [model for model in models if model.history is not None]
    assert begun and models[-1] not in begun
    np.testing.assert_array_equal(models[-1].arena.flat, untouched.arena.flat)
    for model in begun:
        updates, expected = model.optimizer.updates, plain(model.seed)
        assert len(model.history.updates["loss"]) == updates
        assert updates - 1 <= model.history.epochs <= updates
        expected.fit(X, Y, epochs=updates, batch_size="full", schedule=lambda epoch: 1e-3)
        np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)
        losses = expected.history.get("loss", [])
        assert model.history.get("loss", []) == losses[: model.history.epochs]


class Same(Layer):
    """An identity that fastnn does not know for one."""

    def forward(self, x):
        return x

    def backward(self, grad):
        return grad


class Failing(Same):
    """Gives up in the third step."""

    steps = 0

    def backward(self, grad):
        self.steps += 1
        if self.steps == 3:
            raise OSError("in the midst")
        return grad


def with_layer(layer, seed):
    return fastnn.Sequential(fastnn.Linear(INPUTS, CLASSES), layer, seed=seed)


def test_layers_of_ones_own_are_trained_in_python_with_one_warning():
    models = [with_layer(Same(), 1), plain(2), with_layer(Same(), 3)]
    expected = [with_layer(Same(), 1), plain(2), with_layer(Same(), 3)]
    rows = some_rows(3)
    with pytest.warns(EagerWarning, match="Same is not one of fastnn's own") as warned:
        fastnn.fit_many(models, X, Y, rows=rows, epochs=2)
    assert [warning.filename for warning in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerWarning)
        one_by_one(expected, X, Y, rows=rows, epochs=2)
        for model, other in zip(models, expected, strict=True):
            assert_as_by_fit(model, other)


def test_an_error_in_the_midst_ends_all_and_comes_out():
    models = [with_layer(Failing(), 1), *(plain(seed) for seed in range(5))]
    with (
        pytest.warns(EagerWarning),
        pytest.raises(OSError, match="in the midst"),
    ):
        fastnn.fit_many(models, X, Y, epochs=10**6)
    assert threads_at_work() == []
    assert models[0].optimizer.updates == 2
    assert all(np.isfinite(model.arena.flat).all() for model in models)


# Errors before anything changes


ROWS_OF_TWO = [np.arange(10), np.arange(5)]
WRONG = [
    ({"rows": ROWS_OF_TWO[:1]}, ValueError, "rows has 1 entries; expected 2"),
    ({"rows": [np.arange(10), np.array([], int)]}, ValueError, r"rows\[1\] is empty"),
    ({"rows": [np.arange(10), np.ones(ROWS, bool)]}, TypeError, r"rows\[1\].*flatnonzero"),
    ({"rows": [np.arange(10), [0, ROWS]]}, ValueError, rf"models\[1\]: rows .* 0 to {ROWS}; "),
    ({"rows": [[-1], [0]]}, ValueError, r"models\[0\]: rows has numbers from -1 to -1"),
    ({"seeds": [1, 2, 3]}, ValueError, "seeds has 3 entries; expected 2"),
    ({"seeds": [1, -2]}, ValueError, r"models\[1\]: seed must be at least 0, got -2"),
    ({"seeds": "one"}, TypeError, r"models\[0\]: seed must be an integer"),
    ({"optimizers": ["adam", "adma"]}, ValueError, r"models\[1\]: unknown optimizer 'adma'"),
    ({"optimizers": [fastnn.Adam()] * 2}, ValueError, r"models\[0\] and models\[1\].*optimizer"),
    ({"optimizers": ["adam"]}, ValueError, "optimizers has 1 entries"),
    ({"early_stopping": [1, "soon"]}, TypeError, r"models\[1\]: early_stopping is 'soon'"),
    (
        {"early_stopping": [fastnn.EarlyStopping(1, "val_loss"), 1]},
        ValueError, r"models\[0\]: unknown quantity to monitor 'val_loss'",
    ),
    ({"epoch": 3}, ValueError, "unknown argument of fit_many 'epoch': did you mean 'epochs'"),
    ({"epochs": -1}, ValueError, "epochs must be at least 0"),
    ({"batch_size": 0}, ValueError, r"models\[0\]: batch_size must be at least 1"),
    ({"optimizer": "adam"}, TypeError, "fit_many takes optimizers, one for each"),
    ({"seed": 3}, TypeError, "fit_many takes seeds, one for each"),
    ({"callbacks": [print]}, TypeError, "fit_many takes no callbacks"),
    ({"checkpoint": "file"}, TypeError, "fit_many takes no checkpoint"),
    ({"validation_data": (X, Y[:3])}, ValueError, r"models\[0\]: validation_data: y and X"),
    ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight has shape \(3,\)"),
    (
        {"sample_weight": np.r_[np.ones(20), np.zeros(33)], "rows": [[0], [40, 41]]},
        ValueError, r"models\[1\]: sample_weight must be .* not all zero",
    ),
    ({"loss": "cross"}, ValueError, "unknown loss 'cross'"),
    ({"history": "epochs"}, ValueError, "unknown history 'epochs'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "match"), WRONG)
def test_wrong_arguments_are_refused_before_anything_changes(arguments, error, match):
    models = [plain(1), plain(2)]
    before = [model.arena.flat.copy() for model in models]
    with pytest.raises(error, match=match):
        fastnn.fit_many(models, X, Y, **arguments)
    for model, flat in zip(models, before, strict=True):
        np.testing.assert_array_equal(model.arena.flat, flat)
        assert model.history is model.optimizer is model.loss is None


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda a, b: [a, b, a], ValueError, r"models\[0\] and models\[2\] are the same network"),
        (lambda a, b: [a, "b"], TypeError, r"models\[1\] is a str; expected a fastnn.Sequential"),
        (lambda a, b: a, TypeError, "models is a Sequential; expected a list"),
        (
            lambda a, b: [a, fastnn.Sequential(fastnn.Linear(INPUTS + 1, CLASSES))],
            ValueError, r"models\[1\]: X has 5 columns; the network takes 6",
        ),
        (
            lambda a, b: [a, fastnn.Sequential(fastnn.Linear(INPUTS, 2))],
            ValueError, r"models\[1\]: y has class numbers from 0 to 2",
        ),
    ],
)  # fmt: skip
def test_wrong_models_are_refused_before_anything_changes(make, error, match):
    model, other = plain(1), plain(2)
    before = model.arena.flat.copy()
    with pytest.raises(error, match=match):
        fastnn.fit_many(make(model, other), X, Y)
    np.testing.assert_array_equal(model.arena.flat, before)
    assert model.history is model.optimizer is None


def test_an_optimizer_that_trains_something_else_is_refused_before_anything_changes():
    adam, other, models = fastnn.Adam(), plain(0), [plain(1), plain(2)]
    other.fit(X, Y, optimizer=adam)
    with pytest.raises(ValueError, match=r"models\[1\]: this optimizer has the state of something"):
        fastnn.fit_many(models, X, Y, optimizers=["sgd", adam])
    assert models[0].optimizer is models[1].optimizer is None
