"""One aligned flat buffer for all parameters of a network, and one each for gradients and slots."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from .kernels.alignment import aligned
from .kernels.contract import Parameter


class Arena(Mapping[str, np.ndarray]):
    """Named arrays that are views into one flat buffer.

    Parameters
    ----------
    parameters : iterable of Parameter
        What to lay out; those that weight decay touches come first, so that an optimizer step is
        one pass over each half.
    dtype : str
        "float32" or "float64".

    Attributes
    ----------
    flat : ndarray
        Everything. ``flat[: decayed]`` is what weight decay touches.
    """

    def __init__(self, parameters: Iterable[Parameter], dtype: str) -> None:
        self.parameters = tuple(parameters)
        self.dtype = dtype
        ordered = sorted(self.parameters, key=lambda parameter: not parameter.decayed)
        sizes = [math.prod(parameter.shape) for parameter in ordered]
        self.decayed = sum(
            size for parameter, size in zip(ordered, sizes, strict=True) if parameter.decayed
        )
        ends = dict(zip((p.name for p in ordered), itertools.accumulate(sizes), strict=True))
        self._ends = [(p.name, ends[p.name], p.shape) for p in self.parameters]
        self._lay_out(sum(sizes))

    def _lay_out(self, size: int) -> None:
        self.flat = aligned(size, self.dtype)
        self._views = {
            name: self.flat[end - math.prod(shape) : end].reshape(shape)
            for name, end, shape in self._ends
        }

    def like(self) -> Arena:
        """An arena of zeros with the same layout."""
        other = copy.copy(self)
        other._lay_out(self.flat.size)
        return other

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
