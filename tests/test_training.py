"""fit: descent of every kind against the float64 truth, and everything that surrounds the steps."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close

import fastnn
from fastnn import schedules
from fastnn.layers import Layer
from fastnn.progress import Progress
from fastnn.steps import EagerWarning

DTYPES = ("float32", "float64")
ROWS, INPUTS, HIDDEN, CLASSES = 53, 5, 7, 3
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

pytestmark = pytest.mark.usefixtures("backend")


# Networks, data and the truth


def network(dtype="float64", seed=1, **linear):
    return fastnn.Sequential(
        fastnn.Linear(INPUTS, HIDDEN, **linear), fastnn.Tanh(),
        fastnn.Linear(HIDDEN, CLASSES, **linear), dtype=dtype, seed=seed,
    )  # fmt: skip


def data(rows=ROWS, dtype="float64", seed=0):
    """Noisy labels of one of three directions: learnable, never perfectly."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, INPUTS)).astype(dtype)
    return x, (x[:, :CLASSES] + 0.5 * rng.normal(size=(rows, CLASSES))).argmax(axis=1)


def orders(rows, batch, epochs, seed, sampling, first_epoch=0) -> Iterator[np.ndarray]:
    """The row numbers of each batch."""
    for epoch in range(first_epoch, first_epoch + epochs):
        order = {
            "shuffle": lambda epoch: reference.shuffle(seed, epoch, rows),
            "replacement": lambda epoch: reference.draw(seed, epoch, rows, rows),
            "none": lambda epoch: np.arange(rows),
        }[sampling](epoch)
        yield from (order[begin : begin + batch] for begin in range(0, rows, batch))


def parts(model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    linears = [layer for layer in model if isinstance(layer, fastnn.Linear)]
    return [layer.weight for layer in linears], [layer.bias for layer in linears]


def each_part(model) -> list[np.ndarray]:
    """All weights, then all biases."""
    weights, biases = parts(model)
    return [*weights, *biases]


def truth(model, x, y, batches, optimizer, weight=None, loss=reference.cross_entropy):
    """Weights, biases and the loss before each update, from the model's present weights."""
    fed = ((x[b], y[b]) if weight is None else (x[b], y[b], weight[b]) for b in batches)
    weights, biases = ([array.astype(float) for array in each] for each in parts(model))
    return reference.train_dense(weights, biases, "tanh", loss, optimizer, fed)


def rounding(dtype, updates, rows, expected) -> Bound:
    """What so many updates round: each sums over a batch and over the inputs of every layer."""
    limit = updates * (rows + INPUTS + HIDDEN) * float(np.finfo(dtype).eps) * (1 + np.abs(expected))
    return Bound(limit, limit)


def assert_trained(model, history, expected, rows) -> None:
    """The weights, biases and losses of ``fit(history="update")`` are the expected ones."""
    weights, biases, losses = expected
    bound = functools.partial(rounding, model.dtype, len(losses), min(rows, ROWS))
    assert_close(history.updates["loss"], losses, bound(losses))
    for actual, wanted in zip(each_part(model), [*weights, *biases], strict=True):
        assert_close(actual, wanted, bound(wanted))


def assert_same_bits(one, other) -> None:
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])
    for slot, expected in zip(one.optimizer.slots, other.optimizer.slots, strict=True):
        np.testing.assert_array_equal(slot.flat, expected.flat)
    assert one.optimizer.updates == other.optimizer.updates
    assert dict(one.history) == dict(other.history)
    assert one.history.updates == other.history.updates


# Descent


