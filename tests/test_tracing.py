"""The readings themselves: their functions, derivatives, texts and refusals."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, ulp_distance
from hypothesis import given
from hypothesis import strategies as st
from readings import DTYPES, every_reading, reader
from vector_kernels import vector_kernel

from fastnn.kernels.tracing import (
    DualMath,
    NumpyMath,
    TextMath,
    VectorMath,
    derivative,
    function_text,
    value_and_derivative,
)
from fastnn.kernels.tracing.number import FUNCTIONS

NUMPY = NumpyMath("float64")

ARITHMETIC = {
    "left": (lambda m, x, y: 2.0 + 3.0 * x - y / 4.0, lambda x, y: 2 + 3 * x - y / 4),
    "right": (lambda m, x, y: (x + 2.0) * 3.0 / y - 1.0, lambda x, y: (x + 2) * 3 / y - 1),
    "negative": (lambda m, x, y: -(1.0 - x) / (1.0 / y), lambda x, y: -(1 - x) / (1 / y)),
    "integers": (lambda m, x, y: 2 * x + 1 - y, lambda x, y: 2 * x + 1 - y),
    "fma": (lambda m, x, y: m.fma(x, 0.5, y) + m.fma(2.0, x, 1.0), lambda x, y: 2.5 * x + y + 1),
    "less": (lambda m, x, y: m.where(x < y, 1.0, 2.0), lambda x, y: np.where(x < y, 1, 2)),
    "most": (lambda m, x, y: m.where(x <= y, x, 2.0), lambda x, y: np.where(x <= y, x, 2)),
    "greater": (lambda m, x, y: m.where(x > 0.5, 1.0, y), lambda x, y: np.where(x > 0.5, 1, y)),
    "least": (lambda m, x, y: m.where(x >= y, y, x), lambda x, y: np.where(x >= y, y, x)),
    "equal": (lambda m, x, y: m.where(x == y, 1.0, 0.0), lambda x, y: np.where(x == y, 1, 0)),
    "abs": (lambda m, x, y: m.abs(x) + m.sqrt(m.abs(y)), lambda x, y: abs(x) + np.sqrt(abs(y))),
}


EXTREMA = {
    "maximum": (lambda m, x, y: m.maximum(x, y), np.maximum),
    "minimum": (lambda m, x, y: m.minimum(x, y), np.minimum),
    "maximum_of_one": (lambda m, x, y: m.maximum(x, 1.0), lambda x, y: np.maximum(x, 1)),
    "minimum_of_one": (lambda m, x, y: m.minimum(1.0, x), lambda x, y: np.minimum(x, 1)),
}
UNARY = [name for name in FUNCTIONS if name not in ("where", "maximum", "minimum", "fma")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    functions = {
        name: (lambda m, *numbers, formula=formula: (formula(m, *numbers),), 2)
        for name, (formula, _) in {**ARITHMETIC, **EXTREMA}.items()
    }
    for name in UNARY:
        functions[f"function_{name}"] = (lambda m, x, name=name: (getattr(m, name)(x),), 1)

        def times_constant(m, x, name=name):
            return x * getattr(m, name)(0.5)

        functions[f"constant_{name}"] = (lambda m, x, f=times_constant: (f(m, x),), 1)
        functions[f"slope_{name}"] = (
            lambda m, x, f=times_constant: (derivative(f)(m, x),),
            1,
        )
    return reader(functions, tmp_path_factory.mktemp("text"))


@pytest.mark.parametrize("name", ARITHMETIC)
@every_reading
def test_arithmetic(run, reading, dtype, name):
    x, y = np.random.default_rng(0).normal(size=(2, 37)).astype(dtype)
    x[:9] = y[:9]
    (result,) = run(reading, name, dtype, x, y)
    expected = ARITHMETIC[name][1](x.astype(np.float64), y.astype(np.float64))
    limit = 8 * float(np.finfo(dtype).eps) * (8 + np.abs(expected))
    assert_close(result, expected, Bound(limit, limit))


@pytest.mark.parametrize("name", EXTREMA)
@every_reading
def test_extrema_keep_nan_from_either_side(run, reading, dtype, name):
    values = [np.nan, -np.inf, np.inf, -1.0, 0.0, 2.0]
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    (result,) = run(reading, name, dtype, x, y)
    np.testing.assert_array_equal(result, EXTREMA[name][1](x, y))


@pytest.mark.parametrize("name", UNARY)
@every_reading
def test_readings_agree_and_keep_nan(run, reading, dtype, name):
    """With the vectors, whose own error tests/test_ulp.py measures."""
    x = np.append(np.linspace(0.01, 4, 100), np.nan)
    (result,) = run(reading, f"function_{name}", dtype, x)
    (other,) = run("vector", f"function_{name}", dtype, x)
    assert np.isnan(result[-1])
    assert ulp_distance(result, other.astype(np.float64)).max() <= 6


@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fma_rounds_once(dtype, lanes):
    tiny = float(np.finfo(dtype).eps)
    x = np.full(lanes, 1 + tiny, dtype)
    fused = vector_kernel(lambda m, x: m.fma(x, x, -1.0 - 2 * tiny), dtype, lanes)(x)
    np.testing.assert_array_equal(fused, tiny**2)


def test_numpy_fma_of_float32_rounds_once():
    x = np.float32(1 + 2.0**-23)
    assert NumpyMath("float32").fma(x, x, np.float32(-1 - 2.0**-22)) == np.float32(2.0**-46)


def test_numpy_keeps_the_dtype_and_warns_of_nothing():
    """Any warning is an error in this suite."""
    m = NumpyMath("float32")
    x = np.float32([-1e30, 1e30, 0.0, np.nan])

    def formula(m, x):
        wild = m.exp(x * x) / (x - x) + m.log(x) + m.where(x > 0, 1.0, 0.0) * m.sqrt(x)
        return wild + m.erf(x) + m.constant(0.1, x)

    assert m.evaluate(formula, x).dtype == np.float32
    assert m.evaluate(formula, x[0]).dtype == np.float32


@pytest.mark.parametrize("name", UNARY)
@every_reading
def test_functions_of_a_constant(run, reading, dtype, name):
    (result,) = run(reading, f"constant_{name}", dtype, [2.0])
    (slope,) = run(reading, f"slope_{name}", dtype, [2.0])
    (expected,) = run(reading, f"function_{name}", dtype, [0.5])
    np.testing.assert_array_equal(result, 2 * expected)
    np.testing.assert_array_equal(slope, expected)


# Derivatives

FUNCTIONS_OF_ONE = {
    **{name: (lambda m, x, name=name: getattr(m, name)(x)) for name in UNARY},
    "product": lambda m, x: x * x * (3.0 * x) * 2.0,
    "quotient": lambda m, x: (x + 1.0) / (x * x + 2.0) - 1.0 / x,
    "difference": lambda m, x: 1.0 - x - (2.0 - x * x) + (-x),
    "fma": lambda m, x: m.fma(x, x, x) + m.fma(2.0, x, 1.0) + m.fma(x, m.exp(x), m.tanh(x)),
    "where": lambda m, x: m.where(x > 1.0, x * x, m.exp(x)),
    "maximum": lambda m, x: m.maximum(x, 1.0) * m.minimum(2.0, x) * m.maximum(x * x, x),
    "mish": lambda m, x: x * m.tanh(m.log1p(m.exp(x))),
}


@pytest.mark.parametrize("name", FUNCTIONS_OF_ONE)
def test_derivative_is_the_central_difference(name):
    formula = FUNCTIONS_OF_ONE[name]
    for point in (0.8, 1.4, 2.9):
        value, slope = value_and_derivative(formula)(NUMPY, np.float64(point))
        difference = reference.central_difference(
            lambda x: float(formula(NUMPY, x[0])), np.array([point])
        )
        assert value == formula(NUMPY, np.float64(point))
        # the difference is known to eps**(4/5) of the function's size
        assert abs(slope - difference.item()) <= 1e-11 * (1 + abs(value) + abs(slope))


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=6), st.floats(-2, 2))
def test_derivative_of_a_polynomial(coefficients, point):
    def horner(m, x):
        result = 0.0
        for coefficient in coefficients:
            result = result * x + coefficient
        return result + 0.0 * x

    polynomial = np.polynomial.Polynomial(coefficients[::-1])
    value, slope = value_and_derivative(horner)(NUMPY, np.float64(point))
    limit = 1e-13 * (1 + sum(64 * abs(c) for c in coefficients))
    assert abs(value - polynomial(point)) <= limit
    assert abs(slope - polynomial.deriv()(point)) <= 6 * limit


def test_derivative_by_another_argument():
    def formula(m, x, y):
        return x * y * y + m.exp(x)

    assert derivative(formula, argument=1)(NUMPY, np.float64(3), np.float64(5)) == 30


def test_second_derivative():
    curvature = derivative(derivative(lambda m, x: x * x * x))
    assert curvature(NUMPY, np.float64(5)) == 30


def test_derivative_of_a_constant_and_of_x():
    x = np.linspace(-1, 1, 5)
    np.testing.assert_array_equal(derivative(lambda m, x: m.where(x > 0, 1.0, 1.0))(NUMPY, x), 0)
    np.testing.assert_array_equal(derivative(lambda m, x: x + 1.0)(NUMPY, x), 1)
    np.testing.assert_array_equal(derivative(lambda m, x: 7.0)(NUMPY, x), 0)


def test_derivative_of_abs_at_zero_and_nan():
    slope = derivative(lambda m, x: m.abs(x))(NUMPY, np.array([-2.0, -0.0, 0.0, 3.0, np.nan]))
    np.testing.assert_array_equal(slope, [-1, 0, 0, 1, np.nan])


def test_known_zeros_and_ones_cost_nothing():
    """The derivative of 2 x + 3 is one statement, its constant."""
    text = function_text("f", derivative(lambda m, x: 2.0 * x + 3.0), ["x"], "float32")
    assert text.count("const") == 1
    assert "2.0f" in text


# Texts


def test_text_of_a_tuple_writes_through_pointers():
    text = function_text("both", lambda m, x, y: (x * y, m.exp(x)), ["x", "y"], "float64")
    assert text == (
        "__device__ __forceinline__ void both"
        "(double x, double y, double *result_0, double *result_1) {\n"
        "  const double t0 = x * y;\n"
        "  const double t1 = exp(x);\n"
        "  *result_0 = t0;\n"
        "  *result_1 = t1;\n"
        "}"
    )


def test_text_of_a_comparison_returns_its_truth():
    text = function_text("below", lambda m, x, y: x < y, ["x", "y"], "uint32")
    assert text == (
        "__device__ __forceinline__ bool below(unsigned int x, unsigned int y) {\n"
        "  const bool t0 = x < y;\n"
        "  return t0;\n"
        "}"
    )


def test_text_says_an_expression_once_and_nothing_unused():
    def formula(m, x):
        m.log(x)
        return m.exp(x) * m.exp(x)

    text = function_text("f", formula, ["x"], "float32")
    assert text.count("expf(x)") == 1
    assert "log" not in text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_literals_are_exact(constant):
    literal = TextMath("float32").text(constant)
    assert literal.endswith("f")
    assert np.float32(literal[:-1]) == np.float32(constant)


# Refusals


def vector_math():
    return VectorMath(None, "float32", 16)


def some_number(m):
    """A number of each reading that is not NumPy's."""
    if isinstance(m, VectorMath):
        return m.vector(1.0)
    return m.named("x") if isinstance(m, TextMath) else m.dual(np.float64(1.0))


