"""The text of what the device functions compute, read from ``kernels/formulas.py``.

A struct is named after a digest of its own text: kernels that use the same formula share it, and
two formulas of one name do not meet.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from .. import formulas
from ..contract import Activation, Loss
from ..formulas import UpdateFormula
from ..tracing import TextMath, derivative, function_text, value_and_derivative

_OF_REALS = (
    formulas.softmax_numerator,
    formulas.softmax_grad,
    formulas.cross_entropy_term,
    formulas.cross_entropy_row,
    formulas.cross_entropy_grad,
    formulas.smooth_target,
    formulas.between,
    formulas.batch_scale,
    formulas.inverse_deviation,
    formulas.normalise,
    formulas.scale_shift,
    formulas.batch_norm_grad,
    formulas.running_average,
    formulas.norm_clip,
)
_PHILOX_WORDS = ("counter_0", "counter_1", "counter_2", "counter_3", "key_low", "key_high")
_INLINE = "static __device__ __forceinline__"


def activation_struct(activation: Activation, dtype: str) -> tuple[str, str]:
    """An activation with its slopes, as a struct.

    Parameters
    ----------
    activation : Activation
        With n learned numbers.
    dtype : {"float32", "float64"}
        What ``real`` is.

    Returns
    -------
    (str, str)
        The name, and the text: a constant LEARNED of n; ``value(x, learned)``; and ``apply(x,
        learned, results)``, which writes the value, the slope by x and the n slopes by learned
        numbers. ``learned`` points to the element's own n numbers.

    Examples
    --------
    >>> from fastnn.kernels.contract import IDENTITY
    >>> name, text = activation_struct(IDENTITY, "float32")
    >>> print(text.replace(name, "Identity"))
    struct Identity {
      static constexpr int LEARNED = 0;
      static __device__ __forceinline__ real value(real x, const real *learned) {
        return x;
      }
      static __device__ __forceinline__ void apply(real x, const real *learned, real *results) {
        const float t0 = 1.0f;
        results[0] = x;
        results[1] = t0;
      }
    };
    """
    formula, keywords = activation.formula, activation.keywords
    m = TextMath(dtype)
    numbers = [m.named("x"), *(m.named(f"learned[{n}]") for n in range(len(formula.learned)))]
    value, slope = value_and_derivative(formula.function)(m, *numbers, **keywords)
    by_learned = [
        derivative(formula.function, 1 + n)(m, *numbers, **keywords)
        for n in range(len(formula.learned))
    ]
    return _struct(
        f"Activation_{formula.name}",
        [
            f"static constexpr int LEARNED = {len(formula.learned)};",
            _function("real value(real x, const real *learned)", m, [f"return {m.text(value)};"]),
            _function(
                "void apply(real x, const real *learned, real *results)",
                m,
                _stores("results", m, (value, slope, *by_learned)),
            ),
        ],
    )


def update_struct(formula: UpdateFormula, clips: bool, dtype: str) -> tuple[str, str]:
    """An optimizer's update of one element, as a struct.

    Parameters
    ----------
    formula : UpdateFormula
    clips : bool
        Whether the gradient is first moved into [-clip, clip].
    dtype : {"float32", "float64"}
        What ``real`` is.

    Returns
    -------
    (str, str)
        The name, and the text: constants SLOTS and SCALARS; and ``apply(weight, grad, slots,
        scalars, clip)``, which moves the weight and its slots. ``scalars`` are in the formula's
        order.
    """
    m = TextMath(dtype)
    grad = formulas.clip(m, m.named("grad"), m.named("clip")) if clips else m.named("grad")
    slots = tuple(m.named(f"old_slots[{n}]") for n in range(len(formula.slots)))
    scalars = {name: m.named(f"scalars[{n}]") for n, name in enumerate(formula.scalars)}
    weight, moved = formula.function(m, m.named("old"), grad, slots, SimpleNamespace(**scalars))
    old_slots = ", ".join(f"slots[{n}]" for n in range(len(slots)))
    olds = ["const real old = weight;"]
    if slots:  # copies, since a formula may swap its slots
        olds.append(f"const real old_slots[] = {{{old_slots}}};")
    return _struct(
        f"Update_{formula.name}",
        [
            f"static constexpr int SLOTS = {len(slots)};",
            f"static constexpr int SCALARS = {len(scalars)};",
            _function(
                "void apply(real &weight, real grad, real *slots, const real *scalars, real clip)",
                m,
                [f"weight = {m.text(weight)};", *_stores("slots", m, moved)],
                olds,
            ),
        ],
    )


def loss_struct(loss: Loss, dtype: str) -> tuple[str, str]:
    """An elementwise loss with its derivative, as a struct.

    Parameters
    ----------
    loss : Loss
        One with a formula.
    dtype : {"float32", "float64"}
        What ``real`` is.

    Returns
    -------
    (str, str)
        The name, and the text: ``value(output, target)``; and ``apply(output, target, results)``,
        which writes the value and the derivative by the output.
    """
    assert loss.formula is not None
    m = TextMath(dtype)
    both = value_and_derivative(functools.partial(loss.formula.function, **loss.keywords))
    results = both(m, m.named("output"), m.named("target"))
    return _struct(
        f"Loss_{loss.formula.name}",
        [
            _function("real value(real output, real target)", m, [f"return {m.text(results[0])};"]),
            _function(
                "void apply(real output, real target, real *results)",
                m,
                _stores("results", m, results),
            ),
        ],
    )


@functools.cache
def shared_formulas(dtype: str) -> str:
    """The formulas of rows, normalisation, clipping and random words: ``Formula::name(...)``.

    Numbers are ``real``; ``philox`` and ``keep`` take words, and ``philox`` writes its four
    through the pointers after its own.
    """
    functions = [
        *(_shared(formula, dtype) for formula in _OF_REALS),
        _shared(formulas.keep, "uint32"),
        function_text("philox", _philox, _PHILOX_WORDS, "uint32"),
    ]
    return _braced("Formula", [f"static {function}" for function in functions])


def _shared(formula: Callable[..., Any], dtype: str) -> str:
    # a name that ends in an underscore is no word of C++
    numbers = [f"{name}_" for name in list(inspect.signature(formula).parameters)[1:]]
    return function_text(formula.__name__, formula, numbers, dtype)


def _philox(m: Any, *words: Any) -> Any:
    return formulas.philox(m, words[:4], words[4:])


def _stores(array: str, m: TextMath, numbers: Sequence[Any]) -> list[str]:
    return [f"{array}[{place}] = {m.text(number)};" for place, number in enumerate(numbers)]


def _function(signature: str, m: TextMath, ends: Sequence[str], starts: Sequence[str] = ()) -> str:
    body = "".join(f"  {line}\n" for line in (*starts, *m.statements_for(ends), *ends))
    return f"{_INLINE} {signature} {{\n{body}}}"


def _struct(name: str, members: Sequence[str]) -> tuple[str, str]:
    digest = hashlib.sha256("\n".join(members).encode()).hexdigest()[:12]
    name = f"{re.sub(r'[^0-9A-Za-z]+', '_', name)}_{digest}"
    return name, _braced(name, members)


def _braced(name: str, members: Sequence[str]) -> str:
    body = "\n".join(f"  {line}" for member in members for line in member.split("\n"))
    return f"struct {name} {{\n{body}\n}};"
