"""Rows as the kernels read them: sparse ones are made dense once, where that fits and pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import backend as backends
from .extras import uses_extras
from .samples import Samples, batch_rows_of

MEMORY_SHARE = 0.5
"""The most of the memory available that rows made dense may take."""
ALWAYS_FITS = 1 << 26
"""Bytes for which nobody looks how much memory there is."""
UNKNOWN_MEMORY = 1 << 30
"""Bytes taken for available where the system does not say."""


class Costs(NamedTuple):
    """Seconds that training takes, on a core of a 2024 server.

    Parameters
    ----------
    flop : float
        Of fastnn's dense products, for each flop.
    update : float
        Of fastnn's step, for each weight besides its products.
    nonzero : float
        Of scikit-learn's sparse products, for each nonzero and output.
    their_update : dict of str to float
        Of scikit-learn's update, for each weight, by solver.
    """

    flop: float
    update: float
    nonzero: float
    their_update: dict[str, float]


_COSTS = {
    4: Costs(1.0e-11, 0.3e-9, 0.15e-9, {"sgd": 1.7e-9, "adam": 4.0e-9, "lbfgs": 0.0}),
    8: Costs(1.9e-11, 0.6e-9, 0.29e-9, {"sgd": 3.5e-9, "adam": 5.0e-9, "lbfgs": 0.0}),
}
"""Measured, by the bytes of an element: both engines on 1,000 rows of 784 to 20,000 columns, 0.1 %
to 10 % of them nonzero, 64 to 512 hidden units, batches of 32 and 200."""
_STEP_SECONDS = 150e-6
"""Of scikit-learn's step besides products and updates."""
_BYTE_SECONDS = 0.4e-9
"""For each byte of rows made dense."""
_LIKELY_EPOCHS = 10
"""Over which making rows dense is reckoned: trainings may end before ``max_iter``."""
_MARGIN = 1.2
"""Rows are made dense where scikit-learn's training is reckoned to take this much longer."""


def why_not_dense(estimator: Any, x: Any, incremental: bool) -> str | None:
    """Why rows stay sparse and scikit-learn trains; None where they are dense or made so."""
    if isinstance(x, np.ndarray):
        return None
    size = x.shape[0] * x.shape[1] * x.dtype.itemsize
    if size > ALWAYS_FITS and size > MEMORY_SHARE * (free := available_bytes()):
        return (
            f"the sparse rows would be {size / 1e9:.3g} GB made dense, more than "
            f"{MEMORY_SHARE:.0%} of the {free / 1e9:.3g} GB of memory available"
        )
    dense, sparse = _epoch_seconds(estimator, x, size, incremental)
    if sparse >= _MARGIN * dense or uses_extras(estimator):
        return None
    return (
        f"of the rows {x.nnz / max(1, x.shape[0] * x.shape[1]):.2%} is nonzero: an epoch is "
        f"reckoned to take {sparse * 1e3:.3g} ms on sparse rows and {dense * 1e3:.3g} ms on dense"
    )


def _epoch_seconds(estimator: Any, x: Any, size: int, incremental: bool) -> tuple[float, float]:
    """What an epoch takes on dense rows with fastnn, and on sparse ones with scikit-learn.

    Only what differs: the first layer and the steps.
    """
    (rows, inputs), outputs = x.shape, estimator.coefs_[0].shape[1]
    is_full = estimator.solver == "lbfgs"
    costs = _COSTS[x.dtype.itemsize]
    weights = inputs * outputs
    steps = 1 if is_full else -(-rows // batch_rows_of(estimator, rows))
    epochs = 1 if incremental else min(_LIKELY_EPOCHS, estimator.max_iter)
    dense = 4 * rows * weights * costs.flop / backends.get_num_threads()
    dense += steps * weights * costs.update + size * _BYTE_SECONDS / epochs
    sparse = 2 * x.nnz * outputs * costs.nonzero
    sparse += steps * (weights * costs.their_update[estimator.solver] + _STEP_SECONDS)
    return dense, sparse


def available_bytes() -> int:
    """Memory that may be taken: the system's, or what a container has left where that is less."""
    free = UNKNOWN_MEMORY
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = 1024 * int(value.split()[0])
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].isdecimal():
        free = min(free, max(0, int(limit[0]) - int(used[0])))
    return free


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def how_dense(x: Any) -> str:
    """Where the rows lie that fastnn trains on, in words."""
    return "dense rows" if isinstance(x, np.ndarray) else "sparse rows, made dense once"


def dense(samples: Samples) -> Samples:
    """The samples with dense rows."""
    return samples._replace(x=rows_of(samples.x))


def rows_of(x: Any) -> np.ndarray:
    """Dense rows as the kernels read them: in place where each lies together."""
    if not isinstance(x, np.ndarray):
        return x.toarray(order="C")
    lies_well = x.strides[1] == x.itemsize and x.strides[0] >= 0 and x.flags.aligned
    return x if lies_well else x.copy(order="C")  # contiguous is a column of any strides