@pytest.mark.parametrize("m", [vector_math(), TextMath("float32"), DualMath(NUMPY)], ids=repr)
def test_a_number_is_no_truth_value(m):
    number = some_number(m)
    with pytest.raises(TypeError, match=r"use m\.where"):
        bool(number)


def test_a_condition_is_no_truth_value():
    m = TextMath("float32")
    with pytest.raises(TypeError, match=r"use m\.where"):
        bool(m.named("x") < 1.0)


@pytest.mark.parametrize(
    "m", [NUMPY, vector_math(), TextMath("float32"), DualMath(NUMPY)], ids=repr
)
def test_an_unknown_function_lists_the_near_ones(m):
    with pytest.raises(AttributeError, match="not 'tanhh'; did you mean tanh"):
        m.tanhh(1.0)


@pytest.mark.parametrize("reading", [NumpyMath, TextMath, lambda d: VectorMath(None, d, 16)])
def test_an_unknown_dtype_is_refused(reading):
    with pytest.raises(ValueError, match="float16"):
        reading("float16")


@pytest.mark.parametrize("constant", [math.inf, -math.inf, math.nan, 1e39])
def test_a_text_refuses_what_has_no_literal(constant):
    with pytest.raises(ValueError, match="expected a finite float32"):
        function_text("f", lambda m, x: x + constant, ["x"], "float32")


def test_a_text_refuses_parameters_that_its_statements_use():
    with pytest.raises(ValueError, match="'t3'"):
        function_text("f", lambda m, x: x, ["t3"], "float32")


def test_tracing_is_imported_without_llvmlite():
    code = "import sys, fastnn.kernels.tracing, fastnn.kernels.formulas as f; "
    code += "print('llvmlite' in sys.modules, 'numba' in sys.modules, len(f.ACTIVATIONS))"
    folder = Path(__file__).parents[1]
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False", "12"]
