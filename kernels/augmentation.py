"""Image augmentation as every backend has it: what a program says, and the arithmetic, once.

An image is (H, W, C). All arithmetic is float64, on numbers of the image's own range, and the
result is rounded to the image's dtype once, at the end; whole numbers are rounded half up and
saturate. A formula here is plain arithmetic with neither branch nor loop: NumPy evaluates it on
arrays and Numba compiles it for single numbers, with the same bits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

DTYPES = ("uint8", "float32", "float64")
"""Dtypes of images."""
GEOMETRY, COLOUR, ERASE, NOISE = range(4)
"""Kinds of stages."""
INTEGERS, NUMBERS = 6, 5
"""What a stage has for each image, the rest unused:

GEOMETRY
    integers: the place in the source of each place (r, c) of the result, with POINT fractional
    bits: row = [0] r + [1] c + [2], column = [3] r + [4] c + [5].
COLOUR
    integers: the operations in their order (BRIGHTNESS to HUE, or NOTHING), numbers: the factor of
    each operation (the hue's is in turns), then the largest value.
ERASE
    integers: top, left, height, width; numbers: the value.
NOISE
    integers: the key of the words; numbers: mean, standard deviation, least and largest result.
"""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NOTHING = -1
POINT = 32
"""Fractional bits of a place: in an image of 1,024 pixels a side the error is 2⁻²² of one."""
ONE, HALF = 1 << POINT, 1 << (POINT - 1)
LARGEST_SIDE = 1 << 16
QUANTILES = 1 << 16
WORDS = 1024
"""Random words that a compiled kernel makes at once."""


@dataclass(frozen=True)
class Program:
    """What is done to each of B images, stage after stage.

    Parameters
    ----------
    kinds : int64 array (S,)
        The kind of each stage.
    integers : int64 array (S, B, INTEGERS)
    numbers : float64 array (S, B, NUMBERS)
    """

    kinds: np.ndarray
    integers: np.ndarray
    numbers: np.ndarray


def check(images: np.ndarray, program: Program, out: np.ndarray) -> None:
    """Raise where a kernel would read or write outside of these arrays.

    Raises
    ------
    TypeError, ValueError
    """
    if images.dtype.name not in DTYPES or out.dtype != images.dtype:
        raise TypeError(
            f"images and out have dtypes {images.dtype} and {out.dtype}; expected one of "
            f"{', '.join(DTYPES)} for both"
        )
    if images.ndim != 4 or not images.size or max(images.shape[1:]) > LARGEST_SIDE:
        raise ValueError(
            f"images have shape {images.shape}; expected (B, H, W, C), sides up to {LARGEST_SIDE}"
        )
    if out.shape != images.shape:
        raise ValueError(f"out has shape {out.shape}; expected that of the images, {images.shape}")
    if not (images.flags.c_contiguous and out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("images and out must be contiguous, and out not read-only")
    if np.may_share_memory(images, out):
        raise ValueError("out lies where the images do; expected memory of its own")
    lengths = len(program.kinds), len(images)
    for name, array, shape, dtype in (
        ("kinds", program.kinds, lengths[:1], np.int64),
        ("integers", program.integers, (*lengths, INTEGERS), np.int64),
        ("numbers", program.numbers, (*lengths, NUMBERS), np.float64),
    ):
        if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"the program's {name} have shape {array.shape} of {array.dtype}")
    _check_stages(images, program)


def _check_stages(images: np.ndarray, program: Program) -> None:
    """What would lead a kernel astray: a box outside of the image, colours of other than three."""
    _, height, width, channels = images.shape
    for kind, integers in zip(program.kinds, program.integers, strict=True):
        if kind == ERASE:
            top, left, rows, columns = integers[:, :4].T
            inside = (integers[:, :4] >= 0).all() and (rows <= height - top).all()
            if not (inside and (columns <= width - left).all()):
                raise ValueError("the program erases outside of the image")
        elif kind == COLOUR and channels != 3:
            if (integers[:, :4] >= SATURATION).any():
                raise ValueError(f"saturation and hue need 3 channels; the images have {channels}")
        elif kind not in (GEOMETRY, COLOUR, NOISE):
            raise ValueError(f"the program has a stage of kind {kind}")


def is_whole(map_: Any, first: Any) -> Any:
    """Whether a map, from this element on, takes rows to rows by whole pixels, either way."""
    fractions = (map_[first + 2] | map_[first + 5]) & (ONE - 1)
    turned = (map_[first + 1] | map_[first + 3]) != 0
    steps = (abs(map_[first]) == ONE) & (abs(map_[first + 4]) == ONE)
    return (fractions == 0) & (not turned) & steps


def bilinear(
    top_left: Any, top_right: Any, bottom_left: Any, bottom_right: Any, down: Any, across: Any
) -> Any:
    """The value at a share ``down`` and ``across`` of the way between four pixels."""
    top = top_left + across * (top_right - top_left)
    bottom = bottom_left + across * (bottom_right - bottom_left)
    return top + down * (bottom - top)


def limited(value: Any, low: Any, high: Any) -> Any:
    """The value moved into [low, high]."""
    return np.minimum(np.maximum(value, low), high)


def blend(value: Any, other: Any, factor: Any, largest: Any) -> Any:
    """``factor`` of the value and the rest of another, in [0, largest]."""
    return limited(factor * value + (1.0 - factor) * other, 0.0, largest)


def luma(red: Any, green: Any, blue: Any) -> Any:
    """The grey of a colour (ITU-R BT.601)."""
    return 0.299 * red + 0.587 * green + 0.114 * blue


def hue_sector(red: Any, green: Any, blue: Any, value: Any, chroma: Any) -> Any:
    """The hue of a colour, in sixths of a turn from red towards green, from -1 to 5.

    Smith 1978, "Color gamut transform pairs", the hexcone model.
    """
    divisor = chroma + (chroma == 0.0)
    is_red = 1.0 * (red == value)
    is_green = (1.0 - is_red) * (green == value)
    return (
        is_red * ((green - blue) / divisor)
        + is_green * (2.0 + (blue - red) / divisor)
        + (1.0 - is_red - is_green) * (4.0 + (red - green) / divisor)
    )


def colour_of_hue(sector: Any, value: Any, chroma: Any, first: float) -> Any:
    """One part of the colour of a hue: ``first`` is 5 for red, 3 for green, 1 for blue."""
    k = first + sector
    k = k - 6.0 * np.floor(k / 6.0)
    return value - chroma * limited(np.minimum(k, 4.0 - k), 0.0, 1.0)


@functools.cache
def normal_quantiles() -> np.ndarray:
    """QUANTILES equally likely values (float32) of a standard normal, in order.

    The quantiles in the middles of as many equal shares, scaled to variance 1; the largest is 4.3.
    """
    inverse = NormalDist().inv_cdf
    upper = [inverse(0.5 + (i + 0.5) / QUANTILES) for i in range(QUANTILES // 2)]
    values = np.concatenate([-np.array(upper[::-1]), upper])
    values /= np.sqrt(np.mean(values**2))
    result = values.astype(np.float32)
    result.flags.writeable = False
    return result
