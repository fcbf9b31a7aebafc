"""The figures of the batch size, but for the paths."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import figures
from ...words import Words
from .. import drawing
from ..wording import kind_of_descent
from .training import Curve

if TYPE_CHECKING:
    from . import BatchSize

_EXPECTED = "tr \N{GREEK CAPITAL LETTER SIGMA} / B"


def colours(found: BatchSize) -> dict[int, str]:
    """One for each batch size, in all figures."""
    sizes = sorted({1, *(curve.batch_size for curve in found.curves)})
    return dict(zip(sizes, itertools.cycle(figures.COLOURS), strict=False))


def curves(found: BatchSize, say: Words) -> Any:
    """The loss three times: by epochs, by updates and by seconds."""
    figure = figures.new(10.5, 4.2)
    axes = figure.subplots(1, 3, sharey=True)
    for axis, unit, positions_of in (
        (axes[0], say("epoch"), lambda curve: np.arange(len(curve.loss))),
        (axes[1], say("updates"), lambda curve: curve.updates),
        (axes[2], say("seconds of training"), lambda curve: curve.seconds),
    ):
        for curve in found.curves:
            positions, style = positions_of(curve), _style(found, say, curve)
            axis.semilogy(positions, curve.loss, **style)
            epoch = curve.epochs_to(found.target)
            if epoch is not None:
                axis.plot(positions[epoch], curve.loss[epoch], "o", color=style["color"])
        axis.set_xlabel(unit)
    axes[1].set_xscale("symlog", linthresh=1.0)
    axes[1].set_xlim(left=0.0)
    axes[0].set_ylabel(say("loss of all training samples"))
    axes[1].set_title(say("dots: where validation accuracy reaches {target}", target=found.goal))
    drawing.shared_legend(figure, axes[0], 3)
    return figure


def noise(found: BatchSize, say: Words) -> Any:
    """The variance by batch size, and the noise scale as the loss falls."""
    figure = figures.new(9.5, 4.4)
    left, right = figure.subplots(1, 2)
    sizes = found.variances.batch_sizes
    left.loglog(sizes, found.variances.expected, color="0.6", label=_EXPECTED)
    left.loglog(sizes, found.variances.measured, "ko", label=say("measured on batches"))
    left.set(xlabel=say("batch size"), ylabel=say("variance of the gradient"))
    left.legend()
    for curve in found.curves:
        right.loglog(curve.loss, curve.noise_scale, ".-", lw=0.8, **_style(found, say, curve))
    right.axhline(found.suggested, color="0.3", lw=1, ls="--")
    right.annotate(
        say("suggested batch size: {size}", size=found.suggested),
        (0.99, found.suggested),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        bbox={"fc": "white", "ec": "none", "pad": 1.0, "alpha": 0.8},  # curves may be there
    )
    right.invert_xaxis()
    right.set(
        xlabel=say("loss of all training samples"), ylabel=say("gradient noise scale (samples)")
    )
    drawing.shared_legend(figure, right, 3)
    return figure


def _style(found: BatchSize, say: Words, curve: Curve) -> dict[str, str]:
    return {
        "color": colours(found)[curve.batch_size],
        "label": kind_of_descent(say, curve.batch_size, found.samples),
    }
