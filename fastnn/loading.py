"""A network from a file: its layers, loss and optimizer by the names that the file keeps."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable
from typing import Any

from . import losses, model_files, optim
from .layers import LAYERS, Activation, Layer
from .losses import Loss
from .model import Sequential


def load(path: str | os.PathLike, *, custom: Iterable[Any] = ()) -> Sequential:
    """Read a network that :meth:`Sequential.save` wrote.

    Parameters
    ----------
    path : path
    custom : iterable
        The user's own activations, losses and optimizers that the file names.

    Returns
    -------
    Sequential
        With the optimizer's state, so that ``fit`` continues.

    Raises
    ------
    ValueError
        For a file that is damaged, of a newer version, or that names something not in ``custom``.
    OSError

    Examples
    --------
    >>> import os, tempfile
    >>> import fastnn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     fastnn.Sequential(fastnn.Linear(2, 3)).save(path)
    ...     load(path).parameter_count
    9
    """
    tensors, metadata = model_files.load_tensors(path)
    custom = list(custom)
    try:
        layers = [_layer(configuration, custom) for configuration in metadata["layers"]]
        # before memory is taken for them
        model_files.check_tensors(tensors, _shapes(layers), metadata["dtype"])
        model = Sequential(*layers, seed=metadata["seed"], dtype=metadata["dtype"])
        if metadata["optimizer"] is not None:
            known = [each for each in custom if isinstance(each, optim.Optimizer)]
            model.optimizer = optim.from_state(metadata["optimizer"], known)
        model.restore(tensors, metadata)
        model.loss = _loss(metadata["loss"], custom)
        model.classes = _names_of_classes(metadata["classes"])
    except ValueError as error:
        raise ValueError(f"{os.fsdecode(path)}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fsdecode(path)}: not a fastnn model: {error!r}") from None
    return model


def _names_of_classes(classes: Any) -> list[str] | None:
    if not (
        classes is None
        or (isinstance(classes, list) and all(isinstance(name, str) for name in classes))
    ):
        raise ValueError(f"classes is {reprlib.repr(classes)}; expected a list of names")
    return classes


def _shapes(layers: Iterable[Layer]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that layers have, by name."""
    return {
        f"{number}.{parameter.name}": parameter.shape
        for number, layer in enumerate(layers)
        for parameter in (*layer.parameters(), *layer.constants())
    }


def _layer(configuration: dict[str, Any], custom: list[Any]) -> Layer:
    kind = configuration["type"]
    if kind == "Activation":
        name = configuration["name"]
        for layer in custom:
            if isinstance(layer, Activation) and layer.name == name:
                return layer.with_settings(configuration["arguments"])
        raise ValueError(f"the file uses the activation {name!r}: give it in custom=[...]")
    if kind not in LAYERS:
        for layer in custom:
            if isinstance(layer, type) and layer.__name__ == kind:
                return layer(**configuration["arguments"])
        raise ValueError(f"the file uses the layer {kind!r}: give its class in custom=[...]")
    return LAYERS[kind](**configuration["arguments"])


def _loss(configuration: dict[str, Any] | None, custom: list[Any]) -> Loss | None:
    if configuration is None:
        return None
    known = losses.from_configuration(configuration)
    if known is not None:
        return known
    for each in custom:
        if isinstance(each, Loss) and each.name == configuration["name"]:
            return each.with_settings(configuration["settings"])
    raise ValueError(f"the file uses the loss {configuration['name']!r}: give it in custom=[...]")
