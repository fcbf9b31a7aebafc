"""Figures: how all of fastnn's are made, lettered and written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import optional
from .model_files import written_aside
from .words import Words

DPI = 110
"""Pixels an inch of what is written."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart."""

_HANGUL = (
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Noto Sans CJK JP",  # of Noto Sans CJK in one file, older matplotlib sees the first face only
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
)


def new(width: float, height: float, layout: str | None = "constrained") -> Any:
    """An empty matplotlib figure that no window shows; sizes in inches."""
    figures = optional.require("matplotlib.figure", extra="plot")
    return figures.Figure((width, height), dpi=DPI, layout=layout)


def whole_ticks(axis: Any) -> None:
    """Ticks at whole numbers only along the x of matplotlib axes: at epochs, say."""
    axis.xaxis.get_major_locator().set_params(integer=True)


def save(figure: Any, path: str | os.PathLike) -> None:
    """Write a figure, of the kind that the path's ending names, whole or not at all.

    Raises
    ------
    FileNotFoundError
        For a path in a folder that does not exist.
    ValueError
        For an ending that matplotlib does not know.
    """
    check_ending(path)
    target = Path(path)
    with written_aside(target) as file:
        figure.savefig(file, format=target.suffix[1:].lower())


def check_ending(path: str | os.PathLike) -> None:
    """Raise ValueError where a path's ending is no kind of picture that can be written."""
    known = optional.require("matplotlib.backend_bases", extra="plot").FigureCanvasBase.filetypes
    ending = Path(path).suffix[1:].lower()
    if ending not in known:
        raise ValueError(f"{path} ends in {ending!r}; expected one of {', '.join(sorted(known))}")


@contextmanager
def lettering(say: Words) -> Iterator[None]:
    """In this block figures are drawn, and written, in fastnn's style and a language's letters.

    Where a font has Korean letters they are there in every language: data may have such names.
    """
    styles = optional.require("matplotlib.style", extra="plot")
    manager = optional.require("matplotlib.font_manager", extra="plot")
    hangul = [_hangul_font()] if say.language == "ko" else _known(manager)[:1]
    own = {
        "axes.prop_cycle": optional.require("cycler", extra="plot").cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "font.family": ["DejaVu Sans", *hangul],
        "font.size": 9,
        "legend.frameon": False,
    }
    with styles.context(["default", own]):
        yield


def _hangul_font() -> str:
    manager = optional.require("matplotlib.font_manager", extra="plot")
    if not _known(manager):
        # matplotlib keeps a list of fonts from an earlier day.
        for path in manager.findSystemFonts():
            with suppress(OSError, RuntimeError):
                manager.fontManager.addfont(path)
    for name in _known(manager):
        return name
    raise ValueError(
        "language is 'ko' and no font with Korean letters is installed; expected one of "
        f"{', '.join(_HANGUL)} (on Debian and Ubuntu: apt install fonts-nanum)"
    )


def _known(manager: Any) -> list[str]:
    installed = set(manager.get_font_names())
    return [name for name in _HANGUL if name in installed]
