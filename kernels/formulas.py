"""Every activation, loss and optimizer update, once, as plain arithmetic on "a number".

A formula takes ``m``, the functions it may call (``kernels/tracing``), and numbers; it is read
with NumPy arrays, LLVM vectors, CUDA C++ text or dual numbers, which give its derivative. NaN
comes out as NaN, so a condition is written such that NaN takes the branch that keeps it.

>>> import numpy as np
>>> from fastnn.kernels import formulas, tracing
>>> x = np.array([-1.0, 0.0, 1.0])
>>> value, slope = tracing.NumpyMath("float64").evaluate(
...     tracing.value_and_derivative(formulas.silu), x
... )
>>> print(value.round(3), slope.round(3))
[-0.269  0.     0.731] [0.072 0.5   0.928]
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ActivationFormula:
    """An activation: ``function(m, x, *learned, **settings)``.

    Parameters
    ----------
    name : str
    function : callable
    settings : tuple of str
        Python floats that are given when the formula is read.
    learned : tuple of str
        Numbers, one a column, that are trained.
    """

    name: str
    function: Callable[..., Any]
    settings: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossFormula:
    """An elementwise loss: ``function(m, output, target, **settings)``."""

    name: str
    function: Callable[..., Any]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class UpdateFormula:
    """An optimizer's update: ``function(m, weight, grad, slots, h) -> (weight, slots)``.

    Parameters
    ----------
    name : str
    function : callable
        ``h`` has every one of ``scalars`` as an attribute.
    slots : tuple of str
        The state kept for each weight.
    scalars : tuple of str
        What ``prepare`` computes for each step.
    prepare : callable
        ``prepare(step, learning_rate, **settings)`` gives a dict of float64 arrays by scalar
        name; ``step`` holds update counts from 1, ``learning_rate`` has the same shape.
    decay : tuple of str
        The scalars that are 0 for biases and normalisation parameters.
    initial : tuple of (slot, setting)
        The slots that start from a setting's value; the others start from 0.
    """

    name: str
    function: Callable[..., Any]
    slots: tuple[str, ...]
    scalars: tuple[str, ...]
    prepare: Callable[..., dict[str, Any]]
    decay: tuple[str, ...] = ("weight_decay",)
    initial: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """The settings of ``prepare`` with their defaults."""
        parameters = inspect.signature(self.prepare).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def initial_slots(self, **settings: float) -> tuple[float, ...]:
        """The value that each slot starts from."""
        settings = {**self.defaults, **settings}
        start = {slot: settings[setting] for slot, setting in self.initial}
        return tuple(start.get(slot, 0.0) for slot in self.slots)


# Activations


def identity(m: Any, x: Any) -> Any:
    """x."""
    return x


def sigmoid(m: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)); 0 at -inf, 1 at inf."""
    return m.sigmoid(x)


def tanh(m: Any, x: Any) -> Any:
    """The hyperbolic tangent; -1 at -inf, 1 at inf."""
    return m.tanh(x)


def relu(m: Any, x: Any) -> Any:
    """The positive part; 0 at -inf, inf at inf; derivative 0 at 0."""
    return m.where(x <= 0.0, 0.0, x)


def leaky_relu(m: Any, x: Any, negative_slope: float = 0.01) -> Any:
    """x where positive, elsewhere negative_slope x; ±inf stay infinite."""
    return m.where(x > 0.0, x, negative_slope * x)


def prelu(m: Any, x: Any, slope: Any) -> Any:
    """leaky_relu with a learned slope (He et al. 2015, eq. 1)."""
    return m.where(x > 0.0, x, slope * x)


def elu(m: Any, x: Any, alpha: float = 1.0) -> Any:
    """x where positive, elsewhere alpha (exp(x) - 1) (Clevert et al. 2016, eq. 15).

    -alpha at -inf, inf at inf.
    """
    return m.where(x > 0.0, x, alpha * m.expm1(x))


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def selu(m: Any, x: Any) -> Any:
    """A scaled elu with a fixed point at mean 0, variance 1 (Klambauer et al. 2017, eq. 2).

    -SELU_SCALE SELU_ALPHA at -inf, inf at inf.
    """
    return m.where(x > 0.0, SELU_SCALE * x, (SELU_SCALE * SELU_ALPHA) * m.expm1(x))


