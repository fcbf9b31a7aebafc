"""Small networks whole: one kernel that stays on the device for many steps.

The calls of a step stand one after the other in a loop, with a barrier only where one needs what
another block has written. A network whose state fits the memory of a block runs in one, which keeps
everything there: weights, optimizer state, buffers; its barriers cost next to nothing. Larger ones
share each call among blocks. What is so little that sharing it would cost a barrier (the weight of
the batch, the check of the loss, the step's number) every block does for itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..contract import Binding, Plan
from ..tracing import TextMath
from .calls import PROGRESS, THREADS, Call, Code, Local, Struct, c_type, prelude
from .device import Device
from .memory import Memory
from .program import Item, Program

_WIDEST = 128
"""Columns of hidden layers and outputs up to which a step is too little work for many kernels."""
_MOST_ROWS = 512
_MOST_ROWS_OF_A_BLOCK = 32
"""Rows of a batch up to which one block is enough."""
_MOST_OPERATIONS = 32
"""Operations of a step up to which a kernel that does them all compiles in seconds and keeps its
numbers in registers."""
_ALIGNMENT = 16
_OWN = ("progress", "scale", "clip_scale")
"""What every block has for itself."""


def suits(plan: Plan) -> bool:
    """Whether a plan is small enough to stay on the device."""
    return (
        plan.update is not None
        and plan.batch_rows == plan.chunk_rows <= _MOST_ROWS
        and max(buffer.width for buffer in plan.buffers[1:]) <= _WIDEST
        and len(plan.chunk) + len(plan.step) <= _MOST_OPERATIONS
        and plan.precision == "float32"
    )


class Persistent:
    """The kernel of a plan.

    Parameters
    ----------
    plan : Plan
        One that :func:`suits`.
    binding : Binding
    memory : Memory
    device : Device

    Attributes
    ----------
    blocks : int
    shared : int
        Bytes of block memory.
    source : str
    """

    def __init__(self, plan: Plan, binding: Binding, memory: Memory, device: Device) -> None:
        self._device, self._memory = device, memory
        self._arrivals = device.zeros(1, np.uint32)
        space = _BlockSpace()
        text = None
        if plan.batch_rows <= _MOST_ROWS_OF_A_BLOCK:
            alone = Memory(plan, binding, space)
            text = _Text(plan, binding, alone, device, memory.lasting())
        if text is None or text.scratch + space.bytes > device.block_memory:
            space = _BlockSpace()
            text = _Text(plan, binding, memory, device, None)
        self._parameters = text.parameters
        self.shared = text.scratch + space.bytes
        self.blocks = min(text.blocks, device.processors)
        self.source = text.source()

    def launch(self, rows: int, steps: int) -> None:
        """Put so many steps of so many rows on the current stream."""
        fixed = self._memory.progress, self._arrivals, np.int32(rows), np.int32(steps)
        self._function(
            (self.blocks,),
            (THREADS,),
            (*fixed, *self._parameters.values()),
            shared_mem=self.shared,
            enable_cooperative_groups=True,
        )

    @functools.cached_property
    def _function(self) -> Callable[..., None]:
        return self._device.function(self.source, self.shared)


class _BlockSpace:
    """Memory of a block, behind what single operations use of it."""

    def __init__(self) -> None:
        self.bytes = 0

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Local:
        return self.empty(shape, dtype)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Local:
        sizes, kind = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        name = f"(({c_type(kind)} *)(state + {self.bytes}))"
        self.bytes += _aligned(int(np.prod(sizes)) * kind.itemsize)
        return Local(name, kind, sizes, sizes[-1])


class _Text:
    """The text of a kernel, and what follows from it.

    ``lasting`` are the arrays of the device that one block takes over into ``memory``, which is
    its own; None where many blocks share the memory of the device.
    """

    def __init__(
        self,
        plan: Plan,
        binding: Binding,
        memory: Memory,
        device: Device,
        lasting: Sequence[Any] | None,
    ) -> None:
        self._plan, self._is_alone = plan, lasting is not None
        own = {name: Local(name, np.dtype(plan.dtype), (1,)) for name in _OWN[1:]}
        program = Program(
            plan, binding, memory.with_arrays(own), device, in_one_block=self._is_alone
        )
        self._items = list(program.any_step())
        calls = [_call(item) for item in self._items]
        self._formulas = [call.formulas for call in calls]
        self._files = [name for call in calls for name in call.files]
        used = max(call.shared for call in calls)
        self._table = _aligned(used)
        self._numbers = self._table + _aligned(8 * len(PROGRESS))
        self.scratch = self._numbers + 2 * _ALIGNMENT
        shared = [item for item in self._items if not item.everywhere]
        self.blocks = 1 if self._is_alone else max(_call(item).grid for item in shared)
        self.parameters: dict[str, Any] = {}
        self._names: dict[tuple[int, str], str] = {}
        self._copies = [
            (self._spelt(array.reshape(-1)).name, local)
            for array, local in zip(lasting or (), memory.lasting(), strict=False)
        ]
        self._loop = "\n".join(f"    {line}" for line in self._lines())

    def source(self) -> str:
        """The whole text."""
        declared = "".join(
            f", {c_type(array.dtype)} *{name}" for name, array in self.parameters.items()
        )
        words = len(PROGRESS)
        copies_in, copies_out = (
            [f"  copy_words({to}, {source}, {count});" for to, source, count in copies]
            for copies in (
                [(local.name, name, local.size) for name, local in self._copies],
                [(name, local.name, local.size) for name, local in self._copies],
            )
        )
        lines = [
            'extern "C" __global__ void __launch_bounds__(THREADS, 1) kernel(',
            f"    long long *table, unsigned *arrivals, int rows, int steps{declared}) {{",
            "  const Team team = Team::all();",
            f"  long long *const progress = (long long *)(block_memory() + {self._table});",
            f"  real *const scale = (real *)(block_memory() + {self._numbers});",
            f"  real *const clip_scale = (real *)(block_memory() + {self._numbers + _ALIGNMENT});",
            f"  unsigned char *const state = block_memory() + {self.scratch};",
            f"  copy_words(progress, table, {words});",
            *copies_in,
            "  __syncthreads();",
            "  for (int step = 0; step < steps && !progress[DIVERGED]; ++step) {",
            self._loop,
            "  }",
            "  __syncthreads();",
            f"  if (team.block == 0) copy_words(table, progress, {words});",
            *copies_out,
            "}",
        ]  # fmt: skip
        before = prelude(self._plan.dtype, (*self._files, "persistent"), tuple(self._formulas))
        return "\n".join((before, *lines, ""))

    def _lines(self) -> Iterator[str]:
        """The calls of a step, and the barriers before them."""
        barrier = "__syncthreads();" if self._is_alone else "grid_barrier(arrivals);"
        for item, waits in zip(self._items, barriers(self._items), strict=True):
            if waits == "block":
                yield "__syncthreads();"
            elif waits == "grid":
                yield barrier
            is_whole = self._is_alone or item.everywhere
            call = _call(item)
            arguments = [self._spelt(argument) for argument in call.arguments]
            yield f"{call.text('Team{0, 1}' if is_whole else 'team', arguments)};"
            if item.may_stop:
                yield "__syncthreads();"
                yield "if (progress[DIVERGED]) break;"

    def _spelt(self, argument: Any) -> Any:
        """An argument as text: numbers as they are, arrays by the names of parameters."""
        if isinstance(argument, Code | Local):
            return argument
        if isinstance(argument, Struct):
            return Struct(argument.type, tuple(map(self._spelt, argument.members)))
        if isinstance(argument, np.integer):
            return Code(str(int(argument)))
        if isinstance(argument, np.floating):
            return Code(TextMath(self._plan.dtype).text(float(argument)))
        key = argument.data.ptr, argument.dtype.name
        if key not in self._names:
            name = self._names[key] = f"p{len(self._names)}"
            self.parameters[name] = argument
        stride = argument.strides[0] // argument.itemsize
        return Local(self._names[key], argument.dtype, argument.shape, stride)


def barriers(items: Sequence[Item]) -> list[str | None]:
    """What each piece of a loop's work waits for: None, its own "block", or the whole "grid".

    Two pieces may go side by side unless one writes what the other reads or writes. What every
    block has for itself is a matter of the block alone.
    """
    waits: list[str | None] = []
    grid, block = _Pending(), _Pending()
    for item in (*items, *items):  # the second time round, the end of the loop lies before
        own = frozenset(_OWN)
        if grid.conflicts(item.reads - own, item.writes - own):
            waits.append("grid")
            grid, block = _Pending(), _Pending()
        elif block.conflicts(item.reads & own, item.writes & own):
            waits.append("block")
            block = _Pending()
        else:
            waits.append(None)
        for pending in (grid, block):
            pending.reads |= item.reads
            pending.writes |= item.writes
    return waits[len(items) :]


class _Pending:
    """What has been read and written since the last barrier."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.writes: set[str] = set()

    def conflicts(self, reads: frozenset[str], writes: frozenset[str]) -> bool:
        return bool(reads & self.writes or writes & self.writes or writes & self.reads)


def _call(item: Item) -> Call:
    assert isinstance(item.work, Call)
    return item.work


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
