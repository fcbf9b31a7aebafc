"""The backends and thread counts that every suite runs on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fastnn
from fastnn.backend import BACKENDS


@dataclass(frozen=True)
class Engine:
    """A backend with so many threads.

    NumPy's products take as many as its BLAS is configured for, whatever is said here.
    """

    backend: str
    threads: int

    def __str__(self) -> str:
        return f"{self.backend}-{self.threads}"

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Any]:
        """Use it for everything inside the block; gives its operations."""
        with fastnn.use_backend(self.backend) as backend:
            fastnn.set_num_threads(self.threads)
            try:
                yield self._operations(backend)
            finally:
                fastnn.set_num_threads(None)

    def _operations(self, backend: Any) -> Any:
        if self.backend != "numba":
            return backend
        from fastnn.kernels.numba_backend.backend import NumbaBackend

        return NumbaBackend(self.threads)


def engines() -> list[Engine]:
    """Every backend, installed or not; compiled ones with one thread and with all."""
    everything = fastnn.get_num_threads()
    counts = {"numba": sorted({1, everything})}
    return [
        Engine(name, threads) for name in BACKENDS for threads in counts.get(name, [everything])
    ]
