"""The independent truth: every formula of dense networks in float64, slow and obvious.

Written from the papers, with NumPy and the standard library only; nothing of the code under test
is imported here. Every function takes anything array-like, computes in float64 and returns new
arrays. Shapes: B batch rows, I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def float64(values: ArrayLike) -> Array:
    """Return a float64 copy of `values`."""
    return np.array(values, dtype=np.float64)


def central_difference(function: Callable[[Array], float], point: ArrayLike) -> Array:
    """Return the gradient of a scalar function by the fourth-order central difference.

    The step is eps**(1/5), where truncation (h**4) and rounding (eps/h) are of equal size; both
    are then about eps**(4/5), 3e-13, of the size of the function.
    """
    point = float64(point)
    step = np.finfo(np.float64).eps ** 0.2
    gradient = np.empty_like(point)
    for index in np.ndindex(point.shape):

        def value(steps: int, index: tuple[int, ...] = index) -> float:
            moved = point.copy()
            moved[index] += steps * step
            return function(moved)

        gradient[index] = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step)
    return gradient


# Products -----------------------------------------------------------------------------------


def matmul(a: ArrayLike, b: ArrayLike) -> Array:
    """Return the product of two matrices."""
    return float64(a) @ float64(b)


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike) -> Array:
    """Return x W + b for x (B, I), weight (I, O), bias (O,)."""
    return matmul(x, weight) + float64(bias)


def linear_backward(
    x: ArrayLike, weight: ArrayLike, grad_output: ArrayLike
) -> tuple[Array, Array, Array]:
    """Return grad_x (B, I), grad_weight (I, O), grad_bias (O,) from grad_output (B, O)."""
    grad_x = matmul(grad_output, float64(weight).T)
    grad_weight = matmul(float64(x).T, grad_output)
    return grad_x, grad_weight, float64(grad_output).sum(axis=0)


# Activations --------------------------------------------------------------------------------
# Defaults, and which side a kink belongs to, are PyTorch's. At the infinities the value is the
# limit.

SELU_ALPHA = 1.6732632423543772848170429916717  # Klambauer et al. 2017, equation 14
SELU_SCALE = 1.0507009873554804934193349852946


def activation(name: str, x: ArrayLike, **settings: ArrayLike) -> Array:
    """Return the activation called `name` of every element of x."""
    with np.errstate(all="ignore"):
        return _ACTIVATIONS[name][0](float64(x), **settings)


def activation_derivative(name: str, x: ArrayLike, **settings: ArrayLike) -> Array:
    """Return the derivative by x of the activation called `name`, at every element of x."""
    with np.errstate(all="ignore"):
        return _ACTIVATIONS[name][1](float64(x), **settings)


def prelu_slope_derivative(x: ArrayLike) -> Array:
    """Return the derivative of PReLU by its slope, at every element of x."""
    x = float64(x)
    return np.where(x > 0, 0.0, x)


def sigmoid(x: ArrayLike) -> Array:
    """Return 1 / (1 + e^-x), from the exponential that cannot overflow."""
    x = float64(x)
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1 + small)


def _sigmoid_derivative(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return small / (1 + small) ** 2


def _rectified(x: Array, negative_side: Array) -> Array:
    return np.where(x > 0, x, negative_side)


def _rectified_derivative(x: Array, negative_side: ArrayLike) -> Array:
    return np.where(np.isnan(x), x, np.where(x > 0, 1.0, negative_side))


def _relu(x: Array) -> Array:
    return np.where(x < 0, 0.0, x)


def _leaky_relu(x: Array, negative_slope: ArrayLike = 0.01) -> Array:
    return _rectified(x, float64(negative_slope) * x)


def _leaky_relu_derivative(x: Array, negative_slope: ArrayLike = 0.01) -> Array:
    return _rectified_derivative(x, negative_slope)


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return _rectified(x, alpha * np.expm1(x))


def _elu_derivative(x: Array, alpha: float = 1.0) -> Array:
    return _rectified_derivative(x, alpha * np.exp(x))


def _tanh_derivative(x: Array) -> Array:
    return 4 * _sigmoid_derivative(2 * x)  # 1 - tanh(x)**2 would cancel far out


def _normal_distribution(x: Array) -> Array:
    erfc = np.vectorize(math.erfc, otypes=[np.float64])
    return erfc(-x / math.sqrt(2)) / 2


def _gelu_derivative(x: Array) -> Array:
    x = _inside_saturation(x)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return _normal_distribution(x) + x * density


def _gelu_tanh_argument(x: Array) -> Array:
    # (1 + tanh(u)) / 2 is sigmoid(2u), which keeps its digits where tanh is close to -1.
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def _gelu_tanh_derivative(x: Array) -> Array:
    x = _inside_saturation(x)
    argument = _gelu_tanh_argument(x)
    argument_derivative = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return sigmoid(argument) + x * _sigmoid_derivative(argument) * argument_derivative


def _silu_derivative(x: Array) -> Array:
    x = _inside_saturation(x)
    return sigmoid(x) + x * _sigmoid_derivative(x)


def _softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    return np.where(beta * x > threshold, x, np.logaddexp(0.0, beta * x) / beta)


def _softplus_derivative(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    return np.where(beta * x > threshold, 1.0, sigmoid(beta * x))


def _gated(x: Array, gate: Array) -> Array:
    """Return x times gate, with the limit 0 where the gate has closed on an infinite x."""
    return np.where(gate == 0, 0.0, x * gate)


def _inside_saturation(x: Array) -> Array:
    """Return x held to where the derivative of a gated unit still changes in float64."""
    return np.clip(x, -800.0, 800.0)


_ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "identity": (lambda x: x, lambda x: np.where(np.isnan(x), x, 1.0)),
    "sigmoid": (sigmoid, _sigmoid_derivative),
    "tanh": (np.tanh, _tanh_derivative),
    "relu": (_relu, lambda x: _rectified_derivative(x, 0.0)),
    "leaky_relu": (_leaky_relu, _leaky_relu_derivative),
    "prelu": (
        lambda x, slope=0.25: _leaky_relu(x, slope),
        lambda x, slope=0.25: _leaky_relu_derivative(x, slope),
    ),
    "elu": (_elu, _elu_derivative),
    "selu": (
        lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
        lambda x: SELU_SCALE * _elu_derivative(x, SELU_ALPHA),
    ),
    "gelu": (lambda x: _gated(x, _normal_distribution(x)), _gelu_derivative),
    "gelu_tanh": (lambda x: _gated(x, sigmoid(_gelu_tanh_argument(x))), _gelu_tanh_derivative),
    "silu": (lambda x: _gated(x, sigmoid(x)), _silu_derivative),
    "softplus": (_softplus, _softplus_derivative),
}
ACTIVATION_NAMES = tuple(_ACTIVATIONS)


def softmax(logits: ArrayLike) -> Array:
    """Return the softmax of every row of logits (B, O)."""
    logits = float64(logits)
    numerator = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return numerator / numerator.sum(axis=-1, keepdims=True)


def softmax_backward(output: ArrayLike, grad_output: ArrayLike) -> Array:
    """Return the gradient by the logits from softmax's output and the gradient by it."""
    output, grad_output = float64(output), float64(grad_output)
    return output * (grad_output - (output * grad_output).sum(axis=-1, keepdims=True))


