"""The layers and optimizers of *Deep Learning from Scratch* (Saito 2016) on fastnn's kernels.

A course's script imports from here what it imported from ``common.layers`` and
``common.optimizer``, and prints the same losses: names, call conventions, attributes and arithmetic
are the book's, for NumPy arrays of float32 and float64. A layer holds the arrays that it is given,
and an optimizer changes those of ``params`` in place, so that each sees what the other does.

>>> layer = Affine(np.ones((2, 1)), np.zeros(1))
>>> layer.forward(np.array([[1.0, 2.0]]))
array([[3.]])
>>> layer.backward(np.array([[1.0]])), layer.dW
(array([[1., 1.]]), array([[1.],
       [2.]]))
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np

from .. import functional
from ..kernels.formulas import running_average
from ..kernels.tracing.numpy_math import NumpyMath

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Affine",
    "BatchNormalization",
    "Dropout",
    "Momentum",
    "Nesterov",
    "RMSprop",
    "Relu",
    "Sigmoid",
    "SoftmaxWithLoss",
]

_LOG_EPS = 1e-7
"""Added to a probability before its logarithm is taken."""
_VARIANCE_EPS = 10e-7
"""Added to a variance before its root is taken."""
_ROOT_EPS = 1e-7
"""Added to the root that a step is divided by."""
_MATH = NumpyMath("float64")


# ---- layers ----


class Relu:
    """The positive part of x.

    Attributes
    ----------
    mask : ndarray of bool
        Where the last input was not positive.

    >>> Relu().forward(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def __init__(self) -> None:
        self.mask: Any = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The outputs, of the shape of ``x``."""
        self.mask = x <= 0
        return functional.relu(x)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """The gradient by the input: ``dout`` itself, changed in place."""
        np.copyto(dout, 0, where=self.mask)
        return dout


class Sigmoid:
    """1 / (1 + exp(-x)).

    Attributes
    ----------
    out : ndarray
        The last output.

    >>> Sigmoid().forward(np.array([0.0]))
    array([0.5])
    """

    def __init__(self) -> None:
        self.out: Any = None
        self._x: Any = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The outputs, of the shape of ``x``."""
        self._x, self.out = x, functional.sigmoid(x)
        return self.out

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """The gradient by the input."""
        return functional.activation_backward("sigmoid", self._x, dout)


class Affine:
    """x W + b, for inputs of any shape with a row a sample.

    Parameters
    ----------
    W : ndarray, shape (I, O)
    b : ndarray, shape (O,)

    Attributes
    ----------
    dW, db : ndarray
        The gradients, after ``backward``.
    x, original_x_shape
        The last input, a row a sample, and the shape that it came in.

    >>> layer = Affine(np.ones((2, 1)), np.zeros(1))
    >>> layer.forward(np.array([[1.0, 2.0]]))
    array([[3.]])
    """

    def __init__(self, W: np.ndarray, b: np.ndarray) -> None:
        self.W = W
        self.b = b
        self.x: Any = None
        self.original_x_shape: Any = None
        self.dW: Any = None
        self.db: Any = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The outputs, (B, O)."""
        self.original_x_shape = x.shape
        self.x = x.reshape(x.shape[0], -1)
        return functional.linear(self.x, self.W, self.b)

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """The gradient by the input, in the input's shape."""
        dx, self.dW, self.db = functional.linear_backward(self.x, self.W, dout)
        return dx.reshape(self.original_x_shape)


class SoftmaxWithLoss:
    """Softmax, and the mean cross-entropy of class numbers or one-hot rows.

    Attributes
    ----------
    loss : float
        The mean of -log(y + 1e-7) at the classes.
    y, t : ndarray
        The softmax of the last input, (B, O), and the targets it came with.

    >>> layer = SoftmaxWithLoss()
    >>> round(float(layer.forward(np.zeros((1, 2)), np.array([1]))), 4)
    0.6931
    >>> layer.backward()
    array([[ 0.5, -0.5]])
    """

    def __init__(self) -> None:
        self.loss: Any = None
        self.y: Any = None
        self.t: Any = None
        self._x: Any = None

    def forward(self, x: np.ndarray, t: np.ndarray) -> float:
        """The loss of inputs (B, O) and targets (B,) or (B, O)."""
        self._x, self.t, self.y = x, t, functional.softmax(x)
        classes = t.argmax(axis=1) if t.size == x.size else t
        chosen = self.y[np.arange(len(x)), classes]
        self.loss = -np.log(chosen + _LOG_EPS).mean()
        return self.loss

    def backward(self, dout: float = 1) -> np.ndarray:
        """The gradient by the input; ``dout`` changes nothing."""
        targets = self.t.reshape(self._x.shape) if self.t.size == self._x.size else self.t
        return functional.cross_entropy(self._x, targets)[1]


class Dropout:
    """Zeroes a share of the inputs in training; in a test, scales them all down instead.

    Parameters
    ----------
    dropout_ratio : float, default 0.5
        The share that is dropped.

    Attributes
    ----------
    mask : ndarray of bool
        What the last training kept: drawn by the global ``np.random.rand``.

    >>> Dropout(0.25).forward(np.ones(2), train_flg=False)
    array([0.75, 0.75])
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio
        self.mask: Any = None

    def forward(self, x: np.ndarray, train_flg: bool = True) -> np.ndarray:
        """The outputs, of the shape of ``x``."""
        if not train_flg:
            return x * (1.0 - self.dropout_ratio)
        self.mask = np.random.rand(*x.shape) > self.dropout_ratio
        return x * self.mask

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """The gradient by the input."""
        return dout * self.mask


class BatchNormalization:
    """Normalises each column over the batch, or in a test by what training has seen.

    Parameters
    ----------
    gamma, beta : ndarray, shape (O,)
        Scale and shift.
    momentum : float, default 0.9
        The share of the running statistics that stays.
    running_mean, running_var : ndarray, shape (O,), optional
        By default they begin at zero.

    Attributes
    ----------
    dgamma, dbeta : ndarray
        The gradients, after ``backward``.

    >>> layer = BatchNormalization(np.ones(1), np.zeros(1))
    >>> layer.forward(np.array([[1.0], [3.0]])).round(4).ravel()
    array([-1.,  1.])
    """

    def __init__(
        self,
        gamma: np.ndarray,
        beta: np.ndarray,
        momentum: float = 0.9,
        running_mean: np.ndarray | None = None,
        running_var: np.ndarray | None = None,
    ) -> None:
        self.gamma = gamma
        self.beta = beta
        self.momentum = momentum
        self.input_shape: Any = None
        self.running_mean: Any = running_mean
        self.running_var: Any = running_var
        self.dgamma: Any = None
        self.dbeta: Any = None

    def forward(self, x: np.ndarray, train_flg: bool = True) -> np.ndarray:
        """The outputs, of the shape of ``x``; more than two axes are columns of a row a sample."""
        self.input_shape = x.shape
        rows = x.reshape(x.shape[0], -1)
        if self.running_mean is None:
            self.running_mean, self.running_var = np.zeros((2, rows.shape[1]))
        forward = self._train if train_flg else self._test
        return forward(rows).reshape(x.shape)

    def _train(self, x: np.ndarray) -> np.ndarray:
        y, self._x_hat, mean, self._variance = functional.batch_norm(
            x, self.gamma, self.beta, _VARIANCE_EPS
        )
        self.running_mean = self._moved(self.running_mean, mean)
        self.running_var = self._moved(self.running_var, self._variance)
        return y

    def _moved(self, running: np.ndarray, new: np.ndarray) -> np.ndarray:
        return _MATH.evaluate(running_average, running, new, 1.0 - self.momentum)

    def _test(self, x: np.ndarray) -> np.ndarray:
        return functional.batch_norm_predict(
            x, self.running_mean, self.running_var, self.gamma, self.beta, _VARIANCE_EPS
        )

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """The gradient by the input of the last training, in its shape."""
        dx, self.dgamma, self.dbeta = functional.batch_norm_backward(
            dout.reshape(self._x_hat.shape), self._x_hat, self._variance, self.gamma, _VARIANCE_EPS
        )
        return dx.reshape(self.input_shape)


# ---- optimizers ----

_Arrays = MutableMapping[Any, np.ndarray]


class _Optimizer:
    """What updates dicts of arrays, and keeps dicts of states of the same keys."""

    _states: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        self.lr = lr
        for name in self._states:
            setattr(self, name, None)

    def update(self, params: _Arrays, grads: _Arrays) -> None:
        """Change the arrays of ``params`` in place, each by the gradient of its key.

        A number in place of an array, as in the book's first comparison of optimizers, becomes
        another number.
        """
        for name in self._states:
            if getattr(self, name) is None:
                setattr(self, name, {key: np.zeros_like(param) for key, param in params.items()})
        states = [getattr(self, name) for name in self._states]
        for key, param in params.items():
            array = np.asarray(param) if isinstance(param, (float, np.floating)) else param
            self._move(array, grads[key], *(state[key] for state in states))
            if array is not param:
                params[key] = array[()]

    _move: Callable[..., None]


class SGD(_Optimizer):
    """params -= lr grads.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate.

    >>> params = {"W1": np.ones(2)}
    >>> SGD(lr=0.5).update(params, {"W1": np.ones(2)})
    >>> params
    {'W1': array([0.5, 0.5])}
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _move(self, param: np.ndarray, grad: np.ndarray) -> None:
        functional.sgd_update(param, grad, self.lr)


class Momentum(_Optimizer):
    """v = momentum v - lr grads; params += v.

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate.
    momentum : float, default 0.9
        Share of the velocity that stays.

    Attributes
    ----------
    v : dict of ndarray
        Velocities by key, after the first update.

    >>> params = {"W1": np.ones(1)}
    >>> Momentum(lr=0.5).update(params, {"W1": np.ones(1)})
    >>> params
    {'W1': array([0.5])}
    """

    _states = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = momentum

    def _move(self, param: np.ndarray, grad: np.ndarray, v: np.ndarray) -> None:
        functional.momentum_update(
            param, grad, v, self.lr, momentum=self.momentum, learning_rate_in_velocity=True
        )


class Nesterov(_Optimizer):
    """v = momentum v - lr grads; params += momentum² v - (1 + momentum) lr grads.

    Parameters
    ----------
    lr : float, default 0.01
    momentum : float, default 0.9
    looks_ahead_twice : bool, default True
        As the book's code, which moves v before it looks ahead. Versions of it that move v last
        are Nesterov's method (Sutskever et al. 2013); for them give False.

    Attributes
    ----------
    v : dict of ndarray
        Velocities by key, after the first update.

    >>> params = {"W1": np.ones(1)}
    >>> Nesterov(lr=0.1, looks_ahead_twice=False).update(params, {"W1": np.ones(1)})
    >>> params["W1"].round(4)
    array([0.81])
    """

    _states = ("v",)

    def __init__(
        self, lr: float = 0.01, momentum: float = 0.9, looks_ahead_twice: bool = True
    ) -> None:
        super().__init__(lr)
        self.momentum = momentum
        self.looks_ahead_twice = looks_ahead_twice

    def _move(self, param: np.ndarray, grad: np.ndarray, v: np.ndarray) -> None:
        functional.nesterov_update(
            param,
            grad,
            v,
            self.lr,
            momentum=self.momentum,
            learning_rate_in_velocity=True,
            looks_ahead_twice=self.looks_ahead_twice,
        )


class AdaGrad(_Optimizer):
    """h += grads²; params -= lr grads / (sqrt(h) + 1e-7).

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate.

    Attributes
    ----------
    h : dict of ndarray
        Sums of squares by key, after the first update.

    >>> params = {"W1": np.ones(1)}
    >>> AdaGrad(lr=0.5).update(params, {"W1": np.full(1, 2.0)})
    >>> params["W1"].round(4)
    array([0.5])
    """

    _states = ("h",)

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _move(self, param: np.ndarray, grad: np.ndarray, h: np.ndarray) -> None:
        functional.adagrad_update(param, grad, h, self.lr, eps=_ROOT_EPS)


class RMSprop(_Optimizer):
    """h = decay_rate h + (1 - decay_rate) grads²; params -= lr grads / (sqrt(h) + 1e-7).

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate.
    decay_rate : float, default 0.99
        Share of the running average that stays.

    Attributes
    ----------
    h : dict of ndarray
        Running averages of squares by key, after the first update.

    >>> params = {"W1": np.ones(1)}
    >>> RMSprop(lr=0.1, decay_rate=0.75).update(params, {"W1": np.full(1, 2.0)})
    >>> params["W1"].round(4)
    array([0.8])
    """

    _states = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = decay_rate

    def _move(self, param: np.ndarray, grad: np.ndarray, h: np.ndarray) -> None:
        functional.rmsprop_update(param, grad, h, self.lr, alpha=self.decay_rate, eps=_ROOT_EPS)


class Adam(_Optimizer):
    """Adam (Kingma & Ba 2015, section 2): corrections in the rate, 1e-7 on the root as it is.

    Parameters
    ----------
    lr : float, default 0.001
        Learning rate.
    beta1, beta2 : float, default 0.9, 0.999
        Shares of the running averages that stay.

    Attributes
    ----------
    m, v : dict of ndarray
        Running averages of gradients and of their squares by key, after the first update.
    iter : int
        Updates made.

    >>> params = {"W1": np.ones(1)}
    >>> Adam(lr=0.1).update(params, {"W1": np.full(1, 2.0)})
    >>> params["W1"].round(4)
    array([0.9])
    """

    _states = ("m", "v")

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1 = beta1
        self.beta2 = beta2
        self.iter = 0

    def update(self, params: _Arrays, grads: _Arrays) -> None:
        """Change the arrays of ``params`` in place, each by the gradient of its key."""
        self.iter += 1
        super().update(params, grads)

    def _move(self, param: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray) -> None:
        functional.adam_update(
            param,
            grad,
            m,
            v,
            self.lr,
            self.iter,
            betas=(self.beta1, self.beta2),
            eps=_ROOT_EPS,
            eps_on_corrected=False,
        )
