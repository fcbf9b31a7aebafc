"""The small NumPy library of ``examples``: the same losses whatever does its arithmetic."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from checks import Bound, assert_close

import fastnn

nets = pytest.importorskip("examples.numpy_library.nets")


def losses(functions, optimizer, loss, dtype, monkeypatch):
    """The mean losses of three epochs on digits, or on the same as values."""
    monkeypatch.setattr(nets, "functions", functions)
    X, y = fastnn.data.digits()
    X, y = X[:500].astype(dtype), y[:500]
    targets = y if loss == "cross_entropy" else np.eye(10, dtype=dtype)[y]
    network = nets.Network(
        nets.Dense(64, 32, 1, dtype), nets.Activation("relu"),
        nets.Dense(32, 20, 2, dtype), nets.Activation("tanh"),
        nets.Dense(20, 10, 3, dtype), loss=loss,
    )  # fmt: skip
    return list(network.train(X, targets, optimizer, epochs=3, batch=32))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("optimizer", ["SGD", "Momentum", "Adam"])
def test_losses(optimizer, loss, dtype, backend, monkeypatch):
    make = getattr(nets, optimizer)
    rate = {"SGD": 0.1, "Momentum": 0.02, "Adam": 0.003}[optimizer]
    expected = losses(nets.NumPyFunctions, make(rate), loss, dtype, monkeypatch)
    with fastnn.use_backend(backend):
        actual = losses(fastnn.functional, make(rate), loss, dtype, monkeypatch)
    assert expected[-1] < expected[0]
    limit = 1e3 * float(np.finfo(dtype).eps) * expected[0]  # what 48 steps make of rounding
    assert_close(actual, expected, Bound(limit, limit))


def test_the_library_imports_nothing_of_ours():
    tree = ast.parse(Path(nets.__file__).read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"__future__", "collections.abc", "numpy"}
