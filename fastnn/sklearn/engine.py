"""Which of fastnn's backends estimators work on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import backend as backends

if TYPE_CHECKING:
    from ..kernels.contract import Backend


def usable() -> Backend | None:
    """The backend in use, if estimators can work on it."""
    return None if why_not() else backends.get_backend()


def why_not() -> str | None:
    """Why they cannot; None where they can."""
    try:
        name = backends.get_backend().name
    except RuntimeError as error:
        return str(error)
    return "estimators train on the CPU, and the cupy backend is in use" if name == "cupy" else None
