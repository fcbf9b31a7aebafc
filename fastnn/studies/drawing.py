"""What several studies draw alike."""

from __future__ import annotations

from typing import Any

import numpy as np

_LEAST = 1e-6
"""The least loss on a logarithmic axis, of its top."""


def contours(axis: Any, x: np.ndarray, y: np.ndarray, loss: np.ndarray, levels: int = 24) -> None:
    """Lines of equal loss over a plane; close together in the valley, where paths end.

    Parameters
    ----------
    axis : matplotlib axes
    x, y : array (X,), (Y,)
    loss : array (Y, X)
    levels : int, default 24
    """
    low, high = float(np.nanmin(loss)), float(np.nanmax(loss))
    heights = low + (high - low) * np.linspace(0.0, 1.0, levels) ** 2
    axis.contourf(x, y, loss, heights, cmap="Greys", alpha=0.45, extend="both")
    axis.contour(x, y, loss, heights, colors="0.6", linewidths=0.5, linestyles="solid")


def shared_legend(figure: Any, axis: Any, columns: int, where: str = "lower") -> None:
    """One legend for all axes of a figure, with the labels of one of them.

    Parameters
    ----------
    figure : matplotlib figure
    axis : matplotlib axes
    columns : int
    where : "lower" or "upper", default "lower"
        Below the axes or above them.
    """
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc=f"outside {where} center", ncols=columns)


def losses_to_the_top(axis: Any, top: float, lowest: float = 0.0) -> None:
    """A logarithmic axis of losses, from the lowest; at the most six powers of ten below its top.

    Smaller losses, down to 0, are off it.
    """
    axis.set(yscale="log", ylim=(max(lowest, _LEAST * top), top))


def path(axis: Any, points: np.ndarray, colour: str, label: str | None = None) -> None:
    """The way of a descent, (S, 2): a line, its start a circle and its end a filled one."""
    axis.plot(points[:, 0], points[:, 1], "-", color=colour, lw=1.3, label=label)
    axis.plot(*points[0], "o", color=colour, mfc="white", ms=5)
    axis.plot(*points[-1], "o", color=colour, ms=5)
