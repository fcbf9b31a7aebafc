"""Steps of a few rows: swept, gathered ahead, or done by every thread: always the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn.kernels.contract import DTYPES, Binding
from fastnn.kernels.numba_backend import program
from fastnn.plan import Training, lower

ROWS = 23


def networks():
    """Layers whose first product is made by the sweep, or must not be; large and small; by name."""
    linear, relu = fastnn.Linear, fastnn.ReLU
    return {
        "relu": lambda: [linear(37, 130), relu(), linear(130, 3)],
        "narrow": lambda: [linear(5, 7), fastnn.Tanh(), linear(7, 3)],
        "large, then small": lambda: [
            linear(37, 130),
            relu(),
            linear(130, 66),
            relu(),
            linear(66, 3),
        ],
        "small, then large": lambda: [
            linear(37, 10),
            relu(),
            linear(10, 500),
            relu(),
            linear(500, 3),
        ],
        "norm": lambda: [linear(37, 130), fastnn.BatchNorm1d(130), relu(), linear(130, 3)],
        "one layer": lambda: [linear(37, 3)],
        "no activation": lambda: [linear(37, 70), linear(70, 3)],
        "dropout": lambda: [linear(37, 130), relu(), fastnn.Dropout(0.4), linear(130, 3)],
        "dropout first": lambda: [fastnn.Dropout(0.4), linear(37, 70), relu(), linear(70, 3)],
        "no bias": lambda: [linear(37, 70, bias=False), relu(), linear(70, 3)],
        "slope": lambda: [linear(37, 70), fastnn.PReLU(), linear(70, 3)],
    }


def train(layers, optimizer, dtype, threads, *, batch=1, stored=False, slices=None, epochs=2):
    """Losses, weights and slots after epochs of a few rows a step."""
    model = fastnn.Sequential(*layers(), seed=1, dtype=dtype)
    optimizer.attach(model)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((ROWS, model.inputs)), rng.integers(0, 3, ROWS)
    training = Training(optimizer.formula, keep_gradients=stored)
    loss = fastnn.CrossEntropyLoss().use
    plan = lower(model.layers, model.inputs, batch, dtype, loss=loss, training=training)
    slots = {name: optimizer.slots_of(name) for name in model.arena}
    binding = Binding(x, model.arrays(), labels, slots=slots, threads=threads, seed=5)
    run = fastnn.get_backend("numba").start(plan, binding)
    losses, steps = [], -(-ROWS // batch)
    for epoch in range(epochs):
        scalars = optimizer.scalars(epoch * steps, np.full(steps, 0.01), dtype)
        run.begin(rng.permutation(ROWS), ROWS, scalars, epoch)
        stops = 0
        while run.advance(0.0 if slices else 9.0) == "stopped":
            stops += 1
            if slices == "store":
                run.store()
                run.load()
        assert stops == (steps - 1 if slices else 0)
        losses.append(run.losses())
    run.store()
    return np.concatenate([*losses, model.arena.flat, *(slot.flat for slot in optimizer.slots)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("make", [fastnn.SGD, fastnn.Momentum, fastnn.AdamW])
@pytest.mark.parametrize("batch", [1, 2, 5, 8, 11])
def test_few_rows_give_the_bits_of_stored_gradients(batch, make, name, dtype):
    layers = networks()[name]
    expected = train(layers, make(0.01), dtype, 1, batch=batch, stored=True)
    assert np.isfinite(expected).all()
    for threads in (1, 2, 3, 4):
        found = train(layers, make(0.01), dtype, threads, batch=batch)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("slices", ["stop", "store"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_run_that_is_cut_short_goes_on_where_it_was(batch, threads, slices, monkeypatch):
    layers = networks()["relu"]
    expected = train(layers, fastnn.Adam(0.01), "float32", threads, batch=batch)
    monkeypatch.setattr(program, "FLOPS_PER_CHECK", 1)
    found = train(layers, fastnn.Adam(0.01), "float32", threads, batch=batch, slices=slices)
    np.testing.assert_array_equal(found, expected)


def test_weights_changed_between_slices_are_the_ones_used(monkeypatch):
    """A product that was made ahead must not outlive the weights it was made with."""
    monkeypatch.setattr(program, "FLOPS_PER_CHECK", 1)
    model = fastnn.Sequential(fastnn.Linear(4, 3), seed=0)
    optimizer = fastnn.SGD(1e-3)
    optimizer.attach(model)
    x, labels = np.ones((2, 4)), np.zeros(2, np.int64)
    loss = fastnn.CrossEntropyLoss().use
    plan = lower(model.layers, 4, 1, "float32", loss=loss, training=Training(optimizer.formula))
    binding = Binding(x, model.arrays(), labels, slots={name: [] for name in model.arena})
    run = fastnn.get_backend("numba").start(plan, binding)
    run.begin(None, 2, optimizer.scalars(0, np.full(2, 1e-3), "float32"))
    assert run.advance(0.0) == "stopped"
    assert run.step == 1
    run.store()
    model.arena.flat[:] = 0
    run.load()
    assert run.advance(0.0) == "done"
    assert run.losses()[1] == pytest.approx(np.log(3), rel=1e-6)
