"""The text reading: a formula becomes CUDA C++ that a host compiler takes as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .number import Condition, Math, Number

# What a host compiler lacks; a CUDA compiler defines __CUDACC__ and skips it.
PREAMBLE = """\
#ifndef __CUDACC__
#include <math.h>
#define __device__
#define __forceinline__ inline
static inline unsigned int __umulhi(unsigned int a, unsigned int b) {
  return (unsigned int)(((unsigned long long)a * b) >> 32);
}
#endif
"""

_TEMPORARY = re.compile(r"\bt\d+\b")
_TYPES = {"float32": "float", "float64": "double", "uint32": "unsigned int"}


def function_text(
    name: str, function: Callable[..., Any], parameters: Sequence[str], dtype: str
) -> str:
    """The text of a ``__device__`` function that computes a formula.

    Parameters
    ----------
    name : str
    function : callable
        ``function(m, *numbers)``, giving a number, a tuple of them, or a comparison.
    parameters : sequence of str
        The names of the numbers.
    dtype : {"float32", "float64", "uint32"}
        The type of every parameter and number that results.

    Returns
    -------
    str
        A function that returns the number, or the truth of a comparison, or that writes a
        tuple's numbers through the pointers ``result_0``, ``result_1``, ... after its parameters.

    Examples
    --------
    >>> print(function_text("twice", lambda m, x: x + x, ["x"], "float32"))
    __device__ __forceinline__ float twice(float x) {
      const float t0 = x + x;
      return t0;
    }
    """
    clashing = [parameter for parameter in parameters if _TEMPORARY.fullmatch(parameter)]
    if clashing:
        raise ValueError(f"parameters has {clashing[0]!r}; t0, t1, ... are taken by statements")
    m = TextMath(dtype)
    results = function(m, *(m.named(parameter) for parameter in parameters))
    arguments = [f"{m.type} {parameter}" for parameter in parameters]
    if isinstance(results, tuple):
        kind = "void"
        arguments += [f"{m.type} *result_{index}" for index in range(len(results))]
        ends = [f"*result_{index} = {m.text(part)};" for index, part in enumerate(results)]
    elif isinstance(results, Condition):
        kind, ends = "bool", [f"return {results.value};"]
    else:
        kind, ends = m.type, [f"return {m.text(results)};"]
    body = "".join(f"  {line}\n" for line in (*m.statements_for(ends), *ends))
    return f"__device__ __forceinline__ {kind} {name}({', '.join(arguments)}) {{\n{body}}}"


class Text(Number):
    """A number that a C++ expression stands for."""

    __slots__ = ("text",)

    def __init__(self, math: TextMath, text: str) -> None:
        super().__init__(math)
        self.text = text

    def __xor__(self, other: Any) -> Any:
        return self.math.binary("^", self, other)


class TextMath(Math):
    """Reads a formula into C++ statements, each a new name; one expression is written once.

    Parameters
    ----------
    dtype : {"float32", "float64", "uint32"}
    """

    def __init__(self, dtype: str) -> None:
        if dtype not in _TYPES:
            raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(_TYPES)}")
        self.dtype = dtype
        self.type = _TYPES[dtype]
        self.suffix = "f" if dtype == "float32" else ""
        self._names: dict[str, str] = {}  # by "type {} = expression", in order

    def named(self, name: str) -> Text:
        """The number that a C++ variable holds."""
        return Text(self, name)

    def text(self, number: Any) -> str:
        """The name, or the literal, of a number."""
        if isinstance(number, Text):
            return number.text
        if self.dtype == "uint32":
            return f"{number}u"
        if not abs(number) <= float(np.finfo(self.dtype).max):
            raise ValueError(f"constant is {number!r}; expected a finite {self.dtype}")
        return f"{np.dtype(self.dtype).type(number)!s}{self.suffix}"

    def statements_for(self, ends: Sequence[str]) -> list[str]:
        """The statements, in order, that the given last ones need."""
        needed = {name for end in ends for name in _TEMPORARY.findall(end)}
        statements = []
        for typed, name in reversed(self._names.items()):
            if name in needed:
                statements.append(f"const {typed.format(name)};")
                needed.update(_TEMPORARY.findall(typed))
        return statements[::-1]

    def constant(self, value: float, like: Any) -> Text:
        """A Python number as a number of this reading."""
        return self._define(self.text(value))

    def integer(self, value: Any) -> Text:
        """A Python int as an unsigned 32-bit integer; arithmetic on those is modulo 2³²."""
        return value if isinstance(value, Text) else Text(self, f"{value}u")

    def binary(self, operator: str, left: Any, right: Any) -> Text:
        return self._define(f"{self.text(left)} {operator} {self.text(right)}")

    def compare(self, operator: str, left: Any, right: Any) -> Condition:
        expression = f"{self.text(left)} {operator} {self.text(right)}"
        return Condition(self._name("bool", expression))

    def negative(self, x: Text) -> Text:
        return self._define(f"-{x.text}")

    def where(self, condition: Condition, a: Any, b: Any) -> Text:
        return self._define(f"{condition.value} ? {self.text(a)} : {self.text(b)}")

    def fma(self, a: Any, b: Any, c: Any) -> Text:
        return self._call("fma", a, b, c)

    def exp(self, x: Any) -> Text:
        return self._call("exp", x)

    def log(self, x: Any) -> Text:
        return self._call("log", x)

    def log1p(self, x: Any) -> Text:
        return self._call("log1p", x)

    def expm1(self, x: Any) -> Text:
        return self._call("expm1", x)

    def sqrt(self, x: Any) -> Text:
        return self._call("sqrt", x)

    def tanh(self, x: Any) -> Text:
        return self._call("tanh", x)

    def erf(self, x: Any) -> Text:
        return self._call("erf", x)

    def abs(self, x: Any) -> Text:
        return self._call("fabs", x)

    def sigmoid(self, x: Any) -> Text:
        return 1.0 / (1.0 + self.exp(-x))

    def multiply_wide(self, a: Text, b: int) -> tuple[Text, Text]:
        """The high and the low 32 bits of the product of a with the constant b."""
        return self._define(f"__umulhi({a.text}, {b}u)"), self._define(f"{a.text} * {b}u")

    def _call(self, name: str, *arguments: Any) -> Text:
        listed = ", ".join(self.text(argument) for argument in arguments)
        return self._define(f"{name}{self.suffix}({listed})")

    def _define(self, expression: str) -> Text:
        return Text(self, self._name(self.type, expression))

    def _name(self, kind: str, expression: str) -> str:
        typed = f"{kind} {{}} = {expression}"
        return self._names.setdefault(typed, f"t{len(self._names)}")
