"""A picture of what augmentation makes of images: each beside its changes in some epochs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, figures
from .image_transforms import (
    Brightness,
    ColorJitter,
    Contrast,
    GaussianNoise,
    HorizontalFlip,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Rotation,
    Shift,
    Transform,
    VerticalFlip,
)
from .words import Words

if TYPE_CHECKING:
    from .augment import Compose

_INCHES, _LABELS, _TITLES = 1.0, 1.4, 0.3
"""Widths of an image and of the names, and the height of the titles."""


def preview(
    X: ArrayLike,
    augment: Compose | None = None,
    *,
    images: int = 6,
    epochs: int = 8,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    path: str | os.PathLike | None = None,
    language: str = "en",
) -> Any:
    """Draw a contact sheet: images as they are, and what becomes of each in epochs 0, 1, 2, ...

    Parameters
    ----------
    X : array (B, H, W), (B, H, W, C) with 1 or 3 channels, or flattened rows
        The first ones are drawn.
    augment : Compose, optional
        By default a row for each transform of ``fastnn.augment``, on images in turn.
    images, epochs : int, default 6, 8
        The most images, and epochs.
    seed : int, default 0
    shape : (H, W) or (H, W, C), optional
        For flattened rows, where ``augment`` is not given.
    path : path, optional
        A file to write, of a kind that matplotlib knows by its ending, say ".png".
    language : "en" or "ko", default "en"

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit.
    FileNotFoundError
        For a path in a folder that does not exist.
    ImportError
        Without matplotlib (``fastnn-kernels[plot]``).

    Examples
    --------
    >>> import fastnn
    >>> X, y = fastnn.data.digits()
    >>> chain = fastnn.augment.Compose([fastnn.augment.Rotation(20)], shape=(8, 8))
    >>> figure = fastnn.augment.preview(X, chain, path="digits.png")  # doctest: +SKIP
    """
    from .augment import Compose

    checks.positive_int("images", images)
    checks.positive_int("epochs", epochs)
    say = Words(language)
    array = arrays.on_host("X", X)
    if augment is not None and not isinstance(augment, Compose):
        raise TypeError(f"augment is {augment!r}; expected an augment.Compose")
    chain = Compose([], shape=shape) if augment is None else augment
    shown = chain.images("X", array)
    if shown.shape[-1] not in (1, 3):
        raise ValueError(f"X has {shown.shape[-1]} channels; 1 or 3 can be drawn")
    maximum = chain.size(shown).maximum
    if augment is None:
        chains = {_name(t): Compose([t]) for t in _examples(shown)}
        rows = [(name, n % len(shown), chain) for n, (name, chain) in enumerate(chains.items())]
    else:
        rows = [(say("image {number}", number=n), n, chain) for n in range(min(images, len(shown)))]
    _check_values(shown[[n for _, n, _ in rows]], maximum)
    sheet = [
        (name, [shown[n], *(_changed(c, shown, n, seed, epoch) for epoch in range(epochs))])
        for name, n, c in rows
    ]
    with figures.lettering(say):
        figure = _draw(sheet, maximum, say)
        if path is not None:
            figures.save(figure, path)
    return figure


def _check_values(images: np.ndarray, maximum: float) -> None:
    """Values beyond the range would be drawn black or white."""
    low, high = images.min(), images.max()
    if not (low >= 0.0 and high <= maximum):
        raise ValueError(
            f"X has values from {low:g} to {high:g}; expected 0 to {maximum:g}, see"
            " augment.Compose(..., maximum=)"
        )


def _examples(images: np.ndarray) -> list[Transform]:
    """A transform of each kind that suits the images."""
    transforms: list[Transform] = [
        HorizontalFlip(),
        VerticalFlip(),
        RandomCrop(max(1, images.shape[1] // 8)),
        Shift(fraction=0.2),
        Rotation(30.0),
        RandomResizedCrop((0.3, 1.0)),
        Brightness(0.5),
        Contrast(0.5),
        RandomErasing(),
        GaussianNoise(),
    ]
    if images.shape[-1] == 3:
        transforms.insert(-2, ColorJitter(saturation=0.8))
        transforms.insert(-2, ColorJitter(hue=0.3))
    return transforms


def _name(transform: Transform) -> str:
    if isinstance(transform, ColorJitter):
        return "saturation" if transform.saturation else "hue"
    return type(transform).__name__


def _changed(chain: Compose, images: np.ndarray, number: int, seed: int, epoch: int) -> np.ndarray:
    one = images[number : number + 1]
    return chain(one, seed=seed, epoch=epoch, samples=[number])[0]


def _draw(sheet: list[tuple[str, list[np.ndarray]]], maximum: float, say: Words) -> Any:
    rows, columns = len(sheet), len(sheet[0][1])
    height, width = sheet[0][1][0].shape[:2]
    tall = min(2.0, max(0.5, height / width)) * _INCHES
    size = columns * _INCHES + _LABELS, rows * tall + _TITLES
    figure = figures.new(*size, layout=None)
    axes = figure.subplots(rows, columns, squeeze=False)
    for (name, pictures), places in zip(sheet, axes, strict=True):
        for picture, place in zip(pictures, places, strict=True):
            place.imshow(np.clip(picture / maximum, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)
            place.set(xticks=[], yticks=[])
        places[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    axes[0, 0].set_title("X", fontsize=8)
    for epoch, place in enumerate(axes[0, 1:]):
        place.set_title(say("epoch {epoch}", epoch=epoch), fontsize=8)
    left, top = _LABELS / size[0], 1.0 - _TITLES / size[1]
    figure.subplots_adjust(left, 0.01, 0.99, top, wspace=0.06, hspace=0.06)
    return figure
