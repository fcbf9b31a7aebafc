"""Random changes of images, each as what a kernel is told to do to each of some images.

See :mod:`fastnn.augment`, which has their names and puts them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from . import checks
from .kernels import augmentation as kernels

Range = float | tuple[float, float]

_TRIES = 10
"""Boxes that are drawn for one that fits into the image."""


class Size(NamedTuple):
    """An image's sides in pixels, its channels, and the largest value."""

    height: int
    width: int
    channels: int
    maximum: float


class Transform:
    """A random change of an image.

    Attributes
    ----------
    words : int
        Random words of 32 bits that it takes for each image.
    keeps_range : bool
        Whether it limits values to [0, maximum], and so expects them there.
    """

    words: ClassVar[int]
    keeps_range: ClassVar[bool] = False

    def check(self, size: Size) -> None:
        """Raise ValueError for images that it cannot change."""


class Geometric(Transform, ABC):
    """A transform that moves pixels."""

    @abstractmethod
    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        """For each image (B, 2, 3): the source (row, column) of (row, column, 1) of the result."""


class Pointwise(Transform, ABC):
    """A transform that leaves pixels where they are."""

    kind: ClassVar[int]

    @abstractmethod
    def settings(
        self, words: np.ndarray, size: Size, integers: np.ndarray, numbers: np.ndarray
    ) -> None:
        """Fill in what the kernel is given for each image; see kernels/augmentation.py."""


# Geometry


@dataclass(frozen=True)
class HorizontalFlip(Geometric):
    """Left and right exchanged, with some probability.

    Parameters
    ----------
    p : float, default 0.5
        The probability, from 0 to 1.

    Examples
    --------
    >>> import fastnn
    >>> image = np.array([[[1, 2, 3]]], np.uint8)
    >>> fastnn.augment.Compose([HorizontalFlip(p=1.0)])(image)
    array([[[3, 2, 1]]], dtype=uint8)
    """

    p: float = 0.5
    words = 1

    def __post_init__(self) -> None:
        _probability(self.p)

    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        return _identity(words) + _chosen(words[:, 0], self.p) * np.array(
            [[0.0, 0.0, 0.0], [0.0, -2.0, size.width - 1.0]]
        )


@dataclass(frozen=True)
class VerticalFlip(Geometric):
    """Top and bottom exchanged, with some probability.

    Parameters
    ----------
    p : float, default 0.5
        The probability, from 0 to 1.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.augment.Compose([VerticalFlip(p=1.0)])(np.array([[[1], [2]]], np.uint8)).ravel()
    array([2, 1], dtype=uint8)
    """

    p: float = 0.5
    words = 1

    def __post_init__(self) -> None:
        _probability(self.p)

    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        return _identity(words) + _chosen(words[:, 0], self.p) * np.array(
            [[-2.0, 0.0, size.height - 1.0], [0.0, 0.0, 0.0]]
        )


@dataclass(frozen=True)
class RandomCrop(Geometric):
    """A part of the image's size out of the image with ``padding`` rows and columns of 0 around it.

    Parameters
    ----------
    padding : int
        Pixels on each side.

    Examples
    --------
    >>> import fastnn
    >>> crop = fastnn.augment.Compose([RandomCrop(padding=1)])
    >>> crop(np.ones((1, 3, 3), np.uint8)).shape
    (1, 3, 3)
    """

    padding: int
    words = 2

    def __post_init__(self) -> None:
        checks.integer("padding", self.padding, at_least=0)

    def check(self, size: Size) -> None:
        _check_reach("padding", self.padding, size)

    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        return _moved(words, self.padding, self.padding)


