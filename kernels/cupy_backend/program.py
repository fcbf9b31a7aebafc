"""The work of a plan's step on the device: each row becomes calls of device functions.

A batch of several chunks walks them one after the other; gradients of later ones are added.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..contract import IDENTITY, Binding, Dropout, Plan, Row
from ..tracing import TextMath
from . import choice, operations, products
from .calls import Call, Code, Local, Rows, c_type
from .device import Device, Work
from .memory import Memory

RECORDS = ("row_losses", "row_hits")
_STEP_OF_RUN = Code("progress[STEP] - progress[FIRST_STEP]")
"""A step's place in what has an entry for each step of a run."""


class Item(NamedTuple):
    """A piece of work, with the names of what it reads and writes."""

    work: Work
    reads: frozenset[str]
    writes: frozenset[str]
    everywhere: bool = False
    """So little that, where blocks share the other work, each had better do this for itself."""
    may_stop: bool = False
    """Whether it says that the rest of the step must not be done."""


def place_of(dropout: Dropout, first_row: str, dtype: str) -> Code:
    """Where a layer's mask stands; seed, epoch and step are read from the run's table.

    ``first_row`` is the text of the first row's place in its step.
    """
    scale = TextMath(dtype).text(dropout.scale)
    return Code(f"place_of(progress, {first_row}, {dropout.layer}u, {dropout.threshold}u, {scale})")


