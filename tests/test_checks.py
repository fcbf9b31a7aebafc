"""Tripwires: every checker is shown a wrong kernel and must refuse it, and a right one passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import (
    MARGIN,
    Bound,
    assert_close,
    elementwise_bound,
    guarded,
    is_poison,
    poisoned,
    product_bound,
    sum_bound,
    ulp_distance,
)
from hypothesis import given
from hypothesis import strategies as st

DTYPES = ["float32", "float64"]
EXACT = Bound(0.0, 0.0)


def refused(actual, expected, bound, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, expected, bound)


# assert_close -------------------------------------------------------------------------------


def test_an_equal_result_passes_a_bound_of_zero():
    values = np.array([1.5, -0.0, np.nan, np.inf, -np.inf])
    assert_close(values.astype(np.float32), values, EXACT)


def test_an_empty_result_passes():
    assert_close(np.empty((0, 3), np.float32), np.empty((0, 3)), EXACT)


def test_an_error_at_the_bound_passes_and_one_beyond_it_is_refused():
    assert_close([1, 1.25, 1], np.ones(3), Bound(0.25, 0.25))
    refused([1, 1.25, 1], np.ones(3), Bound(0.2, 1.0), r"first at \(1,\)")


def test_many_small_errors_are_refused_by_their_rms():
    expected = np.ones(100)
    one_wrong = expected + 0.5 * (np.arange(100) == 7)
    assert_close(one_wrong, expected, Bound(0.5, 0.05))
    refused(expected + 0.1, expected, Bound(0.5, 0.05), "RMS")
    refused([1.1, np.nan], [1.0, np.nan], Bound(0.5, 0.05), "RMS")


def test_the_rms_is_the_root_of_the_mean_square():
    assert_close([3.0, 4.0], [0.0, 0.0], Bound(4.0, math.sqrt(12.5) * (1 + 1e-15)))
    refused([3.0, 4.0], [0.0, 0.0], Bound(4.0, math.sqrt(12.4)), "RMS")
    assert_close([3.0, 4.0], [0.0, 0.0], Bound(4.0, [5.0, 0.0]))


def test_the_bound_may_differ_by_element():
    bound = Bound([0.0, 1.0], [0.0, 1.0])
    assert_close([1.0, 1001.0], [1.0, 1000.0], bound)
    refused([2.0, 1000.0], [1.0, 1000.0], bound, r"first at \(0,\)")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (np.nan, 1.0),
        (1.0, np.nan),
        (np.inf, 1.0),
        (1.0, np.inf),
        (-np.inf, np.inf),
        (np.nan, np.inf),
        (np.inf, np.nan),
        (np.finfo(np.float32).max, np.inf),
    ],
)
@pytest.mark.parametrize("limit", [1.0, 1e30, np.inf])
def test_misplaced_nan_and_infinity_are_refused_by_any_bound(actual, expected, limit, dtype):
    result = np.array([0.0, actual], dtype)
    refused(result, [0.0, expected], Bound(limit, limit), "misplaced|over bound|bound itself")


def test_a_bound_that_is_not_a_number_is_refused():
    refused(np.ones(2), np.ones(2), Bound(np.nan, 1.0), "bound itself")
    refused(np.ones(2), np.ones(2), Bound(1.0, np.inf), "bound itself")


def test_a_wrong_shape_is_refused_even_where_it_broadcasts():
    refused(np.ones((3, 1)), np.ones(3), EXACT, "shape")
    refused(np.float64(1), np.ones(3), EXACT, "shape")


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "int64", "uint32"])
def test_an_unwritten_element_is_refused_even_where_nan_is_expected(dtype):
    result = poisoned((2, 3), dtype)
    result[0] = 1
    result[1, :2] = 1
    expected = np.ones((2, 3))
    expected[1, 2] = float(result[1, 2])
    refused(result, expected, EXACT, r"unwritten: 1 of 6 elements wrong, first at \(1, 2\)")
    result[1, 2] = 1
    expected[1, 2] = 1
    assert_close(result, expected, EXACT)


def test_overflow_of_float32_is_right_only_near_its_end():
    largest = float(np.finfo(np.float32).max)
    infinite = np.array([np.inf], np.float32)
    for expected in ([2.0**128], [1e60], [largest]):
        assert_close(infinite, expected, elementwise_bound("float32", 1, expected))
    refused(infinite, [largest / 2], elementwise_bound("float32", 1, [largest / 2]), "error")
    refused(-infinite, [1e60], elementwise_bound("float32", 1, [1e60]), "error")


# Bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1000, 5), (7, 64, 2), (2, 0, 2)])
def test_product_bound_passes_a_product_and_refuses_wrong_ones(shape, dtype):
    rows, inner, columns = shape
    random = np.random.default_rng(0)
    a = random.normal(size=(rows, inner)).astype(dtype)
    b = random.normal(size=(inner, columns)).astype(dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    magnitude = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    bound = product_bound(dtype, inner, magnitude)
    total = np.zeros((rows, columns), dtype)
    for k in range(inner):
        total += a[:, k : k + 1] * b[k]
    assert_close(total, expected, bound)
    if inner:
        half = np.float16 if dtype == "float32" else np.float32
        refused((a.astype(half) @ b.astype(half)).astype(dtype), expected, bound, "error")
        refused((a[:, 1:] @ b[1:]).astype(dtype), expected, bound, "error")
        refused(total + (total == total.max()), expected, bound, "error")


def test_product_bound_is_the_textbook_number():
    bound = product_bound("float32", 4, 10.0)
    unit_roundoff, unit_roundoff64 = 2.0**-24, 2.0**-53
    assert bound.maximum == pytest.approx(40 * (unit_roundoff + unit_roundoff64), rel=1e-6)
    assert bound.rms == pytest.approx(20 * (unit_roundoff + unit_roundoff64), rel=1e-6)
    sixteenth = product_bound("float32", 2**20, 1.0)
    assert sixteenth.maximum == pytest.approx(1 / 15, rel=1e-6)
    assert sixteenth.rms == pytest.approx(2.0**-14, rel=1e-6)


def test_product_bound_lets_small_products_be_flushed():
    bound = product_bound("float32", 3, 0.0)
    assert bound.maximum == bound.rms == pytest.approx(3 * 2.0**-126, rel=1e-12)


def test_sum_bound_passes_a_running_sum_and_refuses_a_lost_term():
    terms = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    expected = terms.sum(axis=0, dtype=np.float64)
    bound = sum_bound("float32", terms, axis=0)
    assert_close(np.cumsum(terms, axis=0, dtype=np.float32)[-1], expected, bound)
    refused(terms[:-1].sum(axis=0), expected, bound, "error")
    assert sum_bound("float32", terms).maximum >= np.sum(bound.maximum)


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise_bound_counts_units_in_the_last_place(dtype):
    expected = np.array([1.0, -1000.0, np.nan, np.inf, 0.0, 1e-3], dtype).astype(np.float64)
    two_off = expected.astype(dtype)
    for _ in range(2):
        two_off = np.nextafter(two_off, np.array(np.inf, dtype))
    assert_close(two_off, expected, elementwise_bound(dtype, 2, expected))
    refused(two_off, expected, elementwise_bound(dtype, 1.9, expected), "error")


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_below_the_normal_range_may_be_flushed_and_others_not(dtype):
    smallest = float(np.finfo(dtype).smallest_normal)
    below, above = np.array([smallest / 2]), np.array([smallest * 2])
    zero = np.zeros(1, dtype)
    assert_close(zero, below, elementwise_bound(dtype, 1, below))
    refused(zero, above, elementwise_bound(dtype, 1, above), "error")
    assert ulp_distance(zero, below) == 0
    assert ulp_distance(zero, above) > 1000


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_rounds_to_the_smallest_normal_may_be_flushed_and_no_more(dtype):
    number = np.finfo(dtype)
    gap = float(number.smallest_normal) * float(number.eps)
    zero = np.zeros(1, dtype)
    smallest = float(number.smallest_normal)
    assert ulp_distance(zero, smallest + gap) == 0
    assert ulp_distance(zero, smallest + 2 * gap) > 1000


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 5))
def test_ulp_distance_counts_the_steps_between_neighbours(value, steps):
    expected = np.float32(value)
    binade = 2.0 ** np.floor(np.log2(max(abs(float(expected)), 2.0**-126)))
    moved = np.float64(expected) + np.sign(value) * steps * binade * 2.0**-23
    if steps and value and abs(moved) <= np.finfo(np.float32).max:
        assert abs(ulp_distance(np.float32(moved), np.float64(expected)) - steps) <= 0.5
    assert ulp_distance(expected, np.float64(expected)) == 0


def test_ulp_distance_of_special_values():
    actual = np.array([np.nan, 1, np.inf, -np.inf, np.nan, np.inf, 0], np.float32)
    expected = np.array([np.nan, np.nan, np.inf, np.inf, 1, 1, 1])
    distance = ulp_distance(actual, expected)
    np.testing.assert_array_equal(distance[:4], [0, np.inf, 0, np.inf])
    assert distance[4] == np.inf
    assert min(distance[5:]) > 1e6
    assert ulp_distance(np.float32(np.inf), 2.0**128) == 0
    assert ulp_distance(np.float32(np.inf), float(np.finfo(np.float32).max)) == 1


def test_ulp_distance_sees_fractions():
    assert ulp_distance(np.float32(1), 1 + 2.0**-25) == 0.25


# Guards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "int64"])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("shape", [3, (2, 3), (0, 3), (1, 1)])
def test_a_write_inside_passes_the_guard(shape, strided, dtype):
    view, check = guarded(shape, dtype, strided)
    assert is_poison(view).all()
    assert view.shape == (shape if isinstance(shape, tuple) else (shape,))
    assert view.dtype == dtype
    view[...] = 7
    check()
    assert (view == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [-1, 6, -MARGIN, 6 + MARGIN - 1])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_write_beside_a_contiguous_view_is_seen(place, value, dtype):
    view, check = guarded((2, 3), dtype)
    view[...] = 1
    assert view.flags.c_contiguous
    view.base[MARGIN + place] = value
    with pytest.raises(AssertionError, match="1 elements written out of bounds"):
        check()


@pytest.mark.parametrize(("row", "column"), [(0, 1), (1, 0), (-1, 0), (4, 0), (0, 6), (0, -1)])
def test_a_write_between_or_beside_strided_elements_is_seen(row, column):
    view, check = guarded((2, 3), "float32", strided=True)
    view[...] = 1
    assert [stride // view.itemsize for stride in view.strides] == [2 * (6 + 2 * MARGIN), 2]
    view.base[MARGIN + row, MARGIN + column] = np.nan
    with pytest.raises(AssertionError, match="out of bounds"):
        check()
