"""Readers of data files: IDX, .npz and CSV, as they are stored.

Every reader gives ``(inputs, labels)``, labels None where there are none. Nothing is unpickled,
sizes are checked against the file before memory is taken, and errors name the file.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from . import checks

Inputs = np.ndarray
Labels = np.ndarray | None

LABEL_NAMES = ("label", "y", "target", "class")

IDX_IMAGES = re.compile(r"(?P<set>.*)images(?P<dot>[-.])idx\d-ubyte(\.gz)?")
IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# Deflate codes at most 258 bytes in 2 bits; a file that claims more is lying about its size.
DEFLATE_MOST = 1032


def read_idx_folder(folder: Path, parts: Sequence[str]) -> tuple[Inputs, Labels]:
    """The wanted parts ("train", "test") that a folder holds under MNIST's names, joined."""
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = IDX_IMAGES.fullmatch(path.name)
        if name is None:
            continue
        part = "test" if re.search("t10k|test", name["set"]) else "train"
        if part in images and path.name != images[part].name + ".gz":
            raise ValueError(
                f"{folder}: more than one {part} set, {images[part].name} and {path.name};"
                " name the image file instead"
            )
        images.setdefault(part, path)
    found = [read_idx_pair(images[part]) for part in parts if part in images]
    if not found:
        raise ValueError(
            f"{folder}: no {' or '.join(parts)} images found; expected IDX files"
            " such as train-images-idx3-ubyte or t10k-images-idx3-ubyte.gz, or CIFAR's binary ones"
            " such as data_batch_1.bin"
        )
    return _join(folder, found)


def read_idx_pair(path: Path) -> tuple[Inputs, Labels]:
    """An image file and, if it lies beside under MNIST's name, its label file."""
    name = IDX_IMAGES.fullmatch(path.name)
    if name is None:
        raise ValueError(
            f"{path}: unknown kind of data, expected .csv, .npz, CIFAR's .bin, a folder of IDX or"
            " CIFAR's files, or an IDX file of images named like train-images-idx3-ubyte"
        )
    plain = path.with_name(f"{name['set']}labels{name['dot']}idx1-ubyte")
    for labels in (plain, plain.with_name(plain.name + ".gz")):
        if labels.exists():
            return read_idx(path), read_idx(labels)
    return read_idx(path), None


def read_idx(path: Path) -> np.ndarray:
    """One IDX file, plain or gzipped: two zeros, type, dimensions, big-endian sizes, data.

    Source: the end of LeCun, Cortes and Burges' page "The MNIST database".
    """
    with naming(path), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        stored = path.stat().st_size
        raw.seek(0)
        file = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
        zeros, code, dimensions = _exactly(file, 2), *_exactly(file, 2)
        if zeros != b"\0\0" or code not in IDX_DTYPES or dimensions == 0:
            raise ValueError("not an IDX file: unknown first four bytes")
        shape = tuple(np.frombuffer(_exactly(file, 4 * dimensions), ">u4").tolist())
        dtype = np.dtype(IDX_DTYPES[code])
        claimed = math.prod(shape) * dtype.itemsize
        if claimed > DEFLATE_MOST * stored or not (packed or claimed == stored - file.tell()):
            raise ValueError(f"sizes {shape} in its header do not fit a file of {stored} bytes")
        data = _exactly(file, claimed)
        if file.read(1):
            raise ValueError(f"data go on after the sizes {shape} in its header")
        return np.frombuffer(data, dtype).reshape(shape)


