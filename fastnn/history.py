"""What a training tells: its history, and what a callback is given after each epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Sequential


class History(Mapping[str, list[float]]):
    """What a training measured: a list an epoch for each name.

    Attributes
    ----------
    updates : dict of str to list
        With ``history="update"``: "loss" and "lr" of every update.
    stopped_early : bool
        Whether early stopping or a callback ended the training.
    diverged : str or None
        What :class:`DivergedError` says, where the loss did not stay finite.

    Examples
    --------
    >>> history = History()
    >>> history
    History(0 epochs)
    >>> history.add({"loss": 0.5})
    >>> history["loss"], len(history)
    ([0.5], 1)
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[float]] = {}
        self.updates: dict[str, list[float]] = {}
        self.stopped_early = False
        self.diverged: str | None = None

    def add(self, logs: Mapping[str, float]) -> None:
        """Append an epoch.

        Parameters
        ----------
        logs : mapping of str to float
            A value for each name.
        """
        self.add_epochs({name: [value] for name, value in logs.items()})

    def add_epochs(self, logs: Mapping[str, Sequence[float]]) -> None:
        """Append epochs: for each name the values of all of them.

        A name that was not measured in other epochs, before a training was resumed or after, has
        NaN there.
        """
        for name in logs:
            self._lists.setdefault(name, [math.nan] * self.epochs)
        _extend(self._lists, logs)
        for values in self._lists.values():
            values += [math.nan] * (self.epochs - len(values))

    def add_updates(self, losses: Sequence[float], rates: Sequence[float]) -> None:
        """Append updates: the loss before each, and the learning rate that it was made with."""
        _extend(self.updates, {"loss": losses, "lr": rates})

    def __getitem__(self, name: str) -> list[float]:
        return self._lists[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    @property
    def epochs(self) -> int:
        """Epochs that were finished."""
        return max(map(len, self._lists.values()), default=0)

    def plot(self, path: str | os.PathLike | None = None, *, language: str = "en") -> Any:
        """Draw loss and metrics by epoch, and mark the best epoch.

        That is the one of the least validation loss or, without validation data, training loss.

        Parameters
        ----------
        path : path, optional
            A file to write, of a kind that matplotlib knows by its ending, say ".png".
        language : "en" or "ko", default "en"

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            For an empty history, another language, or an ending that matplotlib does not know.
        OSError
            Where the file cannot be written.
        ImportError
            Without matplotlib (``fastnn-kernels[plot]``).

        Examples
        --------
        >>> import fastnn
        >>> X, y = fastnn.data.digits()
        >>> model = fastnn.Sequential(fastnn.Linear(64, 10), seed=0)
        >>> history = model.fit(X, y, epochs=5)
        >>> figure = history.plot("curves.png")  # doctest: +SKIP
        """
        from .history_plot import plot

        return plot(self, path, language)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, for :meth:`load`."""
        return {"history": _to_text(self._lists), "updates": _to_text(self.updates)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._lists = _from_text(state["history"])
        self.updates = _from_text(state["updates"])

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self._lists.items())
        return f"History({self.epochs} epochs" + (f"; last: {last})" if last else ")")


@dataclass
class EpochInfo:
    """What a callback is given after each epoch.

    Attributes
    ----------
    epoch : int
        From 1.
    logs : dict
        "loss", "val_loss", metrics, "lr".
    model : Sequential
        With the weights of this moment.
    stopped : bool
        Whether :meth:`stop` was called.

    Examples
    --------
    >>> import fastnn
    >>> def good_enough(info):
    ...     if info.logs["loss"] < 1.0:
    ...         info.stop()
    >>> X, y = fastnn.data.digits()
    >>> model = fastnn.Sequential(fastnn.Linear(64, 10), seed=0)
    >>> model.fit(X, y, epochs=100, callbacks=[good_enough]).epochs < 100
    True
    """

    epoch: int
    logs: dict[str, float]
    model: Sequential
    stopped: bool = field(default=False, repr=False)

    def stop(self) -> None:
        """End the training after this epoch."""
        self.stopped = True


def _extend(lists: dict[str, list[float]], values: Mapping[str, Sequence[float]]) -> None:
    for name, added in values.items():
        lists.setdefault(name, []).extend(added)


def _to_text(lists: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Numbers as text that reads back to the same bits, NaN and infinity included."""
    return {name: [float(value).hex() for value in values] for name, values in lists.items()}


def _from_text(lists: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    return {name: [float.fromhex(text) for text in texts] for name, texts in lists.items()}
