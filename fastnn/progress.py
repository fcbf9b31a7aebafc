"""The progress bar of a training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


class Progress:
    """A progress bar over updates, or nothing; it appears with the first of them.

    Parameters
    ----------
    wanted : bool or None
        None shows it where standard error is a terminal.
    total : int
        Updates in all.
    """

    def __init__(self, wanted: bool | None, total: int) -> None:
        self._wanted = sys.stderr.isatty() if wanted is None else wanted
        self._total, self._done = total, 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, updates: int) -> None:
        """Count updates that a training which goes on has made before."""
        self._done += updates

    def move(self, updates: int) -> None:
        """Count updates that were made."""
        if self._wanted and self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, unit="update", leave=False)
        if self._bar is not None:
            self._bar.update(updates)

    def show(self, logs: Mapping[str, float]) -> None:
        """Show the loss of an epoch: that of the validation where there is one."""
        if self._bar is not None:
            loss = logs.get("val_loss", logs["loss"])
            self._bar.set_postfix_str(f"loss {loss:.4g}")
