"""Chunks that take long: a run stops between their operations, and goes on to the same bits."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn
from fastnn.kernels.contract import Binding
from fastnn.kernels.numba_backend import program
from fastnn.plan import Training, lower


def train(threads, seconds, clip_norm, batch_rows):
    """Losses and weights of an epoch, and how often it stopped."""
    layers = (
        fastnn.Linear(9, 70),
        fastnn.BatchNorm1d(70),
        fastnn.ReLU(),
        fastnn.Dropout(0.3),
        fastnn.Linear(70, 3),
    )
    model, optimizer = fastnn.Sequential(*layers, seed=1), fastnn.Adam(0.01)
    optimizer.attach(model)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((700, 9)), rng.integers(0, 3, 700)
    training = Training(optimizer.formula, clip_norm)
    loss = fastnn.CrossEntropyLoss().use
    plan = lower(model.layers, 9, batch_rows, "float32", loss=loss, training=training)
    slots = {name: optimizer.slots_of(name) for name in model.arena}
    binding = Binding(x, model.arrays(), labels, slots=slots, threads=threads)
    run = fastnn.get_backend("numba").start(plan, binding)
    steps = -(-700 // batch_rows)
    run.begin(rng.permutation(700), 700, optimizer.scalars(0, np.full(steps, 0.01), "float32"))
    stops = 0
    while run.advance(seconds) == "stopped":
        stops += 1
    run.store()
    return np.concatenate([run.losses(), model.arena.flat, model.constants.flat]), stops


@pytest.mark.parametrize("batch_rows", [300, 64])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_stop_within_a_chunk_changes_no_bit(threads, clip_norm, batch_rows, monkeypatch):
    expected, stops = train(1, 9.0, clip_norm, batch_rows)
    assert stops == 0
    monkeypatch.setattr(program, "FLOPS_PER_CHECK", 1)
    monkeypatch.setattr(program, "LONG_CHUNK", 0)
    found, stops = train(threads, 0.0, clip_norm, batch_rows)
    assert stops > 3 * -(-700 // batch_rows)
    np.testing.assert_array_equal(found, expected)
