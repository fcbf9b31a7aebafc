"""The small training sets, and what is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import augment, data
from ...cli_data import Parts
from ...history import History
from ...many import fit_many
from ...model import Sequential
from ...optim import AdamW
from ...perceptron import network


class Remedy(NamedTuple):
    """What is done against overfitting."""

    name: str
    patience: int | None = None
    dropout: float = 0.0
    weight_decay: float = 0.0
    augments: bool = False

    @property
    def needs_images(self) -> bool:
        """Whether nothing is left of it where the data are no images."""
        return self._replace(augments=False) == Remedy(self.name) and self.augments


REMEDIES = (
    Remedy("none"),
    Remedy("early stopping", patience=30),
    Remedy("dropout", dropout=0.5),
    Remedy("weight decay", weight_decay=0.1),
    Remedy("augmentation", augments=True),
    Remedy("all together", patience=30, dropout=0.5, weight_decay=0.1, augments=True),
)

_LEARNING_RATE, _BATCH_SIZE = 3e-3, 32
_MOST_VALIDATION_ROWS = 800
_CHANGES = (augment.Shift(fraction=1 / 8), augment.Rotation(10.0))
_IMAGES = {64: (8, 8), 784: (28, 28), 3072: (32, 32, 3)}
"""The shapes of images that rows of pixels are taken for, by the rows' width."""


class Draw(NamedTuple):
    """A small training set with wrong labels, and a large validation set."""

    parts: Parts
    seed: int


class Trained(NamedTuple):
    """A network as it came out of a training, with its loss and accuracy on validation rows."""

    model: Sequential
    history: History
    loss: float
    accuracy: float


def image_shape(inputs: np.ndarray) -> tuple[int, ...] | None:
    """The shape of the images that rows are, or None for other data.

    >>> image_shape(np.ones((3, 64))), image_shape(np.ones((3, 4)))
    ((8, 8), None)
    """
    is_pixels = inputs.min() >= 0.0
    return _IMAGES.get(inputs.shape[1]) if is_pixels else None


def draw_rows(parts: Parts, rows: int, wrong: float, count: int, seed: int) -> Iterator[Draw]:
    """Small training sets out of a large one; what is left over joins the validation part."""
    X, y = parts.train
    share = min(rows / len(X), 0.5)
    generator = np.random.Generator(np.random.Philox(seed))
    for own_seed in generator.integers(2**31, size=count).tolist():
        (inputs, labels), rest = data.split(X, y, (share, 1.0 - share), seed=own_seed)
        watched = np.concatenate([parts.validation[0], rest[0]])[:_MOST_VALIDATION_ROWS]
        truth = np.concatenate([parts.validation[1], rest[1]])[:_MOST_VALIDATION_ROWS]
        labels = _with_wrong_ones(labels, parts.outputs, wrong, own_seed)
        yield Draw(parts._replace(train=(inputs, labels), validation=(watched, truth)), own_seed)


def _with_wrong_ones(labels: np.ndarray, classes: int, share: float, seed: int) -> np.ndarray:
    """Class numbers of which a share is replaced by another class."""
    generator = np.random.Generator(np.random.Philox(seed))
    changed = generator.permutation(len(labels))[: round(share * len(labels))]
    result = labels.copy()
    result[changed] += generator.integers(1, classes, len(changed))
    return result % classes


def train(
    draw: Draw,
    settings: Sequence[tuple[int, Remedy]],
    shape: tuple[int, ...] | None,
    epochs: int,
) -> list[Trained]:
    """A network for each setting: hidden units, and what is done against overfitting.

    ``shape`` is that of the rows' images; where they are none, nothing is augmented.
    """
    models = [
        network(draw.parts, [width], dropout=remedy.dropout, seed=draw.seed)
        for width, remedy in settings
    ]
    optimizers = [AdamW(_LEARNING_RATE, weight_decay=r.weight_decay) for _, r in settings]
    patience = [remedy.patience for _, remedy in settings]
    shared: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": _BATCH_SIZE,
        "validation_data": draw.parts.validation,
        "progress": False,
    }
    together = [n for n, (_, remedy) in enumerate(settings) if not (shape and remedy.augments)]
    fit_many(
        [models[n] for n in together],
        *draw.parts.train,
        optimizers=[optimizers[n] for n in together],
        early_stopping=[patience[n] for n in together],
        seeds=draw.seed,
        **shared,
    )
    for n in set(range(len(models))).difference(together):
        models[n].fit(
            *draw.parts.train,
            optimizer=optimizers[n],
            early_stopping=patience[n],
            augment=augment.Compose(_CHANGES, shape=shape),
            seed=draw.seed,
            **shared,
        )
    return [_measured(model, draw) for model in models]


def _measured(model: Sequential, draw: Draw) -> Trained:
    assert model.history is not None
    values = model.evaluate(*draw.parts.validation)
    return Trained(model, model.history, values["loss"], values["accuracy"])