# Losses: (loss, gradient by the outputs) ----------------------------------------------------
# Weighted means divide by the sum of the weights; elementwise losses by the outputs of a row too.


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """Return softmax cross-entropy for integer labels (B,) or probabilities (B, O)."""
    logits = float64(logits)
    rows, classes = logits.shape
    targets = np.asarray(targets)
    probabilities = np.eye(classes)[targets] if targets.ndim == 1 else float64(targets)
    probabilities = (1 - label_smoothing) * probabilities + label_smoothing / classes
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    row_losses = -(probabilities * log_softmax).sum(axis=1)
    row_grads = np.exp(log_softmax) * probabilities.sum(axis=1, keepdims=True) - probabilities
    share = _row_shares(rows, sample_weight)
    return float(share @ row_losses), share[:, None] * row_grads


def binary_cross_entropy(
    logits: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return binary cross-entropy on logits, of targets from 0 to 1."""
    z, t = float64(logits), float64(targets)
    losses = t * np.logaddexp(0.0, -z) + (1 - t) * np.logaddexp(0.0, z)
    return _elementwise_mean(losses, (1 - t) * sigmoid(z) - t * sigmoid(-z), sample_weight)


def mean_squared_error(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return the mean of (output - target)^2."""
    error = float64(outputs) - float64(targets)
    return _elementwise_mean(error**2, 2 * error, sample_weight)


def mean_absolute_error(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return the mean of |output - target|, with slope 0 at 0."""
    error = float64(outputs) - float64(targets)
    return _elementwise_mean(np.abs(error), np.sign(error), sample_weight)


def huber(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    delta: float = 1.0,
) -> tuple[float, Array]:
    """Return Huber's loss (Huber 1964): half the square up to delta, then its tangent."""
    error = float64(outputs) - float64(targets)
    size = np.abs(error)
    losses = np.where(size < delta, error**2 / 2, delta * (size - delta / 2))
    return _elementwise_mean(losses, np.clip(error, -delta, delta), sample_weight)


def poisson(
    outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
) -> tuple[float, Array]:
    """Return -log of the Poisson probability of counts with means e^output, less log(target!)."""
    z, t = float64(outputs), float64(targets)
    with np.errstate(over="ignore"):
        mean = np.exp(z)
    return _elementwise_mean(mean - t * z, mean - t, sample_weight)


def _elementwise_mean(
    losses: Array, grads: Array, sample_weight: ArrayLike | None
) -> tuple[float, Array]:
    rows = len(losses)
    outputs = losses.size // rows
    share = _row_shares(rows, sample_weight) / outputs
    loss = float(share @ losses.reshape(rows, outputs).sum(axis=1))
    return loss, (share[:, None] * grads.reshape(rows, outputs)).reshape(grads.shape)


def _row_shares(rows: int, sample_weight: ArrayLike | None) -> Array:
    weight = np.ones(rows) if sample_weight is None else float64(sample_weight)
    return weight / weight.sum()


# Normalisation and dropout ------------------------------------------------------------------


def batch_norm_train(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Return output, mean and biased variance of x (B, O) (Ioffe & Szegedy 2015, algorithm 1)."""
    x = float64(x)
    mean = x.mean(axis=0)
    variance = ((x - mean) ** 2).mean(axis=0)
    return batch_norm_predict(x, gamma, beta, mean, variance, eps), mean, variance


def batch_norm_predict(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    eps: float = 1e-5,
) -> Array:
    """Return x (B, O) normalised by the given statistics, scaled by gamma, shifted by beta."""
    normalised = (float64(x) - float64(mean)) / np.sqrt(float64(variance) + eps)
    return float64(gamma) * normalised + float64(beta)


def batch_norm_backward(
    x: ArrayLike, gamma: ArrayLike, grad_output: ArrayLike, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Return grad_x, grad_gamma, grad_beta of `batch_norm_train` (section 3 of the paper)."""
    x, grad_output = float64(x), float64(grad_output)
    rows = len(x)
    centred = x - x.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    grad_normalised = grad_output * float64(gamma)
    grad_variance = (grad_normalised * centred).sum(axis=0) * -0.5 * (variance + eps) ** -1.5
    grad_mean = -grad_normalised.sum(axis=0) / np.sqrt(variance + eps)
    grad_x = (
        grad_normalised / np.sqrt(variance + eps)
        + grad_variance * 2 * centred / rows
        + grad_mean / rows
    )
    normalised = centred / np.sqrt(variance + eps)
    return grad_x, (grad_output * normalised).sum(axis=0), grad_output.sum(axis=0)


def batch_norm_running(
    running_mean: ArrayLike, running_variance: ArrayLike, x: ArrayLike, momentum: float = 0.1
) -> tuple[Array, Array]:
    """Return the running mean and variance after batch x (B, O); the variance is unbiased."""
    x = float64(x)
    mean = (1 - momentum) * float64(running_mean) + momentum * x.mean(axis=0)
    variance = (1 - momentum) * float64(running_variance) + momentum * x.var(axis=0, ddof=1)
    return mean, variance


def dropout(x: ArrayLike, keep: ArrayLike, probability: float) -> Array:
    """Return x where `keep` holds, divided by 1 - probability, else 0 (inverted dropout).

    The gradient is the same function of the gradient by the output.
    """
    return np.where(np.asarray(keep, dtype=bool), float64(x) / (1 - probability), 0.0)


def standardize(x: ArrayLike, training_x: ArrayLike) -> Array:
    """Return x (B, I) less the training mean, over the training deviation (1 if constant)."""
    training_x = float64(training_x)
    constant = training_x.max(axis=0) == training_x.min(axis=0)
    return (float64(x) - training_x.mean(axis=0)) / np.where(constant, 1, training_x.std(axis=0))


# Random numbers -----------------------------------------------------------------------------


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the four 32-bit words of Philox4x32-10 (Salmon et al. 2011, section 3.3)."""
    c0, c1, c2, c3 = counter
    key0, key1 = key
    for _ in range(10):
        product0 = 0xD2511F53 * c0
        product1 = 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ key0,
            product1 % 2**32,
            (product0 >> 32) ^ c3 ^ key1,
            product0 % 2**32,
        )
        key0 = (key0 + 0x9E3779B9) % 2**32
        key1 = (key1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def dropout_mask(
    seed: int, epoch: int, step: int, layer: int, rows: int, columns: int, probability: float
) -> NDArray[np.bool_]:
    """Return which elements (rows, columns) dropout keeps, each with 1 - probability.

    Four columns 16 apart share a counter, so that 16 lanes side by side use all four words.
    """
    threshold = math.floor(probability * 2**32)
    keep = np.empty((rows, columns), dtype=bool)
    for row, column in np.ndindex(rows, columns):
        counter = (row, column // 64 * 16 + column % 16, step, epoch * 256 + layer)
        word = philox4x32(counter, _key(seed))[column // 16 % 4]
        keep[row, column] = word >= threshold
    return keep


def shuffle(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the order of n rows in an epoch: Fisher and Yates, from the last row down."""
    order = np.arange(n)
    for k, last in enumerate(range(n - 1, 0, -1)):
        other = _stream_word(seed, epoch, 0xFFFFFFFF, k) * (last + 1) >> 32
        order[[last, other]] = order[[other, last]]
    return order


def draw(seed: int, epoch: int, n: int, count: int) -> NDArray[np.int64]:
    """Return `count` row numbers below n, drawn with replacement."""
    words = (_stream_word(seed, epoch, 0xFFFFFFFE, k) for k in range(count))
    return np.array([word * n >> 32 for word in words], dtype=np.int64)


def _stream_word(seed: int, epoch: int, stream: int, k: int) -> int:
    return philox4x32((k // 4, 0, epoch, stream), _key(seed))[k % 4]


def _key(seed: int) -> tuple[int, int]:
    return seed & 0xFFFFFFFF, seed >> 32


# Optimizers, in PyTorch's conventions -------------------------------------------------------
# One object per parameter array. `step` returns the new weights; state is plain attributes that
# a test may set. `updates` counts the steps done.


class SGD:
    """w - lr g, with coupled L2 decay."""

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.updates = 0

    def step(self, weight: ArrayLike, grad: ArrayLike) -> Array:
        """Return the weights after one update."""
        self.updates += 1
        weight = float64(weight)
        return self._update(weight, float64(grad) + self.weight_decay * weight)

    def _update(self, weight: Array, grad: Array) -> Array:
        return weight - self.learning_rate * grad


class Momentum(SGD):
    """Heavy ball (Polyak 1964): velocity without lr; the first gradient enters undampened."""

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = momentum
        self.dampening = dampening
        self.velocity: Array | None = None

    def _update(self, weight: Array, grad: Array) -> Array:
        return weight - self.learning_rate * self._advance(grad)

    def _advance(self, grad: Array) -> Array:
        if self.velocity is None:
            self.velocity = grad
        else:
            self.velocity = self.momentum * self.velocity + (1 - self.dampening) * grad
        return self.velocity


class Nesterov(Momentum):
    """Nesterov's momentum as in Sutskever et al. 2013, on the shifted weights."""

    def __init__(
        self, learning_rate: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, momentum, 0.0, weight_decay)

    def _update(self, weight: Array, grad: Array) -> Array:
        return weight - self.learning_rate * (grad + self.momentum * self._advance(grad))


class Adagrad(SGD):
    """Duchi et al. 2011: every weight's rate falls with the root of its summed squares."""

    def __init__(
        self,
        learning_rate: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.lr_decay = lr_decay
        self.eps = eps
        self.sum: Array | float = initial_accumulator_value

    def _update(self, weight: Array, grad: Array) -> Array:
        self.sum = self.sum + grad**2
        rate = self.learning_rate / (1 + (self.updates - 1) * self.lr_decay)
        return weight - rate * grad / (np.sqrt(self.sum) + self.eps)


class RMSprop(SGD):
    """Tieleman & Hinton 2012, lecture 6e; centred as in Graves 2013, equations 38 to 41."""

    def __init__(
        self,
        learning_rate: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.alpha = alpha
        self.eps = eps
        self.momentum = momentum
        self.centered = centered
        self.square_average: Array | float = 0.0
        self.grad_average: Array | float = 0.0
        self.velocity: Array | float = 0.0

    def _update(self, weight: Array, grad: Array) -> Array:
        self.square_average = self.alpha * self.square_average + (1 - self.alpha) * grad**2
        variance = self.square_average
        if self.centered:
            self.grad_average = self.alpha * self.grad_average + (1 - self.alpha) * grad
            variance = variance - self.grad_average**2
        self.velocity = self.momentum * self.velocity + grad / (np.sqrt(variance) + self.eps)
        return weight - self.learning_rate * self.velocity


class Adam(SGD):
    """Kingma & Ba 2015, algorithm 1; eps is added to the corrected root."""

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.betas = betas
        self.eps = eps
        self.first_moment: Array | float = 0.0
        self.second_moment: Array | float = 0.0

    def _update(self, weight: Array, grad: Array) -> Array:
        beta1, beta2 = self.betas
        self.first_moment = beta1 * self.first_moment + (1 - beta1) * grad
        self.second_moment = beta2 * self.second_moment + (1 - beta2) * grad**2
        first = self.first_moment / (1 - beta1**self.updates)
        second = self.second_moment / (1 - beta2**self.updates)
        return weight - self.learning_rate * first / (np.sqrt(second) + self.eps)


class AdamW(Adam):
    """Loshchilov & Hutter 2019, algorithm 2: the weights shrink by lr times decay, beside Adam."""

    def __init__(
        self,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(learning_rate, betas, eps, weight_decay)

    def step(self, weight: ArrayLike, grad: ArrayLike) -> Array:
        """Return the weights after one update."""
        self.updates += 1
        shrunk = (1 - self.learning_rate * self.weight_decay) * float64(weight)
        return self._update(shrunk, float64(grad))


def clip_by_norm(grads: Sequence[ArrayLike], max_norm: float) -> list[Array]:
    """Return the gradients scaled together so that their joint norm is at most max_norm.

    The 1e-6 that keeps the quotient finite is PyTorch's.
    """
    arrays = [float64(grad) for grad in grads]
    norm = math.sqrt(sum(float((array**2).sum()) for array in arrays))
    scale = max_norm / (norm + 1e-6)
    return [array if scale >= 1 else array * scale for array in arrays]


def clip_by_value(grad: ArrayLike, limit: float) -> Array:
    """Return the gradient with every element held to [-limit, limit]."""
    return np.clip(float64(grad), -limit, limit)


# Schedules: the learning rate at step t = 0, 1, 2, ... (updates or epochs) ------------------


def constant_rate(rate: float, t: int) -> float:
    """Return the rate itself."""
    return rate


def step_rate(rate: float, t: int, step_size: int, gamma: float = 0.1) -> float:
    """Return the rate times gamma for every full step_size."""
    return rate * gamma ** (t // step_size)


def exponential_rate(rate: float, t: int, gamma: float) -> float:
    """Return the rate times gamma^t."""
    return rate * gamma**t


def inverse_time_rate(rate: float, t: int, decay: float) -> float:
    """Return rate / (1 + decay t) (Robbins & Monro 1951)."""
    return rate / (1 + decay * t)


def cosine_rate(rate: float, t: int, total: int, minimum: float = 0.0) -> float:
    """Return half a cosine from rate to minimum, then minimum (Loshchilov & Hutter 2017, eq 5)."""
    return minimum + (rate - minimum) * (1 + math.cos(math.pi * min(t, total) / total)) / 2


def warm_up_rate(rate: float, t: int, total: int, after: Callable[[float, int], float]) -> float:
    """Return rate (t + 1) / total for t below total, then what `after` gives from its own 0."""
    return rate * (t + 1) / total if t < total else after(rate, t - total)


# Initialisers -------------------------------------------------------------------------------


def initialiser_deviation(name: str, fan_in: int, fan_out: int) -> float:
    """Return the standard deviation of "glorot", "he" or "lecun" initial weights.

    Glorot & Bengio 2010, equation 12; He et al. 2015, equation 10; LeCun et al. 1998, section 4.6.
    """
    variance = {"glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in, "lecun": 1 / fan_in}
    return math.sqrt(variance[name])


def initialiser_limit(name: str, fan_in: int, fan_out: int) -> float:
    """Return the end of the uniform distribution around 0 that has that deviation."""
    return math.sqrt(3) * initialiser_deviation(name, fan_in, fan_out)


# Whole trainings ----------------------------------------------------------------------------


def train_dense(
    weights: Sequence[ArrayLike],
    biases: Sequence[ArrayLike],
    activation_name: str,
    loss: Callable[..., tuple[float, Array]],
    optimizer: Callable[[], SGD],
    batches: Iterable[tuple[ArrayLike, ...]],
) -> tuple[list[Array], list[Array], list[float]]:
    """Train a plain dense network; return its weights, its biases and the loss before each update.

    The hidden layers share one activation, the last layer has none. `loss` is one of the losses
    above; a batch is x and then what the loss takes after the outputs. `optimizer` makes a new
    optimizer, one for each array; biases do not decay.
    """
    weight_arrays = [float64(weight) for weight in weights]
    bias_arrays = [float64(bias) for bias in biases]
    weight_optimizers = [optimizer() for _ in weights]
    bias_optimizers = [optimizer() for _ in biases]
    for bias_optimizer in bias_optimizers:
        bias_optimizer.weight_decay = 0.0
    losses = []
    for x, *loss_arguments in batches:
        inputs, sums = dense_forward(weight_arrays, bias_arrays, activation_name, x)
        batch_loss, grad_sum = loss(sums[-1], *loss_arguments)
        losses.append(batch_loss)
        for layer in reversed(range(len(weight_arrays))):
            weight, bias = weight_arrays[layer], bias_arrays[layer]
            grad_input, grad_weight, grad_bias = linear_backward(inputs[layer], weight, grad_sum)
            weight_arrays[layer] = weight_optimizers[layer].step(weight, grad_weight)
            bias_arrays[layer] = bias_optimizers[layer].step(bias, grad_bias)
            if layer > 0:
                slope = activation_derivative(activation_name, sums[layer - 1])
                grad_sum = grad_input * slope
    return weight_arrays, bias_arrays, losses


def dense_forward(
    weights: Sequence[ArrayLike], biases: Sequence[ArrayLike], activation_name: str, x: ArrayLike
) -> tuple[list[Array], list[Array]]:
    """Return every layer's input and every layer's sum x W + b; the last sum is the output."""
    inputs, sums = [float64(x)], []
    for weight, bias in zip(weights, biases, strict=True):
        sums.append(linear(inputs[-1], weight, bias))
        inputs.append(activation(activation_name, sums[-1]))
    return inputs[:-1], sums
