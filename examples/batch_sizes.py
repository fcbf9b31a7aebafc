"""Stochastic, mini-batch and full-batch descent from the same weights, for as many epochs.

``python -m examples.batch_sizes``, from the checkout's root. An epoch is one pass over the data: at
batch 1 it makes an update for every row, with the full batch a single one.
"""

from __future__ import annotations

import time

import fastnn

BATCHES: tuple[int | str, ...] = (1, 10, 100, "full")


def main(epochs: int = 20) -> dict[int | str, list[float]]:
    """Print a line for each batch size; returns the training losses, one an epoch."""
    X, y = fastnn.data.digits()
    train, test = fastnn.data.split(X, y, (0.8, 0.2), seed=0)
    network().fit(*train)  # whatever is to be compiled, is now
    print(f"{epochs} epochs of {len(train[1])} rows, SGD(0.1)\n")
    print("batch  updates  first loss  last loss    test      time")
    losses = {}
    for batch in BATCHES:
        model = network()
        begun = time.perf_counter()
        history = model.fit(
            *train, optimizer=fastnn.SGD(0.1), batch_size=batch, epochs=epochs, history="update"
        )
        seconds = time.perf_counter() - begun
        losses[batch] = history["loss"]
        print(
            f"{batch:>5} {len(history.updates['loss']):>8} {losses[batch][0]:>11.4f}"
            f" {losses[batch][-1]:>10.4f} {model.evaluate(*test)['accuracy']:>7.1%}"
            f" {1000 * seconds:>6.1f} ms"
        )
    return losses


def network() -> fastnn.Sequential:
    """A network with the same first weights each time."""
    return fastnn.Sequential(fastnn.Linear(64, 64), fastnn.ReLU(), fastnn.Linear(64, 10), seed=0)


if __name__ == "__main__":
    main()
