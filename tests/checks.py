"""How a result is judged: error bounds from dtype and size, and arrays that betray a stray kernel.

    assert_close(actual, expected, bound)      maximum and RMS error, NaN and inf in their places
    product_bound, sum_bound, elementwise_bound        what rounding alone can explain
    magnitude                                  the sizes of a product's terms, which bounds need
    ulp_distance                               the same error, counted in units in the last place
    poisoned, guarded                          unwritten elements and writes out of bounds show

`tests/test_checks.py` shows every one of these a wrong kernel and sees it refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

MARGIN = 64  # elements around a guarded array: four vectors of 16 lanes
_POISON = {4: 0x7FC5A5A5, 8: 0x7FF85A5A5A5A5A5A}  # by item size: NaNs nobody computes


class Bound(NamedTuple):
    """The errors that are admitted, in absolute numbers, for each element or for all."""

    maximum: ArrayLike
    """The largest error of an element."""
    rms: ArrayLike
    """The typical error of an element: the RMS of the errors may reach the RMS of this."""


def assert_close(actual: ArrayLike, expected: ArrayLike, bound: Bound) -> None:
    """Raise AssertionError unless `actual` is `expected` within `bound`.

    Every element must have been written. NaN must stand where NaN is expected and nowhere else,
    an infinity where the same infinity is expected; a finite expectation beyond the range of
    float32 counts as 2^128, as which an infinite float32 counts too.
    """
    actual, expected = np.asarray(actual), np.asarray(expected, dtype=np.float64)
    _require(actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}")
    _refuse(is_poison(actual), actual, expected, "unwritten")
    misplaced = (~np.isfinite(expected) | np.isnan(actual)) & ~_same(actual, expected)
    _refuse(misplaced, actual, expected, "NaN or infinity misplaced")
    finite = np.isfinite(expected)
    error = np.where(finite, _absolute_error(actual, expected), 0.0)
    maximum, rms = (np.where(finite, limit, 0.0) for limit in bound)
    _require(bool(np.isfinite(maximum + rms).all()), "the bound itself is not finite")
    _refuse(~(error <= maximum), actual, expected, f"error {error.max(initial=0):.3g} over bound")
    typical, admitted = _root_mean_square(error), _root_mean_square(rms)
    _require(typical <= admitted, f"RMS error {typical:.3g}, bound {admitted:.3g}")


def magnitude(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return |a| |b|, the sum of the sizes of the terms of each element of the product a b."""
    return np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))


def product_bound(dtype: DTypeLike, inner_dimension: int, magnitude: ArrayLike) -> Bound:
    """Return the bound of dot products of `inner_dimension` terms (Higham 2002, section 3.1).

    `magnitude` is |a| |b|, the sum of the terms' sizes, for each element of the product; a bias
    is one more term. The maximum is gamma_k |a| |b| and holds for any order of summation, fused
    or not; the RMS takes sqrt(k) roundings of independent sign (Higham & Mary 2019). Products
    below the normal range may be flushed to zero. The reference's own rounding is added.
    """
    magnitude = np.asarray(magnitude, dtype=np.float64)
    maximum, rms = np.zeros_like(magnitude), np.zeros_like(magnitude)
    for number in (np.finfo(np.dtype(dtype)), np.finfo(np.float64)):
        unit_roundoff = float(number.eps) / 2
        growth = inner_dimension * unit_roundoff
        flushed = inner_dimension * float(number.smallest_normal)
        maximum += growth / (1 - growth) * magnitude + flushed
        rms += math.sqrt(inner_dimension) * unit_roundoff * magnitude + flushed
    return Bound(maximum, rms)


def sum_bound(dtype: DTypeLike, terms: ArrayLike, axis: int | None = None) -> Bound:
    """Return the bound of the sum of `terms` along `axis`, in any order."""
    terms = np.asarray(terms, dtype=np.float64)
    count = terms.size if axis is None else terms.shape[axis]
    return product_bound(dtype, count, np.abs(terms).sum(axis=axis))


def elementwise_bound(dtype: DTypeLike, ulps: float, expected: ArrayLike) -> Bound:
    """Return the bound of `ulps` units in the last place of each expected element.

    Results below the normal range may be flushed to zero.
    """
    limit = ulps * _unit_in_last_place(dtype, expected)
    flushed = np.where(_may_be_flushed(dtype, expected), np.abs(expected), 0.0)
    limit = np.maximum(limit, flushed)
    return Bound(limit, limit)