def gelu(m: Any, x: Any) -> Any:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016, eq. 1).

    0 at -inf, inf at inf.
    """
    half = 0.5 * x
    return _gated(m, x, m.fma(half, m.erf(x * math.sqrt(0.5)), half))


def gelu_tanh(m: Any, x: Any) -> Any:
    """The tanh approximation of gelu (Hendrycks and Gimpel 2016, section 2).

    0 at -inf, inf at inf.
    """
    half = 0.5 * x
    growth = m.fma(0.044715 * math.sqrt(2.0 / math.pi) * x, x, math.sqrt(2.0 / math.pi))
    return _gated(m, x, m.fma(half, m.tanh(x * growth), half))


def silu(m: Any, x: Any) -> Any:
    """x sigmoid(x) (Elfwing et al. 2018, eq. 9); 0 at -inf, inf at inf."""
    return _gated(m, x, x * m.sigmoid(x))


def _gated(m: Any, x: Any, product: Any) -> Any:
    # From here on the gate is 1 or 0 in both dtypes; its product with inf would be NaN, and so
    # would some derivatives that overflow on the way.
    return m.where(x > 40.0, x, m.where(x < -800.0, 0.0, product))


def softplus(m: Any, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold; 0 at -inf, inf at inf."""
    scaled = beta * x
    return m.where(scaled > threshold, x, m.softplus(scaled) * (1.0 / beta))


ACTIVATIONS = {
    formula.name: formula
    for formula in (
        ActivationFormula("identity", identity),
        ActivationFormula("sigmoid", sigmoid),
        ActivationFormula("tanh", tanh),
        ActivationFormula("relu", relu),
        ActivationFormula("leaky_relu", leaky_relu, settings=("negative_slope",)),
        ActivationFormula("prelu", prelu, learned=("slope",)),
        ActivationFormula("elu", elu, settings=("alpha",)),
        ActivationFormula("selu", selu),
        ActivationFormula("gelu", gelu),
        ActivationFormula("gelu_tanh", gelu_tanh),
        ActivationFormula("silu", silu),
        ActivationFormula("softplus", softplus, settings=("beta", "threshold")),
    )
}


# Losses, one element


def squared_error(m: Any, output: Any, target: Any) -> Any:
    """(output - target)²."""
    error = output - target
    return error * error


def absolute_error(m: Any, output: Any, target: Any) -> Any:
    """|output - target|; derivative 0 where they are equal."""
    return m.abs(output - target)


def huber(m: Any, output: Any, target: Any, delta: float = 1.0) -> Any:
    """Quadratic up to an error of delta, linear beyond (Huber 1964, eq. 2.9)."""
    error = output - target
    size = m.abs(error)
    return m.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))


def binary_cross_entropy(m: Any, output: Any, target: Any) -> Any:
    """-target log(p) - (1 - target) log(1 - p), p = sigmoid(output), without overflow."""
    negative = output < 0.0
    linear = m.where(negative, -target, 1.0 - target) * output
    return linear + m.log1p(m.exp(m.where(negative, output, -output)))


def poisson(m: Any, output: Any, target: Any) -> Any:
    """exp(output) - target output: minus the log-likelihood of a count with the mean exp(output).

    But for log(target!), which the output does not move. A count of 0 is a target like others.
    """
    return m.fma(-target, output, m.exp(output))


def binary_log_loss(m: Any, output: Any, target: Any) -> Any:
    """-log(p) for the target 1, -log(1 - p) for 0, from p = sigmoid(output) as it is rounded.

    The value that scikit-learn reports: near p = 1 it is off binary_cross_entropy by what rounding
    leaves of 1 - p.
    """
    probability = m.sigmoid(output)
    probability = m.where(target > 0.5, probability, 1.0 - probability)
    where_none_is_left = m.where(target > 0.5, -output, output)
    return m.where(probability <= 0.0, where_none_is_left, -m.log(probability))


def poisson_deviance(m: Any, output: Any, target: Any) -> Any:
    """poisson, infinite where exp(output) rounds to 0.

    The value that scikit-learn reports, which divides the target by exp(output).
    """
    return m.where(m.exp(output) <= 0.0, math.inf, poisson(m, output, target))