@every_dtype
@pytest.mark.parametrize("sampling", ["shuffle", "replacement", "none"])
@pytest.mark.parametrize("batch_size", [1, 8, 53, "full", 1000])
def test_descent(batch_size, sampling, dtype):
    x, y = data(dtype=dtype)
    model, batch = network(dtype), ROWS if batch_size == "full" else min(batch_size, ROWS)
    batches = list(orders(ROWS, batch, 2, 5, sampling))
    expected = truth(model, x, y, batches, lambda: reference.SGD(0.05))
    history = model.fit(
        x, y, optimizer=fastnn.SGD(0.05), batch_size=batch_size, epochs=2, seed=5,
        shuffle=sampling != "none", history="update",
        sampling="shuffle" if sampling == "none" else sampling,
    )  # fmt: skip
    assert len(history.updates["loss"]) == 2 * -(-ROWS // batch)
    assert_trained(model, history, expected, batch)


@every_dtype
@pytest.mark.parametrize("rows, batch_size", [(1300, "full"), (1300, 600), (513, "full")])
def test_batches_larger_than_a_chunk(rows, batch_size, dtype):
    x, y = data(rows, dtype)
    model, batch = network(dtype), rows if batch_size == "full" else batch_size
    batches = list(orders(rows, batch, 2, 0, "shuffle"))
    expected = truth(model, x, y, batches, lambda: reference.Momentum(0.5))
    history = model.fit(
        x, y, optimizer=fastnn.Momentum(0.5), batch_size=batch_size, epochs=2, history="update"
    )
    assert_trained(model, history, expected, rows)


OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("Momentum", {"learning_rate": 0.1, "dampening": 0.2, "weight_decay": 0.1}),
    ("Nesterov", {"learning_rate": 0.1, "weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("RMSprop", {"weight_decay": 0.1, "eps": 1e-3}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "eps": 1e-2}),
    ("Adam", {"weight_decay": 0.1, "eps": 1e-4}),
    ("AdamW", {"weight_decay": 0.1, "eps": 1e-4}),
]


@every_dtype
@pytest.mark.parametrize("batch_size", [8, 600])
@pytest.mark.parametrize("name, settings", OPTIMIZERS)
def test_every_optimizer(name, settings, batch_size, dtype):
    rows = 1100 if batch_size > ROWS else ROWS
    x, y = data(rows, dtype)
    model = network(dtype)
    batches = list(orders(rows, batch_size, 3, 0, "shuffle"))
    expected = truth(model, x, y, batches, lambda: getattr(reference, name)(**settings))
    keywords = {"lr" if key == "learning_rate" else key: v for key, v in settings.items()}
    optimizer = getattr(fastnn, name)(**keywords)
    history = model.fit(
        x, y, optimizer=optimizer, batch_size=batch_size, epochs=3, history="update"
    )
    assert_trained(model, history, expected, rows)
    assert optimizer.updates == len(expected[2])


@every_dtype
def test_biases_decay_where_asked(dtype):
    x, y = data(dtype=dtype)
    models = [network(dtype, decay_bias=decay) for decay in (False, True)]
    for model in models:
        model[0].bias, model[2].bias = np.ones(HIDDEN), np.ones(CLASSES)
        model.fit(x, y, optimizer=fastnn.SGD(0.0625, weight_decay=0.5), batch_size="full")
    for layer in (0, 2):
        difference = models[0][layer].bias - models[1][layer].bias
        expected = np.full_like(difference, 0.0625 * 0.5)
        assert_close(difference, expected, rounding(dtype, 1, ROWS, 1.0))
    np.testing.assert_array_equal(models[0][2].weight, models[1][2].weight)


@every_dtype
def test_weighted_rows(dtype):
    x, y = data(dtype=dtype)
    weight = np.random.default_rng(1).uniform(0.1, 3, ROWS).astype(dtype)
    model = network(dtype)
    batches = list(orders(ROWS, 8, 2, 0, "shuffle"))
    expected = truth(model, x, y, batches, lambda: reference.SGD(0.1), weight)
    history = model.fit(
        x, y, optimizer=fastnn.SGD(0.1), batch_size=8, epochs=2, sample_weight=weight,
        history="update",
    )  # fmt: skip
    assert_trained(model, history, expected, 8)
    shares = [weight[b].sum(dtype=float) for b in batches[7:]]
    mean = np.average(expected[2][7:], weights=shares)
    assert_close(history["loss"][1], mean, rounding(dtype, 14, 8, mean))


@every_dtype
@pytest.mark.parametrize("batch_size", [8, 600])
@pytest.mark.parametrize("norm, value", [(0.05, None), (None, 0.01), (0.05, 0.01), (1e6, 1e6)])
def test_clipped_gradients(norm, value, batch_size, dtype):
    rows = 1100 if batch_size > ROWS else ROWS
    x, y = data(rows, dtype)
    model = network(dtype)
    weights, biases = ([a.astype(float) for a in each] for each in parts(model))
    for batch in orders(rows, batch_size, 1, 0, "shuffle"):
        inputs, sums = reference.dense_forward(weights, biases, "tanh", x[batch])
        grads, grad = [], reference.cross_entropy(sums[-1], y[batch])[1]
        for layer in (1, 0):
            grad_x, *mine = reference.linear_backward(inputs[layer], weights[layer], grad)
            grads = [*mine, *grads]
            grad = grad_x * reference.activation_derivative("tanh", sums[0]) if layer else grad
        if norm is not None:
            grads = reference.clip_by_norm(grads, norm)
        if value is not None:
            grads = [reference.clip_by_value(each, value) for each in grads]
        weights = [w - g for w, g in zip(weights, grads[::2], strict=True)]
        biases = [b - g for b, g in zip(biases, grads[1::2], strict=True)]
    model.fit(
        x, y, optimizer=fastnn.SGD(1.0), batch_size=batch_size, clip_norm=norm, clip_value=value
    )
    updates = -(-rows // batch_size)
    for actual, expected in zip(each_part(model), [*weights, *biases], strict=True):
        assert_close(actual, expected, rounding(dtype, updates, batch_size, expected))


LOSSES = [
    (fastnn.CrossEntropyLoss(), reference.cross_entropy, "labels"),
    (fastnn.CrossEntropyLoss(), reference.cross_entropy, "soft"),
    (
        fastnn.CrossEntropyLoss(0.25),
        functools.partial(reference.cross_entropy, label_smoothing=0.25), "labels",
    ),
    (fastnn.BCEWithLogitsLoss(), reference.binary_cross_entropy, "soft"),
    (fastnn.MSELoss(), reference.mean_squared_error, "soft"),
    (fastnn.L1Loss(), reference.mean_absolute_error, "soft"),
    (fastnn.HuberLoss(0.25), functools.partial(reference.huber, delta=0.25), "soft"),
    (fastnn.PoissonNLLLoss(), reference.poisson, "soft"),
]  # fmt: skip


@every_dtype
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [8, 600])
@pytest.mark.parametrize("loss, expected_loss, kind", LOSSES)
def test_every_loss(loss, expected_loss, kind, batch_size, weighted, dtype):
    rows = 1100 if batch_size > ROWS else ROWS
    rng, (x, y) = np.random.default_rng(2), data(rows, dtype)
    if kind == "soft":
        y = reference.softmax(rng.normal(size=(rows, CLASSES))).astype(dtype)
    weight = rng.uniform(0.5, 2, rows).astype(dtype) if weighted else None
    model = network(dtype)
    batches = list(orders(rows, batch_size, 1, 0, "shuffle"))
    expected = truth(model, x, y, batches, lambda: reference.SGD(0.1), weight, expected_loss)
    history = model.fit(
        x, y, loss=loss, optimizer=fastnn.SGD(0.1), batch_size=batch_size, sample_weight=weight,
        history="update",
    )  # fmt: skip
    assert_trained(model, history, expected, rows)


@every_dtype
@pytest.mark.parametrize("rows, batch", [(ROWS, 20), (700, 600)])
def test_dropout_takes_the_seed_of_fit(rows, batch, dtype):
    x, y = data(rows, dtype)
    model = fastnn.Sequential(
        fastnn.Dropout(0.25), fastnn.Linear(INPUTS, CLASSES), dtype=dtype, seed=1
    )
    dropped, steps = [], -(-rows // batch)
    for number, chosen in enumerate(orders(rows, batch, 2, 9, "shuffle")):
        place = (9, number // steps, number % steps, 0)
        keep = reference.dropout_mask(*place, len(chosen), INPUTS, 0.25)
        dropped.append((reference.dropout(x[chosen], keep, 0.25), y[chosen]))
    weights, biases = parts(model)
    expected = reference.train_dense(
        weights, biases, "tanh", reference.cross_entropy, lambda: reference.SGD(0.1), dropped
    )
    history = model.fit(
        x, y, optimizer=fastnn.SGD(0.1), batch_size=batch, epochs=2, seed=9, history="update"
    )
    assert_trained(model, history, expected, rows)


def test_the_default_optimizer_is_adam_and_the_default_loss_follows_the_targets():
    x, y = data()
    one, other = network(), network()
    one.fit(x, y)
    other.fit(x, y, loss="cross_entropy", optimizer=fastnn.Adam(1e-3), batch_size=32)
    assert_same_bits(one, other)
    assert repr(one.optimizer) == repr(fastnn.Adam(1e-3))
    one.fit(x, np.eye(CLASSES)[y])
    assert isinstance(one.loss, fastnn.MSELoss)


# Seeds, and fits that go on


def test_seeds_repeat_bit_for_bit_and_differ():
    x, y = data()
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (3, 3, 4), strict=True):
        model.fit(x, y, epochs=2, seed=seed)
    assert_same_bits(models[0], models[1])
    assert (models[0].arena.flat != models[2].arena.flat).any()
    assert (network(seed=1).arena.flat != network(seed=2).arena.flat).any()


@pytest.mark.parametrize("named", [True, False])
def test_fitting_twice_with_one_optimizer_is_one_longer_fit(named):
    x, y = data()
    twice, once, optimizer = network(), network(), fastnn.Adam(0.01)
    first = twice.fit(x, y, epochs=2, optimizer=optimizer)
    second = twice.fit(x, y, epochs=3, optimizer=optimizer if named else None)
    whole = once.fit(x, y, epochs=5, optimizer=fastnn.Adam(0.01))
    np.testing.assert_array_equal(twice.arena.flat, once.arena.flat)
    assert first["loss"] + second["loss"] == whole["loss"]
    assert twice.optimizer.updates == once.optimizer.updates


def test_a_new_optimizer_starts_anew():
    x, y = data()
    model, other = network(), network()
    model.fit(x, y, optimizer="adam")
    other.arena.flat[:] = model.arena.flat
    model.fit(x, y, optimizer="adam")
    other.fit(x, y, optimizer="adam")
    assert_same_bits(model, other)


def test_an_optimizer_with_the_state_of_another_model_is_refused():
    x, y = data()
    one, other, optimizer = network(), network(), fastnn.Adam(0.01)
    one.fit(x, y, optimizer=optimizer)
    before = other.arena.flat.copy()
    with pytest.raises(ValueError, match="state of something else"):
        other.fit(x, y, optimizer=optimizer)
    np.testing.assert_array_equal(other.arena.flat, before)
    assert other.optimizer is None and other.history is None
    optimizer.reset()
    other.fit(x, y, optimizer=optimizer)
    assert other.optimizer is optimizer


def test_a_fit_by_hand_is_the_same_as_fit():
    x, y = data()
    hand, model = network(), network()
    optimizer, loss = fastnn.Adam(0.01), fastnn.CrossEntropyLoss()
    for batch in orders(ROWS, 8, 1, 0, "shuffle"):
        _, grad = loss(hand(x[batch]), y[batch])
        hand.backward(grad)
        optimizer.step(hand)
    model.fit(x, y, batch_size=8, optimizer=fastnn.Adam(0.01))
    assert_close(model.arena.flat, hand.arena.flat, rounding("float64", 7, 8, hand.arena.flat))


# History


def test_history_of_epochs():
    x, y = data()
    model = network()
    history = model.fit(
        x, y, epochs=3, batch_size=20, validation_data=(x[:9], y[:9]), history="update",
        metrics=["accuracy", "top_k"] if CLASSES >= 5 else ["accuracy"],
    )  # fmt: skip
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    assert history.epochs == 3 and all(len(values) == 3 for values in history.values())
    assert model.history is history and not history.stopped_early
    losses = np.reshape(history.updates["loss"], (3, 3))
    means = np.average(losses, axis=1, weights=[20, 20, 13])
    assert_close(history["loss"], means, Bound(1e-14, 1e-14))
    assert history["val_loss"][-1] == model.evaluate(x[:9], y[:9])["loss"]
    assert history["val_accuracy"][-1] == model.evaluate(x[:9], y[:9])["accuracy"]
    assert history.updates["lr"] == [1e-3] * 9


def test_history_keeps_no_updates_unless_asked():
    assert network().fit(*data()).updates == {}


def test_accuracy_is_that_of_the_outputs_before_each_update():
    x, y = data()
    model = network()
    right = (model.predict(x).argmax(axis=1) == y).mean()
    assert model.fit(x, y, batch_size="full")["accuracy"] == [right]


def test_metrics_may_be_functions():
    x, y = data()

    def largest(outputs, targets):
        assert outputs.shape == (ROWS, CLASSES) and (targets == y).all()
        return outputs.max()

    model = network()
    history = model.fit(x, y, epochs=2, metrics=[largest], validation_data=(x, y))
    assert history["largest"] == history["val_largest"]
    assert history["largest"][1] == model.predict(x).max()


def test_validation_rows_may_weigh():
    x, y = data()
    model, weight = network(), np.linspace(0, 1, ROWS)
    history = model.fit(x, y, validation_data=(x, y, weight))
    assert history["val_loss"] == [model.evaluate(x, y, sample_weight=weight)["loss"]]


@pytest.mark.parametrize("schedule", schedules.BY_NAME)
def test_every_schedule_takes_no_epochs(schedule):
    x, y = data()
    assert network().fit(x, y, epochs=0, schedule=schedule, validation_data=(x, y)).epochs == 0


def test_no_epochs_change_nothing():
    model = network()
    before = model.arena.flat.copy()
    assert dict(model.fit(*data(), epochs=0)) == {}
    np.testing.assert_array_equal(model.arena.flat, before)


# Schedules


@pytest.mark.parametrize(
    "schedule, rate",
    [
        (None, lambda t: 0.1),
        ("constant", lambda t: 0.1),
        (schedules.Step(2, 0.5), lambda t: reference.step_rate(0.1, t // 3, 2, 0.5)),
        (schedules.Exponential(0.9), lambda t: reference.exponential_rate(0.1, t // 3, 0.9)),
        (schedules.InverseTime(0.3), lambda t: reference.inverse_time_rate(0.1, t, 0.3)),
        ("cosine", lambda t: reference.cosine_rate(0.1, t, 12)),
        (
            schedules.Warmup(updates=4, then=schedules.Cosine(2)),
            lambda t: reference.warm_up_rate(
                0.1, t, 4, lambda rate, t: reference.cosine_rate(rate, t, 6)
            ),
        ),
        (lambda epoch: 0.5 / (1 + epoch), lambda t: 0.5 / (1 + t // 3)),
    ],
)
def test_schedules_set_the_rate_of_every_update(schedule, rate):
    x, y = data()
    model = network()
    rates = [rate(t) for t in range(12)]

    class Scheduled(reference.SGD):
        def step(self, weight, grad):
            self.learning_rate = rates[self.updates]
            return super().step(weight, grad)

    batches = list(orders(ROWS, 20, 4, 0, "shuffle"))
    expected = truth(model, x, y, batches, lambda: Scheduled(0.1))
    history = model.fit(
        x, y, optimizer=fastnn.SGD(0.1), batch_size=20, epochs=4, schedule=schedule,
        history="update",
    )  # fmt: skip
    assert_close(history.updates["lr"], rates, Bound(1e-16, 1e-16))
    assert history["lr"] == history.updates["lr"][2::3]
    assert_trained(model, history, expected, 20)


def test_the_rate_is_reduced_on_a_plateau():
    x, y = data()
    schedule = schedules.ReduceOnPlateau(factor=0.5, patience=0, threshold=1.0, monitor="loss")
    history = network().fit(x, y, epochs=4, optimizer=fastnn.SGD(0.5), schedule=schedule)
    assert history["lr"] == [0.5, 0.5, 0.25, 0.125]  # no loss is ever better by all of itself


def test_a_schedule_begins_anew_with_every_fit():
    x, y = data()
    schedule = schedules.ReduceOnPlateau(factor=0.5, patience=0, threshold=1.0, monitor="loss")
    rates = [network().fit(x, y, epochs=3, schedule=schedule)["lr"] for _ in range(2)]
    assert rates[0] == rates[1]


# Early stopping and callbacks


def rising_loss(epoch_losses):
    """Validation data whose loss goes as told: a metric that counts its calls."""
    values = iter(epoch_losses)

    def mean_squared_error(outputs, targets):
        return next(values)

    return mean_squared_error


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_brings_the_best_weights_back(restore):
    x, y = data()
    weights = []
    model = network()
    stopping = fastnn.EarlyStopping(
        patience=2, monitor="mean_squared_error", min_delta=0.5, restore_best=restore
    )
    history = model.fit(
        x, y, epochs=9, early_stopping=stopping, callbacks=[lambda info: weights.append(
            info.model.arena.flat.copy())], metrics=[rising_loss([9, 5, 4.6, 8, 7, 1])],
    )  # fmt: skip
    assert history.epochs == 4 and history.stopped_early
    np.testing.assert_array_equal(model.arena.flat, weights[1 if restore else 3])


def test_early_stopping_takes_a_patience_and_watches_validation():
    x, y = data()
    model = network()
    # labels that training pulls away from: the validation loss only rises
    history = model.fit(
        x, y, epochs=50, early_stopping=3, validation_data=(x, (y + 1) % CLASSES),
        optimizer=fastnn.SGD(0.5),
    )  # fmt: skip
    best = int(np.argmin(history["val_loss"]))
    assert history.epochs == best + 4 and history.stopped_early
    evaluated = model.evaluate(x, (y + 1) % CLASSES)["loss"]
    assert evaluated == history["val_loss"][best]


def test_early_stopping_of_a_metric_that_should_grow():
    x, y = data()
    stopping = fastnn.EarlyStopping(patience=1, monitor="val_accuracy")
    history = network().fit(
        x, y, epochs=60, validation_data=(x, y), early_stopping=stopping, optimizer=fastnn.SGD(0.1)
    )
    values = history["val_accuracy"]
    assert values[-1] <= values[-2]
    assert all(later > earlier for earlier, later in pairwise(values[:-1]))


def test_callbacks_see_every_epoch_and_may_stop():
    x, y = data()
    seen = []
    model = network()

    def callback(info):
        seen.append((info.epoch, dict(info.logs)))
        assert info.model is model
        if info.epoch == 3:
            info.stop()

    history = model.fit(x, y, epochs=10, callbacks=[callback])
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert [logs["loss"] for _, logs in seen] == history["loss"]
    assert history.stopped_early


def test_training_goes_on_with_the_weights_that_a_callback_sets():
    x, y = data()
    model, expected = network(), network()

    def halve(info):
        info.model.arena.flat[:] *= 0.5

    model.fit(x, y, epochs=2, callbacks=[halve], optimizer=fastnn.Adam(0.1))
    optimizer = fastnn.Adam(0.1)
    for _ in range(2):
        expected.fit(x, y, optimizer=optimizer)
        expected.arena.flat[:] *= 0.5
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)


@pytest.mark.parametrize("augment", [None, lambda rows, generator: rows], ids=["", "augment"])
def test_a_callback_may_reset_the_optimizer(augment):
    x, y = data()
    model, expected, optimizer = network(), network(), fastnn.Adam(0.1)
    expected.fit(x, y, epochs=2, optimizer=optimizer)
    optimizer.reset()
    expected.fit(x, y, epochs=2)

    def reset(info):
        if info.epoch == 2:
            info.model.optimizer.reset()

    terms = {"epochs": 4, "augment": augment, "callbacks": [reset]}
    model.fit(x, y, optimizer=fastnn.Adam(0.1), **terms)
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)
    for slot, other in zip(model.optimizer.slots, optimizer.slots, strict=True):
        np.testing.assert_array_equal(slot.flat, other.flat)
    assert model.optimizer.updates == optimizer.updates
    expected.fit(x, y, epochs=4, schedule="cosine")
    model.fit(x, y, schedule="cosine", **terms)
    assert model.history["lr"] == expected.history["lr"]


def test_callbacks_change_nothing_by_looking():
    x, y = data()
    watched, alone = network(), network()
    watched.fit(x, y, epochs=3, callbacks=[lambda info: info.model.predict(x)])
    alone.fit(x, y, epochs=3)
    assert_same_bits(watched, alone)


# Checkpoints


def elaborate(seed=1):
    """A network with everything that has state."""
    return fastnn.Sequential(
        fastnn.Linear(INPUTS, HIDDEN), fastnn.BatchNorm1d(HIDDEN), fastnn.PReLU(HIDDEN),
        fastnn.Dropout(0.2), fastnn.Linear(HIDDEN, CLASSES), seed=seed,
    )  # fmt: skip


def elaborate_fit(model, epochs, **options):
    x, y = data(dtype="float32")
    stopping = fastnn.EarlyStopping(patience=50)
    schedule = schedules.Warmup(updates=5, then=schedules.ReduceOnPlateau(0.5, 0, monitor="loss"))
    return model.fit(
        x, y, epochs=epochs, batch_size=20, seed=4, history="update", schedule=schedule,
        early_stopping=stopping, optimizer=fastnn.Adam(0.02), validation_data=(x[::2], y[::2]),
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_and_resumed_run_gives_the_bits_of_an_unbroken_one(exception, tmp_path):
    whole, path = elaborate(), tmp_path / "run.safetensors"
    elaborate_fit(whole, 6, checkpoint=tmp_path / "whole.safetensors")

    def interrupt(info):
        if info.epoch == 3:
            raise exception("in the midst")

    broken = elaborate()
    with pytest.raises(exception, match="in the midst"):
        elaborate_fit(broken, 6, checkpoint=path, callbacks=[interrupt])
    assert broken.history.epochs == 3
    resumed = elaborate(seed=99)
    elaborate_fit(resumed, 6, checkpoint=path, resume=True)
    assert_same_bits(resumed, whole)
    elaborate_fit(broken, 6, checkpoint=path, resume=True)  # finished: nothing is left to do
    assert_same_bits(broken, whole)


def test_a_resumed_run_begins_with_the_weights_that_callbacks_left(tmp_path):
    whole, path = elaborate(), tmp_path / "run.safetensors"

    def change(info):
        info.model.arena.flat[:] *= 0.9
        if info.epoch == 2:
            info.model.optimizer.reset()

    def interrupt(info):
        if info.epoch == 4:
            raise KeyboardInterrupt

    elaborate_fit(whole, 6, callbacks=[change])
    with pytest.raises(KeyboardInterrupt):
        elaborate_fit(elaborate(), 6, checkpoint=path, callbacks=[change, interrupt])
    resumed = elaborate(seed=99)
    elaborate_fit(resumed, 6, checkpoint=path, resume=True, callbacks=[change])
    assert_same_bits(resumed, whole)


def test_a_finished_run_goes_on_with_more_epochs(tmp_path):
    whole, resumed, path = elaborate(), elaborate(), tmp_path / "run.safetensors"
    elaborate_fit(whole, 6)
    elaborate_fit(resumed, 4, checkpoint=path)
    elaborate_fit(resumed, 6, checkpoint=path, resume=True)
    assert_same_bits(resumed, whole)


def test_a_finished_run_goes_on_from_its_last_weights_not_its_best(tmp_path):
    x, y = data()
    options = {"validation_data": (x, (y + 1) % CLASSES), "early_stopping": 50}
    whole, resumed, path = network(), network(), tmp_path / "run.safetensors"
    whole.fit(x, y, epochs=6, optimizer=fastnn.SGD(0.5), **options)
    for epochs in (4, 6):
        resumed.fit(
            x, y, epochs=epochs, optimizer=fastnn.SGD(0.5), checkpoint=path, resume=True, **options
        )
    assert np.argmin(whole.history["val_loss"]) < 3  # so the best weights are not the last
    assert_same_bits(resumed, whole)


def test_a_run_that_stopped_early_is_not_resumed(tmp_path):
    x, y = data()
    model, path = network(), tmp_path / "run.safetensors"
    options = {"early_stopping": 2, "validation_data": (x, (y + 1) % CLASSES), "epochs": 50}
    model.fit(x, y, optimizer=fastnn.SGD(0.5), checkpoint=path, **options)
    again = network()
    history = again.fit(x, y, optimizer=fastnn.SGD(0.5), checkpoint=path, resume=True, **options)
    assert history.stopped_early and history.epochs < 50
    assert_same_bits(again, model)


def test_resume_begins_where_there_is_no_checkpoint(tmp_path):
    one, other, path = elaborate(), elaborate(), tmp_path / "run.safetensors"
    elaborate_fit(one, 2, checkpoint=path, resume=True)
    elaborate_fit(other, 2)
    assert_same_bits(one, other)
    assert path.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_checkpoint_is_a_model_file(tmp_path):
    model, path = elaborate(), tmp_path / "run.safetensors"
    x, _ = data(dtype="float32")
    model.fit(*data(dtype="float32"), checkpoint=path)
    np.testing.assert_array_equal(fastnn.load(path).predict(x), model.predict(x))


def test_a_checkpoint_of_another_network_or_optimizer_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    x, y = data()
    network().fit(x, y, checkpoint=path, optimizer=fastnn.SGD(0.1))
    other = fastnn.Sequential(fastnn.Linear(INPUTS, CLASSES), dtype="float64")
    before = other.arena.flat.copy()
    with pytest.raises(ValueError, match=r"layer 0 is .*'outputs': 3.*'outputs': 7"):
        other.fit(x, y, checkpoint=path, resume=True, optimizer=fastnn.SGD(0.1))
    np.testing.assert_array_equal(other.arena.flat, before)
    for optimizer in (fastnn.Adam(0.1), fastnn.SGD(0.2)):
        model = network()
        before = model.arena.flat.copy()
        with pytest.raises(ValueError, match=r"optimizer is .* written with SGD\(lr=0.1"):
            model.fit(x, y, checkpoint=path, resume=True, optimizer=optimizer)
        np.testing.assert_array_equal(model.arena.flat, before)


def test_a_checkpoint_of_a_like_network_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    x, y = data()
    network().fit(x, y, checkpoint=path)
    rectified = fastnn.Sequential(
        fastnn.Linear(INPUTS, HIDDEN), fastnn.ReLU(), fastnn.Linear(HIDDEN, CLASSES),
        dtype="float64",
    )  # fmt: skip
    smoothed = fastnn.CrossEntropyLoss(label_smoothing=0.1)
    for model, options, words in (
        (rectified, {}, "layer 1 is .*'ReLU'.* written with .*'Tanh'"),
        (network("float32"), {}, "dtype is 'float32'; .* written with 'float64'"),
        (network(), {"loss": smoothed}, "loss is .*0.1.* written with .*0.0"),
        (
            network(), {"schedule": "reduce_on_plateau", "validation_data": (x, y)},
            "schedule's state must have",
        ),
    ):  # fmt: skip
        before = model.arena.flat.copy()
        with pytest.raises(ValueError, match=words):
            model.fit(x, y, checkpoint=path, resume=True, **options)
        np.testing.assert_array_equal(model.arena.flat, before)
        assert model.optimizer is None and model.history is None and model.loss is None


# Interruptions and divergence


def test_ctrl_c_in_a_callback_keeps_history_and_weights():
    x, y = data()
    model, weights = network(), []

    def interrupt(info):
        weights.append(info.model.arena.flat.copy())
        if info.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=1000, callbacks=[interrupt])
    assert 2 <= model.history.epochs <= 3
    assert np.isfinite(model.arena.flat).all() and (model.arena.flat != weights[0]).any()


@pytest.mark.parametrize("moment", ["show", "move"])
def test_ctrl_c_between_two_steps_keeps_their_weights(moment, monkeypatch):
    x, y = data()
    model, expected = network(), network()
    calls = []

    def interrupt(bar, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=10, callbacks=[lambda info: None])
    monkeypatch.undo()
    expected.fit(x, y, epochs=3)
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)
    assert model.optimizer.updates == expected.optimizer.updates
    assert model.history.epochs == (3 if moment == "show" else 2)


INTERRUPTED = """
    import os, signal, threading, time
    import numpy as np
    import fastnn
    fastnn.set_backend({backend!r})
    fastnn.set_num_threads(2)
    x = np.random.default_rng(0).normal(size=(4000, 200)).astype("float32")
    y = np.arange(4000) % 10
    model = fastnn.Sequential(fastnn.Linear(200, 300), fastnn.ReLU(), fastnn.Linear(300, 10))
    model.fit(x[:100], y[:100], batch_size="full")
    before = model.arena.flat.copy()
    sent = []
    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    def begin(info):
        if info.epoch == 1:
            threading.Timer(0.1, interrupt).start()
    try:
        model.fit(x, y, epochs=10**6, batch_size="full", callbacks=[begin])
    except KeyboardInterrupt:
        late = time.monotonic() - sent[0]
        assert late <= 1.0, late
        assert np.isfinite(model.arena.flat).all()
        assert (model.arena.flat != before).any()
        print("interrupted")
"""


def test_ctrl_c_returns_at_once_with_the_weights(backend):
    program = textwrap.dedent(INTERRUPTED.format(backend=backend))
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        cwd=Path(fastnn.__file__).parents[1],
    )  # fmt: skip
    assert finished.stdout == "interrupted\n", finished.stderr


@every_dtype
@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_divergence_keeps_the_last_good_weights_and_the_history(rate, dtype):
    x, y = data(dtype=dtype)
    target = np.eye(CLASSES)[y]
    model = fastnn.Sequential(
        fastnn.Linear(INPUTS, HIDDEN), fastnn.BatchNorm1d(HIDDEN), fastnn.ReLU(),
        fastnn.Linear(HIDDEN, CLASSES), dtype=dtype,
    )  # fmt: skip
    good = []
    schedule = [0.01, 0.01] + [rate] * 1000
    with pytest.raises(fastnn.DivergedError, match=r"loss was (nan|inf) at update \d+"):
        model.fit(
            x, y=target, epochs=1000, batch_size="full", optimizer=fastnn.SGD(0.01),
            schedule=lambda epoch: schedule[epoch], history="update",
            callbacks=[lambda info: good.append(model.arena.flat.copy())],
        )  # fmt: skip
    assert model.history.epochs == len(good) >= 2
    np.testing.assert_array_equal(model.arena.flat, good[-1])
    assert len(model.history.updates["loss"]) == len(good) + 1
    assert model.optimizer.updates == len(good)
    for array in model.arrays().values():
        assert np.isfinite(array).all()


# What surrounds the steps


def test_augmented_rows_are_what_is_trained_on():
    x, y = data()
    seen = []

    def shift(rows, generator):
        seen.append(generator.normal())
        np.testing.assert_array_equal(rows, x)
        return rows + 1.0

    model, other = network(), network()
    model.fit(x, y, epochs=2, augment=shift, seed=3)
    other.fit(x + 1.0, y, epochs=2, seed=3)
    np.testing.assert_array_equal(model.arena.flat, other.arena.flat)
    assert len(set(seen)) == 2
    network().fit(x, y, epochs=2, augment=shift, seed=3)
    assert seen[2:] == seen[:2]


def test_augmentation_cannot_write_into_the_data():
    x, y = data()

    def in_place(rows, generator):
        rows += 1.0
        return rows

    with pytest.raises(ValueError, match="read-only"):
        network().fit(x, y, augment=in_place)


@pytest.mark.parametrize("progress", [True, False, None])
def test_progress_bar(progress, capsys):
    network().fit(*data(), epochs=2, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("update" in captured.err) == (progress is True)


def test_the_device_follows_the_backend():
    x, y = data()
    model, other = network(), network()
    model.fit(x, y, device="cpu")
    other.fit(x, y)
    assert_same_bits(model, other)
    with pytest.raises(ValueError, match=r"'cuda'.*works on 'cpu'"):
        model.fit(x, y, device="cuda")


# Layers of the user's own


class Same(Layer):
    """An identity that fastnn does not know for one."""

    def forward(self, x):
        return x

    def backward(self, grad):
        return grad


def eager(*layers, **options):
    """The same network twice: with a layer of one's own in front, and one of fastnn's there."""
    return (
        fastnn.Sequential(Same(), *layers[0], **options),
        fastnn.Sequential(fastnn.Identity(), *layers[1], **options),
    )


def everything():
    return [
        fastnn.Linear(INPUTS, HIDDEN), fastnn.BatchNorm1d(HIDDEN), fastnn.PReLU(HIDDEN),
        fastnn.Dropout(0.2), fastnn.Linear(HIDDEN, CLASSES), fastnn.Softmax(),
    ]  # fmt: skip


@every_dtype
def test_a_layer_of_ones_own_trains_like_the_compiled_one(dtype):
    x, y = data(dtype=dtype)
    own, known = eager(everything(), everything(), dtype=dtype)
    options = {
        "epochs": 2, "batch_size": 20, "seed": 5, "history": "update", "clip_norm": 0.5,
        "clip_value": 0.2, "validation_data": (x[:20], y[:20]),
        "sample_weight": np.linspace(0.5, 1.5, ROWS), "optimizer": "momentum",
    }  # fmt: skip
    expected = known.fit(x, y, **options)
    with pytest.warns(EagerWarning, match="Same is not one of fastnn's own") as warned:
        history = own.fit(x, y, **options)
    assert warned[0].filename == __file__
    assert list(history) == list(expected)
    for name, values in expected.items():
        assert_close(history[name], values, rounding(dtype, 6, 20, values))
    losses = expected.updates["loss"]
    assert_close(history.updates["loss"], losses, rounding(dtype, 6, 20, losses))
    for name, array in known.arrays().items():
        assert_close(own.arrays()[name], array, rounding(dtype, 6, 20, array))
    assert own.training and all(layer.training for layer in own)
    for name, value in known.evaluate(x, y).items():
        assert_close(own.evaluate(x, y)[name], value, rounding(dtype, 6, 20, value))


def test_a_layer_of_ones_own_diverges_and_stops_like_the_compiled_one():
    x, y = data()
    own, known = (
        fastnn.Sequential(layer, fastnn.Linear(INPUTS, CLASSES), dtype="float64")
        for layer in (Same(), fastnn.Identity())
    )
    messages = []
    for model in (own, known):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EagerWarning)
            with pytest.raises(fastnn.DivergedError) as caught:
                model.fit(x, np.eye(CLASSES)[y], optimizer=fastnn.SGD(1e20), epochs=30)
        messages.append(str(caught.value))
        assert np.isfinite(model.arena.flat).all()
    assert own.optimizer.updates == known.optimizer.updates
    assert messages[0].partition("at update")[2] == messages[1].partition("at update")[2]


# Epochs in one go, where nothing looks between them


def one_at_a_time(model, x, y, **options):
    """The same training, with somebody who looks after every epoch."""
    return model.fit(x, y, callbacks=[lambda info: None], **options)


IN_ONE_GO = [
    {"batch_size": 8}, {"batch_size": 20, "shuffle": False}, {"sampling": "replacement"},
    {"batch_size": "full", "sample_weight": np.linspace(0.0, 2.0, ROWS)},
    {"batch_size": 8, "sample_weight": np.linspace(0.5, 2.0, ROWS), "shuffle": False},
    {"schedule": "cosine", "clip_norm": 0.5, "clip_value": 0.2},
]  # fmt: skip


@every_dtype
@pytest.mark.parametrize("options", IN_ONE_GO)
def test_epochs_in_one_go_have_the_bits_of_one_at_a_time(options, dtype):
    x, y = data(dtype=dtype)
    model, expected = (fastnn.Sequential(*everything(), dtype=dtype) for _ in range(2))
    for epochs in (7, 1):
        settings = {"epochs": epochs, "seed": 5, "history": "update", **options}
        model.fit(x, y, **settings)
        one_at_a_time(expected, x, y, **settings)
        assert dict(model.history) == dict(expected.history) and model.history.epochs == epochs
        assert model.history.updates == expected.history.updates
    assert_same_bits(model, expected)
    assert model.optimizer.state() == expected.optimizer.state()


@pytest.mark.parametrize("batch", [8, "full"])
def test_divergence_among_epochs_in_one_go_is_that_of_one_at_a_time(batch):
    x, y = data()
    messages, models = [], [network(), network()]
    for model, fit in zip(models, (fastnn.Sequential.fit, one_at_a_time), strict=True):
        with pytest.raises(fastnn.DivergedError) as caught:
            fit(
                model, x, np.eye(CLASSES)[y], epochs=40, batch_size=batch, history="update",
                optimizer=fastnn.SGD(1e10),
            )  # fmt: skip
        messages.append(str(caught.value))
        assert model.history.diverged == messages[-1]
    model, expected = models
    assert messages[0] == messages[1] and model.history.epochs > 0
    assert dict(model.history) == dict(expected.history)
    np.testing.assert_equal(model.history.updates, expected.history.updates)
    assert model.optimizer.state() == expected.optimizer.state()
    assert_same_bits(model, expected)


@pytest.mark.parametrize("epochs, layers", [(3, []), (1, [Same])], ids=["compiled", "eager"])
@pytest.mark.filterwarnings("ignore::fastnn.EagerWarning")
def test_ctrl_c_behind_the_last_step_keeps_the_whole_history(epochs, layers, monkeypatch):
    x, y = data()
    steps = -(-len(x) // 32)
    moved = []

    def interrupt(bar, updates):
        moved.append(updates)
        if sum(moved) == epochs * steps:
            raise KeyboardInterrupt

    model = fastnn.Sequential(fastnn.Linear(x.shape[1], 3), *(layer() for layer in layers))
    monkeypatch.setattr(Progress, "move", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=epochs)
    assert model.optimizer.updates == epochs * steps
    assert model.history.epochs == model.optimizer.epochs == epochs


def test_ctrl_c_among_epochs_in_one_go_keeps_the_history_of_those_that_ended():
    x, y = data()
    model, expected = network(), network()
    rates = []

    def interrupting(epoch):
        rates.append(0.01)
        if len(rates) == 5000:  # in the midst of some of the epochs that are trained in one go
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        return rates[-1]

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=10**6, batch_size="full", history="update", schedule=interrupting)
    updates, ended = model.optimizer.updates, model.history.epochs
    assert len(model.history.updates["loss"]) == updates and updates - 1 <= ended <= updates
    expected.fit(x, y, epochs=updates, batch_size="full", schedule=lambda epoch: 0.01)
    assert model.history["loss"] == expected.history["loss"][:ended]
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)


# The user's own formulas, compiled, saved and loaded


def mish(m, x):
    return x * m.tanh(m.softplus(x))


def log_cosh(m, output, target):
    error = output - target
    return m.softplus(2.0 * error) - error - 0.6931471805599453


def heavy_ball(m, weight, grad, slots, h):
    velocity = m.fma(h.share, slots[0], grad)
    return m.fma(-h.learning_rate, velocity, weight), (velocity,)


def custom_parts() -> list[Any]:
    return [
        fastnn.Activation(mish, name="mish"),
        fastnn.Loss(log_cosh, name="log_cosh"),
        fastnn.Optimizer(heavy_ball, 0.1, slots=("velocity",), name="heavy ball", share=0.5),
    ]


@every_dtype
def test_formulas_of_ones_own_are_trained_compiled_saved_and_loaded(tmp_path, dtype):
    x, y = data(dtype=dtype)
    target = np.eye(CLASSES)[y]
    activation, loss, optimizer = custom_parts()
    model = fastnn.Sequential(
        fastnn.Linear(INPUTS, HIDDEN), activation, fastnn.Linear(HIDDEN, CLASSES), dtype=dtype
    )
    weights, biases = ([a.astype(float) for a in each] for each in parts(model))
    velocities = [np.zeros_like(a) for a in (*weights, *biases)]
    for batch in orders(ROWS, 20, 2, 0, "shuffle"):
        first = reference.linear(x[batch], weights[0], biases[0])
        softplus = reference.activation("softplus", first)
        hidden = first * np.tanh(softplus)
        slope = np.tanh(softplus) + first * (1 - np.tanh(softplus) ** 2) * reference.sigmoid(first)
        outputs = reference.linear(hidden, weights[1], biases[1])
        grad = np.tanh(outputs - target[batch]) / outputs.size
        grad_x, *second = reference.linear_backward(hidden, weights[1], grad)
        _, *begin = reference.linear_backward(x[batch], weights[0], grad_x * slope)
        grads = [begin[0], second[0], begin[1], second[1]]
        velocities = [0.5 * v + g for v, g in zip(velocities, grads, strict=True)]
        moved = [a - 0.1 * v for a, v in zip([*weights, *biases], velocities, strict=True)]
        weights, biases = moved[:2], moved[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no eager path
        model.fit(x, target, loss=loss, optimizer=optimizer, batch_size=20, epochs=2)
    for actual, expected in zip(each_part(model), [*weights, *biases], strict=True):
        assert_close(actual, expected, rounding(dtype, 6, 20, expected))
    path = tmp_path / "own.safetensors"
    model.save(path)
    loaded = fastnn.load(path, custom=custom_parts())
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.evaluate(x, target) == model.evaluate(x, target)
    for each in (model, loaded):
        each.fit(x, target, loss=each.loss)
    assert_same_bits(loaded, model)


def test_class_weights_that_are_no_numbers_are_named():
    x, y = np.ones((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(TypeError, match=r"class_weight is .*expected numbers"):
        fastnn.Sequential(fastnn.Linear(2, 2)).fit(x, y, class_weight={0: "a"})
