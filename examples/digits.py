"""Recognise handwritten digits, and look at a mistake.

``python -m examples.digits``, from the checkout's root.
"""

from __future__ import annotations

import numpy as np

import fastnn

SHADES = " .:-=+*#%@"


def main(epochs: int = 60) -> float:
    """Train, print the share of test images that are recognised and one that is not."""
    X, y = fastnn.data.digits()
    train, val, test = fastnn.data.split(X, y, (0.7, 0.15, 0.15), seed=0)
    model = fastnn.Sequential(
        fastnn.Linear(64, 128), fastnn.ReLU(), fastnn.Dropout(0.2), fastnn.Linear(128, 10), seed=0
    )
    history = model.fit(*train, epochs=epochs, validation_data=val, early_stopping=5)
    accuracy = model.evaluate(*test)["accuracy"]
    print(f"{history.epochs} epochs, {100 * accuracy:.1f} % of {len(test[1])} test images right")
    show_mistake(model, *test)
    return accuracy


def show_mistake(model: fastnn.Sequential, X: np.ndarray, y: np.ndarray) -> None:
    """Print the image of which the network was most sure and wrong, if there is one."""
    probabilities = model.predict_proba(X)
    predicted = probabilities.argmax(axis=1)
    mistakes = np.flatnonzero(predicted != y)
    if not mistakes.size:
        return
    worst = mistakes[probabilities[mistakes].max(axis=1).argmax()]
    print(f"a {y[worst]}, taken for a {predicted[worst]} ({probabilities[worst].max():.0%} sure):")
    for row in X[worst].reshape(8, 8):
        print("".join(2 * SHADES[round(9 * float(value))] for value in row))


if __name__ == "__main__":
    main()