LOSSES = {
    formula.name: formula
    for formula in (
        LossFormula("squared_error", squared_error),
        LossFormula("absolute_error", absolute_error),
        LossFormula("huber", huber, settings=("delta",)),
        LossFormula("binary_cross_entropy", binary_cross_entropy),
        LossFormula("poisson", poisson),
    )
}

BINARY_LOG_LOSS = LossFormula("binary_log_loss", binary_log_loss)
POISSON_DEVIANCE = LossFormula("poisson_deviance", poisson_deviance)
"""In none of fastnn's own losses, whose values keep the digits that these drop."""


# Rows: softmax and cross-entropy


def softmax_numerator(m: Any, logit: Any, row_max: Any) -> Any:
    """exp(logit - row_max)."""
    return m.exp(logit - row_max)


def softmax_grad(m: Any, output: Any, grad: Any, dot: Any) -> Any:
    """The gradient by a logit, with dot the row's sum of output times grad."""
    return output * (grad - dot)


def cross_entropy_term(m: Any, target: Any, logit: Any, row_max: Any) -> Any:
    """target (logit - row_max): 0 where the target is, were the logit -inf, a class ruled out."""
    return m.where(m.abs(target) > 0.0, target * (logit - row_max), 0.0)


def cross_entropy_row(m: Any, target_sum: Any, log_sum: Any, target_dot: Any) -> Any:
    """A row's loss: -sum target log(softmax).

    log_sum is the logarithm of the row's sum of numerators, target_dot the row's sum of terms.
    """
    return m.fma(target_sum, log_sum, -target_dot)


def cross_entropy_grad(m: Any, numerator: Any, target: Any, target_sum_over_sum: Any) -> Any:
    """The gradient by a logit: target_sum softmax - target."""
    return m.fma(numerator, target_sum_over_sum, -target)


def smooth_target(m: Any, hit: Any, smoothing: Any, classes: Any) -> Any:
    """A target mixed with the uniform distribution (Szegedy et al. 2016, section 7)."""
    return m.fma(1.0 - smoothing, hit, smoothing / classes)


def between(m: Any, value: Any, low: Any, high: Any) -> Any:
    """value moved into [low, high]; NaN stays NaN."""
    value = m.where(value > high, high, value)
    return m.where(value < low, low, value)


def batch_scale(m: Any, weight: Any) -> Any:
    """One over the weight of a batch; 0 for a batch without weight, which then moves nothing."""
    return m.where(weight == 0.0, 0.0, 1.0 / weight)


# Normalisation (Ioffe and Szegedy 2015)


def inverse_deviation(m: Any, variance: Any, epsilon: Any) -> Any:
    """1 / sqrt(variance + epsilon)."""
    return 1.0 / m.sqrt(variance + epsilon)


def normalise(m: Any, x: Any, mean: Any, inverse_deviation: Any) -> Any:
    """x less its mean, over its standard deviation."""
    return (x - mean) * inverse_deviation


def scale_shift(m: Any, x_hat: Any, gamma: Any, beta: Any) -> Any:
    """gamma x_hat + beta."""
    return m.fma(gamma, x_hat, beta)


def batch_norm_grad(
    m: Any,
    grad: Any,
    x_hat: Any,
    mean_grad: Any,
    mean_grad_x_hat: Any,
    gamma_times_inverse_deviation: Any,
) -> Any:
    """The gradient by x through the batch's mean and deviation (algorithm 1, section 3)."""
    centred = m.fma(-x_hat, mean_grad_x_hat, grad - mean_grad)
    return centred * gamma_times_inverse_deviation


def running_average(m: Any, old: Any, new: Any, momentum: Any) -> Any:
    """(1 - momentum) old + momentum new."""
    return _average(m, old, new, momentum)


def _average(m: Any, old: Any, new: Any, share: Any) -> Any:
    # 1 - share is nowhere rounded to the dtype: the shares add up to 1
    return m.fma(share, new, m.fma(-share, old, old))


def _average_square(m: Any, old: Any, new: Any, share: Any) -> Any:
    return m.fma(share * new, new, m.fma(-share, old, old))


# Updates


