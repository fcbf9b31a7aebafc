"""Random changes of images, made anew for every sample and epoch by compiled kernels.

``Compose([...])`` goes to ``fit(augment=...)`` or is called by itself. What becomes of a sample
depends on the seed, the epoch, the sample's number and the place of each transform in the list, and
on nothing else: not on batches, order, threads or backend.

Neighbouring geometric transforms (flips, crops, rotation, shift) are one map from the result's
pixels to the source's: there is one interpolation rather than several, what one moves out of sight
another may bring back, and where the map is by whole pixels the values are copied. A pixel whose
centre comes from outside of the source's area is 0; inside, the pixels at the edge go on to the
edge. All arithmetic is float64 and each result is rounded to X's dtype once; uint8 rounds half up
and saturates. Images are augmented on the host, also for a training on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks
from . import backend as backends
from .contact_sheet import preview
from .image_transforms import (
    Brightness,
    ColorJitter,
    Contrast,
    GaussianNoise,
    Geometric,
    HorizontalFlip,
    Pointwise,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Rotation,
    Shift,
    Size,
    Transform,
    VerticalFlip,
)
from .kernels import augmentation as kernels
from .kernels.contract import AUGMENT_STREAM
from .kernels.numpy_backend.philox import sample_words

if TYPE_CHECKING:
    from .kernels.contract import Backend

__all__ = [
    "Brightness",
    "ColorJitter",
    "Compose",
    "Contrast",
    "GaussianNoise",
    "HorizontalFlip",
    "RandomCrop",
    "RandomErasing",
    "RandomResizedCrop",
    "Rotation",
    "Shift",
    "Transform",
    "VerticalFlip",
    "preview",
]

_BLOCK_ELEMENTS = 1 << 20
"""Elements of the images that are changed between two looks at signals: a few milliseconds."""
_MOST_TRANSFORMS = 64


class Compose:
    """Transforms, one after the other.

    Parameters
    ----------
    transforms : iterable of Transform
        At most 64.
    shape : (H, W) or (H, W, C), optional
        The images' shape, for rows that are given flattened.
    maximum : float, optional
        The largest value: values lie in [0, maximum]. By default 255 for uint8 and 1 for floats.

    Raises
    ------
    ValueError, TypeError

    Examples
    --------
    >>> import fastnn
    >>> from fastnn import augment
    >>> X, y = fastnn.data.digits()
    >>> changed = augment.Compose([augment.Rotation(10), augment.Shift(1)], shape=(8, 8))
    >>> model = fastnn.Sequential(fastnn.Linear(64, 32), fastnn.ReLU(), fastnn.Linear(32, 10))
    >>> history = model.fit(X, y, epochs=2, augment=changed)
    >>> changed(X[:5], epoch=1).shape
    (5, 64)
    """

    def __init__(
        self,
        transforms: Iterable[Transform],
        *,
        shape: Sequence[int] | None = None,
        maximum: float | None = None,
    ) -> None:
        self.transforms = tuple(transforms) if isinstance(transforms, Iterable) else ()
        if not isinstance(transforms, Iterable) or not all(
            isinstance(transform, Transform) for transform in self.transforms
        ):
            raise TypeError(
                f"transforms is {transforms!r}; expected a list of fastnn.augment's transforms"
            )
        if len(self.transforms) > _MOST_TRANSFORMS:
            raise ValueError(
                f"transforms has {len(self.transforms)} of them; at most {_MOST_TRANSFORMS} are "
                "possible"
            )
        self.shape = None if shape is None else _image_shape("shape", shape)
        self.maximum = None if maximum is None else checks.number("maximum", maximum, above=0.0)

    def __repr__(self) -> str:
        return f"Compose({list(self.transforms)!r})"

    def __call__(
        self,
        X: ArrayLike,
        *,
        seed: int = 0,
        epoch: int = 0,
        samples: ArrayLike | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """The images, changed.

        Parameters
        ----------
        X : array (B, H, W), (B, H, W, C), or (B, I) where ``shape`` is given
            uint8, float32 or float64.
        seed, epoch : int, default 0
        samples : array (B,), optional
            Numbers of the images in their data set, from 0 to 2**32 - 1; by default 0 to B - 1.
        out : array of X's shape and dtype, optional
            Contiguous, where X is not.

        Returns
        -------
        ndarray of X's shape and dtype

        Raises
        ------
        ValueError, TypeError
            For arrays that do not fit, or values outside of [0, maximum] for a transform that
            keeps to these.
        """
        array = arrays.on_host("X", X)
        images = self.images("X", array)
        seed, epoch = _counter("seed", seed, 64), _counter("epoch", epoch, 32)
        numbers = _sample_numbers(samples, len(images))
        result = np.empty(array.shape, array.dtype) if out is None else _checked_out(out, array)
        for begin, end in blocks_of(images):
            self.apply(
                images[begin:end],
                result.reshape(images.shape)[begin:end],
                numbers[begin:end],
                seed,
                epoch,
                backends.get_backend(),
            )
        return result

    def images(self, name: str, X: np.ndarray, shape: Sequence[int] | None = None) -> np.ndarray:
        """The array as images (B, H, W, C) that the kernels take, checked; copied only if needed.

        ``shape`` is that of the rows before they were flattened; ``self.shape`` goes before it.

        Raises
        ------
        ValueError, TypeError
        """
        if X.dtype.name not in kernels.DTYPES:
            raise TypeError(
                f"{name} has dtype {X.dtype}; images are of {', '.join(kernels.DTYPES)}"
            )
        own = self.shape or (X.shape[1:] if shape is None else tuple(shape))
        if not 2 <= len(own) <= 3:
            raise ValueError(
                f"{name} has shape {X.shape}; expected (B, H, W) or (B, H, W, C), or Compose(..., "
                "shape=) for rows that are flattened"
            )
        own = _image_shape(name, own)
        if not X.size or X.size != len(X) * int(np.prod(own)):
            raise ValueError(f"{name} has shape {X.shape}; expected images of shape {own}")
        images = np.ascontiguousarray(X).reshape(len(X), *own)
        size = self.size(images)
        for transform in self.transforms:
            transform.check(size)
        self._check_range(name, images, size.maximum)
        return images

    def size(self, images: np.ndarray) -> Size:
        """The size of images (B, H, W, C), and the largest value in force."""
        maximum = self.maximum
        if maximum is None:
            maximum = 255.0 if images.dtype == np.uint8 else 1.0
        _, height, width, channels = images.shape
        return Size(height, width, channels, maximum)

    def _check_range(self, name: str, images: np.ndarray, maximum: float) -> None:
        """Values beyond the range would be cut off without a word."""
        keeper = next((t for t in self.transforms if t.keeps_range), None)
        is_any = images.dtype == np.uint8 and maximum >= 255.0
        if keeper is None or is_any:
            return
        low, high = images.min(), images.max()
        if not (low >= 0.0 and high <= maximum):
            raise ValueError(
                f"{name} has values from {low:g} to {high:g}; {type(keeper).__name__} keeps values "
                f"from 0 to {maximum:g}, see Compose(..., maximum=)"
            )

    def apply(
        self,
        images: np.ndarray,
        out: np.ndarray,
        samples: np.ndarray,
        seed: int,
        epoch: int,
        backend: Backend,
    ) -> None:
        """Change images (B, H, W, C) that :meth:`images` checked, of these numbers (uint32)."""
        backend.augment(images, self._program(samples, seed, epoch, self.size(images)), out)

    def _program(self, samples: np.ndarray, seed: int, epoch: int, size: Size) -> kernels.Program:
        """What is drawn for these samples; neighbouring maps are one."""
        count = len(samples)
        stages: list[tuple[int, np.ndarray, np.ndarray]] = []
        map_: np.ndarray | None = None

        def end_map() -> None:
            if map_ is not None:
                integers, numbers = _settings(count)
                integers[:] = np.rint(map_ * kernels.ONE).reshape(count, kernels.INTEGERS)
                stages.append((kernels.GEOMETRY, integers, numbers))

        counts = {AUGMENT_STREAM - n: t.words for n, t in enumerate(self.transforms)}
        drawn = sample_words(seed, epoch, samples, counts)
        for transform, words in zip(self.transforms, drawn, strict=True):
            if isinstance(transform, Geometric):
                own = transform.map(words, size)
                map_ = own if map_ is None else _one_map(map_, own)
                continue
            assert isinstance(transform, Pointwise)
            end_map()
            map_ = None
            stages.append((transform.kind, *_settings(count)))
            transform.settings(words, size, *stages[-1][1:])
        end_map()
        kinds, integers, numbers = ([stage[part] for stage in stages] for part in range(3))
        return kernels.Program(
            np.array(kinds, np.int64),
            np.reshape(np.array(integers, np.int64), (len(stages), count, kernels.INTEGERS)),
            np.reshape(np.array(numbers, np.float64), (len(stages), count, kernels.NUMBERS)),
        )


def blocks_of(images: np.ndarray) -> Iterable[tuple[int, int]]:
    """Where parts of the images begin and end that take a few milliseconds each."""
    rows = max(1, _BLOCK_ELEMENTS // images[0].size)
    return ((begin, min(len(images), begin + rows)) for begin in range(0, len(images), rows))


def _one_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The map of a transform and then another."""
    result = first[:, :, :2] @ second
    result[:, :, 2] += first[:, :, 2]
    return result


