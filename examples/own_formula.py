"""An activation and an optimizer of one's own, each a formula, beside the built-in ones.

``python -m examples.own_formula``, from the checkout's root. The gradients are checked first; then
the formulas train in the compiled engine, as fast as the built-in ones.
"""

from __future__ import annotations

from typing import Any

import fastnn


def mish(m: Any, x: Any) -> Any:
    """x tanh(softplus(x)) (Misra 2019, equation 1)."""
    return x * m.tanh(m.softplus(x))


def lion(m: Any, weight: Any, grad: Any, slots: tuple[Any], h: Any) -> tuple[Any, tuple[Any]]:
    """A step by the sign of a running mean (Chen et al. 2023, algorithm 2), without decay."""
    (mean,) = slots
    ahead = m.fma(h.beta_1, mean - grad, grad)
    sign = m.where(ahead > 0.0, 1.0, m.where(ahead < 0.0, -1.0, ahead))
    return m.fma(-h.learning_rate, sign, weight), (m.fma(h.beta_2, mean - grad, grad),)


MISH = fastnn.Activation(mish, name="mish")


def make_lion(learning_rate: float) -> fastnn.Optimizer:
    """The optimizer, with a state of its own."""
    return fastnn.Optimizer(
        lion, learning_rate, slots=("mean",), name="lion", beta_1=0.9, beta_2=0.99
    )


def main(epochs: int = 30) -> dict[str, float]:
    """Check the gradients, then print the test accuracy of each pair."""
    X, y = fastnn.data.digits()
    train, test = fastnn.data.split(X, y, (0.8, 0.2), seed=0)
    errors = fastnn.check_gradients(network(MISH, "float64"), X[:50], y[:50])
    print(f"gradients are right: the largest relative error is {max(errors.values()):.0e}")
    accuracies = {}
    for name, activation, optimizer in (
        ("ReLU, Adam", fastnn.ReLU(), fastnn.Adam(1e-3)),
        ("mish, Adam", MISH, fastnn.Adam(1e-3)),
        ("mish, lion", MISH, make_lion(3e-4)),
    ):
        model = network(activation, "float32")
        model.fit(*train, optimizer=optimizer, epochs=epochs)
        accuracies[name] = model.evaluate(*test)["accuracy"]
        print(f"{name}: {accuracies[name]:.1%} of the test images")
    return accuracies


def network(activation: fastnn.Activation, dtype: str) -> fastnn.Sequential:
    """A network with one hidden layer and that activation."""
    return fastnn.Sequential(
        fastnn.Linear(64, 64), activation, fastnn.Linear(64, 10), seed=0, dtype=dtype
    )


if __name__ == "__main__":
    main()
