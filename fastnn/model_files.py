"""Model files: named arrays and a description in the safetensors layout; nothing is unpickled.

A file is the length of a header (8 bytes, little-endian), the header in JSON, padded with spaces
to a multiple of 8 bytes, and the arrays' bytes, little-endian, without gaps. The header's
"__metadata__" holds, under the one key "fastnn", JSON text of our own: the format version, a
SHA-256 digest of all names, arrays and metadata, and the caller's metadata.

Source: the format section of safetensors' README, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import reprlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

FORMAT_VERSION = 1

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# What the safetensors library allows; no model of ours comes near.
LONGEST_HEADER = 100_000_000


class _Entry(NamedTuple):
    """Where an array lies; the offsets count from the end of the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def save_tensors(
    path: str | PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
) -> None:
    """Write arrays and metadata to a file, or leave what was there untouched.

    The file is written aside in the same folder, forced to disk and renamed.

    Parameters
    ----------
    path : str or path
        The file; an existing one is replaced.
    tensors : mapping of str to ndarray
        Arrays of bool, integers, float16, float32 or float64.
    metadata : mapping
        Anything JSON can hold: dicts with str keys, lists, str, finite numbers, bool, None.

    Raises
    ------
    TypeError
        An array's dtype, or something in the metadata, cannot be stored.
    ValueError
        NaN or infinity in the metadata, or a tensor named "__metadata__".
    OSError
        The file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tensors(f"{folder}/a.safetensors", {"w": np.ones(2)}, {"layers": [2, 1]})
    ...     load_tensors(f"{folder}/a.safetensors")
    ({'w': array([1., 1.])}, {'layers': [2, 1]})
    """
    stored = {name: _storable(name, tensor) for name, tensor in tensors.items()}
    # Wide elements first, so that each array starts at a multiple of its element's size.
    order = sorted(stored, key=lambda name: -stored[name].itemsize)
    text = _header_text(stored, order, metadata)
    with written_aside(Path(path)) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            file.write(_bytes_of(stored[name]))


