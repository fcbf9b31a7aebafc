"""What a thread keeps beside an estimator: not pickled, not copied, not in its dict."""

from __future__ import annotations

import threading
import weakref
from typing import Any

_kept: weakref.WeakKeyDictionary[Any, threading.local] = weakref.WeakKeyDictionary()


def of(estimator: Any) -> threading.local:
    """Where the calling thread keeps things of an estimator; made on first use."""
    found = _kept.get(estimator)
    return _kept.setdefault(estimator, threading.local()) if found is None else found
