"""The kernels one by one, for other people's code: arrays in, arrays out.

Every function takes anything that NumPy sees as an array of real numbers, and computes in float64
where an argument is float64, else in float32, on the backend in use. Arrays on a GPU, CuPy's or any
that has ``__dlpack__`` or ``__cuda_array_interface__`` (tensors of PyTorch or JAX), are read there,
without a copy, and give CuPy arrays; then all arguments lie there. Shapes: B batch rows, I inputs,
O outputs. An ``out`` is written in place and returned; it may be the input itself. What has several
results takes a tuple of arrays as ``out``, in their order, with None for what is to be made.

>>> import numpy as np
>>> from fastnn import functional
>>> functional.linear(np.ones((1, 2)), np.ones((2, 3)), activation="relu")
array([[2., 2., 2.]])
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike

from . import checks, losses, operands
from .backend import for_array
from .kernels.contract import IDENTITY, Activation, Dropout
from .kernels.formulas import ACTIVATIONS
from .updates import adagrad_update as adagrad_update
from .updates import adam_update as adam_update
from .updates import adamw_update as adamw_update
from .updates import momentum_update as momentum_update
from .updates import nesterov_update as nesterov_update
from .updates import rmsprop_update as rmsprop_update
from .updates import sgd_update as sgd_update

Outs = tuple[np.ndarray | None, ...] | None
"""Where to write several results."""

# ---- products ----


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    out: np.ndarray | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> np.ndarray:
    """The product of two matrices, either transposed first.

    Parameters
    ----------
    a : array_like, shape (M, K)
        (K, M) where ``transpose_a``.
    b : array_like, shape (K, N)
        (N, K) where ``transpose_b``.
    out : ndarray, shape (M, N), optional
        Where to write; by default a new array.
    transpose_a, transpose_b : bool, default False

    Returns
    -------
    ndarray, shape (M, N)

    Raises
    ------
    ValueError
        The shapes do not fit one another.
    TypeError
        An argument does not hold real numbers, ``out`` has another dtype, or whether to transpose
        is neither True nor False.

    >>> matmul([[1.0, 2.0]], [[3.0], [4.0]])
    array([[11.]])
    """
    a, transpose_a = operands.as_it_lies(a, checks.boolean("transpose_a", transpose_a))
    b, transpose_b = operands.as_it_lies(b, checks.boolean("transpose_b", transpose_b))
    a, b = operands.together(a=a, b=b)
    operands.check_shape("a", a, (None, None))
    rows, inner = a.shape[::-1] if transpose_a else a.shape
    operands.check_shape("b", b, (None, inner) if transpose_b else (inner, None))
    columns = b.shape[0 if transpose_b else 1]
    result = operands.place(out, (rows, columns), a)
    a, b = operands.apart([out], a, b)
    for_array(result).matmul(a, b, result, transpose_a, transpose_b)
    return result


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    out: np.ndarray | None = None,
    **settings: float,
) -> np.ndarray:
    """f(x weight + bias), in one pass.

    Parameters
    ----------
    x : array_like, shape (B, I)
    weight : array_like, shape (I, O)
    bias : array_like, shape (O,), optional
    activation : str, optional
        The name of f, such as "relu"; none by default.
    out : ndarray, shape (B, O), optional
        Where to write; by default a new array.
    **settings : float
        Settings of the activation, such as ``negative_slope``.

    Returns
    -------
    ndarray, shape (B, O)

    Raises
    ------
    ValueError
        The shapes do not fit one another, or a name is unknown.
    TypeError
        An argument does not hold real numbers, or ``out`` has another dtype.

    >>> linear([[1.0, 2.0]], [[1.0], [-1.0]], [0.5], activation="relu")
    array([[0.]])
    """
    use = IDENTITY if activation is None else _activation(activation, **settings)
    added = {} if bias is None else {"bias": bias}
    x, weight, *biases = operands.together(x=x, weight=weight, **added)
    operands.check_shape("x", x, (None, None))
    operands.check_shape("weight", weight, (x.shape[1], None))
    for values in biases:
        operands.check_shape("bias", values, (weight.shape[1],))
    result = operands.place(out, (x.shape[0], weight.shape[1]), x)
    x, weight, *biases = operands.apart([out], x, weight, *biases)
    for_array(result).linear(x, weight, biases[0] if biases else None, result, None, use)
    return result


def linear_backward(
    x: ArrayLike, weight: ArrayLike, grad: ArrayLike, out: Outs = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of :func:`linear` without an activation.

    Parameters
    ----------
    x : array_like, shape (B, I)
    weight : array_like, shape (I, O)
    grad : array_like, shape (B, O)
        The gradient by the outputs.
    out : tuple of ndarray, optional
        Where to write the results.

    Returns
    -------
    grad_x : ndarray, shape (B, I)
    grad_weight : ndarray, shape (I, O)
    grad_bias : ndarray, shape (O,)

    >>> linear_backward([[1.0, 2.0]], [[3.0], [4.0]], [[10.0]])[0]
    array([[30., 40.]])
    """
    x, weight, grad = operands.together(x=x, weight=weight, grad=grad)
    operands.check_shape("x", x, (None, None))
    operands.check_shape("weight", weight, (x.shape[1], None))
    operands.check_shape("grad", grad, (x.shape[0], weight.shape[1]))
    shapes = x.shape, weight.shape, weight.shape[1:]
    grad_x, grad_weight, grad_bias = operands.places(out, shapes, x)
    x, weight, grad = operands.apart(out or (), x, weight, grad)
    backend = for_array(x)
    backend.linear_grad_input(grad, weight, None, grad_x)
    backend.linear_grad_weight(x, grad, grad_weight, grad_bias)
    return grad_x, grad_weight, grad_bias