def load_tensors(
    path: str | PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    tensors : dict of str to ndarray
        The arrays, each with memory of its own.
    metadata : dict
        The metadata.

    Raises
    ------
    FileNotFoundError
        Nothing there.
    ValueError
        Truncated, damaged, of another kind, or of a newer format version; the message names the
        file. All sizes are checked before memory is taken.
    """
    with open(path, "rb") as file:
        with _naming(path):
            entries, envelope, data_start = _read_header(file)
        version = envelope["format_version"]
        if version > FORMAT_VERSION:
            raise ValueError(
                f"{path}: written in format version {version}, newer than {FORMAT_VERSION},"
                " the newest that this fastnn reads; upgrade fastnn"
            )
        with _naming(path):
            tensors = {
                name: _read_tensor(file, data_start, name, entry) for name, entry in entries.items()
            }
            if _digest(tensors, envelope["metadata"]) != envelope["sha256"]:
                raise ValueError("the contents do not match their digest; the file is damaged")
    return tensors, envelope["metadata"]


def check_tensors(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], dtype: str
) -> None:
    """Raise ValueError unless a file's tensors have these shapes, by name, and this dtype."""
    for name, shape in shapes.items():
        found = tensors.get(name)
        if found is None or found.shape != shape or found.dtype.name != dtype:
            raise ValueError(f"the file has no {dtype} tensor {name!r} of shape {shape}")


def _storable(name: str, tensor: np.ndarray) -> np.ndarray:
    if name == "__metadata__":
        raise ValueError("a tensor must not be named '__metadata__'; the format reserves that name")
    array = np.asarray(tensor, order="C")
    little_endian = array.dtype.newbyteorder("<")
    if little_endian not in DTYPE_NAMES:
        raise TypeError(
            f"tensor {name!r} must have one of the dtypes {', '.join(map(str, DTYPE_NAMES))},"
            f" got {array.dtype}"
        )
    return array.astype(little_endian, copy=False)


def _header_text(
    tensors: Mapping[str, np.ndarray], order: Sequence[str], metadata: Mapping[str, Any]
) -> bytes:
    """The header, its tensors named in the caller's order and laid out in the given one."""
    try:
        digest = _digest(tensors, metadata)
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata must be something that JSON can hold: {error}") from None
    envelope = {"format_version": FORMAT_VERSION, "sha256": digest, "metadata": metadata}
    begins = dict(
        zip(order, accumulate((tensors[name].nbytes for name in order), initial=0), strict=False)
    )
    header: dict[str, Any] = {"__metadata__": {"fastnn": _json(envelope)}}
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begins[name], begins[name] + tensor.nbytes],
        }
    text = _json(header).encode()
    return text + b" " * (-len(text) % 8)


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of everything that loading returns, in an order of its own."""
    digest = hashlib.sha256(_json(metadata).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_json([name, DTYPE_NAMES[tensor.dtype], tensor.shape]).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _bytes_of(tensor: np.ndarray) -> memoryview:
    return tensor.reshape(-1).view(np.uint8).data


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the path's place when the block succeeds, and else is removed."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder")
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _force_rename_to_disk(target.parent)


def _force_rename_to_disk(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read_header(file: BufferedReader) -> tuple[dict[str, _Entry], dict[str, Any], int]:
    """The arrays' entries, our own JSON, and where the data start."""
    file_size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(file_size - 8, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes does not fit a file of {file_size}")
    header = _parse(file.read(length))
    text = _object(header.pop("__metadata__", {})).get("fastnn")
    if not isinstance(text, str):
        raise ValueError("no metadata of fastnn's in it")
    envelope = _read_envelope(text)
    entries = {name: _read_entry(name, fields) for name, fields in header.items()}
    _check_layout(entries, file_size - 8 - length)
    return entries, envelope, 8 + length


def _check_layout(entries: Mapping[str, _Entry], data_size: int) -> None:
    """Array after array, no gap, no overlap, up to the end of the file."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise ValueError(f"tensor {name!r} begins at byte {entry.begin}, expected {end}")
        end = entry.end
    if end != data_size:
        raise ValueError(f"{end} bytes of data expected, got {data_size}")


def _read_envelope(text: str) -> dict[str, Any]:
    envelope = _parse(text)
    version = envelope.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format_version must be a positive integer, got {version!r}")
    if version <= FORMAT_VERSION:
        _check_fields("metadata", envelope, {"format_version", "sha256", "metadata"})
        _object(envelope["metadata"])
    return envelope


def _read_entry(name: str, fields: object) -> _Entry:
    fields = _object(fields)
    _check_fields(f"tensor {name!r}", fields, {"dtype", "shape", "data_offsets"})
    dtype = DTYPES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"tensor {name!r} has the unknown dtype {fields['dtype']!r}")
    shape, offsets = _sizes(name, fields["shape"]), _sizes(name, fields["data_offsets"])
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r} of shape {shape} does not fit its bytes {offsets}")
    return _Entry(dtype, shape, *offsets)


def _read_tensor(file: BufferedReader, data_start: int, name: str, entry: _Entry) -> np.ndarray:
    tensor = np.empty(entry.shape, entry.dtype)
    raw = _bytes_of(tensor)
    file.seek(data_start + entry.begin)
    if file.readinto(raw) != len(raw):
        raise ValueError(f"tensor {name!r} ends early")
    if tensor.dtype == bool and np.any(tensor.view(np.uint8) > 1):
        raise ValueError(f"tensor {name!r} of booleans holds other bytes than 0 and 1")
    return tensor


def _sizes(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int and 0 <= n < 2**63 for n in values):
        raise ValueError(f"tensor {name!r}: expected a list of sizes, got {reprlib.repr(values)}")
    return tuple(values)


def _parse(text: str | bytes) -> dict[str, Any]:
    return _object(
        json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"a key stands twice among {reprlib.repr([key for key, _ in pairs])}")
    return result


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {reprlib.repr(value)}")
    return value


def _check_fields(what: str, fields: dict[str, Any], expected: set[str]) -> None:
    if set(fields) != expected:
        raise ValueError(
            f"{what} must have the fields {sorted(expected)}, got {reprlib.repr(sorted(fields))}"
        )


@contextmanager
def _naming(path: str | PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: not a model file: {error}") from error
