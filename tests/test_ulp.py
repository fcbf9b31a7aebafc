"""Every vector function against its float64 truth, in units in the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checks import ulp_distance
from vector_kernels import vector_kernel

from fastnn.kernels.tracing import MAX_ULP

LANES = {"float32": 16, "float64": 8}
BLOCK = 2**22


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


TRUTHS = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": lambda x: np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64),
}


def vector_function(name, dtype, lanes=None):
    return vector_kernel(lambda m, x: getattr(m, name)(x), dtype, lanes or LANES[dtype])


def largest_distance(run, truth, x):
    """The largest error, or 0.5 where every result is the rounded truth."""
    with np.errstate(all="ignore"):
        actual, expected = run(x), truth(x.astype(np.float64))
        differs = ~(actual == expected.astype(x.dtype))
        return ulp_distance(actual[differs], expected[differs]).max(initial=0.5)


def float32_of(bits):
    return bits.astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("name", TRUTHS)
def test_float32_sample(name):
    """A stride through all bit patterns, and the neighbourhoods where branches meet."""
    every = float32_of(np.arange(0, 2**32, 8191 if name != "erf" else 32749))
    edges = np.float32(
        [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 0.3465736, 0.70710677, 1.4142135, 9.1, 18.0]
    )
    edges = np.concatenate([edges, np.float32([87.33655, 88.72284, 103.97, 104.0, 4.0, 2.0**-126])])
    edges = np.concatenate([edges, -edges]).view(np.int32)[:, None] + np.arange(-100, 100)
    ends = np.float32([np.inf, -np.inf, np.nan])
    x = np.concatenate([every, float32_of(edges.ravel()), ends])
    assert (
        largest_distance(vector_function(name, "float32"), TRUTHS[name], x)
        <= (MAX_ULP["float32"][name])
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTHS)
def test_float32_all(name):
    """All 2^32 bit patterns; of erf, which is slow to know, the negative ones by symmetry."""
    run = vector_function(name, "float32")
    end = 2**31 if name == "erf" else 2**32
    largest = 0.0
    for start in range(0, end, BLOCK):
        x = float32_of(np.arange(start, start + BLOCK))
        largest = max(largest, largest_distance(run, TRUTHS[name], x))
        if name == "erf":
            np.testing.assert_array_equal(run(-x), -run(x))
    assert largest <= MAX_ULP["float32"][name]


def float64_sample(rng):
    wide = rng.standard_normal(2**16) * 10.0 ** rng.uniform(-300, 300, 2**16)
    spans = [rng.uniform(-span, span, 2**16) for span in (0.5, 1, 7, 40, 750)]
    special = [0.0, -0.0, -1.0, 1.0, math.inf, -math.inf, math.nan, 5e-324, 2.0**-1022]
    special += [-745.2, -708.4, 709.7, 709.79, 1.7976931348623157e308, -1.7976931348623157e308]
    return np.concatenate([wide, *spans, special])


@pytest.mark.parametrize("name", TRUTHS)
def test_float64_sample(name):
    """Against the extended precision of the C library; erf against its float64."""
    if name != "erf" and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("long double is not longer than double here")
    x = float64_sample(np.random.default_rng(0))
    actual = vector_function(name, "float64")(x)
    with np.errstate(all="ignore"):
        exact = TRUTHS[name](x if name == "erf" else x.astype(np.longdouble))
        expected = exact.astype(np.float64)
        error = np.abs(actual - exact) / np.spacing(np.abs(expected))
    # at zero, denormals, infinities and NaN the extended digits do not count
    normal = np.isfinite(expected) & (np.abs(expected) > 2.0**-1021)
    distance = np.where(normal, error, ulp_distance(actual, expected))
    assert distance.max() <= MAX_ULP["float64"][name]


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 4), ("float32", 8), ("float64", 2)])
def test_bits_do_not_depend_on_the_lanes(name, dtype, lanes):
    x = float64_sample(np.random.default_rng(1))
    with np.errstate(over="ignore", under="ignore"):
        x = x.astype(dtype)
    wide, narrow = (vector_function(name, dtype, count)(x) for count in (LANES[dtype], lanes))
    np.testing.assert_array_equal(wide, narrow)


def test_the_measure_refuses_a_wrong_function():
    wrong = vector_kernel(lambda m, x: m.exp(x) * (1 + 2.0**-20), "float32", 16)
    x = np.linspace(-5, 5, 1000, dtype=np.float32)
    assert not largest_distance(wrong, np.exp, x) <= MAX_ULP["float32"]["exp"]
