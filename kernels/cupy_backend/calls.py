"""Calls of device functions, and the text of the kernels that make them.

The arithmetic stands in ``.cu`` files as device functions that any number of blocks can share. A
kernel of a graph makes one call; a persistent kernel makes many, with barriers between. Both are
written here, from what the functions are given.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from .formulas import shared_formulas

if TYPE_CHECKING:
    from .device import Device

THREADS = 256
"""Threads of every block."""
IN_FLIGHT = 4
"""Elements that a thread loads before it works on the first, where rows or columns are walked."""
MOST_BLOCKS = 1 << 20
PROGRESS = (
    "X", "TARGETS", "WEIGHTS", "OUT", "ORDER", "FIRST", "STEP", "EPOCH", "SEED", "DIVERGED",
    "FIRST_STEP", "SCALARS", "LOSSES", "HITS", "SQUARES",
)  # fmt: skip
"""The words of a run's table on the device: where its data lie (addresses; ORDER is 0 for rows as
they stand), the place in the order of the step's first row, the step, and so on. SCALARS, LOSSES,
HITS and SQUARES have an entry for each step from FIRST_STEP on."""
_C_TYPES = {  # of float16 the bits
    "float16": "unsigned short", "float32": "float", "float64": "double", "bool": "bool",
    "int8": "signed char",
    "int16": "short", "int32": "int", "int64": "long long", "uint8": "unsigned char",
    "uint16": "unsigned short", "uint32": "unsigned", "uint64": "unsigned long long",
}  # fmt: skip


@dataclass(frozen=True)
class Code:
    """An argument that is C++ text."""

    text: str


Rows = np.int32 | Code
"""How many rows count: a number, or text where only the device knows it."""


@dataclass(frozen=True)
class Local:
    """An array whose address the kernel's text knows: an expression, a dtype and a shape."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    stride: int = 1
    """Elements from row to row."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __getitem__(self, part: slice) -> Local:
        """A part of an array with one axis."""
        begin, end, _ = part.indices(self.size)
        return replace(self, name=f"({self.name} + {begin})", shape=(end - begin,))

    def reshape(self, shape: tuple[int, ...]) -> Local:
        """The same elements in another shape."""
        return replace(self, shape=shape, stride=shape[-1])

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from element to element, by axis."""
        return (self.stride * self.dtype.itemsize, self.dtype.itemsize)[-self.ndim :]


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
    named : tuple of (str, array or NumPy scalar)
        What texts among the arguments speak of by these names.
    """

    function: str
    arguments: tuple[Any, ...]
    dtype: str
    blocks: int
    files: tuple[str, ...]
    formulas: str = ""
    shared: int = 0
    blocks_at_once: int = 1
    named: tuple[tuple[str, Any], ...] = ()

    def source(self) -> str:
        """The text of a kernel that makes this call alone, as ``kernel``."""
        return f"{prelude(self.dtype, self.files, (self.formulas,))}\n{self.kernel()}"

    def kernel(self, name: str = "kernel") -> str:
        """That kernel, under a name, without what stands before it."""
        parameters = ", ".join(text for text, _ in self._parameters())
        # told how many blocks are enough, ptxas does not spill for the sake of more
        bounds = f"__launch_bounds__(THREADS, {self.blocks_at_once})"
        return (
            f'extern "C" __global__ void {bounds} {name}({parameters}) {{\n'
            f"  {self.text('Team::all()', self.arguments)};\n}}\n"
        )

    def signature(self) -> Hashable:
        """What its kernel depends on."""
        parameters = tuple(text for text, _ in self._parameters())
        text = self.text("", self.arguments)
        what = self.dtype, self.files, self.formulas, self.blocks_at_once, self.shared
        return what, parameters, text

    def text(self, team: str, arguments: Sequence[Any]) -> str:
        """The call itself, with these arguments."""
        passed = (_spell(argument, f"a{place}") for place, argument in enumerate(arguments))
        return f"{self.function}({', '.join((team, *passed))})"

    def values(self) -> tuple[Any, ...]:
        """What the kernel of :meth:`source` is launched with."""
        return tuple(value for _, value in self._parameters())

    def _parameters(self) -> list[tuple[str, Any]]:
        places = [(f"a{place}", argument) for place, argument in enumerate(self.arguments)]
        return [both for name, value in (*self.named, *places) for both in _declare(name, value)]

    @property
    def grid(self) -> int:
        """Blocks to launch."""
        return max(1, min(self.blocks, MOST_BLOCKS))

    def prepare(self, device: Device) -> None:
        """Compile and load the kernel."""
        device.function_of(self)

    def launch(self, device: Device) -> None:
        """Put the kernel on the current stream."""
        device.launch(self)

    def naming(self, values: Mapping[str, Any]) -> Call:
        """The same call, with those of the values as parameters that its texts speak of by name."""
        words = {word for argument in self.arguments for word in _words(argument)}
        return replace(self, named=tuple((n, value) for n, value in values.items() if n in words))


@functools.lru_cache(maxsize=256)
def prelude(dtype: str, files: tuple[str, ...], formulas: tuple[str, ...]) -> str:
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


def _spell(argument: Any, name: str) -> str:
    """How an argument is passed where a parameter of that name, or its own, holds it."""
    if isinstance(argument, Code):
        return argument.text
    if isinstance(argument, Struct):
        members = (_spell(part, f"{name}_{place}") for place, part in enumerate(argument.members))
        return f"{argument.type}{{{', '.join(members)}}}"
    if isinstance(argument, Local):
        stride = str(argument.stride)
        name = argument.name
    else:
        stride = f"{name}_stride"
    if len(argument.shape) == 2:
        return f"Matrix<{c_type(argument.dtype)}>{{{name}, {stride}}}"
    return name


def _declare(name: str, value: Any) -> list[tuple[str, Any]]:
    """The parameters that an argument becomes, and what is passed for them."""
    if isinstance(value, Code | Local):
        return []
    if isinstance(value, Struct):
        members = enumerate(value.members)
        return [both for i, part in members for both in _declare(f"{name}_{i}", part)]
    kind = c_type(value.dtype)
    if isinstance(value, np.generic):
        return [(f"{kind} {name}", value)]
    pointer = [(f"{kind} *{name}", value)]
    if value.ndim < 2:
        return pointer
    return [*pointer, (f"long long {name}_stride", np.int64(value.strides[0] // value.itemsize))]


def _words(argument: Any) -> list[str]:
    """The words of an argument's text."""
    if isinstance(argument, Struct):
        return [word for part in argument.members for word in _words(part)]
    if not isinstance(argument, Code | Local):
        return []
    return re.findall(r"\w+", argument.text if isinstance(argument, Code) else argument.name)
