"""Train the small library on handwritten digits, by NumPy and then by fastnn.

``python -m examples.numpy_library``, from the checkout's root.
"""

from __future__ import annotations

import time

import fastnn

from . import nets


def main() -> None:
    """Print the losses of both, and how long each took."""
    X, y = fastnn.data.digits()
    X = X.astype("float32")
    for functions in (nets.NumPyFunctions, fastnn.functional):
        nets.functions = functions
        network = nets.Network(
            nets.Dense(64, 128, seed=1), nets.Activation("relu"), nets.Dense(128, 10, seed=2)
        )
        list(network.train(X[:32], y[:32], nets.SGD(0.0), epochs=1, batch=32))  # compiles
        begun = time.perf_counter()
        losses = list(network.train(X, y, nets.Adam(), epochs=10, batch=128))
        seconds = time.perf_counter() - begun
        print(f"{functions.__name__:<20} {seconds:6.3f} s  losses", *(f"{x:.4f}" for x in losses))


if __name__ == "__main__":
    main()