@dataclass(frozen=True)
class Shift(Geometric):
    """The image moved by whole pixels, up to so many each way; what comes into sight is 0.

    Parameters
    ----------
    pixels : int or (int, int), optional
        The most, in both directions or (down, across).
    fraction : float or (float, float), optional
        The same as shares of the height and the width, from 0 to 1, rounded down to pixels. One of
        the two must be given.

    Examples
    --------
    >>> import fastnn
    >>> shift = fastnn.augment.Compose([Shift(pixels=(0, 1))])
    >>> image = np.array([[[1, 2, 3]]], np.uint8)
    >>> sorted({tuple(shift(image, epoch=epoch).ravel().tolist()) for epoch in range(20)})
    [(0, 1, 2), (1, 2, 3), (2, 3, 0)]
    """

    pixels: int | tuple[int, int] | None = None
    fraction: Range | None = None
    words = 2

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.fraction is None):
            raise ValueError(
                f"pixels is {self.pixels} and fraction is {self.fraction}; expected one of them"
            )
        for pixels in () if self.pixels is None else _pair("pixels", self.pixels):
            checks.integer("pixels", pixels, at_least=0)
        for fraction in () if self.fraction is None else _pair("fraction", self.fraction):
            checks.number("fraction", fraction, at_least=0.0, at_most=1.0)

    def check(self, size: Size) -> None:
        for most in self._most(size):
            _check_reach("pixels", most, size)

    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        return _moved(words, *self._most(size))

    def _most(self, size: Size) -> tuple[int, int]:
        if self.pixels is not None:
            return _pair("pixels", self.pixels)
        down, across = _pair("fraction", self.fraction)
        return int(down * size.height), int(across * size.width)


@dataclass(frozen=True)
class Rotation(Geometric):
    """The image turned counter-clockwise about its centre by a random angle.

    Parameters
    ----------
    degrees : float or (float, float)
        The least and the greatest angle; one number stands for (-degrees, degrees).

    Examples
    --------
    >>> import fastnn
    >>> turn = fastnn.augment.Compose([Rotation((90.0, 90.0))])
    >>> turn(np.array([[[1, 2], [3, 4]]], np.uint8))
    array([[[2, 4],
            [1, 3]]], dtype=uint8)
    """

    degrees: Range
    words = 1

    def __post_init__(self) -> None:
        if not isinstance(self.degrees, Sequence):
            checks.number("degrees", self.degrees, at_least=0.0)
        _interval("degrees", self.degrees)

    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        angles = np.radians(_uniform(words[:, 0], _interval("degrees", self.degrees)))
        sine, cosine = np.sin(angles), np.cos(angles)
        turn = np.array([[cosine, sine], [-sine, cosine]]).transpose(2, 0, 1)
        centre = np.array([size.height - 1.0, size.width - 1.0]) / 2.0
        return np.concatenate([turn, (centre - turn @ centre)[..., None]], axis=2)


