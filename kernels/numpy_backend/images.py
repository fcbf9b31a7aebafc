"""Augmentation of images, an image at a time; see :mod:`fastnn.kernels.augmentation`."""

from __future__ import annotations

import numpy as np

from .. import augmentation as a
from .philox import stream_words


def augment(images: np.ndarray, program: a.Program, out: np.ndarray) -> None:
    """out[n] = what the program makes of images[n]; both (B, H, W, C)."""
    for number, image in enumerate(images):
        values = image.astype(np.float64)
        for kind, integers, numbers in zip(
            program.kinds, program.integers[:, number], program.numbers[:, number], strict=True
        ):
            values = _STAGES[kind](values, integers, numbers)
        if out.dtype.kind == "u":
            values = np.floor(a.limited(values, 0.0, 255.0) + 0.5)
        out[number] = values


def _resample(values: np.ndarray, map_: np.ndarray, _: np.ndarray) -> np.ndarray:
    height, width, _channels = values.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)
    y = map_[0] * rows + map_[1] * columns + map_[2]
    x = map_[3] * rows + map_[4] * columns + map_[5]
    above, before = y >> a.POINT, x >> a.POINT
    down, across = (((p & (a.ONE - 1)) / a.ONE)[..., None] for p in (y, x))
    upper, lower = (np.clip(above + step, 0, height - 1) for step in (0, 1))
    left, right = (np.clip(before + step, 0, width - 1) for step in (0, 1))
    inside = (y >= -a.HALF) & (y <= ((height - 1) << a.POINT) + a.HALF)
    inside &= (x >= -a.HALF) & (x <= ((width - 1) << a.POINT) + a.HALF)
    moved = values[upper, left]
    if not a.is_whole(map_, 0):  # a copy keeps infinities, a blend has inf - inf
        moved = a.bilinear(
            moved,
            values[upper, right],
            values[lower, left],
            values[lower, right],
            down,
            across,
        )
    return np.where(inside[..., None], moved, 0.0)


def _colour(values: np.ndarray, order: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    *factors, largest = numbers
    for operation in order[:4]:
        if operation == a.NOTHING:
            continue
        factor = factors[operation]
        if operation == a.HUE:
            values = _turned(values, factor)
            continue
        if operation == a.BRIGHTNESS:
            other: np.ndarray | float = 0.0
        elif operation == a.CONTRAST:
            other = _mean_grey(values)
        else:
            other = a.luma(*np.moveaxis(values, -1, 0))[..., None]
        values = a.blend(values, other, factor, largest)
    return values


def _turned(values: np.ndarray, turns: float) -> np.ndarray:
    red, green, blue = np.moveaxis(values, -1, 0)
    value = values.max(axis=-1)
    chroma = value - values.min(axis=-1)
    sector = a.hue_sector(red, green, blue, value, chroma) + 6.0 * turns
    parts = [a.colour_of_hue(sector, value, chroma, first) for first in (5.0, 3.0, 1.0)]
    return np.stack(parts, axis=-1)


def _mean_grey(values: np.ndarray) -> np.float64:
    """The mean grey of an image, summed in the order of its pixels: not pairwise."""
    grey = a.luma(*np.moveaxis(values, -1, 0)) if values.shape[-1] == 3 else values
    return np.cumsum(grey)[-1] / grey.size


def _erase(values: np.ndarray, box: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    top, left, height, width = box[:4]
    values[top : top + height, left : left + width] = numbers[0]
    return values


def _noise(values: np.ndarray, integers: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    mean, deviation, low, high = numbers[:4]
    words = stream_words(int(integers[0]) % 2**64, 0, 0, -(-values.size // 2))
    halves = np.stack([words & 0xFFFF, words >> 16], axis=1).ravel()[: values.size]
    normal = a.normal_quantiles()[halves].astype(np.float64).reshape(values.shape)
    return a.limited(values + (mean + deviation * normal), low, high)


_STAGES = {a.GEOMETRY: _resample, a.COLOUR: _colour, a.ERASE: _erase, a.NOISE: _noise}
