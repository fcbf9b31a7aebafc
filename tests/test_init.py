"""Initialisers: their distributions against the papers' deviations and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from fastnn import init

RANDOM = [name for name in init.INITIALISERS if name != "zeros"]
SHAPE = (300, 500)


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize("name", RANDOM)
def test_mean_and_deviation(name):
    paper, kind = name.split("_")
    deviation = reference.initialiser_deviation(paper, *SHAPE)
    weight = init.INITIALISERS[name](generator(), SHAPE, "float64")
    # Five standard errors; a sample deviation's is sqrt((kurtosis - 1) / 4n) of the deviation.
    kurtosis = {"uniform": 1.8, "normal": 3.0}[kind]
    assert abs(weight.mean()) <= 5 * deviation / math.sqrt(weight.size)
    error = abs(weight.std() / deviation - 1)
    assert error <= 5 * math.sqrt((kurtosis - 1) / (4 * weight.size))


@pytest.mark.parametrize("paper", ["glorot", "he", "lecun"])
def test_uniform_fills_its_limits_and_no_more(paper):
    limit = reference.initialiser_limit(paper, *SHAPE)
    weight = init.INITIALISERS[f"{paper}_uniform"](generator(), SHAPE, "float64")
    # 150,000 numbers leave the outer thousandth empty with probability e^-150.
    assert 0.999 * limit <= np.abs(weight).max() <= limit * (1 + 1e-15)


@pytest.mark.parametrize("paper", ["glorot", "he", "lecun"])
def test_normal_has_normal_tails(paper):
    deviation = reference.initialiser_deviation(paper, *SHAPE)
    weight = init.INITIALISERS[f"{paper}_normal"](generator(), SHAPE, "float64")
    beyond = np.mean(np.abs(weight) > 2 * deviation)
    expected = math.erfc(2 / math.sqrt(2))
    assert abs(beyond - expected) <= 5 * math.sqrt(expected / weight.size)


@pytest.mark.parametrize("name", init.INITIALISERS)
@given(inputs=st.integers(1, 20), outputs=st.integers(1, 20), seed=st.integers(0, 2**64 - 1))
def test_both_dtypes_start_at_the_same_place(name, inputs, outputs, seed):
    initialise = init.INITIALISERS[name]
    single = initialise(generator(seed), (inputs, outputs), "float32")
    double = initialise(generator(seed), (inputs, outputs), "float64")
    assert single.shape == double.shape == (inputs, outputs)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single, double.astype(np.float32))


@pytest.mark.parametrize("name", RANDOM)
def test_seeds_differ(name):
    initialise = init.INITIALISERS[name]
    one, other = (initialise(generator(seed), SHAPE) for seed in (0, 1))
    assert np.mean(one == other) < 0.01


def test_zeros_leave_the_generator_alone():
    used, fresh = generator(), generator()
    assert not init.zeros(used, (3, 2)).any()
    assert used.random() == fresh.random()


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", "he_uniform"),
        ("leaky_relu", "he_uniform"),
        ("silu", "he_uniform"),
        ("selu", "lecun_normal"),
        ("tanh", "glorot_uniform"),
        ("softmax", "glorot_uniform"),
        ("a custom one", "glorot_uniform"),
    ],
)
def test_default_follows_the_activation(activation, expected):
    assert init.default_for(activation) == expected
    assert init.resolve(expected) is init.INITIALISERS[expected]


def test_resolve_takes_functions_and_refuses_unknown_names():
    assert init.resolve(generator) is generator
    with pytest.raises(ValueError, match="unknown initialiser 'he_unifrom': did you mean"):
        init.resolve("he_unifrom")


@pytest.mark.parametrize("name", init.INITIALISERS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (-1, 2)])
def test_empty_shapes_are_refused(name, shape):
    with pytest.raises(ValueError, match="puts must be at least 1"):
        init.INITIALISERS[name](generator(), shape, "float32")
