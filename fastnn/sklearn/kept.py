"""What is kept beside an estimator from call to call: not pickled, not copied, not in its dict."""

from __future__ import annotations

import threading
import weakref
from typing import Any

MOST_RUNS = 4
"""Runs of an estimator that are kept: ``partial_fit`` is called with batches of few sizes."""


class Kept:
    """What belongs to one estimator.

    Attributes
    ----------
    runs : list
        Those of ``partial_fit``, the newest last.
    local : threading.local
        What each thread predicts with.
    """

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.local = threading.local()

    def keep_run(self, run: Any) -> None:
        """Keep one more run, and none of the oldest above the most."""
        self.runs = [*self.runs, run][-MOST_RUNS:]


_kept: weakref.WeakKeyDictionary[Any, Kept] = weakref.WeakKeyDictionary()


def of(estimator: Any) -> Kept:
    """What is kept of an estimator; made on first use."""
    found = _kept.get(estimator)
    return _kept.setdefault(estimator, Kept()) if found is None else found


def forget_runs(estimator: Any) -> None:
    """Keep no run any longer."""
    of(estimator).runs = []
