"""Rows one by one: the update of one and the product of the next in one pass, to the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn.kernels.contract import DTYPES, Binding
from fastnn.kernels.numba_backend import program
from fastnn.plan import Training, lower

ROWS = 23


def networks():
    """Layers whose first product is made by the sweep, or must not be, by name."""
    linear, relu = fastnn.Linear, fastnn.ReLU
    return {
        "relu": lambda: [linear(37, 130), relu(), linear(130, 3)],
        "narrow": lambda: [linear(5, 7), fastnn.Tanh(), linear(7, 3)],
        "one layer": lambda: [linear(37, 3)],
        "no activation": lambda: [linear(37, 70), linear(70, 3)],
        "dropout": lambda: [linear(37, 130), relu(), fastnn.Dropout(0.4), linear(130, 3)],
        "dropout first": lambda: [fastnn.Dropout(0.4), linear(37, 70), relu(), linear(70, 3)],
        "no bias": lambda: [linear(37, 70, bias=False), relu(), linear(70, 3)],
        "slope": lambda: [linear(37, 70), fastnn.PReLU(), linear(70, 3)],
    }


def train(layers, optimizer, dtype, threads, *, stored=False, slices=None, epochs=2):
    """Losses, weights and slots after epochs of single rows."""
    model = fastnn.Sequential(*layers(), seed=1, dtype=dtype)
    optimizer.attach(model)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((ROWS, model.inputs)), rng.integers(0, 3, ROWS)
    training = Training(optimizer.formula, keep_gradients=stored)
    loss = fastnn.CrossEntropyLoss().use
    plan = lower(model.layers, model.inputs, 1, dtype, loss=loss, training=training)
    slots = {name: optimizer.slots_of(name) for name in model.arena}
    binding = Binding(x, model.arrays(), labels, slots=slots, threads=threads, seed=5)
    run = fastnn.get_backend("numba").start(plan, binding)
    losses = []
    for epoch in range(epochs):
        scalars = optimizer.scalars(epoch * ROWS, np.full(ROWS, 0.01), dtype)
        run.begin(rng.permutation(ROWS), ROWS, scalars, epoch)
        stops = 0
        while run.advance(0.0 if slices else 9.0) == "stopped":
            stops += 1
            if slices == "store":
                run.store()
                run.load()
        assert stops == (ROWS - 1 if slices else 0)
        losses.append(run.losses())
    run.store()
    return np.concatenate([*losses, model.arena.flat, *(slot.flat for slot in optimizer.slots)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("make", [fastnn.SGD, fastnn.Momentum, fastnn.AdamW])
def test_sweeps_give_the_bits_of_stored_gradients(make, name, dtype):
    layers = networks()[name]
    expected = train(layers, make(0.01), dtype, 1, stored=True)
    assert np.isfinite(expected).all()
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(train(layers, make(0.01), dtype, threads), expected)


@pytest.mark.parametrize("slices", ["stop", "store"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_sweep_that_is_cut_short_goes_on_where_it_was(threads, slices, monkeypatch):
    layers = networks()["relu"]
    expected = train(layers, fastnn.Adam(0.01), "float32", threads)
    monkeypatch.setattr(program, "FLOPS_PER_CHECK", 1)
    found = train(layers, fastnn.Adam(0.01), "float32", threads, slices=slices)
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