def _settings(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, kernels.INTEGERS), np.int64), np.zeros((count, kernels.NUMBERS))


def _image_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """(H, W, C) of (H, W) or (H, W, C)."""
    if not isinstance(shape, Sequence) or not 2 <= len(shape) <= 3:
        raise ValueError(f"{name} is {shape!r}; expected (H, W) or (H, W, C)")
    sides = tuple(checks.positive_int(name, side) for side in shape)
    if max(sides) > kernels.LARGEST_SIDE:
        raise ValueError(f"{name} has {max(sides)}; expected at most {kernels.LARGEST_SIDE}")
    return sides if len(sides) == 3 else (*sides, 1)


def _counter(name: str, value: int, bits: int) -> int:
    if checks.integer(name, value, at_least=0) >= 2**bits:
        raise ValueError(f"{name} is {value}; expected less than 2**{bits}")
    return int(value)


def _checked_out(out: np.ndarray, X: np.ndarray) -> np.ndarray:
    """``out``, if a kernel can write there what it makes of X."""
    if not isinstance(out, np.ndarray) or out.dtype != X.dtype:
        kind = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out is {kind}; expected an array of X's dtype {X.dtype}")
    if out.shape != X.shape:
        raise ValueError(f"out has shape {out.shape}; expected X's, {X.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out is read-only or not contiguous")
    if np.may_share_memory(out, X):
        raise ValueError("out lies where X does; expected memory of its own")
    return out


def _sample_numbers(samples: ArrayLike | None, count: int) -> np.ndarray:
    if samples is None:
        return np.arange(count, dtype=np.uint32)
    numbers = np.asarray(samples)
    if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
        raise ValueError(
            f"samples has shape {numbers.shape} of {numbers.dtype}; expected ({count},) integers"
        )
    if numbers.min() < 0 or numbers.max() >= 2**32:
        raise ValueError(
            f"samples has numbers from {numbers.min()} to {numbers.max()}; expected 0 to 2**32 - 1"
        )
    return numbers.astype(np.uint32)
