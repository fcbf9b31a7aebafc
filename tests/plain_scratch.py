"""The conventions of Saito's *Deep Learning from Scratch* in plain NumPy, from its text.

The truth that ``fastnn.compat.scratch`` is compared with, and what it is timed against: the same
names and calls, and nothing of ours.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

# ---- layers ----


class Relu:
    def forward(self, x):
        self.positive = x > 0
        return np.where(self.positive, x, 0).astype(x.dtype)

    def backward(self, dout):
        dout *= self.positive
        return dout


class Sigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * self.out * (1 - self.out)


class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.shape = x.shape
        self.x = x.reshape(len(x), -1)
        return self.x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        return (dout @ self.W.T).reshape(self.shape)


class SoftmaxWithLoss:
    def forward(self, x, t):
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = powers / powers.sum(axis=1, keepdims=True)
        self.rows = np.arange(len(x))
        self.classes = t if t.ndim == 1 else t.argmax(axis=1)
        self.loss = -np.log(self.y[self.rows, self.classes] + 1e-7).sum() / len(x)
        return self.loss

    def backward(self, dout=1):
        dx = self.y / len(self.y)
        dx[self.rows, self.classes] -= 1 / len(self.y)
        return dx


class Dropout:
    def __init__(self, dropout_ratio=0.5):
        self.dropout_ratio = dropout_ratio

    def forward(self, x, train_flg=True):
        if train_flg:
            self.kept = np.random.rand(*x.shape) > self.dropout_ratio
            return x * self.kept
        return x * (1 - self.dropout_ratio)

    def backward(self, dout):
        return dout * self.kept


class BatchNormalization:
    def __init__(self, gamma, beta, momentum=0.9, running_mean=None, running_var=None):
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean, self.running_var = running_mean, running_var

    def forward(self, x, train_flg=True):
        flat = x.reshape(len(x), -1)
        if self.running_mean is None:
            self.running_mean = self.running_var = np.zeros(flat.shape[1])
        mean, variance = self.running_mean, self.running_var
        if train_flg:
            mean, variance = flat.mean(axis=0), flat.var(axis=0)
            old, new = self.momentum, 1 - self.momentum
            self.running_mean = old * self.running_mean + new * mean
            self.running_var = old * self.running_var + new * variance
        self.deviation = np.sqrt(variance + 10e-7)
        self.normal = (flat - mean) / self.deviation
        return (self.gamma * self.normal + self.beta).reshape(x.shape)

    def backward(self, dout):
        flat = dout.reshape(len(dout), -1)
        self.dbeta, self.dgamma = flat.sum(axis=0), (flat * self.normal).sum(axis=0)
        centred = flat - (self.dbeta + self.normal * self.dgamma) / len(flat)
        return (self.gamma / self.deviation * centred).reshape(dout.shape)


# ---- optimizers ----


class _Optimizer:
    states: tuple[str, ...] = ()

    def __init__(self, lr=0.01, **settings: Any) -> None:
        self.lr, self.iter = lr, 0
        vars(self).update(settings)
        for name in self.states:
            setattr(self, name, {})

    def update(self, params, grads):
        self.iter += 1
        for key in params:
            for name in self.states:
                getattr(self, name).setdefault(key, np.zeros_like(params[key]))
            self.move(params[key], grads[key], key)


class SGD(_Optimizer):
    def move(self, param, grad, key):
        param -= self.lr * grad


class Momentum(_Optimizer):
    states = ("v",)
    momentum = 0.9

    def move(self, param, grad, key):
        self.v[key] = self.momentum * self.v[key] - self.lr * grad
        param += self.v[key]


class Nesterov(Momentum):
    looks_ahead_twice = True

    def move(self, param, grad, key):
        before = self.v[key]
        self.v[key] = self.momentum * before - self.lr * grad
        v = self.v[key] if self.looks_ahead_twice else before
        param += self.momentum**2 * v - (1 + self.momentum) * self.lr * grad


class AdaGrad(_Optimizer):
    states = ("h",)

    def move(self, param, grad, key):
        self.h[key] += grad * grad
        param -= self.lr * grad / (np.sqrt(self.h[key]) + 1e-7)


class RMSprop(_Optimizer):
    states = ("h",)
    decay_rate = 0.99

    def move(self, param, grad, key):
        self.h[key] = self.decay_rate * self.h[key] + (1 - self.decay_rate) * grad * grad
        param -= self.lr * grad / (np.sqrt(self.h[key]) + 1e-7)


class Adam(_Optimizer):
    states = ("m", "v")
    beta1, beta2 = 0.9, 0.999

    def __init__(self, lr=0.001, **settings: Any) -> None:
        super().__init__(lr, **settings)

    def move(self, param, grad, key):
        correction = np.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)
        self.m[key] += (1 - self.beta1) * (grad - self.m[key])
        self.v[key] += (1 - self.beta2) * (grad**2 - self.v[key])
        param -= self.lr * correction * self.m[key] / (np.sqrt(self.v[key]) + 1e-7)


# ---- a script of the course, over either module ----


class Network:
    """A network as a course writes it: a dict of parameters, and layers that hold them.

    Parameters
    ----------
    library : module
        This one, or ``fastnn.compat.scratch``.
    widths : sequence of int
    activation : str
        "Relu" or "Sigmoid".
    extended : bool
        With batch normalisation and dropout.
    dtype : str
    """

    def __init__(self, library, widths, activation="Relu", extended=False, dtype="float64"):
        rng = np.random.default_rng(0)
        self.params: dict[str, np.ndarray] = {}
        self.layers: list[tuple[Any, dict[str, str]]] = []  # with attributes by parameter
        for number, (before, after) in enumerate(itertools.pairwise(widths), 1):
            W, b = (f"{name}{number}" for name in "Wb")
            weight = rng.normal(0, np.sqrt(2 / before), (before, after))
            self.params[W] = weight.astype(dtype)
            self.params[b] = np.zeros(after, dtype)
            affine = library.Affine(self.params[W], self.params[b])
            self.layers.append((affine, {W: "dW", b: "db"}))
            if number == len(widths) - 1:
                break
            if extended:
                gamma, beta = f"gamma{number}", f"beta{number}"
                self.params[gamma] = np.ones(after, dtype)
                self.params[beta] = np.zeros(after, dtype)
                norm = library.BatchNormalization(self.params[gamma], self.params[beta])
                self.layers.append((norm, {gamma: "dgamma", beta: "dbeta"}))
            self.layers.append((getattr(library, activation)(), {}))
            if extended:
                self.layers.append((library.Dropout(0.3), {}))
        self.last = library.SoftmaxWithLoss()

    def predict(self, x, train_flg=False):
        for layer, _ in self.layers:
            if type(layer).__name__ in ("Dropout", "BatchNormalization"):
                x = layer.forward(x, train_flg)
            else:
                x = layer.forward(x)
        return x

    def loss(self, x, t, train_flg=False):
        return self.last.forward(self.predict(x, train_flg), t)

    def gradient(self, x, t):
        self.loss(x, t, train_flg=True)
        dout = self.last.backward(1)
        grads = {}
        for layer, names in reversed(self.layers):
            dout = layer.backward(dout)
            grads |= {key: getattr(layer, name) for key, name in names.items()}
        return grads


def train(network, optimizer, x, t, steps, batch):
    """The losses of a training as a course writes it: the loss after each update."""
    np.random.seed(0)
    losses = []
    for _ in range(steps):
        chosen = np.random.choice(len(x), batch)
        grads = network.gradient(x[chosen], t[chosen])
        optimizer.update(network.params, grads)
        losses.append(network.loss(x[chosen], t[chosen]))
    return losses