def ulp_distance(actual: ArrayLike, expected: ArrayLike) -> NDArray[np.float64]:
    """Return |actual - expected| in units in the last place of expected, in actual's dtype.

    `expected` is float64. Equal NaNs and equal infinities are 0 apart, unequal ones infinitely
    far; a zero for an expectation below the normal range is 0 away, since it may be flushed.
    """
    actual, expected = np.asarray(actual), np.asarray(expected, dtype=np.float64)
    distance = _absolute_error(actual, expected) / _unit_in_last_place(actual.dtype, expected)
    comparable = np.isfinite(expected) & ~np.isnan(actual)
    flushed = (actual == 0) & _may_be_flushed(actual.dtype, expected)
    distance = np.where(comparable, np.where(flushed, 0.0, distance), np.inf)
    return np.where(_same(actual, expected), 0.0, distance)


def poisoned(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of 4- or 8-byte numbers that `assert_close` knows as unwritten.

    Floating-point elements are NaN, so that what is computed from them shows too.
    """
    array = np.empty(shape, dtype)
    _bits(array)[...] = _POISON[array.itemsize]
    return array


def is_poison(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where an array still holds what `poisoned` put there."""
    if array.itemsize not in _POISON:
        return np.zeros(array.shape, dtype=bool)
    return _bits(array) == _POISON[array.itemsize]


def guarded(
    shape: int | tuple[int, ...], dtype: DTypeLike, strided: bool = False
) -> tuple[NDArray[Any], Callable[[], None]]:
    """Return a poisoned view inside a larger poisoned array, and a check of what lies around.

    The view is contiguous, or every second element of every axis if `strided`. The check raises
    AssertionError if anything was written outside the view.
    """
    shape = (shape,) if isinstance(shape, int) else shape
    if strided:
        surroundings = poisoned(tuple(2 * length + 2 * MARGIN for length in shape), dtype)
        inside = tuple(slice(MARGIN, MARGIN + 2 * length, 2) for length in shape)
        view = surroundings[inside]
        outside = np.ones(surroundings.shape, dtype=bool)
        outside[inside] = False
    else:
        size = math.prod(shape)
        surroundings = poisoned(size + 2 * MARGIN, dtype)
        view = surroundings[MARGIN : MARGIN + size].reshape(shape)
        outside = np.ones(surroundings.shape, dtype=bool)
        outside[MARGIN : MARGIN + size] = False

    def check() -> None:
        written = outside & ~is_poison(surroundings)
        _require(
            not written.any(),
            f"{written.sum()} elements written out of bounds; the view starts at "
            f"{MARGIN} of {surroundings.shape}, written at {_first(written)}",
        )

    return view, check


def _same(actual: NDArray[Any], expected: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (actual == expected) | (np.isnan(actual) & np.isnan(expected))


def _absolute_error(actual: NDArray[Any], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |actual - expected|, in which overflow of float32 counts as 2^128."""
    overflow = 2.0**128 if actual.dtype == np.float32 else np.inf
    actual, expected = (
        np.clip(values.astype(np.float64), -overflow, overflow) for values in (actual, expected)
    )
    with np.errstate(invalid="ignore"):
        return np.abs(actual - expected)


def _unit_in_last_place(dtype: DTypeLike, expected: ArrayLike) -> NDArray[np.float64]:
    """Return the gap between `dtype`'s numbers at each expected element, 0 standing for NaN."""
    number = np.finfo(np.dtype(dtype))
    size = np.abs(np.nan_to_num(np.asarray(expected, dtype=np.float64)))
    _, exponent = np.frexp(np.minimum(size, float(number.max)))
    return np.ldexp(1.0, np.maximum(exponent - 1, number.minexp) - number.nmant)


def _may_be_flushed(dtype: DTypeLike, expected: ArrayLike) -> NDArray[np.bool_]:
    # One gap above the normal range counts too: a result one unit too small lies below it.
    number = np.finfo(np.dtype(dtype))
    return np.abs(expected) <= float(number.smallest_normal) * (1 + float(number.eps))


def _root_mean_square(values: NDArray[np.float64]) -> float:
    largest = np.max(values, initial=0.0)
    if largest == 0:
        return 0.0
    return float(largest * np.sqrt(np.mean((values / largest) ** 2)))


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(f"u{array.itemsize}")


def _first(flags: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(flags)[0]) if flags.any() else ()


def _refuse(
    wrong: NDArray[np.bool_], actual: NDArray[Any], expected: NDArray[np.float64], reason: str
) -> None:
    if wrong.any():
        index = _first(wrong)
        raise AssertionError(
            f"{reason}: {wrong.sum()} of {wrong.size} elements wrong, first at {index}: "
            f"got {actual[index]!s}, expected {expected[index]!s}"
        )


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise AssertionError(message)
