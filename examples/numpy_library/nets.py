"""A small neural-network library in NumPy: layers, losses, optimizers and a training loop.

Its layers and optimizers say what is computed and in which order; how, is up to one object,
``functions``. The default is NumPy; whatever has the same functions may take its place::

    nets.functions = fastnn.functional
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Array = np.ndarray
Pair = tuple[Array, Array]  # a parameter and its gradient


class NumPyFunctions:
    """All that this library does to arrays."""

    @staticmethod
    def linear(x: Array, weight: Array, bias: Array) -> Array:
        return x @ weight + bias

    @staticmethod
    def linear_backward(x: Array, weight: Array, grad: Array) -> tuple[Array, Array, Array]:
        return grad @ weight.T, x.T @ grad, grad.sum(axis=0)

    @staticmethod
    def relu(x: Array) -> Array:
        return np.maximum(x, 0)

    @staticmethod
    def tanh(x: Array) -> Array:
        return np.tanh(x)

    @staticmethod
    def activation_backward(name: str, x: Array, grad: Array) -> Array:
        slopes = {"relu": lambda: x > 0, "tanh": lambda: 1 - np.tanh(x) ** 2}
        return grad * slopes[name]()

    @staticmethod
    def softmax(x: Array) -> Array:
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    @staticmethod
    def cross_entropy(logits: Array, targets: Array) -> tuple[float, Array]:
        rows, grad = np.arange(len(logits)), NumPyFunctions.softmax(logits)
        loss = -np.log(grad[rows, targets]).mean()
        grad[rows, targets] -= 1
        return float(loss), grad / len(logits)

    @staticmethod
    def mse(outputs: Array, targets: Array) -> tuple[float, Array]:
        errors = outputs - targets
        return float((errors**2).mean()), 2 * errors / errors.size

    @staticmethod
    def sgd_update(weight: Array, grad: Array, lr: float) -> None:
        weight -= lr * grad

    @staticmethod
    def momentum_update(
        weight: Array, grad: Array, velocity: Array, lr: float, momentum: float = 0.9
    ) -> None:
        velocity *= momentum
        velocity += grad
        weight -= lr * velocity

    @staticmethod
    def adam_update(
        weight: Array, grad: Array, mean: Array, square: Array, lr: float, step: int
    ) -> None:
        mean += 0.1 * (grad - mean)
        square += 0.001 * (grad**2 - square)
        root = np.sqrt(square / (1 - 0.999**step))
        weight -= lr / (1 - 0.9**step) * mean / (root + 1e-8)


functions = NumPyFunctions
"""What computes; the one object to replace."""


class Dense:
    """y = x weight + bias."""

    def __init__(self, inputs: int, outputs: int, seed: int = 0, dtype: str = "float32") -> None:
        weight = np.random.default_rng(seed).normal(0, (2 / inputs) ** 0.5, (inputs, outputs))
        self.params = [weight.astype(dtype), np.zeros(outputs, dtype)]
        self.grads: list[Array] = []

    def forward(self, x: Array) -> Array:
        self.x = x
        return functions.linear(x, *self.params)

    def backward(self, grad: Array) -> Array:
        grad_x, *self.grads = functions.linear_backward(self.x, self.params[0], grad)
        return grad_x


class Activation:
    """An activation, by the name of its function."""

    params: Sequence[Array] = ()
    grads: Sequence[Array] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: Array) -> Array:
        self.x = x
        return getattr(functions, self.name)(x)

    def backward(self, grad: Array) -> Array:
        return functions.activation_backward(self.name, self.x, grad)


class SGD:
    """Gradient descent."""

    def __init__(self, lr: float = 0.1) -> None:
        self.lr, self.steps = lr, 0
        self.state: dict[int, list[Array]] = {}

    def step(self, pairs: Sequence[Pair]) -> None:
        self.steps += 1
        for number, (weight, grad) in enumerate(pairs):
            self.update(number, weight, grad)

    def zeros(self, number: int, weight: Array, count: int) -> list[Array]:
        """The state of a parameter, which begins at zero."""
        if number not in self.state:
            self.state[number] = [np.zeros_like(weight) for _ in range(count)]
        return self.state[number]

    def update(self, number: int, weight: Array, grad: Array) -> None:
        functions.sgd_update(weight, grad, self.lr)


class Momentum(SGD):
    """Gradient descent with a velocity."""

    def update(self, number: int, weight: Array, grad: Array) -> None:
        functions.momentum_update(weight, grad, *self.zeros(number, weight, 1), self.lr)


class Adam(SGD):
    """Adam."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr)

    def update(self, number: int, weight: Array, grad: Array) -> None:
        functions.adam_update(weight, grad, *self.zeros(number, weight, 2), self.lr, self.steps)


class Network:
    """Layers, one after the other, and a loss: "cross_entropy" or "mse"."""

    def __init__(self, *layers: Dense | Activation, loss: str = "cross_entropy") -> None:
        self.layers, self.loss = layers, loss

    def predict(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def train_step(self, x: Array, y: Array, optimizer: SGD) -> float:
        """One step of training on a batch; its loss."""
        loss, grad = getattr(functions, self.loss)(self.predict(x), y)
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        optimizer.step(
            [pair for layer in self.layers for pair in zip(layer.params, layer.grads, strict=True)]
        )
        return loss

    def train(
        self, x: Array, y: Array, optimizer: SGD, epochs: int, batch: int, seed: int = 0
    ) -> Iterator[float]:
        """The mean loss of each epoch, as it ends."""
        rng = np.random.default_rng(seed)
        for _ in range(epochs):
            order = rng.permutation(len(x))
            parts = [order[begin : begin + batch] for begin in range(0, len(x), batch)]
            losses = [self.train_step(x[part], y[part], optimizer) for part in parts]
            yield float(np.mean(losses))
