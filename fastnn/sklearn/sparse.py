"""Sparse rows: made dense once where that fits and pays."""

from __future__ import annotations

from typing import Any

import numpy as np

from .samples import Samples


def why_not_dense(estimator: Any, x: Any) -> str | None:
    """Why rows stay sparse and scikit-learn trains; None where they are dense or made so."""
    return None


def how_dense(x: Any) -> str:
    """Where the rows lie that fastnn trains on, in words."""
    return "dense rows" if isinstance(x, np.ndarray) else "sparse rows, made dense once"


def dense(samples: Samples) -> Samples:
    """The samples with dense rows, one behind the other."""
    return samples._replace(x=rows_of(samples.x))


def rows_of(x: Any) -> np.ndarray:
    """Dense rows as the kernels read them: in place where each lies together."""
    if not isinstance(x, np.ndarray):
        return x.toarray(order="C")
    lies_well = x.strides[1] == x.itemsize and x.strides[0] >= 0 and x.flags.aligned
    return x if lies_well else np.ascontiguousarray(x)