def read_npz(
    path: Path, label: str | None, parts: Sequence[str], labelled: bool
) -> tuple[Inputs, Labels]:
    """Arrays "X" and "y" (or the named label), or those with "_train" and "_test" behind."""
    with naming(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy").lower(): info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("two arrays in it have the same name, but for upper and lower case")
        target = (label or "y").lower()
        suffixes = [f"_{part}" for part in parts]
        if "x" in members and len(parts) > 1:
            suffixes = [""]
        found: list[tuple[Inputs, Labels]] = []
        for suffix in (suffix for suffix in suffixes if f"x{suffix}" in members):
            inputs = _read_npy(archive, members[f"x{suffix}"], kinds="fiub")
            labels = None
            if target + suffix in members:
                labels = _read_npy(archive, members[target + suffix], kinds="fiubUS")
            elif labelled:
                raise checks.unknown_name("array", target + suffix, members)
            found.append((inputs, labels))
        if not found:
            wanted = " or ".join(["'X'"] * (len(parts) > 1) + [f"'x_{part}'" for part in parts])
            raise ValueError(f"no array {wanted} found, only {sorted(members)}")
    return _join(path, found)


def read_csv(path: Path, label: str | None, labelled: bool) -> tuple[Inputs, Labels]:
    """A table with a header; the label's column apart, every other column a number."""
    with naming(path), open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        header = [name.strip() for name in next(lines, [])]
        _check_header(header)
        position = _label_position(header, label, labelled)
        names = [name for column, name in enumerate(header) if column != position]
        if not names:
            raise ValueError(f"no column beside the label {header[0]!r}")
        numbers, labels = array("d"), []
        for row in filter(None, lines):
            if len(row) != len(header):
                raise ValueError(
                    f"line {lines.line_num}: {len(row)} values, expected {len(header)}"
                )
            if position is not None:
                labels.append(row.pop(position).strip())
                if not labels[-1]:
                    raise ValueError(f"line {lines.line_num}: the label is missing")
            try:
                numbers.extend(map(float, row))
            except ValueError:
                raise ValueError(f"line {lines.line_num}, {_blame(names, row)}") from None
    inputs = np.frombuffer(numbers, np.float64).reshape(-1, len(names))
    return inputs, None if position is None else _parse_labels(labels)


def _check_header(header: list[str]) -> None:
    if not header:
        raise ValueError("empty; expected a line that names the columns")
    if all(map(_is_number, header)):
        raise ValueError("the first line must name the columns, got only numbers")


def _label_position(header: list[str], label: str | None, labelled: bool) -> int | None:
    if label is None:
        named = [column for column, name in enumerate(header) if name.lower() in LABEL_NAMES]
        if labelled and not named:
            raise ValueError(
                f"no column is named {', '.join(map(repr, LABEL_NAMES))}; say with label= which"
                f" column holds the labels, for example {header[-1]!r}"
            )
        return named[-1] if named else None
    if header.count(label) > 1:
        raise ValueError(f"more than one column is named {label!r}")
    if label not in header:
        if labelled:
            raise checks.unknown_name("column", label, header)
        return None
    return header.index(label)


def _parse_labels(labels: list[str]) -> np.ndarray:
    text = np.array(labels, dtype=np.str_)
    for dtype in (np.int64, np.float64):
        try:
            return text.astype(dtype)
        except (ValueError, OverflowError):
            continue
    return text


def _blame(names: list[str], row: list[str]) -> str:
    name, value = next(
        (name, value) for name, value in zip(names, row, strict=True) if not _is_number(value)
    )
    return f"column {name!r}: {value!r} is not a number"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """One array, whose sizes are believed only once they fit what the archive stores."""
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE_MOST}.get(info.compress_type)
    if ratio is None:
        raise ValueError(f"array {info.filename!r}: compressed in a way that NumPy does not use")
    with archive.open(info) as member:
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        version = np.lib.format.read_magic(member)
        if version not in readers:
            raise ValueError(f"array {info.filename!r}: unknown format version {version}")
        shape, fortran_order, dtype = readers[version](member)
        if dtype.kind not in kinds:
            content = "numbers or text" if "U" in kinds else "numbers"
            raise ValueError(f"array {info.filename!r}: must hold {content}, got dtype {dtype}")
        if not shape or min(shape) < 0:
            raise ValueError(f"array {info.filename!r}: must have rows, got shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != info.file_size - member.tell() or claimed > ratio * info.compress_size:
            raise ValueError(
                f"array {info.filename!r}: shape {shape} of {dtype} does not fit the stored size"
            )
        values = np.empty(math.prod(shape), dtype)
        values.view(np.uint8)[:] = np.frombuffer(_exactly(member, claimed), np.uint8)
        return values.reshape(shape, order="F" if fortran_order else "C")


def _join(path: Path, found: list[tuple[Inputs, Labels]]) -> tuple[Inputs, Labels]:
    """Several parts as one, row after row; a lone part as it is."""
    if len(found) == 1:
        return found[0]
    inputs = [part for part, _ in found]
    if len({part.shape[1:] for part in inputs}) > 1:
        raise ValueError(
            f"{path}: rows of the parts must be alike, got shapes {[part.shape for part in inputs]}"
        )
    labels = [part for _, part in found if part is not None]
    complete = len(labels) == len(found)
    return np.concatenate(inputs), np.concatenate(labels) if complete else None


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError(f"ends early: {len(data)} of {size} bytes")
    return data


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file makes the libraries raise into one error that names it."""
    try:
        yield
    except (
        ValueError,
        EOFError,
        OverflowError,
        RuntimeError,
        NotImplementedError,
        OSError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
        csv.Error,
    ) as error:
        # Only what the system says about the file itself carries its name.
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{path}: {error}") from error
