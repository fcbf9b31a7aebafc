"""Lowering: what rows a network becomes, and that they train as its layers do one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from checks import Bound, assert_close

import fastnn
from fastnn.kernels.contract import CHUNK_ROWS, Plan
from fastnn.kernels.formulas import UPDATES
from fastnn.layers import ACTIVATIONS, Layer
from fastnn.plan import Training, can_lower, lower

DTYPES = ("float32", "float64")
SGD = UPDATES["sgd"]
BACKENDS = ("numpy", "numba")


def training_plan(
    layers: list[Layer], batch: int = 8, training: Training | None = None, inputs: int = 6
) -> Plan:
    loss = fastnn.CrossEntropyLoss().use
    return lower(layers, inputs, batch, "float32", loss=loss, training=training or Training(SGD))


def operations(plan: Plan) -> list[str]:
    return [row.op for row in plan.chunk]


# Rows


def test_a_linear_layer_takes_activation_and_dropout_into_its_tail():
    layers = [fastnn.Linear(6, 4), fastnn.ReLU(), fastnn.Dropout(0.5), fastnn.Linear(4, 3)]
    plan = training_plan(layers)
    assert operations(plan) == [
        "weigh", "gather", "linear", "linear", "loss", "linear_grad_input", "check",
        "linear_grad_weight", "linear_grad_weight",
    ]  # fmt: skip
    first = plan.chunk[2]
    assert first.settings["activation"].formula.name == "relu"
    assert first.settings["dropout"].probability == 0.5 and first.settings["dropout"].layer == 2
    assert len(first.writes) == 2  # the output, and its slope for the way back
    assert plan.chunk[5].reads[-1] == first.writes[1]
    assert [row.settings["update"] for row in plan.chunk[-2:]] == [True, True]
    assert plan.step == ()


def test_prediction_stores_no_slopes_and_drops_nothing():
    layers = [fastnn.Linear(6, 4), fastnn.Tanh(), fastnn.Dropout(), fastnn.Linear(4, 3)]
    plan = lower(layers, 6, 8, "float32")
    assert operations(plan) == ["gather", "linear", "linear", "copy_out"]
    assert all(len(row.writes) == 1 and "dropout" not in row.settings for row in plan.chunk[1:3])
    assert plan.update is None and plan.outputs == 3


def test_evaluation_measures_and_updates_nothing():
    layers = [fastnn.Linear(6, 3), fastnn.BatchNorm1d(3)]
    plan = lower(layers, 6, 8, "float32", loss=fastnn.MSELoss().use)
    assert operations(plan) == ["weigh", "gather", "linear", "batch_norm", "loss", "check"]
    assert plan.step == ()


@pytest.mark.parametrize(
    "batch, training",
    [
        (CHUNK_ROWS + 1, Training(SGD)),
        (8, Training(SGD, clip_norm=1.0)),
        (8, Training(SGD, keep_gradients=True)),
    ],
)
def test_gradients_are_stored_first_where_something_else_needs_them(batch, training):
    layers = [fastnn.Linear(6, 4), fastnn.PReLU(), fastnn.Linear(4, 3)]
    plan = training_plan(layers, batch, training)
    assert not any(r.settings["update"] for r in plan.chunk if r.op == "linear_grad_weight")
    updated = [row.writes[0] for row in plan.step if row.op == "update"]
    assert set(updated) == {"0.weight", "1.slope", "2.weight"}  # biases go with their weights
    assert [row.op for row in plan.step if row.op == "norm"] == ["norm"] * bool(training.clip_norm)


@pytest.mark.parametrize("batch", [8, CHUNK_ROWS + 1])
def test_gradients_without_an_update_are_stored_and_move_nothing(batch):
    layers = [fastnn.Linear(6, 4), fastnn.PReLU(), fastnn.BatchNorm1d(4), fastnn.Linear(4, 3)]
    plan = training_plan(layers, batch, Training(None, keep_gradients=True))
    kept = training_plan(layers, batch, Training(SGD, keep_gradients=True))
    assert plan.chunk == kept.chunk and plan.step == () and plan.update is None
    assert plan.stores_gradients and kept.stores_gradients
    assert [plan.cost(row) for row in plan.chunk] == [kept.cost(row) for row in kept.chunk]
    assert str(plan).splitlines()[1:] == str(kept).split("\neach step:")[0].splitlines()[1:]


@pytest.mark.parametrize("asked", [{}, {"clip_norm": 1.0}, {"keep_gradients": True}])
@pytest.mark.parametrize("batch", [8, CHUNK_ROWS + 1])
def test_squares_are_summed_up_before_the_loss_is_checked_and_anything_moves(batch, asked):
    layers = [
        fastnn.Linear(6, 4), fastnn.PReLU(), fastnn.BatchNorm1d(4),
        fastnn.Linear(4, 3, decay_bias=True),
    ]  # fmt: skip
    plan = training_plan(layers, batch, Training(SGD, record_squares=True, **asked))
    plain = training_plan(layers, batch, Training(SGD, **asked))
    place = operations(plan).index("square_sum")
    assert operations(plan)[place + 1] == "check"
    assert set(plan.chunk[place].reads) == {"0.weight", "3.weight", "3.bias"}
    assert plan.chunk[:place] + plan.chunk[place + 1 :] == plain.chunk
    assert plan.cost(plan.chunk[place]) == (2 * (24 + 12 + 3), 4 * (24 + 12 + 3))
    assert "square_sum" in str(plan)


@pytest.mark.parametrize(
    "training, words",
    [
        (Training(None), "no update and keeps no gradients"),
        (Training(None, clip_norm=1.0, keep_gradients=True), "clips gradients for an update"),
        (Training(None, clip_value=1.0, keep_gradients=True), "clips gradients for an update"),
    ],
)
def test_training_that_can_do_nothing_is_refused(training, words):
    with pytest.raises(ValueError, match=words):
        training_plan([fastnn.Linear(6, 3)], training=training)


def test_a_learned_parameter_outside_of_products_is_updated_at_the_end_of_a_step():
    layers = [fastnn.Linear(6, 4), fastnn.BatchNorm1d(4), fastnn.PReLU(4), fastnn.Linear(4, 3)]
    plan = training_plan(layers)
    assert {row.writes[0] for row in plan.step} == {"1.weight", "1.bias", "2.slope"}


@pytest.mark.parametrize("batch", [1, CHUNK_ROWS, CHUNK_ROWS + 1, 1300, 5 * CHUNK_ROWS])
def test_chunks_are_equal_and_none_is_larger_than_the_cache_takes(batch):
    plan = training_plan([fastnn.Linear(6, 3)], batch)
    chunks = -(-batch // plan.chunk_rows)
    assert plan.chunk_rows <= CHUNK_ROWS and chunks == -(-batch // CHUNK_ROWS)
    assert chunks * plan.chunk_rows - batch < chunks


def test_a_backend_may_walk_more_rows_at_once():
    layers, loss = [fastnn.Linear(6, 3)], fastnn.MSELoss().use
    plans = [lower(layers, 6, 9000, "float32", loss=loss, chunk_rows=most) for most in (4096, 9000)]
    assert [plan.chunk_rows for plan in plans] == [3000, 9000]


def test_normalisation_takes_the_whole_batch():
    assert training_plan([fastnn.BatchNorm1d(6), fastnn.Linear(6, 3)], 2000).chunk_rows == 2000


def test_no_gradient_goes_below_the_last_layer_that_learns():
    layers = [
        fastnn.Standardize(np.zeros(6), np.ones(6)), fastnn.Tanh(), fastnn.Dropout(),
        fastnn.Linear(6, 3),
    ]  # fmt: skip
    assert not {"linear_grad_input", "multiply"} & set(operations(training_plan(layers)))


def test_everything_is_checked_before_anything_is_written():
    layers = [fastnn.Linear(6, 4), fastnn.BatchNorm1d(4), fastnn.Linear(4, 3)]
    plan = training_plan(layers)
    check = operations(plan).index("check")
    lasting = {p.name for p in (*plan.parameters, *plan.constants)}
    written = [
        place for place, row in enumerate(plan.chunk)
        if row.op == "linear_grad_weight" or (lasting & set(row.writes) and row.op != "column_sums")
    ]  # fmt: skip
    assert written and min(written) > check


def test_a_network_without_parameters_cannot_train():
    with pytest.raises(ValueError, match="no parameters to train"):
        fastnn.Sequential(fastnn.Tanh()).fit(np.zeros((4, 3)), [0, 1, 2, 0])


def test_only_layers_of_ones_own_stay_eager():
    class Own(Layer):
        pass

    assert can_lower([fastnn.Linear(1, 1), fastnn.Activation(lambda m, x: x * x, name="square")])
    assert not can_lower([fastnn.Linear(1, 1), Own()])


def test_a_layer_of_ones_own_has_no_plan():
    class Own(Layer):
        pass

    with pytest.raises(TypeError, match=r"layer 1, Own\(\), is not one of fastnn's own"):
        lower([fastnn.Linear(2, 2), Own()], 2, 4, "float32")


def test_the_plan_prints_its_rows_with_flops_and_bytes():
    model = fastnn.Sequential(fastnn.Linear(64, 32), fastnn.GELU(), fastnn.Linear(32, 10))
    text = str(model.plan(batch_size=100))
    assert "float32, batch 100, chunk 100" in text
    assert "gelu" in text and "cross_entropy" in text
    assert f"{2 * 100 * 64 * 32 / 1e6:.3f} Mflop" in text
    (first,) = [row for row in model.plan(batch_size=100).chunk if row.op == "linear"][:1]
    # x, weight, bias, output and slope
    assert model.plan(batch_size=100).cost(first).bytes == 4 * (
        100 * 64 + 64 * 32 + 32 + 2 * 100 * 32
    )


# Compiled against layer by layer

STACKS: dict[str, Callable[[], list[Layer]]] = {
    "one layer": lambda: [fastnn.Linear(6, 3)],
    "no bias": lambda: [
        fastnn.Linear(6, 5, bias=False), fastnn.GELU(), fastnn.Linear(5, 3, bias=False),
    ],
    "activations in a row": lambda: [
        fastnn.Linear(6, 5), fastnn.Tanh(), fastnn.Sigmoid(), fastnn.SiLU(), fastnn.Linear(5, 3),
    ],
    "activation first": lambda: [fastnn.Tanh(), fastnn.Linear(6, 3)],
    "activation last": lambda: [fastnn.Linear(6, 3), fastnn.Softplus()],
    "linear after linear": lambda: [fastnn.Linear(6, 5), fastnn.Linear(5, 3)],
    "standardized": lambda: [
        fastnn.Standardize(np.arange(6.0), np.arange(1.0, 7.0)), fastnn.Linear(6, 3),
    ],
    "standardized in the middle": lambda: [
        fastnn.Linear(6, 5), fastnn.Tanh(), fastnn.Standardize(np.ones(5), np.full(5, 0.5)),
        fastnn.Linear(5, 3),
    ],
    "prelu a column": lambda: [fastnn.PReLU(6), fastnn.Linear(6, 5), fastnn.PReLU(5),
                               fastnn.Linear(5, 3)],
    "prelu twice": lambda: [fastnn.Linear(6, 3), fastnn.PReLU(), fastnn.PReLU(3, start=0.5)],
    "normalised": lambda: [
        fastnn.Linear(6, 5), fastnn.BatchNorm1d(5), fastnn.ReLU(), fastnn.Linear(5, 3),
    ],
    "normalised after the activation": lambda: [
        fastnn.Linear(6, 5), fastnn.Tanh(), fastnn.BatchNorm1d(5), fastnn.Linear(5, 3),
    ],
    "normalised first and last": lambda: [
        fastnn.BatchNorm1d(6), fastnn.Linear(6, 3), fastnn.BatchNorm1d(3, momentum=0.5),
    ],
    "only normalised": lambda: [fastnn.BatchNorm1d(6)],
    "softmax in the middle": lambda: [
        fastnn.Linear(6, 5), fastnn.Tanh(), fastnn.Softmax(), fastnn.Linear(5, 3),
    ],
    "softmax first": lambda: [fastnn.Softmax(), fastnn.Linear(6, 3)],
    "flattened": lambda: [fastnn.Flatten(), fastnn.Linear(6, 3), fastnn.Tanh()],
    "one column": lambda: [fastnn.Linear(6, 1), fastnn.PReLU(), fastnn.Linear(1, 3)],
    "wider than a panel": lambda: [fastnn.Linear(6, 150), fastnn.SELU(), fastnn.Linear(150, 3)],
}  # fmt: skip
STACKS |= {
    name: lambda make=make: [fastnn.Linear(6, 5), make(), fastnn.Linear(5, 3)]
    for name, make in ACTIVATIONS.items()
}


def by_hand(model, x, y, loss, optimizer, batch_size):
    losses = []
    for begin in range(0, len(x), batch_size):
        batch = slice(begin, begin + batch_size)
        value, grad = loss(model(x[batch]), y[batch])
        model.backward(grad)
        optimizer.step(model)
        losses.append(value)
    return losses


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STACKS)
def test_a_compiled_step_is_the_layers_one_by_one(name, backend, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(21, 6)).astype(dtype)
    with fastnn.use_backend("numpy"):
        hand = fastnn.Sequential(*STACKS[name](), dtype=dtype, seed=1)
        y = rng.normal(size=(21, hand(x).shape[1]))
        hand = fastnn.Sequential(*STACKS[name](), dtype=dtype, seed=1)
        losses = by_hand(hand, x, y, fastnn.MSELoss(), fastnn.Momentum(0.1), 8)
    with fastnn.use_backend(backend):
        model = fastnn.Sequential(*STACKS[name](), dtype=dtype, seed=1)
        history = model.fit(
            x, y, optimizer=fastnn.Momentum(0.1), batch_size=8, shuffle=False, history="update"
        )
        predicted = model.predict(x)
    widest = max(max(p.shape) for layer in model for p in layer.parameters())
    unit = 3 * (8 + widest) * float(np.finfo(dtype).eps)  # three steps, each some sums
    assert_close(history.updates["loss"], losses, Bound(unit * 8, unit * 8))
    for parameter, expected in hand.arrays().items():
        bound = unit * 8 * (1 + np.abs(expected))
        assert_close(model.arrays()[parameter], expected, Bound(bound, bound))
    with fastnn.use_backend("numpy"):
        expected = hand.eval()(x)
    bound = unit * 64 * (1 + np.abs(expected))
    assert_close(predicted, expected, Bound(bound, bound))


@pytest.mark.parametrize("backend", BACKENDS)
def test_stored_gradients_come_out_where_they_are_kept(backend):
    from fastnn.kernels.contract import Binding

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 6)), rng.integers(0, 3, 16)
    model = fastnn.Sequential(*STACKS["prelu"](), dtype="float64")
    loss = fastnn.CrossEntropyLoss()
    with fastnn.use_backend(backend) as chosen:
        _, grad = loss(model(x), y)
        model.backward(grad)
        grads = model.arena.like()
        plan = lower(
            model.layers, 6, 16, "float64", loss=loss.use,
            training=Training(SGD, keep_gradients=True),
        )  # fmt: skip
        binding = Binding(x, {n: a.copy() for n, a in model.arrays().items()}, y, grads=grads)
        run = chosen.start(plan, binding)
        run.begin(None, 16, fastnn.SGD(0.1).scalars(0, np.array([0.1]), "float64"))
        assert run.advance(60.0) == "done"
        run.store()
    for name, expected in model.grads.items():
        assert_close(grads[name], expected, Bound(1e-14, 1e-14))