@dataclass(frozen=True)
class RandomResizedCrop(Geometric):
    """A random box of the image, enlarged to the image's size by bilinear interpolation.

    The box lies on whole pixels; where none of ten drawn fits into the image, it is the largest in
    the middle with the nearest ratio that is allowed (Szegedy et al. 2015, section 6).

    Parameters
    ----------
    scale : (float, float), default (0.08, 1.0)
        The box's share of the area.
    ratio : (float, float), default (3/4, 4/3)
        Its width divided by its height, uniform in the logarithm.

    Examples
    --------
    >>> import fastnn
    >>> crop = fastnn.augment.Compose([RandomResizedCrop(scale=(0.5, 1.0))])
    >>> crop(np.ones((1, 8, 8), np.uint8)).shape
    (1, 8, 8)
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    words = 2 * _TRIES + 2

    def __post_init__(self) -> None:
        _check_box(self.scale, self.ratio)

    def map(self, words: np.ndarray, size: Size) -> np.ndarray:
        rows, columns, fits = _boxes(words, self.scale, self.ratio, size)
        whole = size.width / size.height
        low, high = self.ratio
        if whole < low:
            middle = max(1, round(size.width / low)), size.width
        elif whole > high:
            middle = size.height, max(1, round(size.height * high))
        else:
            middle = size.height, size.width
        top = np.where(fits, _below(words[:, -2], size.height - rows + 1), 0)
        left = np.where(fits, _below(words[:, -1], size.width - columns + 1), 0)
        rows, columns = (np.where(fits, b, m) for b, m in zip((rows, columns), middle, strict=True))
        top = np.where(fits, top, (size.height - rows) // 2)
        left = np.where(fits, left, (size.width - columns) // 2)
        result = np.zeros((len(words), 2, 3))
        for axis, (first, length, side) in enumerate(
            ((top, rows, size.height), (left, columns, size.width))
        ):
            step = length / side
            result[:, axis, axis] = step
            result[:, axis, 2] = first + (step - 1.0) / 2.0
        return result


# Colour, parts, noise


@dataclass(frozen=True)
class ColorJitter(Pointwise):
    """Brightness, contrast, saturation and hue changed by random amounts, in a random order.

    A factor is 1 for no change; values stay in [0, maximum].

    Parameters
    ----------
    brightness, contrast, saturation : float or (float, float), default 0
        The factor's range; a number b stands for (max(0, 1 - b), 1 + b). Brightness blends with
        black, contrast with the image's mean grey, saturation with the pixel's grey (BT.601).
    hue : float or (float, float), default 0
        Range of the turn of the hue, from -0.5 to 0.5 of a circle; a number h stands for (-h, h).
        Saturation and hue need images of 3 channels, red, green and blue.

    Examples
    --------
    >>> import fastnn
    >>> image = np.full((1, 1, 1, 3), [200, 100, 0], np.uint8)
    >>> fastnn.augment.Compose([ColorJitter(hue=(0.5, 0.5))])(image)
    array([[[[  0, 100, 200]]]], dtype=uint8)
    """

    brightness: Range = 0.0
    contrast: Range = 0.0
    saturation: Range = 0.0
    hue: Range = 0.0
    words = 8
    kind = kernels.COLOUR
    keeps_range = True

    def __post_init__(self) -> None:
        self._ranges()

    def _ranges(self) -> list[tuple[float, float]]:
        """The ranges of the four, in the order of the kernels' numbers."""
        factors = ("brightness", "contrast", "saturation")
        low, high = _interval("hue", self.hue)
        checks.number("hue", low, at_least=-0.5)
        checks.number("hue", high, at_most=0.5)
        return [
            *(_interval(name, getattr(self, name), around=1.0) for name in factors),
            (low, high),
        ]

    def check(self, size: Size) -> None:
        for operation in (kernels.SATURATION, kernels.HUE):
            if size.channels != 3 and self._changes()[operation]:
                raise ValueError(
                    f"X has {size.channels} channels; saturation and hue need 3, red, green, blue"
                )

    def _changes(self) -> list[bool]:
        unchanged = ((1.0, 1.0),) * 3 + ((0.0, 0.0),)
        return [own != none for own, none in zip(self._ranges(), unchanged, strict=True)]

    def settings(
        self, words: np.ndarray, size: Size, integers: np.ndarray, numbers: np.ndarray
    ) -> None:
        order = np.argsort(words[:, 4:], axis=1, kind="stable")
        integers[:, :4] = np.where(np.array(self._changes())[order], order, kernels.NOTHING)
        for number, range_ in enumerate(self._ranges()):
            numbers[:, number] = _uniform(words[:, number], range_)
        numbers[:, 4] = size.maximum


class _PartOfColorJitter(Pointwise):
    """A transform whose one field is that field of :class:`ColorJitter`."""

    words = ColorJitter.words
    kind = ColorJitter.kind
    keeps_range = ColorJitter.keeps_range

    def __post_init__(self) -> None:
        self._whole()

    def settings(
        self, words: np.ndarray, size: Size, integers: np.ndarray, numbers: np.ndarray
    ) -> None:
        self._whole().settings(words, size, integers, numbers)

    def _whole(self) -> ColorJitter:
        return ColorJitter(**vars(self))


