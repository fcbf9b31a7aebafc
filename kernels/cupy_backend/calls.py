"""Calls of device functions, and the text of the kernels that make them.

The arithmetic stands in ``.cu`` files as device functions that any number of blocks can share. A
kernel of a graph makes one call; a persistent kernel makes many, with barriers between. Both are
written here, from what the functions are given.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np

from .formulas import shared_formulas

THREADS = 256
"""Threads of every block."""
IN_FLIGHT = 4
"""Elements that a thread loads before it works on the first, where rows or columns are walked."""
MOST_BLOCKS = 1 << 20
PROGRESS = (
    "X", "TARGETS", "WEIGHTS", "OUT", "ORDER", "FIRST", "STEP", "EPOCH", "SEED", "DIVERGED",
    "CHUNK_FIRST",
)  # fmt: skip
"""The words of a run's table on the device: where its data lie (addresses; ORDER is 0 for rows as
they stand), the place of the step's first row in the order, the step, and so on. CHUNK_FIRST is
the chunk's first row, counted in its step's batch."""
_C_TYPES = {  # of float16 the bits
    "float16": "unsigned short", "float32": "float", "float64": "double", "bool": "bool", "int8": "signed char",
    "int16": "short", "int32": "int", "int64": "long long", "uint8": "unsigned char",
    "uint16": "unsigned short", "uint32": "unsigned", "uint64": "unsigned long long",
}  # fmt: skip


@dataclass(frozen=True)
class Code:
    """An argument that is C++ text."""

    text: str


@dataclass(frozen=True)
class Local:
    """An array whose address the kernel's text knows: an expression, a dtype and a shape."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    stride: int
    """Elements from row to row."""


@dataclass(frozen=True)
class Struct:
    """An argument that is a C++ aggregate: its type, and an argument for each of its members."""

    type: str
    members: tuple[Any, ...]


NO_MATRIX = Code("Matrix<real>{nullptr, 0}")
NO_ARRAY = Code("nullptr")


@dataclass(frozen=True)
class Call:
    """A call of a device function.

    Parameters
    ----------
    function : str
        Its name, with template arguments.
    arguments : tuple
        After the team: arrays (1-D as pointers, 2-D as matrices), NumPy scalars, ``Code``, or a
        ``Struct`` of such.
    dtype : str
        What ``real`` is.
    blocks : int
        How many blocks can share the work; more would idle.
    files : tuple of str
        The ``.cu`` files that the function needs, in order, besides ``common``.
    formulas : str
        The text of structs made from formulas.
    shared : int
        Bytes of block memory.
    blocks_at_once : int
        Blocks that a multiprocessor must have the registers for.
    """

    function: str
    arguments: tuple[Any, ...]
    dtype: str
    blocks: int
    files: tuple[str, ...]
    formulas: str = ""
    shared: int = 0
    blocks_at_once: int = 1

    def source(self) -> str:
        """The text of a kernel that makes this call alone, as ``kernel``."""
        return f"{prelude(self.dtype, self.files, [self.formulas])}\n{self.kernel()}"

    def kernel(self, name: str = "kernel") -> str:
        """That kernel, under a name, without what stands before it."""
        names = [f"a{place}" for place in range(len(self.arguments))]
        both = list(zip(self.arguments, names, strict=True))
        parameters = ", ".join(text for argument in both for text in _declare(*argument))
        passed = ", ".join(spell(*argument) for argument in both)
        # told how many blocks are enough, ptxas does not spill for the sake of more
        bounds = f"__launch_bounds__(THREADS, {self.blocks_at_once})"
        return (
            f'extern "C" __global__ void {bounds} {name}({parameters}) {{\n'
            f"  {self.function}(Team{{(int)blockIdx.x, (int)gridDim.x}}, {passed});\n}}\n"
        )

    def values(self) -> tuple[Any, ...]:
        """What the kernel of :meth:`source` is launched with."""
        return tuple(value for argument in self.arguments for value in _values(argument))

    @property
    def grid(self) -> int:
        """Blocks to launch."""
        return max(1, min(self.blocks, MOST_BLOCKS))

    def with_arguments(self, *arguments: Any) -> Call:
        """The same call with other arguments."""
        return replace(self, arguments=arguments)


def prelude(dtype: str, files: Iterable[str], formulas: Sequence[str]) -> str:
    """What stands before a kernel: types and constants, formulas, device functions."""
    lines = [
        f"typedef {_C_TYPES[dtype]} real;",
        f"constexpr int THREADS = {THREADS}, IN_FLIGHT = {IN_FLIGHT};",
        f"enum {{ {', '.join(PROGRESS)} }};",
        shared_formulas(dtype),
        *(file_text(name) for name in ("common", *dict.fromkeys(files))),
        *dict.fromkeys(text for text in formulas if text),
    ]
    return "\n".join(lines)


@functools.cache
def file_text(name: str) -> str:
    """A ``.cu`` file of this folder."""
    return (resources.files(__package__) / f"{name}.cu").read_text()


def c_type(dtype: Any) -> str:
    """The C++ name of a NumPy type."""
    return _C_TYPES[np.dtype(dtype).name]


def share(items: int, each: int = THREADS) -> int:
    """Blocks that can share so many items, ``each`` a block."""
    return -(-items // each)


def spell(argument: Any, name: str) -> str:
    """How an argument is passed where a parameter of that name, or its own, holds it."""
    if isinstance(argument, Code):
        return argument.text
    if isinstance(argument, Struct):
        members = (spell(part, f"{name}_{place}") for place, part in enumerate(argument.members))
        return f"{argument.type}{{{', '.join(members)}}}"
    if isinstance(argument, Local):
        stride = str(argument.stride)
        name = argument.name
    else:
        stride = f"{name}_stride"
    if len(argument.shape) == 2:
        return f"Matrix<{c_type(argument.dtype)}>{{{name}, {stride}}}"
    return name


def _declare(argument: Any, name: str) -> list[str]:
    """The parameters that an argument becomes."""
    if isinstance(argument, Code | Local):
        return []
    if isinstance(argument, Struct):
        members = [_declare(part, f"{name}_{i}") for i, part in enumerate(argument.members)]
        return [text for member in members for text in member]
    kind = c_type(argument.dtype)
    if isinstance(argument, np.generic):
        return [f"{kind} {name}"]
    matrix = [f"long long {name}_stride"] if argument.ndim == 2 else []
    return [f"{kind} *{name}", *matrix]


def _values(argument: Any) -> list[Any]:
    if isinstance(argument, Code | Local):
        return []
    if isinstance(argument, Struct):
        return [value for member in argument.members for value in _values(member)]
    if isinstance(argument, np.generic) or argument.ndim < 2:
        return [argument]
    return [argument, np.int64(argument.strides[0] // argument.itemsize)]
