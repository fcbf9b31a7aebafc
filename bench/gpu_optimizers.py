"""Every optimizer over many parameters on a CUDA device, beside PyTorch's and a plain copy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastnn
from fastnn.kernels.cupy_backend.device import Device

from .gpu_machine import COPIED_BYTES, copier
from .gpu_timing import Figure, attempt, in_turn
from .test_optimizers import (
    LEARNING_RATE,
    OPTIMIZERS,
    arrays_moved,
    check_first_update,
)

PARAMETERS = 50_000_000
_CHECKED = 1 << 20
_TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "Momentum": ("SGD", {"momentum": 0.9}),
    "Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
}
"""What PyTorch calls those that it names otherwise."""


class Update(NamedTuple):
    """An optimizer with its parameters.

    Parameters
    ----------
    step : callable
    weights : callable
        The first parameters so many, on the host.
    how : str
        Which implementation it is.
    """

    step: Callable[[], Any]
    weights: Callable[[int], np.ndarray]
    how: str


def measure(
    device: Device, rounds: int, quick: bool, parameters: int = PARAMETERS
) -> Iterator[Figure]:
    """The seconds of each optimizer's step, of PyTorch's, and of a copy in the same rounds."""
    names = ("SGD", "Adam") if quick else OPTIMIZERS
    rng = np.random.default_rng(0)
    weight, grad = (rng.standard_normal(parameters, np.float32) for _ in range(2))
    for name in names:
        updates: dict[str, Update] = {}
        for library, make in (("fastnn", ours), ("torch", theirs)):
            _, update = figure = attempt(
                functools.partial(checked, make, device, name, weight, grad),
                "optimizers", name, library,
            )  # fmt: skip
            if isinstance(update, Update):
                updates[library] = update
            else:
                yield figure
        timing = functools.partial(_time, device, updates, rounds)
        yield attempt(timing, "optimizers", name, "seconds")
        yield ("optimizers", name, "how"), {each: made.how for each, made in updates.items()}
        yield ("optimizers", name, "bytes"), arrays_moved(name) * weight.nbytes


def checked(
    make: Callable[..., Update], device: Device, name: str, weight: np.ndarray, grad: np.ndarray
) -> Update:
    """An optimizer whose first step was right."""
    update = make(device, name, weight, grad)
    update.step()
    head = slice(_CHECKED)
    check_first_update(name, weight[head], grad[head], update.weights(_CHECKED))
    return update


def ours(device: Device, name: str, weight: np.ndarray, grad: np.ndarray) -> Update:
    """fastnn's, on arrays of the device."""
    optimizer = getattr(fastnn, name)(LEARNING_RATE)
    there, gradient = (device.array(array.reshape(1, -1)).copy() for array in (weight, grad))

    def weights(count: int) -> np.ndarray:
        return there.reshape(-1)[:count].get()

    return Update(functools.partial(optimizer.step, [there], [gradient]), weights, "one pass")


def theirs(
    device: Device, name: str, weight: np.ndarray, grad: np.ndarray, where: str = "cuda"
) -> Update:
    """PyTorch's fused one, or where it has none, the one that it would take itself."""
    import torch

    there = torch.tensor(weight, device=where, requires_grad=True)
    there.grad = torch.tensor(grad, device=where)
    kind, settings = _TORCH.get(name, (name, {}))
    make = functools.partial(getattr(torch.optim, kind), [there], LEARNING_RATE, **settings)
    try:
        optimizer, how = make(fused=True), "fused"
    except (TypeError, RuntimeError):  # some have no such argument, some none for the device
        optimizer, how = make(), "default"

    def weights(count: int) -> np.ndarray:
        return there.detach()[:count].cpu().numpy()

    return Update(optimizer.step, weights, how)


def _time(device: Device, updates: dict[str, Update], rounds: int) -> dict[str, list[float]]:
    """Seconds a step, and seconds a byte of a copy."""
    size = COPIED_BYTES
    copy, *_ = copier(device, size)
    works = {library: update.step for library, update in updates.items()} | {"copy": copy}
    found = in_turn(works, device.cupy.cuda.Device().synchronize, rounds)
    found["copy"] = [seconds / (2 * size) for seconds in found["copy"]]
    return found
