"""What every study returns: numbers that write, draw and explain themselves."""

from __future__ import annotations

import csv
import io
import os
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from .. import figures
from ..model_files import written_aside
from ..words import Words


class Table:
    """Columns of numbers or words, all of one length.

    Parameters
    ----------
    columns : mapping of str to sequence
        By name. What was timed has a name that begins with "seconds": all else is repeated to the
        bit by the same seed.

    Raises
    ------
    ValueError
        For columns of different lengths.

    Examples
    --------
    >>> table = Table({"batch size": [1, 32], "updates": [1000, 32], "loss": [0.51234, 0.25]})
    >>> print(table)
    batch size  updates    loss
             1     1000  0.5123
            32       32    0.25
    >>> print(table.csv(), end="")
    batch size,updates,loss
    1,1000,0.51234
    32,32,0.25
    """

    def __init__(self, columns: Mapping[str, Iterable[Any]]) -> None:
        self.columns = {name: [_plain(v) for v in values] for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns have lengths {lengths}; expected one length")

    @classmethod
    def of_rows(cls, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
        """The table of some rows, from the first.

        Parameters
        ----------
        names : sequence of str
            Of the columns.
        rows : iterable of sequence
            At least one, each with a value for every column.

        Raises
        ------
        ValueError
            For rows of another length.

        Examples
        --------
        >>> print(Table.of_rows(("batch size", "loss"), [(1, 0.5), (32, 0.25)]))
        batch size  loss
                 1   0.5
                32  0.25
        """
        return cls(dict(zip(names, zip(*rows, strict=True), strict=True)))

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, from the first."""
        return zip(*self.columns.values(), strict=True)

    def csv(self) -> str:
        """The table as CSV, each number as the shortest text that reads back the same."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows())
        return text.getvalue()

    def __str__(self) -> str:
        shown = [
            [name, *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)]
            for name, values in self.columns.items()
        ]
        numeric = [not any(isinstance(v, str) for v in c) for c in self.columns.values()]
        widths = [max(map(len, column)) for column in shown]
        lines = []
        for cells in zip(*shown, strict=True):
            aligned = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(cells, widths, numeric, strict=True)
            ]
            lines.append("  ".join(aligned).rstrip())
        return "\n".join(lines)


class Results(ABC):
    """The numbers of one study; each study's are a dataclass of its own.

    As a text they are the summary and the findings.

    Attributes
    ----------
    name : str
        The study's name, as ``fastnn study`` takes it; written files begin with it.
    """

    name: ClassVar[str]

    @abstractmethod
    def tables(self) -> dict[str, Table]:
        """All numbers: a dict of tables by name."""

    @abstractmethod
    def summary(self) -> Table:
        """The few numbers that answer the question, as a table."""

    @abstractmethod
    def findings(self) -> list[str]:
        """What the numbers show: a list of sentences that contain them."""

    @abstractmethod
    def draw(self, say: Words) -> dict[str, Any]:
        """The figures by name, lettered by ``say``; :meth:`plot` is what users call."""

    def __str__(self) -> str:
        item = textwrap.TextWrapper(
            100, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
        )
        return "\n".join([str(self.summary()), "", *map(item.fill, self.findings())])

    def plot(self, language: str = "en") -> dict[str, Any]:
        """Draw the numbers.

        Parameters
        ----------
        language : "en" or "ko", default "en"

        Returns
        -------
        dict of str to matplotlib.figure.Figure

        Raises
        ------
        ValueError
            For another language, or where no installed font has its letters.
        ImportError
            Without matplotlib (``fastnn-kernels[plot]``).
        """
        say = Words(language)
        with figures.lettering(say):
            return self.draw(say)

    def to_csv(self, folder: str | os.PathLike) -> list[Path]:
        """Write every table as ``<study>-<table>.csv``.

        Parameters
        ----------
        folder : path
            Made where it does not exist.

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        OSError
            Where they cannot be written.
        """
        paths = []
        for name, table in self.tables().items():
            paths.append(self._path(folder, name, "csv"))
            with written_aside(paths[-1]) as file:
                file.write(table.csv().encode())
        return paths

    def save(self, folder: str | os.PathLike, language: str = "en") -> list[Path]:
        """Write every table as CSV and every figure as ``<study>-<figure>.png``.

        Parameters
        ----------
        folder, language
            As in :meth:`to_csv` and :meth:`plot`, whose errors it raises, too.

        Returns
        -------
        list of Path
            The files.
        """
        say = Words(language)
        with figures.lettering(say):
            paths = self.to_csv(folder)
            for name, figure in self.draw(say).items():
                paths.append(self._path(folder, name, "png"))
                figures.save(figure, paths[-1])
        return paths

    def _path(self, folder: str | os.PathLike, name: str, ending: str) -> Path:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder, f"{self.name}-{name}.{ending}")


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own, whose text is the shortest that reads back the same."""
    return value.item() if hasattr(value, "item") else value
