"""The reader of CIFAR's binary files.

A record is its labels, a byte each, and an image of 32 x 32 pixels, row after row: all of its red,
then green, then blue. CIFAR-100's first label is one of 20 groups of classes; its class is the
second. Source: Krizhevsky's page "The CIFAR-10 dataset", "Binary version".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .data_files import Inputs, naming

SIDE, COLOURS = 32, 3

# Records that are turned to colours last at once; they stay in the processor's cache.
_BLOCK_RECORDS = 256
_MOST_NAMES_BYTES = 1 << 16


class _Kind(NamedTuple):
    """One of the two data sets: how many values each label has, and the names of its files."""

    name: str
    label_values: tuple[int, ...]
    parts: Mapping[str, tuple[str, ...]]
    class_names: str
    folder: str

    @property
    def record_bytes(self) -> int:
        return len(self.label_values) + COLOURS * SIDE**2

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for names in self.parts.values() for name in names)

    def is_in(self, folder: Path) -> bool:
        if folder.name == self.folder:
            return folder.is_dir()
        return any((folder / name).exists() for name in self.names)


_CIFAR_10 = _Kind(
    "CIFAR-10",
    (10,),
    {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)},
    "batches.meta.txt",
    "cifar-10-batches-bin",
)
_CIFAR_100 = _Kind(
    "CIFAR-100",
    (20, 100),
    {"train": ("train.bin",), "test": ("test.bin",)},
    "fine_label_names.txt",
    "cifar-100-binary",
)
_KINDS = (_CIFAR_10, _CIFAR_100)

Images = tuple[Inputs, np.ndarray, tuple[str, ...] | None]
"""Pixels uint8 (B, 32, 32, 3), labels uint8 (B,), and the classes' names where they are beside."""


def read_folder(folder: Path, parts: Sequence[str]) -> Images | None:
    """All files of the wanted parts ("train", "test"), in their order; None for other folders.

    The files may also lie in a folder within, of the name that the archives give it.
    """
    found = [
        (place, kind)
        for kind in _KINDS
        for place in (folder, folder / kind.folder)
        if kind.is_in(place)
    ]
    if not found:
        return None
    place, kind = found[0]
    if len(found) > 1:
        raise ValueError(f"{folder}: more than one data set of CIFAR; name the folder of one")
    wanted = [name for part in parts for name in kind.parts[part]]
    missing = [name for name in wanted if not (place / name).exists()]
    if missing:
        raise ValueError(f"{place}: {kind.name}'s {', '.join(missing)} not found")
    return _read([place / name for name in wanted], kind)


def read_file(path: Path) -> Images:
    """One file: CIFAR-100's if it has such a name, else CIFAR-10's."""
    is_100 = path.name in _CIFAR_100.names
    return _read([path], _CIFAR_100 if is_100 else _CIFAR_10)


def _read(paths: Sequence[Path], kind: _Kind) -> Images:
    classes = _read_class_names(paths[0].with_name(kind.class_names), kind)
    counts = [_count_records(path, kind) for path in paths]
    pixels = np.empty((sum(counts), SIDE, SIDE, COLOURS), np.uint8)
    labels = np.empty(sum(counts), np.uint8)
    begin = 0
    for path, count in zip(paths, counts, strict=True):
        end = begin + count
        _read_records(path, kind, pixels[begin:end], labels[begin:end])
        begin = end
    return pixels, labels, classes


def _count_records(path: Path, kind: _Kind) -> int:
    size = os.path.getsize(path)
    count, rest = divmod(size, kind.record_bytes)
    if rest or not count:
        other = _CIFAR_10 if kind is _CIFAR_100 else _CIFAR_100
        is_other = size > 0 and size % other.record_bytes == 0
        raise ValueError(
            f"{path}: {size} bytes; expected whole records of {kind.record_bytes} bytes, as"
            f" {kind.name}'s binary files have"
            + is_other
            * f"; {other.name}'s are named {', '.join(other.names)}"
        )
    return count


def _read_records(path: Path, kind: _Kind, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Fill pixels (B, 32, 32, 3) and labels (B,)."""
    places = len(kind.label_values)
    block = np.empty((_BLOCK_RECORDS, kind.record_bytes), np.uint8)
    with naming(path), open(path, "rb") as file:
        for begin in range(0, len(labels), _BLOCK_RECORDS):
            records = block[: len(labels) - begin]
            if file.readinto(records.data) != records.nbytes:
                raise ValueError(f"ends early: {len(labels)} records were there at first")
            _check_labels(records[:, :places], kind, begin)
            end = begin + len(records)
            labels[begin:end] = records[:, places - 1]
            colours_first = records[:, places:].reshape(-1, COLOURS, SIDE, SIDE)
            pixels[begin:end] = colours_first.transpose(0, 2, 3, 1)


def _check_labels(labels: np.ndarray, kind: _Kind, begin: int) -> None:
    beyond = labels >= kind.label_values
    if beyond.any():
        record, place = np.argwhere(beyond)[0]
        raise ValueError(
            f"record {begin + record} has the label {labels[record, place]}; expected 0 to"
            f" {kind.label_values[place] - 1}"
        )


def _read_class_names(path: Path, kind: _Kind) -> tuple[str, ...] | None:
    if not path.exists():
        return None
    with naming(path), open(path, encoding="utf-8-sig") as file:
        lines = file.read(_MOST_NAMES_BYTES).splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        expected = kind.label_values[-1]
        if len(names) != expected or len(set(names)) != expected:
            raise ValueError(
                f"{len(set(names))} different names in {len(names)} lines; expected the names of"
                f" {expected} classes"
            )
    return names