@dataclass(frozen=True)
class Brightness(_PartOfColorJitter):
    """:class:`ColorJitter` of the brightness alone.

    Parameters
    ----------
    brightness : float or (float, float)
        As there.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.augment.Compose([Brightness((2.0, 2.0))])(np.array([[[1, 100, 200]]], np.uint8))
    array([[[  2, 200, 255]]], dtype=uint8)
    """

    brightness: Range


@dataclass(frozen=True)
class Contrast(_PartOfColorJitter):
    """:class:`ColorJitter` of the contrast alone.

    Parameters
    ----------
    contrast : float or (float, float)
        As there.

    Examples
    --------
    >>> import fastnn
    >>> fastnn.augment.Compose([Contrast((2.0, 2.0))])(np.array([[[90, 110]]], np.uint8))
    array([[[ 80, 120]]], dtype=uint8)
    """

    contrast: Range


@dataclass(frozen=True)
class RandomErasing(Pointwise):
    """A random box set to one value (Zhong et al. 2017, algorithm 1).

    Parameters
    ----------
    p : float, default 0.5
        The probability; where none of ten boxes drawn is smaller than the image, nothing is erased.
    scale : (float, float), default (0.02, 0.33)
        The box's share of the area.
    ratio : (float, float), default (0.3, 3.3)
        Its width divided by its height, uniform in the logarithm.
    value : float, default 0
        As a share of the maximum.

    Examples
    --------
    >>> import fastnn
    >>> erased = fastnn.augment.Compose([RandomErasing(p=1.0)])(np.full((1, 8, 8), 9, np.uint8))
    >>> np.unique(erased)
    array([0, 9], dtype=uint8)
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float = 0.0
    words = 2 * _TRIES + 3
    kind = kernels.ERASE

    def __post_init__(self) -> None:
        _probability(self.p)
        _check_box(self.scale, self.ratio)
        checks.number("value", self.value, at_least=0.0, at_most=1.0)

    def settings(
        self, words: np.ndarray, size: Size, integers: np.ndarray, numbers: np.ndarray
    ) -> None:
        rows, columns, fits = _boxes(words[:, :-1], self.scale, self.ratio, size)
        erased = fits & (rows < size.height) & (columns < size.width)
        erased &= _chosen(words[:, -1], self.p)[:, 0, 0]
        corner = (
            _below(words[:, -3], size.height - rows + 1),
            _below(words[:, -2], size.width - columns + 1),
        )
        for place, values in enumerate((*corner, rows, columns)):
            integers[:, place] = np.where(erased, values, 0)
        numbers[:, 0] = self.value * size.maximum


@dataclass(frozen=True)
class GaussianNoise(Pointwise):
    """Normal noise added to each value of each pixel.

    Parameters
    ----------
    mean : float, default 0
        As a share of the maximum.
    sigma : float, default 0.1
        The standard deviation, as a share of the maximum. The noise takes 65,536 equally likely
        values, up to 4.3 sigma.
    clip : bool, default True
        Limit values to [0, maximum] afterwards.

    Examples
    --------
    >>> import fastnn
    >>> noisy = fastnn.augment.Compose([GaussianNoise(sigma=0.1)])(np.full((1, 64, 64), 0.5))
    >>> bool(abs(noisy.std() - 0.1) < 0.01)
    True
    """

    mean: float = 0.0
    sigma: float = 0.1
    clip: bool = True
    words = 2
    kind = kernels.NOISE

    def __post_init__(self) -> None:
        checks.number("mean", self.mean)
        checks.number("sigma", self.sigma, at_least=0.0)
        checks.boolean("clip", self.clip)

    @property
    def keeps_range(self) -> bool:  # type: ignore[override]
        return self.clip

    def settings(
        self, words: np.ndarray, size: Size, integers: np.ndarray, numbers: np.ndarray
    ) -> None:
        key = words[:, 0].astype(np.uint64) | words[:, 1].astype(np.uint64) << np.uint64(32)
        integers[:, 0] = key.view(np.int64)
        limits = (0.0, size.maximum) if self.clip else (-np.inf, np.inf)
        numbers[:, :4] = (self.mean * size.maximum, self.sigma * size.maximum, *limits)


# Numbers from random words (uint32)


def _uniform(words: np.ndarray, interval: tuple[float, float]) -> np.ndarray:
    """Numbers from [low, high)."""
    low, high = interval
    return low + words * 2.0**-32 * (high - low)


def _below(words: np.ndarray, limits: np.ndarray | int) -> np.ndarray:
    """Whole numbers from 0 below the limits."""
    return (words.astype(np.int64) * limits) >> 32


def _chosen(words: np.ndarray, p: float) -> np.ndarray:
    """True with probability p, (B, 1, 1)."""
    return (words * 2.0**-32 < p)[:, None, None]


def _boxes(
    words: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float], size: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the first box of each image that fits into it, and whether one does."""
    areas = _uniform(words[:, :_TRIES], scale) * (size.height * size.width)
    logarithms = (float(np.log(ratio[0])), float(np.log(ratio[1])))
    ratios = np.exp(_uniform(words[:, _TRIES : 2 * _TRIES], logarithms))
    rows, columns = (np.rint(np.sqrt(a)) for a in (areas / ratios, areas * ratios))
    fit = (rows >= 1) & (rows <= size.height) & (columns >= 1) & (columns <= size.width)
    first = fit.argmax(axis=1)[:, None]
    fits = fit.any(axis=1)
    chosen = (np.take_along_axis(lengths, first, axis=1)[:, 0] for lengths in (rows, columns))
    # as integers only once they fit: a side may lie beyond all integers
    rows, columns = (np.where(fits, lengths, 1.0).astype(np.int64) for lengths in chosen)
    return rows, columns, fits


