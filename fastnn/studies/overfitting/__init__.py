"""Overfitting: when does a network learn its samples by heart, and what helps?

Networks of several widths learn a small training set, some of whose labels are wrong on purpose, so
that there is something not worth learning. A small network cannot fit the samples: it underfits. A
large one fits them to the last wrong label; its loss on other rows falls, turns and rises: it
overfits. Then four remedies, and all of them together, are tried on the largest network.

Sources: Prechelt, "Early stopping - but when?", 1998; Srivastava et al., "Dropout", JMLR 2014;
Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019; Simard et al., "Best
practices for convolutional neural networks", ICDAR 2003 (augmentation); Belkin et al., "Reconciling
modern machine-learning practice and the classical bias-variance trade-off", PNAS 2019 (why larger
networks need not be worse).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ... import checks
from ...words import Words
from .. import samples
from ..results import Results, Table
from ..sweeps import by_epoch
from . import drawing
from .experiment import REMEDIES, Remedy, draw_rows, image_shape, train

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_RISEN = 1.1
"""A validation loss that ends this many times above its least has clearly risen again."""


def study(
    data: Any = None,
    *,
    seed: int = 0,
    rows: int = 200,
    wrong: float = 0.2,
    draws: int = 4,
    widths: Sequence[int] = WIDTHS,
    epochs: int = 150,
) -> Overfitting:
    """Train networks on small draws of the data, and watch them on rows that they do not see.

    Parameters
    ----------
    data : pair of arrays (X, y) or Parts, optional
        Samples and class numbers; the embedded digits by default.
    seed : int, default 0
    rows : int, default 200
        That a network is trained on; at most half of the training part.
    wrong : float, default 0.2
        The share of their labels that is replaced by another class.
    draws : int, default 4
        Of rows, wrong labels, weights and shuffles: every network is trained once on each.
    widths : sequence of int, default 1, 2, 4, ... 256
        Of the hidden layer, ascending; remedies are tried on the last.
    epochs : int, default 150

    Returns
    -------
    Overfitting

    Raises
    ------
    ValueError, TypeError
        For data or sizes that do not fit.

    Examples
    --------
    >>> study(rows=100, draws=2, widths=[1, 64], epochs=20).underfits.tolist()
    [True, False]
    """
    checks.positive_ints(rows=rows, epochs=epochs)
    checks.integer("draws", draws, at_least=2)
    widths = [checks.positive_int("widths", width) for width in widths]
    if not widths or widths != sorted(set(widths)):
        raise ValueError(f"widths is {widths!r}; expected hidden units in ascending order")
    parts = samples.parts_of(data, seed)
    columns, shape = parts.train[0].shape[1], image_shape(parts.train[0])
    tried = [remedy for remedy in REMEDIES if shape or not remedy.needs_images]
    settings = [(width, REMEDIES[0]) for width in widths[:-1]]
    settings += [(widths[-1], remedy) for remedy in tried]
    drawn = list(draw_rows(parts, rows, checks.fraction("wrong", wrong), draws, seed))
    trained = [train(draw, settings, shape, epochs) for draw in drawn]
    histories = [[runs[n].history for runs in trained] for n in range(len(widths))]
    by_remedy = list(zip(*(runs[len(widths) - 1 :] for runs in trained), strict=True))
    losses = np.array([[run.loss for run in runs] for runs in by_remedy])
    chosen = int(losses.mean(axis=1).argmin())
    judged = by_remedy[chosen][losses[chosen].argmin()].model
    return Overfitting(
        rows=len(drawn[0].parts.train[0]),
        validation_rows=len(drawn[0].parts.validation[0]),
        wrong=wrong,
        widths=widths,
        training_loss=np.array([by_epoch(h, "loss", epochs) for h in histories]),
        validation_loss=np.array([by_epoch(h, "val_loss", epochs) for h in histories]),
        validation_accuracy=np.array([by_epoch(h, "val_accuracy", epochs) for h in histories]),
        remedies=[remedy.name for remedy in tried],
        left_out="" if shape else f"rows of {columns} values are no images of a known size",
        remedy_epochs=np.array([[run.history.epochs for run in runs] for runs in by_remedy]),
        remedy_loss=losses,
        remedy_accuracy=np.array([[run.accuracy for run in runs] for runs in by_remedy]),
        chosen=chosen,
        test_accuracy=judged.evaluate(*parts.test)["accuracy"],
    )


@dataclass(frozen=True)
class Overfitting(Results):
    """Curves of W widths on D draws over E epochs, and what R remedies came to.

    Attributes
    ----------
    rows, validation_rows : int
        That each network was trained on, and watched by.
    wrong : float
        The share of training labels that were made wrong.
    widths : list of int
        Hidden units.
    training_loss, validation_loss, validation_accuracy : array (W, D, E)
        After each epoch; the training loss is the mean over the epoch's batches.
    remedies : list of str
        That were tried, on the largest width; the first is none.
    left_out : str
        Why nothing was augmented, or nothing.
    remedy_epochs, remedy_loss, remedy_accuracy : array (R, D)
        The epochs trained, and the validation values of the network that came out.
    chosen : int
        The remedy of least mean validation loss.
    test_accuracy : float
        Of that remedy's network of least validation loss; the test rows were used for nothing else.
    """

    name: ClassVar[str] = "overfitting"

    rows: int
    validation_rows: int
    wrong: float
    widths: list[int]
    training_loss: np.ndarray
    validation_loss: np.ndarray
    validation_accuracy: np.ndarray
    remedies: list[str]
    left_out: str
    remedy_epochs: np.ndarray
    remedy_loss: np.ndarray
    remedy_accuracy: np.ndarray
    chosen: int
    test_accuracy: float

    @property
    def epochs(self) -> int:
        """Of every training that nothing ended early."""
        return self.validation_loss.shape[2]

    @property
    def final_training_loss(self) -> np.ndarray:
        """The mean training loss of the last epoch, (W,)."""
        return self.training_loss[:, :, -1].mean(axis=1)

    @property
    def final_loss(self) -> np.ndarray:
        """The mean validation loss after the last epoch, (W,)."""
        return self.validation_loss[:, :, -1].mean(axis=1)

    @property
    def least_loss(self) -> np.ndarray:
        """The mean of the least validation losses, (W,)."""
        return self.validation_loss.min(axis=2).mean(axis=1)

    @property
    def underfits(self) -> np.ndarray:
        """Which widths fit their own samples worse than the best one predicts new ones, (W,)."""
        return self.final_training_loss > self.least_loss.min()

    @property
    def overfits(self) -> np.ndarray:
        """Which of the others end clearly above their least validation loss, (W,)."""
        return (self.final_loss > _RISEN * self.least_loss) & ~self.underfits

    @property
    def rise(self) -> np.ndarray:
        """How far the mean validation loss ends above its least, (W,)."""
        return self.final_loss - self.least_loss

    @property
    def most_overfit(self) -> int:
        """The place of the width whose loss rises most among those that overfit, or the last."""
        if not self.overfits.any():
            return len(self.widths) - 1
        return int(np.where(self.overfits, self.rise, -np.inf).argmax())

    def tables(self) -> dict[str, Table]:
        width, draw, epoch = (index.ravel() for index in np.indices(self.validation_loss.shape))
        curves = {
            "hidden units": np.array(self.widths)[width],
            "draw": draw,
            "epoch": epoch + 1,
            "training loss": self.training_loss.ravel(),
            "validation loss": self.validation_loss.ravel(),
            "validation accuracy": self.validation_accuracy.ravel(),
        }
        sizes = {
            "hidden units": self.widths,
            "training loss": self.final_training_loss,
            "validation loss": self.final_loss,
            "best epoch": 1 + self.validation_loss.argmin(axis=2).mean(axis=1),
            "loss at best epoch": self.least_loss,
            "underfits": self.underfits,
            "overfits": self.overfits,
        }
        remedy, draw = (index.ravel() for index in np.indices(self.remedy_loss.shape))
        draws = {
            "remedy": np.array(self.remedies)[remedy],
            "draw": draw,
            "epochs": self.remedy_epochs.ravel(),
            "validation loss": self.remedy_loss.ravel(),
            "validation accuracy": self.remedy_accuracy.ravel(),
        }
        tables = {"curves": Table(curves), "sizes": Table(sizes), "draws": Table(draws)}
        return tables | {"remedies": self.summary()}

    def summary(self) -> Table:
        columns = {
            "epochs": self.remedy_epochs.mean(axis=1),
            "validation loss": self.remedy_loss.mean(axis=1),
            "spread of loss": self.remedy_loss.std(axis=1, ddof=1),
            "validation accuracy": self.remedy_accuracy.mean(axis=1),
            "spread of accuracy": self.remedy_accuracy.std(axis=1, ddof=1),
        }
        place = {name: number for number, name in enumerate(self.remedies)}
        names = [remedy.name for remedy in REMEDIES]
        return Table(
            {"remedy": names}
            | {
                title: [values[place[name]] if name in place else math.nan for name in names]
                for title, values in columns.items()
            }
            | {"note": [self._note(remedy) for remedy in REMEDIES]}
        )

    def _note(self, remedy: Remedy) -> str:
        if remedy.name not in self.remedies:
            return f"left out: {self.left_out}"
        notes = ["without augmentation"] if remedy.augments and self.left_out else []
        if remedy.name == self.remedies[self.chosen]:
            notes.append("chosen")
        return ", ".join(notes)

    def findings(self) -> list[str]:
        found = [self._small(), self._large(), self._sizes(), self._remedies(), self._test()]
        if self.wrong:
            found.insert(
                0,
                f"{self.wrong:.0%} of the {self.rows} training labels were made wrong on purpose, "
                f"so that learning by heart shows; the {self.validation_rows} validation rows keep "
                "their own.",
            )
        return found

    def _small(self) -> str:
        units, reached = _units(self.widths[0]), self.least_loss.min()
        loss = f"training loss is {self.final_training_loss[0]:.3g} after {self.epochs} epochs"
        if not self.underfits[0]:
            return f"No network is too small: with {units} the {loss}."
        best = _units(self.widths[self.least_loss.argmin()])
        return (
            f"Too small: with {units} the {loss}, above the {reached:.3g} that {best} reach on "
            "rows that they never saw."
        )

    def _large(self) -> str:
        best_epochs = 1 + self.validation_loss[-1].argmin(axis=1)
        return (
            ("Learnt by heart" if self.overfits[-1] else "Not clearly overfitting")
            + f": with {_units(self.widths[-1])} the training loss ends at "
            f"{self.final_training_loss[-1]:.2g}; the validation loss is least in epoch "
            f"{best_epochs.mean():.0f}, {self.least_loss[-1]:.3g}, and ends at "
            f"{self.final_loss[-1]:.3g} (means of {len(best_epochs)} draws)."
        )

    def _sizes(self) -> str:
        if not self.overfits.any():
            return f"No width from {self.widths[0]} to {self.widths[-1]} clearly overfits."
        most, last = self.most_overfit, len(self.widths) - 1
        rises = f"the validation loss rises most, by {self.rise[most]:.2g}, with "
        if most == last:
            return f"Larger networks overfit more: {rises}{_units(self.widths[last])}."
        return (
            f"Larger networks need not overfit more: {rises}{_units(self.widths[most])}, and by "
            f"{self.rise[last]:.2g} with {_units(self.widths[last])}."
        )

    def _remedies(self) -> str:
        means, draws = self.remedy_loss.mean(axis=1), self.remedy_loss.shape[1]
        better = (self.remedy_loss < self.remedy_loss[0]).sum(axis=1)
        order = [number for number in means.argsort(kind="stable") if number]
        listed = ", ".join(
            f"{self.remedies[n]} {means[n]:.3g} ({better[n]} of {draws})" for n in order
        )
        return (
            f"Remedies, with {_units(self.widths[-1])}: with none the validation loss ends at "
            f"{means[0]:.3g}; with one, and in how many draws it is lower: {listed}."
        )

    def _test(self) -> str:
        name = self.remedies[self.chosen]
        accuracies = self.remedy_accuracy.mean(axis=1)
        return (
            f"Chosen by validation loss: {name}, with a validation accuracy of "
            f"{accuracies[self.chosen]:.1%} (none: {accuracies[0]:.1%}); its best network is right "
            f"on {self.test_accuracy:.1%} of the test rows, which were used once."
        )

    def draw(self, say: Words) -> dict[str, Any]:
        return {
            "epochs": drawing.epochs(self, say),
            "sizes": drawing.sizes(self, say),
            "remedies": drawing.remedies(self, say),
        }


def _units(width: int) -> str:
    return f"{width} hidden unit" + "s" * (width != 1)
