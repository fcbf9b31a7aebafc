"""Other people's code, unchanged: fastnn's estimators under scikit-learn's names."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..optional import require
from . import estimators

_HOME = "sklearn.neural_network._multilayer_perceptron"
"""Where scikit-learn defines its classes, and where pickles of its estimators look for them."""
_original = require(_HOME, extra="sklearn")
_FAST = {getattr(_original, name): getattr(estimators, name)
         for name in ("MLPClassifier", "MLPRegressor")}  # fmt: skip
_ORIGINAL = {fast: original for original, fast in _FAST.items()}

_lock = threading.Lock()
_kept: list[tuple[dict[str, Any], str]] | None = None
"""The names that held ours before they were put under scikit-learn's; None while they are not."""


def patch() -> None:
    """Put fastnn's estimators in the place of scikit-learn's MLPClassifier and MLPRegressor.

    From then on ``sklearn.neural_network`` has them, and so has every module that already holds
    scikit-learn's under a global name, such as a script that imported them at its top. Modules
    imported later get them from ``sklearn.neural_network``. An estimator that was made before
    stays what it is, and so does one that is unpickled: pickles of scikit-learn's estimators and
    of fastnn's may be mixed, before and after. Once patched, a call does this for the modules that
    got hold of scikit-learn's classes in another way.

    A process that begins anew (a worker of joblib, or of ``multiprocessing`` where it spawns) takes
    the estimators that it is handed as they are; code that imports scikit-learn's classes there
    calls this first.

    Raises
    ------
    ImportError
        If scikit-learn is missing.

    Examples
    --------
    >>> import sklearn.neural_network, fastnn.sklearn
    >>> fastnn.sklearn.patch()
    >>> sklearn.neural_network.MLPClassifier is fastnn.sklearn.MLPClassifier
    True
    >>> fastnn.sklearn.unpatch()
    """
    global _kept
    with _lock:
        if _kept is None:
            _kept = [(names, name) for names, name, _ in _holders(_ORIGINAL)]
        for names, name, original in _holders(_FAST):
            names[name] = _FAST[original]


def unpatch() -> None:
    """Put scikit-learn's classes back wherever :func:`patch` and imports since put fastnn's.

    A global name that held one of fastnn's classes before :func:`patch` keeps it. Without an
    earlier :func:`patch` nothing happens.

    Examples
    --------
    >>> import sklearn.neural_network, fastnn.sklearn
    >>> fastnn.sklearn.patch()
    >>> fastnn.sklearn.unpatch()
    >>> sklearn.neural_network.MLPRegressor.__module__
    'sklearn.neural_network._multilayer_perceptron'
    """
    global _kept
    with _lock:
        if _kept is None:
            return
        for names, name, fast in _holders(_ORIGINAL):
            if not any(names is kept and name == own for kept, own in _kept):
                names[name] = _ORIGINAL[fast]
        _kept = None


def _holders(classes: dict[type, type]) -> Iterator[tuple[dict[str, Any], str, type]]:
    """The globals of every loaded module, and the names in them, that hold one of the classes."""
    ours = __package__
    for title, module in list(sys.modules.items()):
        if not isinstance(module, type(sys)) or title == _HOME:
            continue
        if title == ours or title.startswith(f"{ours}."):
            continue
        # not vars(), which would have a module load that waits until it is used
        names = object.__getattribute__(module, "__dict__")
        for name, value in list(names.items()):
            for held in classes:
                if value is held:
                    yield names, name, held
