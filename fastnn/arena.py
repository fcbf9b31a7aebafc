"""One aligned flat buffer for all parameters of a network, and one each for gradients and slots."""

from __future__ import annotations

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
        sizes = [int(np.prod(parameter.shape)) for parameter in ordered]
        self.flat = aligned(sum(sizes), dtype)
        self.decayed = sum(
            size for parameter, size in zip(ordered, sizes, strict=True) if parameter.decayed
        )
        ends = np.cumsum([0, *sizes])
        views = {
            parameter.name: self.flat[begin:end].reshape(parameter.shape)
            for parameter, begin, end in zip(ordered, ends, ends[1:], strict=False)
        }
        self._views = {parameter.name: views[parameter.name] for parameter in self.parameters}

    def like(self) -> Arena:
        """An arena of zeros with the same layout."""
        return Arena(self.parameters, self.dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
