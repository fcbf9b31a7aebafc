"""The LLVM reading: a formula becomes instructions on vectors, its functions included.

No fastmath flag is set anywhere, so a formula gives the same bits wherever it is inlined. Every
function is branch-free, and one source serves both dtypes; only tables of constants differ.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llvmlite import ir

from .number import Condition, Math, Number

# Bounds of the error in units in the last place of the truth: of all inputs in float32, of the
# samples of tests/test_ulp.py in float64. A result below the normal range may be 0 instead.
MAX_ULP = {
    "float32": {
        "exp": 1.0, "log": 1.0, "log1p": 1.5, "expm1": 1.5, "sqrt": 0.5,
        "tanh": 2.5, "sigmoid": 2.5, "erf": 1.2,
    },
    "float64": {
        "exp": 1.5, "log": 1.0, "log1p": 1.5, "expm1": 2.0, "sqrt": 0.5,
        "tanh": 3.0, "sigmoid": 2.5, "erf": 1.5,
    },
}  # fmt: skip


class _Format(NamedTuple):
    """A floating-point format and the constants of its functions, lowest power first.

    The polynomials are minimax fits of relative error (``tests/fit_polynomials.py``):
    exp_tail q in exp(r) = 1 + r + r² q(r), |r| <= ln(2)/2;
    log_tail w in 2 atanh(s) = 2 s + s³ w(s²), |s| <= (sqrt(2) - 1) / (sqrt(2) + 1);
    erf_centre p in erf(x) = x + x p(x²), |x| <= 1;
    erfc_tail g in erfc(x) = exp(-g(x)), from 1 to erf_end, from where on erf rounds to 1.
    """

    number: ir.Type
    integer: ir.Type
    mantissa_bits: int
    exponent_bias: int
    rounder: float  # adding it leaves the nearest integer in the lowest mantissa bits
    smallest_normal: float
    exp_range: tuple[float, float]  # beyond it exp is 0 or infinite
    expm1_low: float  # below it expm1 rounds to -1
    tanh_end: float  # from there on tanh rounds to 1
    ln2_high: float  # few enough bits that its products with exponents are exact
    ln2_low: float
    exp_tail: tuple[float, ...]
    log_tail: tuple[float, ...]
    erf_centre: tuple[float, ...]
    erfc_tail: tuple[float, ...]
    erf_end: float


_FORMATS = {
    "float32": _Format(
        number=ir.FloatType(),
        integer=ir.IntType(32),
        mantissa_bits=23,
        exponent_bias=127,
        rounder=1.5 * 2.0**23,
        smallest_normal=2.0**-126,
        exp_range=(-104.0, 89.0),
        expm1_low=-18.0,
        tanh_end=9.1,
        ln2_high=0.693359375,
        ln2_low=-2.1219444005469057e-4,
        exp_tail=(
            0.5000000046945552, 0.16666666819144701, 0.04166635223021391,
            0.008333272509572439, 0.0013941213085555378, 0.00019914491626203947,
        ),
        log_tail=(0.6666677743034043, 0.3997738819019032, 0.29876361837125165),
        erf_centre=(
            0.1283791659141287, -0.376126271380238, 0.11283600201473006,
            -0.026854445687012694, 0.005189537428754807, -0.0008020859381780765,
            7.889177891395218e-05,
        ),
        erfc_tail=(
            0.000300500313956163, 1.1272511579071396, 0.6378835911430074,
            0.10332690015836592, -0.021940211092219664, 0.0029723859342831623,
            -0.0001888177679928821,
        ),
        erf_end=4.0,
    ),
    "float64": _Format(
        number=ir.DoubleType(),
        integer=ir.IntType(64),
        mantissa_bits=52,
        exponent_bias=1023,
        rounder=1.5 * 2.0**52,
        smallest_normal=2.0**-1022,
        exp_range=(-746.0, 710.0),
        expm1_low=-40.0,
        tanh_end=19.1,
        ln2_high=6.93147180369123816490e-01,
        ln2_low=1.90821492927058770002e-10,
        exp_tail=(
            0.5, 0.16666666666666677, 0.0416666666666667, 0.008333333333321431,
            0.0013888888888866384, 0.0001984126988669139, 2.4801587361427455e-05,
            2.7557243587628724e-06, 2.7557242030282944e-07, 2.5109270381364124e-08,
            2.0924665632630032e-09,
        ),
        log_tail=(
            0.6666666666666735, 0.3999999999940555, 0.2857142874486698,
            0.22222198280314617, 0.18183581301062396, 0.15313575657233483,
            0.14801075853877463,
        ),
        erf_centre=(
            0.12837916709551256, -0.3761263890318355, 0.11283791670945253,
            -0.026866170643276246, 0.005223977607423736, -0.0008548325989713515,
            0.00012055295321122493, -1.4924744677663681e-05, 1.6447517878660669e-06,
            -1.6209177601429614e-07, 1.3722984104326005e-08, -7.801204287236882e-10,
        ),
        erfc_tail=(
            4.3867997198291017e-07, 1.1283746898591218, 0.6366410197054697,
            0.10271042670296146, -0.01900310146518946, -0.0003931197053783129,
            0.001897952383383306, -0.0007563235307428411, 0.00012611369398998868,
            2.466424005745684e-05, -2.4528635163480767e-05, 9.186052175931168e-06,
            -2.257865563632628e-06, 3.951132421392083e-07, -4.927276108351477e-08,
            4.1911346520255304e-09, -2.187573385635079e-10, 5.2958226859309715e-12,
        ),
        erf_end=6.0,
    ),
}  # fmt: skip

_INSTRUCTIONS = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}


class Vector(Number):
    """A vector of floating-point numbers under construction; ``value`` is the LLVM value."""

    __slots__ = ("value",)

    def __init__(self, math: VectorMath, value: ir.Value) -> None:
        super().__init__(math)
        self.value = value


class IntegerVector:
    """A vector of unsigned 32-bit integers; arithmetic is modulo 2³²."""

    __slots__ = ("math", "value")

    def __init__(self, math: VectorMath, value: ir.Value) -> None:
        self.math = math
        self.value = value

    def __add__(self, other: IntegerVector) -> IntegerVector:
        return IntegerVector(self.math, self.math.builder.add(self.value, other.value))

    def __xor__(self, other: IntegerVector) -> IntegerVector:
        return IntegerVector(self.math, self.math.builder.xor(self.value, other.value))

    def __ge__(self, other: IntegerVector) -> Condition:
        return Condition(self.math.builder.icmp_unsigned(">=", self.value, other.value))


class VectorMath(Math):
    """Reads formulas into vector instructions at the end of an LLVM IR builder's block.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    dtype : {"float32", "float64"}
    lanes : int
        Numbers in a vector; integer vectors have as many.
    """

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int) -> None:
        if dtype not in _FORMATS:
            raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(_FORMATS)}")
        self.builder = builder
        self.dtype = dtype
        self.lanes = lanes
        self.format = _FORMATS[dtype]
        self.type = ir.VectorType(self.format.number, lanes)
        self.bits_type = ir.VectorType(self.format.integer, lanes)
        self.integer_type = ir.VectorType(ir.IntType(32), lanes)

    def vector(self, value: Any) -> Vector:
        """An LLVM vector value or a Python number as a Vector."""
        if isinstance(value, Vector):
            return value
        if isinstance(value, ir.Value):
            return Vector(self, value)
        return Vector(self, ir.Constant(self.type, [float(value)] * self.lanes))

    def splat(self, scalar: ir.Value) -> Vector:
        """A scalar LLVM value in every lane."""
        return Vector(self, self._broadcast(scalar, self.type))

    def integer(self, value: Any) -> IntegerVector:
        """A Python int, a scalar i32 or a vector of them as an IntegerVector."""
        if isinstance(value, IntegerVector):
            return value
        if not isinstance(value, ir.Value):
            value = ir.Constant(self.integer_type, [value & 0xFFFFFFFF] * self.lanes)
        elif not isinstance(value.type, ir.VectorType):
            value = self._broadcast(value, self.integer_type)
        return IntegerVector(self, value)

    def constant(self, value: float, like: Any) -> Vector:
        """A Python number as a number of this reading."""
        return self.vector(value)

    # arithmetic

    def binary(self, operator: str, left: Any, right: Any) -> Vector:
        left, right = self.vector(left).value, self.vector(right).value
        return Vector(self, getattr(self.builder, _INSTRUCTIONS[operator])(left, right))

    def compare(self, operator: str, left: Any, right: Any) -> Condition:
        left, right = self.vector(left).value, self.vector(right).value
        return Condition(self.builder.fcmp_ordered(operator, left, right))

    def negative(self, x: Vector) -> Vector:
        return Vector(self, self.builder.fneg(x.value))

    def where(self, condition: Condition, a: Any, b: Any) -> Vector:
        a, b = self.vector(a).value, self.vector(b).value
        return Vector(self, self.builder.select(condition.value, a, b))

    def fma(self, a: Any, b: Any, c: Any) -> Vector:
        """a * b + c, rounded once."""
        return self._intrinsic("fma", a, b, c)

    def sqrt(self, x: Any) -> Vector:
        return self._intrinsic("sqrt", x)

    def abs(self, x: Any) -> Vector:
        return self._intrinsic("fabs", x)

    def multiply_wide(self, a: IntegerVector, b: int) -> tuple[IntegerVector, IntegerVector]:
        """The high and the low 32 bits of the product of a with the constant b."""
        wide = ir.VectorType(ir.IntType(64), self.lanes)
        factor = ir.Constant(wide, [b] * self.lanes)
        product = self.builder.mul(self.builder.zext(a.value, wide), factor)
        shift = ir.Constant(wide, [32] * self.lanes)
        high = self.builder.trunc(self.builder.lshr(product, shift), self.integer_type)
        low = self.builder.trunc(product, self.integer_type)
        return IntegerVector(self, high), IntegerVector(self, low)

    # functions

    def exp(self, x: Any) -> Vector:
        """2^n exp(r) with x = n ln 2 + r; the power in two factors, so that neither overflows."""
        low, high = self.format.exp_range
        r, rounded = self._reduce(self.minimum(self.maximum(self.vector(x), low), high), 2)
        p = self.fma(self._polynomial(self.format.exp_tail, r), r * r, r) + 1.0
        half = self.builder.lshr(rounded, self._bits(1))
        return p * self._power(half) * self._power(self.builder.sub(rounded, half))

    def expm1(self, x: Any) -> Vector:
        """2^n (exp(r) - 1) + (2^n - 1), halved until the end, so that 2^n does not overflow."""
        low, high = self.format.expm1_low, self.format.exp_range[1]
        r, rounded = self._reduce(self.minimum(self.maximum(self.vector(x), low), high), 1)
        q = self.fma(self._polynomial(self.format.exp_tail, r), r * r, r)
        half_power = self._power(self.builder.sub(rounded, self._bits(1)))
        half = self.fma(half_power, q, half_power - 0.5)
        return half + half

    def sigmoid(self, x: Any) -> Vector:
        return 1.0 / (1.0 + self.exp(-self.vector(x)))

    def tanh(self, x: Any) -> Vector:
        """e / (e + 2) with e = exp(2 x) - 1."""
        e = self.expm1(2.0 * self.minimum(self.vector(x), self.format.tanh_end))
        return e / (e + 2.0)

    def log(self, x: Any) -> Vector:
        x = self.vector(x)
        scale = 2.0 ** (self.format.mantissa_bits + 1)
        denormal = x < self.format.smallest_normal
        scaled = self.where(denormal, x * scale, x)
        exponent, shift = self._exponent(scaled)
        mantissa = self._from_bits(self.builder.sub(self._to_bits(scaled), shift))
        exponent = exponent - self.where(denormal, self.format.mantissa_bits + 1, 0.0)
        return self._log_domain(x, x, self._log(exponent, mantissa - 1.0))

    def log1p(self, x: Any) -> Vector:
        """As log, but the mantissa less one, (1 + x) 2^-k - 1, is rounded only once."""
        x = self.vector(x)
        exponent, shift = self._exponent(1.0 + x)
        scaled = self._from_bits(self.builder.sub(self._to_bits(x), shift))
        one = self._bits(self.format.exponent_bias << self.format.mantissa_bits)
        inverse_bits = self.builder.sub(one, shift)
        negative = self.builder.icmp_signed("<", inverse_bits, self._bits(0))
        inverse = self._from_bits(self.builder.select(negative, self._bits(0), inverse_bits))
        return self._log_domain(x, 1.0 + x, self._log(exponent, scaled + (inverse - 1.0)))

    def erf(self, x: Any) -> Vector:
        x = self.vector(x)
        size = self.minimum(self.abs(x), self.format.erf_end)
        centre = self.fma(self._polynomial(self.format.erf_centre, size * size), size, size)
        tail = 1.0 - self.exp(-self._polynomial(self.format.erfc_tail, size))
        result = self.where(size > 1.0, tail, centre)
        return self.where(x < 0.0, -result, result)

    # what the functions are made of

    def _polynomial(self, coefficients: tuple[float, ...], x: Vector) -> Vector:
        result = self.vector(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            result = self.fma(result, x, coefficient)
        return result

    def _reduce(self, x: Vector, biases: int) -> tuple[Vector, ir.Value]:
        """r in x = n ln 2 + r, and bits whose low end holds n plus so many exponent biases."""
        rounder = self.format.rounder + biases * self.format.exponent_bias
        rounded = self.fma(x, 1.0 / math.log(2.0), rounder)
        n = rounded - rounder
        r = self.fma(n, -self.format.ln2_low, self.fma(n, -self.format.ln2_high, x))
        return r, self._to_bits(rounded)

    def _power(self, biased: ir.Value) -> Vector:
        """2 to an exponent that already holds the format's bias."""
        return self._from_bits(self.builder.shl(biased, self._bits(self.format.mantissa_bits)))

    def _exponent(self, x: Vector) -> tuple[Vector, ir.Value]:
        """k with x 2^-k between sqrt(1/2) and sqrt(2), as a number and shifted into place."""
        bits = self._to_bits(x)
        width = self.format.mantissa_bits
        mantissa_of_root = int((math.sqrt(2.0) - 1.0) * 2**width)
        root = ((self.format.exponent_bias - 1) << width) + mantissa_of_root
        exponent = self.builder.ashr(self.builder.sub(bits, self._bits(root)), self._bits(width))
        number = Vector(self, self.builder.sitofp(exponent, self.type))
        return number, self.builder.shl(exponent, self._bits(width))

    def _log(self, exponent: Vector, f: Vector) -> Vector:
        """log(2^exponent (1 + f)), where log(1 + f) = 2 atanh(s), s = f / (2 + f)."""
        s = f / (f + 2.0)
        square = s * s
        half_square = 0.5 * f * f
        tail = square * self._polynomial(self.format.log_tail, square)
        small = self.fma(s, half_square + tail, exponent * self.format.ln2_low)
        return self.fma(exponent, self.format.ln2_high, f - (half_square - small))

    def _log_domain(self, x: Vector, argument: Vector, result: Vector) -> Vector:
        """The logarithm, which is x itself at inf and NaN, -inf at 0 and NaN below."""
        result = self.where(x < math.inf, result, x)
        pole = self.where(argument == 0.0, -math.inf, math.nan)
        return self.where(argument <= 0.0, pole, result)

    def _bits(self, value: int) -> ir.Constant:
        return ir.Constant(self.bits_type, [value] * self.lanes)

    def _to_bits(self, x: Vector) -> ir.Value:
        return self.builder.bitcast(x.value, self.bits_type)

    def _from_bits(self, bits: ir.Value) -> Vector:
        return Vector(self, self.builder.bitcast(bits, self.type))

    def _broadcast(self, scalar: ir.Value, vector_type: ir.VectorType) -> ir.Value:
        undefined = ir.Constant(vector_type, ir.Undefined)
        index_type = ir.IntType(32)
        single = self.builder.insert_element(undefined, scalar, index_type(0))
        mask = ir.Constant(ir.VectorType(index_type, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, mask)

    def _intrinsic(self, name: str, *arguments: Any) -> Vector:
        suffix = "f32" if self.dtype == "float32" else "f64"
        full_name = f"llvm.{name}.v{self.lanes}{suffix}"
        module = self.builder.module
        function = module.globals.get(full_name)
        if function is None:
            signature = ir.FunctionType(self.type, [self.type] * len(arguments))
            function = ir.Function(module, signature, full_name)
        values = [self.vector(argument).value for argument in arguments]
        return Vector(self, self.builder.call(function, values))
