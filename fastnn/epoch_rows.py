"""The rows that each epoch of a training with augmentation is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from . import arrays
from . import backend as backends
from .augment import Compose, blocks_of

if TYPE_CHECKING:
    from .kernels.contract import Backend
    from .model import Sequential
    from .training_data import TrainingData

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class EpochRows(Protocol):
    """Rows (N, I) made anew for every epoch.

    Attributes
    ----------
    come_again : bool
        Whether the arrays of :meth:`of` come again, by turns, with other values.
    """

    come_again: bool

    def of(self, epoch: int, has_next: bool) -> np.ndarray:
        """The rows of an epoch; they may be written over when the next epoch's are asked for.

        Epochs are numbered over the life of the optimizer; ``has_next`` says whether another one is
        to follow.
        """

    def close(self) -> None:
        """Leave off whatever is still being made."""


def epoch_rows(
    augment: Augment | Compose,
    model: Sequential,
    data: TrainingData,
    seed: int,
    backend: Backend,
) -> EpochRows:
    """What gives the rows of each epoch.

    Raises
    ------
    ValueError, TypeError
        For data that are not the images that a ``Compose`` takes.
    """
    if isinstance(augment, Compose):
        return _RowsAhead(augment, data, seed, backend)
    return _CalledRows(augment, model, data.x, seed)


class _CalledRows:
    """Rows made by a function, when they are asked for."""

    come_again = False

    def __init__(self, augment: Augment, model: Sequential, x: np.ndarray, seed: int) -> None:
        self._augment, self._model, self._x, self._seed = augment, model, x, seed

    def of(self, epoch: int, has_next: bool) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        x = self._x  # it may be the caller's own
        if arrays.is_on_gpu(x):
            x = x.copy()
        else:
            x = x.view()
            x.flags.writeable = False
        rows = self._model.rows("augment(X)", self._augment(x, generator))
        if rows.shape != x.shape:
            raise ValueError(f"augment gave shape {rows.shape}; expected that of X, {x.shape}")
        return rows

    def close(self) -> None:
        """Nothing is made ahead."""


class _RowsAhead:
    """Images augmented by another thread while the epoch before is trained on; two buffers."""

    come_again = True

    def __init__(self, augment: Compose, data: TrainingData, seed: int, backend: Backend) -> None:
        self._augment, self._seed, self._backend = augment, seed, backend
        self._images = augment.images("X", arrays.to_host("X", data.x), data.row_shape)
        self._buffers: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._ahead: _Epoch | None = None

    def of(self, epoch: int, has_next: bool) -> np.ndarray:
        if not self._buffers:
            self._buffers = [np.empty_like(self._images) for _ in range(2)]
            self._rows = [buffer.reshape(len(buffer), -1) for buffer in self._buffers]
        if self._ahead is None or self._ahead.number != epoch:
            self.close()
            self._ahead = self._epoch(epoch)
            self._ahead.make()
        self._ahead.wait()
        self._ahead = None
        if has_next:
            self._ahead = self._epoch(epoch + 1)
            self._ahead.start()
        return self._rows[epoch % 2]

    def _epoch(self, number: int) -> _Epoch:
        images, out = self._images, self._buffers[number % 2]

        def fill(begin: int, end: int) -> None:
            samples = np.arange(begin, end, dtype=np.uint32)
            part, changed = images[begin:end], out[begin:end]
            self._augment.apply(part, changed, samples, self._seed, number, self._backend)

        return _Epoch(number, out, fill)

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None


class _Epoch:
    """The images of one epoch in the making, part by part."""

    def __init__(
        self,
        number: int,
        out: np.ndarray,
        fill: Callable[[int, int], None],
    ) -> None:
        self.number, self._out, self._fill = number, out, fill
        self._stopped = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()

    def make(self) -> None:
        for begin, end in blocks_of(self._out):
            if self._stopped:
                return
            self._fill(begin, end)

    def start(self) -> None:
        """Make them in a thread of its own, and in no other: the training has the rest."""
        self._thread = threading.Thread(target=self._run, name="fastnn augment", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with backends.one_thread():
                self.make()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def wait(self) -> None:
        """Wait until they are done; raise what went wrong."""
        self._join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stopped = True
        self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._done.wait()  # after an interrupted join, Python takes a thread for done
            self._thread.join()