def clip(m: Any, grad: Any, limit: Any) -> Any:
    """grad moved into [-limit, limit]; NaN stays NaN."""
    return between(m, grad, -limit, limit)


def norm_clip(m: Any, norm: Any, limit: Any) -> Any:
    """The factor that makes a gradient's norm limit at most (Pascanu et al. 2013, algorithm 1).

    1e-6 is added to the norm, as in PyTorch.
    """
    return m.minimum(limit / (norm + 1e-6), 1.0)


def _with_penalty(m: Any, weight: Any, grad: Any, h: Any) -> Any:
    return m.fma(h.weight_decay, weight, grad)


def sgd(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """weight - learning_rate grad (Robbins and Monro 1951)."""
    grad = _with_penalty(m, weight, grad, h)
    return m.fma(-h.learning_rate, grad, weight), ()


def _prepare_sgd(step: Any, learning_rate: Any, *, weight_decay: float = 0.0) -> dict[str, Any]:
    """The scalars of sgd."""
    return {"learning_rate": learning_rate, "weight_decay": weight_decay}


def momentum(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """Heavy ball (Polyak 1964): velocity = momentum velocity + grad, weight -= step velocity."""
    grad = h.grad_scale * _with_penalty(m, weight, grad, h)
    velocity = m.fma(h.momentum, slots[0], grad)
    return m.fma(-h.step_size, velocity, weight), (velocity,)


def nesterov(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """Momentum that looks a step ahead (Sutskever et al. 2013, eq. 3-4, at the shifted weight)."""
    grad = h.grad_scale * _with_penalty(m, weight, grad, h)
    velocity = m.fma(h.momentum, slots[0], grad)
    ahead = m.fma(h.look_ahead, velocity, grad)
    return m.fma(-h.step_size, ahead, weight), (velocity,)


def _prepare_momentum(
    step: Any,
    learning_rate: Any,
    *,
    momentum: float = 0.9,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    learning_rate_in_velocity: bool = False,
) -> dict[str, Any]:
    """The scalars of momentum.

    PyTorch's velocity sums gradients and its first step ignores dampening. scikit-learn's and
    the books' velocity is the step itself: it has the learning rate inside, and points downhill.
    """
    grad_scale = np.where(step == 1, 1.0, 1.0 - dampening)
    if learning_rate_in_velocity:
        grad_scale, step_size = -grad_scale * learning_rate, -1.0
    else:
        step_size = learning_rate
    return {
        "step_size": step_size,
        "momentum": momentum,
        "grad_scale": grad_scale,
        "weight_decay": weight_decay,
    }


def _prepare_nesterov(
    step: Any,
    learning_rate: Any,
    *,
    momentum: float = 0.9,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    learning_rate_in_velocity: bool = False,
    looks_ahead_twice: bool = False,
) -> dict[str, Any]:
    """The scalars of nesterov.

    Looking ahead twice, as the from-scratch books' code does by moving its velocity first, applies
    the gradient again: momentum (momentum velocity + grad) + grad, which is (1 + momentum) times
    look_ahead velocity + grad.
    """
    scalars = _prepare_momentum(
        step,
        learning_rate,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        learning_rate_in_velocity=learning_rate_in_velocity,
    )
    if not looks_ahead_twice:
        return {**scalars, "look_ahead": momentum}
    step_size = scalars["step_size"] * (1.0 + momentum)
    return {**scalars, "step_size": step_size, "look_ahead": momentum**2 / (1.0 + momentum)}


def adagrad(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """Steps divided by the root of the sum of squares (Duchi et al. 2011, fig. 1)."""
    grad = _with_penalty(m, weight, grad, h)
    square_sum = m.fma(grad, grad, slots[0])
    scaled = grad / (m.sqrt(square_sum) + h.epsilon)
    return m.fma(-h.step_size, scaled, weight), (square_sum,)


def _prepare_adagrad(
    step: Any,
    learning_rate: Any,
    *,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> dict[str, Any]:
    """The scalars of adagrad."""
    return {
        "step_size": learning_rate / (1.0 + (step - 1.0) * lr_decay),
        "epsilon": eps,
        "weight_decay": weight_decay,
    }


def rmsprop(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """Steps divided by a running root mean square (Tieleman and Hinton 2012, lecture 6.5)."""
    grad = _with_penalty(m, weight, grad, h)
    square = _average_square(m, slots[0], grad, h.square_share)
    scaled = grad / (m.sqrt(square) + h.epsilon)
    return m.fma(-h.learning_rate, scaled, weight), (square,)


def rmsprop_momentum(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """rmsprop whose scaled gradients are summed in a velocity."""
    grad = _with_penalty(m, weight, grad, h)
    square = _average_square(m, slots[0], grad, h.square_share)
    velocity = m.fma(h.momentum, slots[1], grad / (m.sqrt(square) + h.epsilon))
    return m.fma(-h.learning_rate, velocity, weight), (square, velocity)


def rmsprop_centered(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """rmsprop by the running standard deviation (Graves 2013, eq. 38-41)."""
    grad = _with_penalty(m, weight, grad, h)
    square = _average_square(m, slots[0], grad, h.square_share)
    mean = _average(m, slots[1], grad, h.square_share)
    scaled = grad / (_deviation(m, square, mean) + h.epsilon)
    return m.fma(-h.learning_rate, scaled, weight), (square, mean)


def rmsprop_centered_momentum(
    m: Any, weight: Any, grad: Any, slots: tuple, h: Any
) -> tuple[Any, tuple]:
    """rmsprop_centered whose scaled gradients are summed in a velocity."""
    grad = _with_penalty(m, weight, grad, h)
    square = _average_square(m, slots[0], grad, h.square_share)
    mean = _average(m, slots[1], grad, h.square_share)
    velocity = m.fma(h.momentum, slots[2], grad / (_deviation(m, square, mean) + h.epsilon))
    return m.fma(-h.learning_rate, velocity, weight), (square, mean, velocity)


def _deviation(m: Any, square: Any, mean: Any) -> Any:
    # rounding can make the variance of nearly equal gradients negative
    return m.sqrt(m.maximum(m.fma(-mean, mean, square), 0.0))


def _prepare_rmsprop(
    step: Any,
    learning_rate: Any,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> dict[str, Any]:
    """The scalars of rmsprop and rmsprop_centered."""
    return {
        "learning_rate": learning_rate,
        "square_share": 1.0 - alpha,
        "epsilon": eps,
        "weight_decay": weight_decay,
    }


def _prepare_rmsprop_momentum(
    step: Any,
    learning_rate: Any,
    *,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
) -> dict[str, Any]:
    """The scalars of rmsprop_momentum and rmsprop_centered_momentum."""
    scalars = _prepare_rmsprop(step, learning_rate, alpha=alpha, eps=eps, weight_decay=weight_decay)
    return {**scalars, "momentum": momentum}


def adam(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """Running mean over running root mean square (Kingma and Ba 2015, algorithm 1)."""
    return _adam(m, weight, _with_penalty(m, weight, grad, h), slots, h)


def adamw(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    """Adam after the weight has shrunk by itself (Loshchilov and Hutter 2019, algorithm 2)."""
    return _adam(m, m.fma(-h.decay, weight, weight), grad, slots, h)


def _adam(m: Any, weight: Any, grad: Any, slots: tuple, h: Any) -> tuple[Any, tuple]:
    mean = _average(m, slots[0], grad, h.mean_share)
    square = _average_square(m, slots[1], grad, h.square_share)
    denominator = m.fma(m.sqrt(square), h.root_correction, h.epsilon)
    return m.fma(-h.step_size, mean / denominator, weight), (mean, square)


def _adam_scalars(
    step: Any, learning_rate: Any, betas: tuple[float, float], eps: float, eps_on_corrected: bool
) -> dict[str, Any]:
    mean_correction = -np.expm1(step * np.log(betas[0])) if betas[0] > 0.0 else 1.0
    root = np.sqrt(-np.expm1(step * np.log(betas[1]))) if betas[1] > 0.0 else 1.0
    step_size = learning_rate / mean_correction
    return {
        "step_size": step_size if eps_on_corrected else step_size * root,
        "mean_share": 1.0 - betas[0],
        "square_share": 1.0 - betas[1],
        "root_correction": 1.0 / root if eps_on_corrected else 1.0,
        "epsilon": eps,
    }


def _prepare_adam(
    step: Any,
    learning_rate: Any,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    eps_on_corrected: bool = True,
) -> dict[str, Any]:
    """The scalars of adam.

    PyTorch, as algorithm 1, adds eps to the bias-corrected root; scikit-learn and the books, as
    the paper's section 2 suggests for speed, to the uncorrected one.
    """
    scalars = _adam_scalars(step, learning_rate, betas, eps, eps_on_corrected)
    return {**scalars, "weight_decay": weight_decay}


def _prepare_adamw(
    step: Any,
    learning_rate: Any,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    eps_on_corrected: bool = True,
) -> dict[str, Any]:
    """The scalars of adamw; its decay is learning_rate times weight_decay."""
    scalars = _adam_scalars(step, learning_rate, betas, eps, eps_on_corrected)
    return {**scalars, "decay": learning_rate * weight_decay}


_MOMENTUM_SCALARS = ("step_size", "momentum", "grad_scale", "weight_decay")
_RMSPROP_SCALARS = ("learning_rate", "square_share", "epsilon", "weight_decay")
_ADAM_SCALARS = ("step_size", "mean_share", "square_share", "root_correction", "epsilon")

UPDATES = {
    formula.name: formula
    for formula in (
        UpdateFormula("sgd", sgd, (), ("learning_rate", "weight_decay"), _prepare_sgd),
        UpdateFormula("momentum", momentum, ("velocity",), _MOMENTUM_SCALARS, _prepare_momentum),
        UpdateFormula(
            "nesterov",
            nesterov,
            ("velocity",),
            (*_MOMENTUM_SCALARS, "look_ahead"),
            _prepare_nesterov,
        ),
        UpdateFormula(
            "adagrad",
            adagrad,
            ("square_sum",),
            ("step_size", "epsilon", "weight_decay"),
            _prepare_adagrad,
            initial=(("square_sum", "initial_accumulator_value"),),
        ),
        UpdateFormula("rmsprop", rmsprop, ("square_average",), _RMSPROP_SCALARS, _prepare_rmsprop),
        UpdateFormula(
            "rmsprop_momentum",
            rmsprop_momentum,
            ("square_average", "velocity"),
            (*_RMSPROP_SCALARS, "momentum"),
            _prepare_rmsprop_momentum,
        ),
        UpdateFormula(
            "rmsprop_centered",
            rmsprop_centered,
            ("square_average", "grad_average"),
            _RMSPROP_SCALARS,
            _prepare_rmsprop,
        ),
        UpdateFormula(
            "rmsprop_centered_momentum",
            rmsprop_centered_momentum,
            ("square_average", "grad_average", "velocity"),
            (*_RMSPROP_SCALARS, "momentum"),
            _prepare_rmsprop_momentum,
        ),
        UpdateFormula(
            "adam", adam, ("mean", "square"), (*_ADAM_SCALARS, "weight_decay"), _prepare_adam
        ),
        UpdateFormula(
            "adamw",
            adamw,
            ("mean", "square"),
            (*_ADAM_SCALARS, "decay"),
            _prepare_adamw,
            decay=("decay",),
        ),
    )
}


# Random numbers

_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_PHILOX_ROUNDS = 10


def philox(m: Any, counter: tuple, key: tuple) -> tuple:
    """Four random 32-bit words for a counter of four and a key of two (Philox4x32-10).

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    for index in range(_PHILOX_ROUNDS):
        high_0, low_0 = m.multiply_wide(counter[0], _PHILOX_MULTIPLIERS[0])
        high_1, low_1 = m.multiply_wide(counter[2], _PHILOX_MULTIPLIERS[1])
        round_key = [
            number + m.integer(index * step & 0xFFFFFFFF)
            for number, step in zip(key, _PHILOX_KEY_STEPS, strict=True)
        ]
        counter = (
            high_1 ^ counter[1] ^ round_key[0],
            low_1,
            high_0 ^ counter[3] ^ round_key[1],
            low_0,
        )
    return counter


def keep(m: Any, word: Any, threshold: Any) -> Any:
    """Whether dropout keeps an element; true with probability 1 - threshold / 2³²."""
    return word >= threshold