# Maps (B, 2, 3) from (row, column, 1) of a result to (row, column) of its source


def _identity(words: np.ndarray) -> np.ndarray:
    return np.tile(np.eye(2, 3), (len(words), 1, 1))


def _moved(words: np.ndarray, down: int, across: int) -> np.ndarray:
    """Moved by whole pixels, up to so many each way."""
    result = _identity(words)
    for axis, most in enumerate((down, across)):
        result[:, axis, 2] += _below(words[:, axis], 2 * most + 1) - most
    return result


# Arguments


def _probability(p: float) -> None:
    checks.number("p", p, at_least=0.0, at_most=1.0)


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    """One value for both directions, or two."""
    if not isinstance(value, Sequence):
        return value, value
    if isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{name} is {value!r}; expected one number or two")
    return value[0], value[1]


def _interval(name: str, value: Range, around: float | None = None) -> tuple[float, float]:
    """A range; one number is a distance from 0, or from ``around``, below which 0 is the least."""
    if isinstance(value, Sequence):
        low, high = (checks.number(name, limit) for limit in _pair(name, value))
    else:
        distance = checks.number(name, value, at_least=0.0)
        low, high = -distance, distance
        if around is not None:
            low, high = max(0.0, around - distance), around + distance
    if low > high or (around is not None and low < 0.0):
        raise ValueError(f"{name} is {value!r}; expected (least, greatest)")
    return low, high


def _check_box(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    for name, value in (("scale", scale), ("ratio", ratio)):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError(f"{name} is {value!r}; expected (least, greatest)")
        low, high = _interval(name, value)
        checks.number(name, low, above=0.0)
        checks.number(name, high, at_most=1.0 if name == "scale" else None)


def _check_reach(name: str, pixels: int, size: Size) -> None:
    if pixels > max(size.height, size.width):
        raise ValueError(
            f"{name} is {pixels}; expected at most the longer side of the images, "
            f"{max(size.height, size.width)}"
        )
