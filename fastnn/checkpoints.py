"""Checkpoints of a training: a network's file that also says where the training stands."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import model_files, optim
from .losses import Loss

if TYPE_CHECKING:
    from .model import Sequential


def write(
    path: Path, model: Sequential, tensors: Mapping[str, np.ndarray], training: dict[str, Any]
) -> None:
    """Write a network with where its training stands.

    Parameters
    ----------
    path : Path
        Written aside and renamed.
    model : Sequential
    tensors : mapping
        Arrays to keep besides the network's.
    training : dict
        What :func:`read` gives as ``metadata["training"]``.
    """
    own, metadata = model.state()
    model_files.save_tensors(path, own | dict(tensors), metadata | {"training": training})


def read(
    path: Path, model: Sequential, loss: Loss, optimizer: optim.Optimizer
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and metadata of a checkpoint, which must be of the same training.

    Parameters
    ----------
    path : Path
    model : Sequential
    loss : Loss
    optimizer : Optimizer

    Raises
    ------
    ValueError
        For a file that is no checkpoint, or of another network, loss or optimizer.
    """
    with naming(path):
        tensors, metadata = model_files.load_tensors(path)
        if "training" not in metadata:
            raise ValueError(f"{path} is not a checkpoint of fit")
        _check_same(path, model, loss, metadata)
        saved = optim.from_state(metadata["optimizer"], [optimizer])
        if _settings_of(saved) != _settings_of(optimizer):
            raise ValueError(f"optimizer is {optimizer!r}; {path} was written with {saved!r}")
        model.check_tensors(tensors, len(optimizer.formula.slots))
        return tensors, metadata


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Turn what contents that do not belong together raise into an error that names the file."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a checkpoint of fit: {error!r}") from None


def _check_same(path: Path, model: Sequential, loss: Loss, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError unless dtype, loss and layers are those of the file."""
    _, own = model.state()
    pairs = {
        "dtype": (model.dtype, metadata["dtype"]),
        "loss": (loss.configuration(), metadata["loss"]),
    }
    layers = zip_longest(own["layers"], metadata["layers"])
    pairs |= {f"layer {number}": pair for number, pair in enumerate(layers)}
    for part, (ours, theirs) in pairs.items():
        if json.dumps(ours) != json.dumps(theirs):
            raise ValueError(
                f"{part} is {reprlib.repr(ours)}; {path} was written with {reprlib.repr(theirs)}"
            )


def _settings_of(optimizer: optim.Optimizer) -> tuple[Any, ...]:
    return optimizer.name, optimizer.lr, optimizer.settings