# ---- activations ----


def relu(x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """The positive part of each element.

    Parameters
    ----------
    x : array_like
    out : ndarray of x's shape, optional
        Where to write; may be ``x`` itself.

    Returns
    -------
    ndarray of x's shape

    >>> relu([-1.0, 2.0])
    array([0., 2.])
    """
    return _map(_activation("relu"), x, out)


def leaky_relu(
    x: ArrayLike, negative_slope: float = 0.01, out: np.ndarray | None = None
) -> np.ndarray:
    """x where positive, elsewhere ``negative_slope`` x (Maas et al. 2013); see :func:`relu`.

    >>> leaky_relu([-1.0, 2.0], 0.5)
    array([-0.5,  2. ])
    """
    return _map(_activation("leaky_relu", negative_slope=negative_slope), x, out)


def elu(x: ArrayLike, alpha: float = 1.0, out: np.ndarray | None = None) -> np.ndarray:
    """x where positive, elsewhere ``alpha`` (exp(x) - 1).

    Source: Clevert et al. 2016, eq. 15. ``x`` and ``out`` are those of :func:`relu`.

    >>> elu([0.0, 2.0])
    array([0., 2.])
    """
    return _map(_activation("elu", alpha=alpha), x, out)


def selu(x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """A scaled ELU that keeps mean 0 and variance 1 (Klambauer et al. 2017, eq. 2).

    Parameters and result are those of :func:`relu`.

    >>> selu([0.0, 1.0]).round(4)
    array([0.    , 1.0507])
    """
    return _map(_activation("selu"), x, out)


def gelu(x: ArrayLike, approximate: str = "none", out: np.ndarray | None = None) -> np.ndarray:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016, eq. 1).

    Parameters
    ----------
    x : array_like
    approximate : {"none", "tanh"}, default "none"
        The error function, or the paper's formula with tanh.
    out : ndarray of x's shape, optional

    Returns
    -------
    ndarray of x's shape

    Raises
    ------
    ValueError
        For another approximation.

    >>> gelu([0.0, 1.0]).round(4)
    array([0.    , 0.8413])
    """
    name = checks.lookup("approximation", approximate, {"none": "gelu", "tanh": "gelu_tanh"})
    return _map(_activation(name), x, out)


def silu(x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """x sigmoid(x) (Elfwing et al. 2018, eq. 9); see :func:`relu`.

    >>> silu([0.0, 1.0]).round(4)
    array([0.    , 0.7311])
    """
    return _map(_activation("silu"), x, out)


def sigmoid(x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow; see :func:`relu`.

    >>> sigmoid([-1000.0, 0.0])
    array([0. , 0.5])
    """
    return _map(_activation("sigmoid"), x, out)


def tanh(x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """The hyperbolic tangent of each element; see :func:`relu`.

    >>> tanh([0.0, 1000.0])
    array([0., 1.])
    """
    return _map(_activation("tanh"), x, out)


def softplus(
    x: ArrayLike, beta: float = 1.0, threshold: float = 20.0, out: np.ndarray | None = None
) -> np.ndarray:
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold; see :func:`relu`.

    >>> softplus([0.0, 1000.0]).round(4)
    array([6.931e-01, 1.000e+03])
    """
    return _map(_activation("softplus", beta=beta, threshold=threshold), x, out)


def prelu(x: ArrayLike, slope: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """x where positive, elsewhere a learned slope times x (He et al. 2015, eq. 1).

    Parameters
    ----------
    x : array_like, shape (B, O)
    slope : array_like, shape (1,) or (O,)
        One for all columns, or one a column.
    out : ndarray, shape (B, O), optional

    Returns
    -------
    ndarray, shape (B, O)

    >>> prelu([[-1.0, 2.0]], [0.5])
    array([[-0.5,  2. ]])
    """
    x, slope = _with_slope(x, slope=slope)
    result = operands.place(out, x.shape, x)
    (slope,) = operands.apart([out], slope)
    (x,) = operands.apart([out], x, elementwise=True)
    for_array(x).map(x, result, None, _PRELU, [slope])
    return result


def prelu_backward(
    x: ArrayLike, slope: ArrayLike, grad: ArrayLike, out: Outs = None
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of :func:`prelu`.

    Parameters
    ----------
    x, slope : array_like
        As there.
    grad : array_like, shape (B, O)
        The gradient by the outputs.
    out : tuple of ndarray, optional
        Where to write the results; the first may be ``grad``.

    Returns
    -------
    grad_x : ndarray, shape (B, O)
    grad_slope : ndarray, shape (1,) or (O,)

    >>> prelu_backward([[-1.0, 2.0]], [0.5], [[3.0, 3.0]])
    (array([[1.5, 3. ]]), array([-3.]))
    """
    x, slope, grad = _with_slope(x, slope=slope, grad=grad)
    operands.check_shape("grad", grad, x.shape)
    grad_x, grad_slope = operands.places(out, (x.shape, slope.shape), x)
    x, slope = operands.apart(out or (), x, slope)
    (grad,) = operands.apart(out or (), grad, elementwise=True)
    backend = for_array(x)
    y, by_x, by_slope = (operands.empty(x.shape, x) for _ in range(3))
    backend.map(x, y, by_x, _PRELU, [slope], [by_slope])
    sums = operands.empty(x.shape[1:], x)
    backend.column_sums(grad, by_slope, sums)
    grad_slope[...] = sums.sum() if slope.size == 1 else sums
    return _multiplied(grad, by_x, grad_x), grad_slope


def activation_backward(
    name: str, x: ArrayLike, grad: ArrayLike, out: np.ndarray | None = None, **settings: float
) -> np.ndarray:
    """The gradient by the input of an activation.

    Parameters
    ----------
    name : str
        "relu", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh",
        "softplus" or "identity".
    x : array_like
        The input.
    grad : array_like of x's shape
        The gradient by the output.
    out : ndarray of x's shape, optional
        Where to write; may be ``grad`` itself.
    **settings : float
        As in the activation.

    Returns
    -------
    ndarray of x's shape

    Raises
    ------
    ValueError
        An unknown name, or another shape.

    >>> activation_backward("relu", [-1.0, 2.0], [5.0, 5.0])
    array([0., 5.])
    """
    use = _activation(name, **settings)
    x, grad = operands.together(x=x, grad=grad)
    operands.check_shape("grad", grad, x.shape)
    result = operands.place(out, x.shape, x)
    x, grad = operands.apart([out], x, grad, elementwise=True)
    is_in_place = out is not None and operands.same_place(grad, out)
    slope = operands.empty(x.shape, x) if is_in_place else result
    backend = for_array(x)
    backend.map(x, operands.empty(x.shape, x), slope, use)
    backend.multiply(result, slope if is_in_place else grad)
    return result


def softmax(x: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """Softmax of each row: positive numbers with the sum 1.

    Parameters
    ----------
    x : array_like, shape (B, O)
    out : ndarray, shape (B, O), optional

    Returns
    -------
    ndarray, shape (B, O)

    >>> softmax([[0.0, 0.0]])
    array([[0.5, 0.5]])
    """
    (x,) = operands.together(x=x)
    operands.check_shape("x", x, (None, None))
    result = operands.place(out, x.shape, x)
    (x,) = operands.apart([out], x, elementwise=True)
    for_array(x).softmax(x, result)
    return result


def softmax_backward(y: ArrayLike, grad: ArrayLike, out: np.ndarray | None = None) -> np.ndarray:
    """The gradient by the input of a softmax.

    Parameters
    ----------
    y : array_like, shape (B, O)
        What softmax gave.
    grad : array_like, shape (B, O)
        The gradient by it.
    out : ndarray, shape (B, O), optional
        Where to write; may be ``grad`` itself.

    Returns
    -------
    ndarray, shape (B, O)

    >>> softmax_backward([[0.5, 0.5]], [[1.0, 0.0]])
    array([[ 0.25, -0.25]])
    """
    y, grad = operands.together(y=y, grad=grad)
    operands.check_shape("y", y, (None, None))
    operands.check_shape("grad", grad, y.shape)
    result = operands.place(out, y.shape, y)
    (y,) = operands.apart([out], y)
    for_array(y).softmax_grad(y, _copied(grad, result))
    return result


# ---- losses ----


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Softmax cross-entropy, the mean over rows, and its gradient by the logits.

    Parameters
    ----------
    logits : array_like, shape (B, O)
    targets : array_like, shape (B,) or (B, O)
        Class numbers, or one-hot or soft labels.
    sample_weight : array_like, shape (B,), optional
    label_smoothing : float, default 0
        Share of the uniform distribution mixed into the targets (Szegedy et al. 2016).
    out : ndarray, shape (B, O), optional
        Where to write the gradient; may be the logits.

    Returns
    -------
    loss : float
    grad : ndarray, shape (B, O)

    >>> loss, grad = cross_entropy([[0.0, 0.0]], [1])
    >>> round(loss, 4), grad
    (0.6931, array([[ 0.5, -0.5]]))
    """
    return _cross_entropy(label_smoothing)(logits, targets, sample_weight, out)


def binary_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Binary cross-entropy of sigmoid(logits), the mean of all elements, and its gradient.

    Parameters
    ----------
    logits : array_like, shape (B, O)
    targets : array_like, shape (B, O), or (B,) for one output
        In [0, 1].
    sample_weight : array_like, shape (B,), optional
    out : ndarray, shape (B, O), optional
        Where to write the gradient; may be the logits.

    Returns
    -------
    loss : float
    grad : ndarray, shape (B, O)

    >>> loss, grad = binary_cross_entropy([[0.0]], [1])
    >>> round(loss, 4), grad
    (0.6931, array([[-0.5]]))
    """
    return losses.BCEWithLogitsLoss()(logits, targets, sample_weight, out)


def mse(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """The mean squared error of all elements, and its gradient by the outputs.

    Parameters
    ----------
    outputs : array_like, shape (B, O)
    targets : array_like, shape (B, O), or (B,) for one output
    sample_weight : array_like, shape (B,), optional
    out : ndarray, shape (B, O), optional
        Where to write the gradient; may be the outputs.

    Returns
    -------
    loss : float
    grad : ndarray, shape (B, O)

    >>> mse([[3.0]], [1.0])
    (4.0, array([[4.]]))
    """
    return losses.MSELoss()(outputs, targets, sample_weight, out)


def mae(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """The mean absolute error of all elements, and its gradient by the outputs; see :func:`mse`.

    >>> mae([[3.0]], [1.0])
    (2.0, array([[1.]]))
    """
    return losses.L1Loss()(outputs, targets, sample_weight, out)


def huber(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    delta: float = 1.0,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Half the squared error up to ``delta``, linear beyond (Huber 1964); see :func:`mse`.

    >>> huber([[3.0]], [1.0])
    (1.5, array([[1.]]))
    """
    return losses.HuberLoss(delta)(outputs, targets, sample_weight, out)


def poisson(
    outputs: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None = None,
    out: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """exp(output) - target output, for counts whose logarithm is predicted; see :func:`mse`.

    >>> poisson([[0.0]], [3.0])
    (1.0, array([[-2.]]))
    """
    return losses.PoissonNLLLoss()(outputs, targets, sample_weight, out)


# ---- dropout and normalisation ----


def dropout(
    x: ArrayLike,
    p: float = 0.5,
    seed: int = 0,
    epoch: int = 0,
    step: int = 0,
    layer: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Each element 0 with probability ``p``, else divided by 1 - p (inverted dropout).

    The mask is a function of the numbers given and the element's place: the same numbers give the
    same mask, on every backend, and its gradient is ``dropout(grad, p, ...)``.

    Parameters
    ----------
    x : array_like, shape (B, I)
    p : float, default 0.5
        0 <= p < 1.
    seed, epoch, step, layer : int, default 0
        What the mask depends on: ``seed`` below 2**64, ``epoch`` 2**24, ``step`` 2**32, ``layer``
        256.
    out : ndarray, shape (B, I), optional

    Returns
    -------
    ndarray, shape (B, I)

    >>> sorted(set(dropout(np.ones((8, 8))).ravel().tolist()))
    [0.0, 2.0]
    """
    given = {"layer": layer, "seed": seed, "epoch": epoch, "step": step}
    place = {name: checks.integer(name, value, at_least=0) for name, value in given.items()}
    for name, value in place.items():
        if value >= _DROPOUT_PLACES[name]:
            raise ValueError(f"{name} must be below {_DROPOUT_PLACES[name]}, got {value}")
    use = Dropout(checks.fraction("p", p), **place)
    (x,) = operands.together(x=x)
    operands.check_shape("x", x, (None, None))
    return _map(IDENTITY, x, out, use)


def batch_norm(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: float = 1e-5, out: Outs = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Normalise each column by its mean and variance over the batch (Ioffe & Szegedy 2015).

    Parameters
    ----------
    x : array_like, shape (B, O)
    gamma, beta : array_like, shape (O,)
        Scale and shift.
    eps : float, default 1e-5
        Added to the variance.
    out : tuple of ndarray, optional
        Where to write the results.

    Returns
    -------
    y, x_hat : ndarray, shape (B, O)
        The outputs, and the columns with mean 0 and variance 1.
    mean, variance : ndarray, shape (O,)
        The variance is the biased one.

    >>> y, x_hat, mean, variance = batch_norm([[1.0], [3.0]], [1.0], [0.0], eps=0.0)
    >>> y.ravel(), mean, variance
    (array([-1.,  1.]), array([2.]), array([1.]))
    """
    eps = checks.number("eps", eps, at_least=0)
    x, gamma, beta = operands.with_columns(x, gamma=gamma, beta=beta)
    if len(x) == 0:
        raise ValueError(f"x must have at least one row, got shape {x.shape}")
    shapes = x.shape, x.shape, x.shape[1:], x.shape[1:]
    y, x_hat, mean, variance = operands.places(out, shapes, x)
    x, gamma, beta = operands.apart(out or (), x, gamma, beta)
    backend = for_array(x)
    backend.moments(x, mean, variance)
    backend.batch_norm(x, mean, variance, gamma, beta, eps, x_hat, y)
    return y, x_hat, mean, variance


def batch_norm_predict(
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    eps: float = 1e-5,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Normalise each column by a mean and a variance that are given; see :func:`batch_norm`.

    >>> batch_norm_predict([[5.0]], [2.0], [9.0], [1.0], [0.0], eps=0.0)
    array([[1.]])
    """
    eps = checks.number("eps", eps, at_least=0)
    x, *numbers = operands.with_columns(x, mean=mean, variance=variance, gamma=gamma, beta=beta)
    result = operands.place(out, x.shape, x)
    (x,) = operands.apart([out], x, elementwise=True)
    mean, variance, gamma, beta = operands.apart([out], *numbers)
    for_array(x).batch_norm(x, mean, variance, gamma, beta, eps, None, result)
    return result


def batch_norm_backward(
    grad: ArrayLike,
    x_hat: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike,
    eps: float = 1e-5,
    out: Outs = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of :func:`batch_norm`.

    Parameters
    ----------
    grad : array_like, shape (B, O)
        The gradient by the outputs.
    x_hat, variance : array_like
        What batch_norm gave.
    gamma, eps
        As there.
    out : tuple of ndarray, optional
        Where to write the results; the first may be ``grad``.

    Returns
    -------
    grad_x : ndarray, shape (B, O)
    grad_gamma, grad_beta : ndarray, shape (O,)

    >>> batch_norm_backward([[1.0], [1.0]], [[-1.0], [1.0]], [1.0], [1.0], eps=0.0)[2]
    array([2.])
    """
    eps = checks.number("eps", eps, at_least=0)
    x_hat, grad, variance, gamma = operands.together(
        x_hat=x_hat, grad=grad, variance=variance, gamma=gamma
    )
    operands.check_shape("x_hat", x_hat, (None, None))
    operands.check_shape("grad", grad, x_hat.shape)
    operands.check_shape("variance", variance, x_hat.shape[1:])
    operands.check_shape("gamma", gamma, x_hat.shape[1:])
    shapes = x_hat.shape, gamma.shape, gamma.shape
    grad_x, grad_gamma, grad_beta = operands.places(out, shapes, grad)
    x_hat, variance, gamma = operands.apart(out or (), x_hat, variance, gamma)
    (grad,) = operands.apart(out or (), grad, elementwise=True)
    backend = for_array(grad)
    backend.column_sums(grad, x_hat, grad_gamma)
    backend.column_sums(grad, None, grad_beta)
    _copied(grad, grad_x)
    backend.batch_norm_grad(grad_x, x_hat, variance, gamma, eps, grad_beta, grad_gamma)
    return grad_x, grad_gamma, grad_beta


# ---- arguments ----


_DROPOUT_PLACES = {"layer": 2**8, "seed": 2**64, "epoch": 2**24, "step": 2**32}
"""How many of each the counter of a dropout mask has room for."""
_POSITIVE = ("beta",)
"""Settings that something is divided by."""
_cross_entropy = functools.lru_cache(maxsize=16, typed=True)(losses.CrossEntropyLoss)
_PRELU = Activation(ACTIVATIONS["prelu"])
_PLAIN = {name: Activation(formula) for name, formula in ACTIVATIONS.items() if not formula.learned}


def _activation(name: str, **settings: float) -> Activation:
    """An activation by name, its settings checked."""
    plain = checks.lookup("activation", name, _PLAIN)
    if not settings:
        return plain
    formula = plain.formula
    for setting, value in settings.items():
        if setting not in formula.settings:
            raise checks.unknown_name(f"setting of {name}", setting, formula.settings)
        checks.number(setting, value, above=0.0 if setting in _POSITIVE else None)
    return Activation(formula, tuple(settings.items()))


def _map(
    use: Activation, x: ArrayLike, out: np.ndarray | None, dropped: Dropout | None = None
) -> np.ndarray:
    (x,) = operands.together(x=x)
    result = operands.place(out, x.shape, x)
    (x,) = operands.apart([out], x, elementwise=True)
    for_array(x).map(x, result, None, use, dropout=dropped)
    return result


def _with_slope(x: ArrayLike, slope: ArrayLike, **others: ArrayLike) -> list[np.ndarray]:
    """A matrix, its learned slopes, and other arguments."""
    x, slope, *rest = operands.together(x=x, slope=slope, **others)
    operands.check_shape("x", x, (None, None))
    operands.check_shape("slope", slope, (1,) if slope.shape == (1,) else x.shape[1:])
    return [x, slope, *rest]


def _multiplied(grad: np.ndarray, slope: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The result, once the product of a gradient and a slope is there."""
    for_array(result).multiply(_copied(grad, result), slope)
    return result


def _copied(values: np.ndarray, result: np.ndarray) -> np.ndarray:
    """The result, once values of its shape are there."""
    if not operands.same_place(values, result):
        result[...] = values
    return result