class Program:
    """Turns the rows of a plan into work, for steps of any number of rows.

    Parameters
    ----------
    plan : Plan
    binding : Binding
    memory : Memory
    device : Device
    in_one_block : bool, default False
        Whether all the memory is a block's own: products then read it as it lies.
    """

    def __init__(
        self,
        plan: Plan,
        binding: Binding,
        memory: Memory,
        device: Device,
        in_one_block: bool = False,
    ) -> None:
        self._plan, self._binding, self._memory, self._device = plan, binding, memory, device
        self._how: dict[str, Any] = {"precision": plan.precision, "small": in_one_block}
        self._number = np.dtype(plan.dtype).type
        self._names = {
            "progress": memory.progress,
            "scale": memory.arrays["scale"],
            "clip_scale": memory.arrays["clip_scale"],
        }
        self._serial = itertools.count()
        self._decayed = {p.name: p.decayed for p in plan.parameters}
        self._biases = {row.reads[1]: row.reads[2:] for row in plan.chunk if row.op == "linear"}

    def step(self, rows: int) -> Iterator[Item]:
        """What a step of so many rows does, in order.

        Gradients are stored, and all parameters move in one pass at the end.
        """
        plan = self._plan
        for first in range(0, rows, plan.chunk_rows):
            count = min(plan.chunk_rows, rows - first)
            yield from self._chunk(_Chunk(first, np.int32(count), np.int32(rows)))
        yield from self._norm()
        if plan.update is not None:
            memory, reads = self._memory, [p.name for p in plan.parameters]
            for decayed, half in memory.halves:
                flat = memory.weights[half], memory.flat_grads[half]
                yield self._move(flat, [slot[half] for slot in memory.flat_slots], decayed, reads)
        yield self._advance(np.int32(rows))

    def any_step(self) -> Iterator[Item]:
        """What a step of one chunk does, for as many rows as a variable ``rows`` says.

        A weight moves as its gradient leaves the product, where the plan allows it.
        """
        rows, memory = Code("rows"), self._memory
        yield from self._chunk(_Chunk(0, rows, rows))
        yield from self._norm()
        for row in self._plan.step:
            for name in (*row.writes, *self._biases.get("".join(row.writes), ())):
                arrays = (memory.arrays[name], memory.grads[name], *memory.slots[name])
                weight, grad, *slots = (array.reshape((array.size,)) for array in arrays)
                yield self._move((weight, grad), slots, self._decayed[name], [name])
        yield self._advance(rows)

    def _chunk(self, chunk: _Chunk) -> Iterator[Item]:
        names = self._names | {"first_row": np.int32(chunk.first)}
        for row in self._plan.chunk:
            for item in getattr(self, f"_{row.op}")(row, chunk):
                yield item._replace(work=_naming(item.work, names))

    def _item(
        self, work: Work, reads: Sequence[str], writes: Sequence[str], everywhere: bool = False
    ) -> Item:
        return Item(_naming(work, self._names), frozenset(reads), frozenset(writes), everywhere)

    # -- what rows speak of --

    def _arrays(self, names: Sequence[str]) -> Any:
        return [self._memory.arrays[name] for name in names]

    def _data(self, word: str, dtype: Any, *shape: int) -> Local:
        """An array whose address is in the run's table."""
        kind = np.dtype(dtype)
        return Local(
            f"(({c_type(kind)} *)progress[{word}])", kind, shape, shape[-1] if shape else 1
        )

    def _record(self, word: str) -> Local:
        """A number for each step of a run."""
        return self._data(word, self._plan.dtype, 1)

    def _order(self, chunk: _Chunk) -> Code:
        return Code(f"order_of(progress, {chunk.first_row})")

    def _place(self, row: Row, chunk: _Chunk) -> Code | None:
        dropout: Dropout | None = row.settings.get("dropout")
        return None if dropout is None else place_of(dropout, chunk.first_row, self._plan.dtype)

    def _weights(self) -> Local | None:
        binding = self._binding
        if binding.weights is None:
            return None
        return self._data("WEIGHTS", self._plan.dtype, len(binding.weights))

    # -- the rows of a plan, by name --

    def _weigh(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        if chunk.first == 0:
            weigh = operations.weigh(
                chunk.rows_in_step, self._weights(), self._order(chunk),
                self._memory.arrays["scale"],
            )  # fmt: skip
            yield self._item(weigh, ("progress",), ("scale",), everywhere=True)

    def _gather(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        x = self._binding.x
        source = self._data("X", x.dtype, *x.shape)
        (out,) = self._arrays(row.writes)
        gather = operations.gather(chunk.rows, source, self._order(chunk), out)
        yield self._item(gather, ("progress",), row.writes)

    def _linear(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        x, weight, *bias = self._arrays(row.reads)
        y, *slope = self._arrays(row.writes)
        arrays = x, weight, bias[0] if bias else None, y, slope[0] if slope else None
        activation = row.settings.get("activation", IDENTITY)
        how = activation, self._place(row, chunk)
        if isinstance(chunk.rows, Code):
            works: list[Work] = [products.linear(chunk.rows, *arrays, *how, **self._how)]
        else:
            works = choice.linear(chunk.rows, *arrays, *how, self._plan.precision)
        for work in works:
            yield self._item(work, (*row.reads, row.writes[0], "progress"), row.writes)

    def _map(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        x, *learned = self._arrays(row.reads)
        y, *slopes = self._arrays(row.writes)
        call = operations.map_(
            chunk.rows, x, y, slopes[0] if slopes else None, row.settings["activation"],
            learned, slopes[1:], self._place(row, chunk),
        )  # fmt: skip
        yield self._item(call, (*row.reads, "progress"), row.writes)

    def _multiply(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        call = operations.multiply(chunk.rows, *self._arrays(row.reads))
        yield self._item(call, row.reads, row.writes)

    def _softmax(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        call = operations.softmax(chunk.rows, *self._arrays((*row.reads, *row.writes)))
        yield self._item(call, row.reads, row.writes)

    def _softmax_grad(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        call = operations.softmax_grad(chunk.rows, *self._arrays(row.reads))
        yield self._item(call, row.reads, row.writes)

    def _loss(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        (outputs,) = self._arrays(row.reads)
        *grad, row_losses, row_hits = self._arrays(row.writes)
        targets = self._binding.targets
        assert targets is not None
        call = operations.loss(
            chunk.rows, outputs, self._data("TARGETS", targets.dtype, *targets.shape),
            self._weights(), Code("*scale"), grad[0] if grad else None, row_losses, row_hits,
            row.settings["loss"], self._order(chunk),
        )  # fmt: skip
        yield self._item(call, (*row.reads, "scale", "progress"), row.writes)

    def _check(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        losses, hits = self._record("LOSSES"), self._record("HITS")
        row_losses, row_hits = self._arrays(RECORDS)
        call = operations.check(
            chunk.rows, row_losses, row_hits, Code("*scale"), Code("progress"), losses, hits,
            _STEP_OF_RUN, adds=chunk.first > 0, stops=self._plan.update is not None,
        )  # fmt: skip
        item = self._item(call, (*RECORDS, "scale", "progress"), ("progress",), everywhere=True)
        yield item._replace(may_stop=self._plan.update is not None)

    def _square_sum(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        if chunk.first > 0:
            return
        weights = [array.reshape((array.size,)) for array in self._arrays(row.reads)]
        sizes = [array.size for array in weights]
        name, scratch = self._scratch(operations.norm_scratch(sizes))
        (norm,) = self._arrays(("norm",))
        for call in operations.norm(weights, scratch, norm):
            yield self._item(call, (*row.reads, name), ("norm", name))
        place, squares = _STEP_OF_RUN, self._record("SQUARES")
        call = operations.record_square(norm, Code("progress"), place, squares)
        yield self._item(call, ("norm", "progress"), ())

    def _copy_out(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        (outputs,) = self._arrays(row.reads)
        out = self._data("OUT", self._plan.dtype, len(self._binding.x), self._plan.outputs)
        places = Code(f"Order{{nullptr, progress[FIRST] + {chunk.first_row}}}")
        call = operations.copy_out(chunk.rows, outputs, places, out)
        yield self._item(call, (*row.reads, "progress"), ("out",))

    def _linear_grad_input(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        grad, weight, *slope = self._arrays(row.reads)
        (out,) = self._arrays(row.writes)
        arrays = grad, weight, slope[0] if slope else None, out
        if isinstance(chunk.rows, Code):
            works: list[Work] = [products.linear_grad_input(chunk.rows, *arrays, **self._how)]
        else:
            works = choice.linear_grad_input(chunk.rows, *arrays, self._plan.precision)
        for work in works:
            yield self._item(work, (*row.reads, *row.writes), row.writes)

    def _linear_grad_weight(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        if row.settings.get("update") and isinstance(chunk.rows, Code):
            yield self._update_weight(row, chunk)
            return
        x, grad = self._arrays(row.reads)
        name, grads, adds = row.settings["weight"], self._memory.grads, chunk.first > 0
        biases = self._biases[name]
        arrays = x, grad, grads[name], grads[biases[0]] if biases else None
        writes = [f"grad of {parameter}" for parameter in (name, *biases)]
        if isinstance(chunk.rows, Code):
            works: list[Work] = [
                products.linear_grad_weight(chunk.rows, *arrays, adds, **self._how)
            ]
        else:
            how = self._empty, self._plan.precision
            works = choice.linear_grad_weight(chunk.rows, *arrays, adds, *how)
        for work in works:
            yield self._item(work, row.reads, writes)

    def _column_sums(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        a, *b = self._arrays(row.reads)
        (name,) = row.writes
        out = self._memory.grads[name]
        yield from self._sums(chunk, a, b[0] if b else None, out, row.reads, (f"grad of {name}",))

    def _sums(
        self, chunk: _Chunk, a: Any, b: Any, out: Any, reads: Sequence[str], writes: Sequence[str]
    ) -> Iterator[Item]:
        name, scratch = self._scratch(operations.column_sums_scratch(*a.shape))
        for call in operations.column_sums(chunk.rows, a, b, out, chunk.first > 0, scratch):
            yield self._item(call, (*reads, name), (*writes, name))

    def _moments(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        (x,) = self._arrays(row.reads)
        name, scratch = self._scratch(operations.column_sums_scratch(*x.shape))
        mean, variance = self._arrays(row.writes)
        for call in operations.moments(chunk.rows, x, mean, variance, scratch):
            yield self._item(call, (*row.reads, *row.writes, name), (*row.writes, name))

    def _running_average(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        mean, variance = self._arrays(row.reads)
        running_mean, running_variance = self._arrays(row.writes)
        call = operations.running_average(
            chunk.rows, mean, variance, running_mean, running_variance, row.settings["momentum"],
            Code("progress"),
        )  # fmt: skip
        yield self._item(call, (*row.reads, *row.writes, "progress"), row.writes)

    def _batch_norm(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        x, mean, variance, gamma, beta = self._arrays(row.reads)
        y, *x_hat = self._arrays(row.writes)
        call = operations.batch_norm(
            chunk.rows, x, mean, variance, gamma, beta, row.settings["eps"],
            x_hat[0] if x_hat else None, y,
        )  # fmt: skip
        yield self._item(call, row.reads, row.writes)

    def _batch_norm_grad(self, row: Row, chunk: _Chunk) -> Iterator[Item]:
        grad, x_hat, variance, gamma, _ = self._arrays(row.reads)
        by_gamma, by_beta = row.reads[-2:]
        call = operations.batch_norm_grad(
            chunk.rows, grad, x_hat, variance, gamma, row.settings["eps"],
            self._memory.grads[by_beta], self._memory.grads[by_gamma],
        )  # fmt: skip
        sums = (f"grad of {by_beta}", f"grad of {by_gamma}")
        yield self._item(call, (*row.reads, *sums), row.writes)

    # -- the end of a step --

    def _norm(self) -> Iterator[Item]:
        memory, limit = self._memory, self._plan.clip_norm
        if limit is None:
            return
        grads = tuple(f"grad of {p.name}" for p in self._plan.parameters)
        arrays = [memory.flat_grads]
        name, scratch = self._scratch(operations.norm_scratch([memory.flat_grads.size]))
        norm, clip_scale = self._arrays(("norm", "clip_scale"))
        for call in operations.norm(arrays, scratch, norm):
            yield self._item(call, (*grads, name), ("norm", name))
        call = operations.norm_scale(norm, limit, clip_scale)
        yield self._item(call, ("norm",), ("clip_scale",), everywhere=True)

    def _move(
        self, weight_and_grad: tuple[Any, Any], slots: list[Any], decayed: bool, names: list[str]
    ) -> Item:
        """One optimizer step of parameters that lie side by side."""
        plan = self._plan
        assert plan.update is not None
        call = operations.update(
            *weight_and_grad, slots, self._scalars(decayed), plan.update, plan.clip_value,
            self._clip_scale(), Code("progress"),
        )  # fmt: skip
        grads = (f"grad of {name}" for name in names)
        return self._item(call, (*names, *grads, "progress", "clip_scale"), names)

    def _update_weight(self, row: Row, chunk: _Chunk) -> Item:
        """A layer's step, with gradients that are stored nowhere."""
        plan, memory, name = self._plan, self._memory, row.settings["weight"]
        assert plan.update is not None
        biases = self._biases[name]
        bias = {
            "bias": memory.arrays[biases[0]],
            "bias_slots": memory.slots[biases[0]],
            "bias_scalars": self._scalars(self._decayed[biases[0]]),
        }
        clip = None if plan.clip_value is None else self._number(plan.clip_value)
        update = products.Update(
            plan.update, memory.arrays[name], memory.slots[name],
            self._scalars(self._decayed[name]), clip_value=clip, **(bias if biases else {}),
        )  # fmt: skip
        x, grad = self._arrays(row.reads)
        call = products.update_weight(chunk.rows, x, grad, update, **self._how)
        return self._item(call, (*row.reads, name, *biases, "progress"), (name, *biases))

    def _advance(self, rows: Rows) -> Item:
        advance = operations.advance(rows, Code("progress"), self._plan.dtype)
        return self._item(advance, ("progress",), ("progress",), everywhere=True)

    def _scalars(self, decayed: bool) -> Code:
        """The optimizer's scalars of the step, without weight decay or with it."""
        assert self._plan.update is not None
        count = len(self._plan.update.scalars)
        row = f"(2 * ({_STEP_OF_RUN.text}) + {int(decayed)})"
        return Code(f"((const real *)progress[SCALARS] + {row} * {count})")

    def _clip_scale(self) -> Any:
        return None if self._plan.clip_norm is None else Code("*clip_scale")

    def _scratch(self, count: int) -> tuple[str, Any]:
        """Working memory of one operation, and a name for it."""
        return f"scratch {next(self._serial)}", self._empty(count)

    def _empty(self, shape: int | tuple[int, ...]) -> Any:
        return self._device.empty(shape, self._plan.dtype)


class _Chunk(NamedTuple):
    """Rows of a step that are worked on at once: a number of them, or the name of it."""

    first: int
    rows: Rows
    rows_in_step: Rows

    @property
    def first_row(self) -> str:
        """The text of ``first``: where there can be many chunks, a parameter, or each would have
        kernels of its own."""
        return "0" if isinstance(self.rows, Code) else "first_row"


def _naming(work: Work, names: Mapping[str, Any]) -> Work:
    """The same work, with what its texts speak of by these names."""
    return work.naming(names) if isinstance(work, Call) else work
