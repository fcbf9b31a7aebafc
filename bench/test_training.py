"""Whole training steps, as ``fit`` runs them, and prediction, over batch sizes."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import reference

import fastnn
from fastnn.backend import threads_for
from fastnn.kernels.contract import Binding, Plan
from fastnn.plan import Training, lower

from . import truth
from .cases import BATCHES, Case
from .counts import count_update

LEARNING_RATES = {"SGD": 1e-2, "Adam": 1e-3}
EPOCH_ROWS = 16384
MOST_STEPS, FEWEST_STEPS = 1000, 2
SLICE = 0.05
"""Seconds that ``fit`` lets a run advance before it looks at signals."""

NETWORKS = [
    pytest.param(widths, id="-".join(map(str, widths)), marks=marks)
    for widths, marks in (
        ((784, 128, 10), ()),
        ((8, 64, 64, 2), ()),
        ((784, 512, 512, 10), pytest.mark.slow),
    )
]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("optimizer", LEARNING_RATES)
@pytest.mark.parametrize("widths", NETWORKS)
def test_training_step(time, backend, widths, optimizer, batch):
    time(training_step(backend, widths, optimizer, batch))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("widths", NETWORKS)
def test_prediction(time, backend, widths, batch):
    time(prediction(widths, batch))


def network(widths: tuple[int, ...], dtype: str) -> fastnn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[fastnn.Layer] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [fastnn.Linear(inputs, outputs), fastnn.ReLU()]
    return fastnn.Sequential(*layers[:-1], seed=0, dtype=dtype)


def parameters(model: fastnn.Sequential) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases, layer by layer."""
    linear = [layer for layer in model.layers if isinstance(layer, fastnn.Linear)]
    return [layer.weight for layer in linear], [layer.bias for layer in linear]


def data(widths: tuple[int, ...], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, labels and the order of an epoch."""
    rng = np.random.default_rng(0)
    order = rng.permutation(rows)
    x = rng.random((rows, widths[0]), np.float32)
    return x, rng.integers(0, widths[-1], rows), order


def steps_per_epoch(batch: int) -> int:
    """Steps that make an epoch long beside the call that runs it."""
    return max(FEWEST_STEPS, min(MOST_STEPS, EPOCH_ROWS // batch))


# ---- training ----


def training_step(
    backend: Any, widths: tuple[int, ...], optimizer_name: str, batch: int, dtype: str = "float32"
) -> Case:
    """Epochs of a backend's run, their order and rates given; the first step is verified."""
    steps = steps_per_epoch(batch)
    x, labels, order = data(widths, steps * batch)
    model = network(widths, dtype)
    optimizer = getattr(fastnn, optimizer_name)(LEARNING_RATES[optimizer_name])
    optimizer.attach(model)
    plan = lower(
        model.layers,
        widths[0],
        batch,
        dtype,
        loss=fastnn.CrossEntropyLoss().use,
        training=Training(optimizer.formula),
    )
    slots = {name: optimizer.slots_of(name) for name in model.arena}
    binding = Binding(x, model.arrays(), labels, slots=slots, threads=threads_for(plan))
    run_of_plan = backend.start(plan, binding)
    scalars = optimizer.scalars(0, np.full(steps, optimizer.lr), dtype)

    def train(first_steps: int) -> None:
        rows = first_steps * batch
        run_of_plan.begin(order[:rows], rows, scalars[:first_steps])
        while (outcome := run_of_plan.advance(SLICE)) == "stopped":
            pass
        if outcome != "done":
            raise ArithmeticError(f"training {outcome} at step {run_of_plan.step}")

    def verify() -> None:
        train(1)
        run_of_plan.store()
        loss, *expected = first_step(widths, optimizer_name, batch, dtype)
        loss.check(run_of_plan.losses()[0])
        for arrays, knowns in zip(parameters(model), expected, strict=True):
            for array, known in zip(arrays, knowns, strict=True):
                known.check(array)

    count, kept = model.arena.flat.nbytes, 1 + len(optimizer.formula.slots)
    moved = 2 * kept * count + batch * (widths[0] * x.itemsize + labels.itemsize)
    return Case(
        lambda: train(steps),
        verify,
        dtype,
        moved,
        kept * count + buffer_bytes(plan),
        flops(plan),
        **count_update(optimizer.formula).divided(model.arena.flat.size),
        steps=steps,
    )


@functools.lru_cache(maxsize=2)
def first_step(
    widths: tuple[int, ...], optimizer_name: str, batch: int, dtype: str
) -> tuple[truth.Known, list[truth.Known], list[truth.Known]]:
    """The truth of the first step: loss, weights, biases."""
    x, labels, order = data(widths, steps_per_epoch(batch) * batch)
    rows = order[:batch]
    rate = LEARNING_RATES[optimizer_name]
    optimizer = functools.partial(getattr(reference, optimizer_name), rate)
    return truth.first_step(
        dtype, *parameters(network(widths, dtype)), x[rows], labels[rows], optimizer
    )


def flops(plan: Plan) -> int:
    """Floating-point operations of a step."""
    of_chunk = sum(plan.cost(row).flops for row in plan.chunk)
    return of_chunk * plan.batch_rows // plan.chunk_rows


def buffer_bytes(plan: Plan) -> int:
    """Working memory of a plan."""
    elements = sum(int(np.prod(plan.shape(buffer.name))) for buffer in plan.buffers)
    return elements * np.dtype(plan.dtype).itemsize


# ---- prediction ----


def prediction(widths: tuple[int, ...], batch: int, dtype: str = "float32") -> Case:
    """``model.predict``, the Python call included."""
    model = network(widths, dtype)
    x, _, _ = data(widths, batch)

    def verify() -> None:
        _, sums = truth.forward(dtype, *parameters(model), x)
        sums[-1].check(model.predict(x))

    plan = lower(model.layers, widths[0], batch, dtype)
    moved = model.arena.flat.nbytes + batch * (widths[0] + widths[-1]) * x.itemsize
    return Case(lambda: model.predict(x), verify, dtype, moved, moved, flops(plan))
