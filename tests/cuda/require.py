"""Skips that may not happen: FASTNN_REQUIRE names what must be there."""

from __future__ import annotations

import os

import pytest

THINGS = ("cuda", "g++", "nvrtc")


def require(thing: str, why_missing: str | None) -> None:
    """Skip the test where a thing is missing; fail it where FASTNN_REQUIRE lists the thing.

    Parameters
    ----------
    thing : str
        "cuda", "g++" or "nvrtc".
    why_missing : str or None
        What is wrong with it; None where it is there.
    """
    required = is_required(thing)
    if why_missing is None:
        return
    if required:
        pytest.fail(f"FASTNN_REQUIRE lists {thing}: {why_missing}")
    pytest.skip(f"{thing}: {why_missing}")


def is_required(thing: str) -> bool:
    """Whether FASTNN_REQUIRE lists a thing."""
    if thing not in THINGS:
        raise ValueError(f"require: thing must be one of {THINGS}, got {thing!r}")
    listed = [word.strip() for word in os.environ.get("FASTNN_REQUIRE", "").split(",")]
    unknown = sorted(set(listed) - {*THINGS, ""})
    if unknown:
        raise ValueError(f"FASTNN_REQUIRE lists {unknown}, which are none of {THINGS}")
    return thing in listed
