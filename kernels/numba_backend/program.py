"""From a plan to a table of integers: where every array lies, who does what, where threads meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ..contract import FEW_ROWS, IDENTITY, Binding, Dropout, Plan, Row
from . import library, memory, products
from . import table as t
from .elementwise import SOURCES
from .extra import LOSS_INDEX, MAP_STREAM, Learned, loss_words, map_words
from .machine import target

SQUARES_BLOCK = 4096
"""Gradient elements whose squares are added up before the sums are added."""
COLUMN_SPLIT_ROWS = 128
"""Up to this many rows a chunk, threads share out columns: each keeps its weights in its cache."""
FLOPS_PER_CHECK = 2_000_000
"""Work between two looks at the clock."""
LINE = 64


@dataclass
class _Operation:
    """A row of the table in the making.

    ``share`` says how threads divide it: two operations with the same share need no barrier
    between them, because each thread reads only what it wrote itself.
    """

    words: dict[int, int]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    share: object
    barrier: bool = False


@dataclass
class _Dropping:
    """Where a dropout's extra words stand, to be set for each epoch."""

    words: np.ndarray
    dropout: Dropout = field(repr=False)


class Program:
    """A plan laid out in memory for one binding.

    Parameters
    ----------
    plan : Plan
    binding : Binding
    in_place : bool
        Read weights where the binding has them, C-contiguous, rather than from panels: for a plan
        that predicts a few rows.

    Attributes
    ----------
    table : ndarray of int64
        What the engine walks.
    losses, hits : ndarray
        The record, a place for each step; grown by :meth:`room_for`.
    """

    def __init__(self, plan: Plan, binding: Binding, in_place: bool = False) -> None:
        self.in_place = in_place
        self.plan, self.binding, self.dtype = plan, binding, plan.dtype
        self.itemsize = np.dtype(plan.dtype).itemsize
        self._alive: list[np.ndarray] = []
        self._index_words: list[tuple[np.ndarray, int]] = []
        self._droppings: list[_Dropping] = []
        self._biases = {
            row.reads[1]: row.reads[2]
            for row in plan.chunk
            if row.op == "linear" and len(row.reads) == 3
        }
        self._lay_out_buffers()
        self._lay_out_parameters()
        self.order: np.ndarray | None = None
        self.header = np.zeros(t.HEADER, np.int64)
        operations = [o for row in plan.chunk for o in self._translate(row)]
        chunk_count = len(operations)
        operations += [o for row in plan.step for o in self._translate(row)]
        _place_barriers(operations)
        self._assemble(operations, chunk_count)

    # -- memory --

    def _zeros(self, count: int, dtype: str | None = None) -> np.ndarray:
        array = memory.aligned(max(1, count), dtype or self.dtype)
        self._alive.append(array)
        return array

    def _lay_out_buffers(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}
        for buffer in self.plan.buffers:
            if buffer.per_row:
                stride = memory.leading_dimension(buffer.width, self.dtype)
                rows = self._zeros(self.plan.chunk_rows * stride)
                self._buffers[buffer.name] = rows.reshape(-1, stride)
            else:
                width = memory.padded(buffer.width, self.dtype)
                self._buffers[buffer.name] = self._zeros(width).reshape(1, -1)
        for name in ("row_losses", "row_hits") if self.plan.loss else ():
            self._buffers[name] = self._zeros(self.plan.chunk_rows).reshape(1, -1)

    def _lay_out_parameters(self) -> None:
        """One flat buffer for the parameters, one for each slot, one for gradients: same places."""
        self._places: dict[str, tuple[int, int]] = {}
        biases, line = set(self._biases.values()), LINE // self.itemsize
        total = self._trained = 0
        for group in (self.plan.parameters, self.plan.constants):
            for parameter in group:
                if parameter.name in biases:
                    continue
                if len(parameter.shape) == 2:
                    size = memory.panel_size(*parameter.shape, self.dtype)
                else:
                    size = memory.padded(parameter.shape[0], self.dtype)
                self._places[parameter.name] = (total, size)
                total += -(-size // line) * line
            self._trained = self._trained or total
        slots = len(self.plan.update.slots) if self.plan.update else 0
        self._weights = self._zeros(0 if self.in_place else total)
        self._slots = [self._zeros(self._trained) for _ in range(slots)]
        stores = any(row.op in ("norm", "update") for row in (*self.plan.chunk, *self.plan.step))
        self._grads = self._zeros(self._trained) if stores or self.binding.grads else None

    def _part(self, base: np.ndarray, name: str) -> np.ndarray:
        begin, size = self._places[name]
        return base[begin : begin + size]

    def _address(self, name: str) -> int:
        """The address of a buffer, parameter or constant."""
        if name in self._buffers:
            return self._buffers[name].ctypes.data
        if self.in_place:
            return self.binding.arrays[name].ctypes.data
        return self._part(self._weights, name).ctypes.data

    def _stride(self, name: str) -> int:
        return self._buffers[name].shape[1] if name in self._buffers else 0

    def _copy(self, base: np.ndarray, arrays: Callable[[str], np.ndarray | None], inward: bool):
        """Copy parameters (or slots, or gradients) between the caller's arrays and ours."""
        for name, (begin, size) in self._places.items():
            array = arrays(name)
            if array is None or begin >= base.size:
                continue
            part = base[begin : begin + size]
            if array.ndim == 2:
                bias = arrays(self._biases[name]) if name in self._biases else None
                (memory.pack if inward else memory.unpack)(part, array, bias)
            elif inward:
                part[: array.size] = array
            else:
                array[...] = part[: array.size]

    def load(self) -> None:
        """Take parameters, constants and slots from the arrays of the binding."""
        self._copy(self._weights, self.binding.arrays.get, inward=True)
        for number, base in enumerate(self._slots):
            self._copy(base, lambda name, n=number: self._slot(name, n), inward=True)

    def store(self) -> None:
        """Give them back; gradients too, where the binding has arrays for them."""
        self._copy(self._weights, self.binding.arrays.get, inward=False)
        for number, base in enumerate(self._slots):
            self._copy(base, lambda name, n=number: self._slot(name, n), inward=False)
        if self._grads is not None and self.binding.grads:
            self._copy(self._grads, self.binding.grads.get, inward=False)

    def _slot(self, name: str, number: int) -> np.ndarray | None:
        slots = self.binding.slots.get(name)
        return None if slots is None else slots[number]

    # -- what changes from epoch to epoch --

    def room_for(self, steps: int) -> None:
        """Make the record long enough for ``steps`` steps."""
        if steps <= self.losses.size:
            return
        spare = LINE * self.binding.threads // self.itemsize
        for word, name in ((t.LOSSES, "losses"), (t.HITS, "hits")):
            record = self._zeros(spare + steps)[spare:]
            setattr(self, name, record)
            self.table[word] = record.ctypes.data

    def set_order(self, order: np.ndarray | None) -> None:
        """Take the rows of the data in this order (int64), or as they stand."""
        self.order = order
        address = 0 if order is None else order.ctypes.data
        for words, place in self._index_words:
            words[place] = address

    def set_epoch(self, epoch: int) -> None:
        """Give every dropout the masks of this epoch."""
        for dropping in self._droppings:
            dropout = dropping.dropout._replace(epoch=epoch)
            dropping.words[MAP_STREAM] = dropout.stream

    def set_scalars(self, scalars: np.ndarray | None) -> None:
        """Use these optimizer scalars, (steps, 2, S)."""
        if scalars is None:
            return
        if self.plan.clip_value is not None:
            limit = np.full((*scalars.shape[:2], 1), self.plan.clip_value)
            scalars = np.concatenate([scalars, limit], axis=2)
        self._scalars = np.ascontiguousarray(scalars, self.dtype)
        self.table[t.SCALARS] = self._scalars.ctypes.data
        self.table[t.SCALARS_HALF] = self._scalars.shape[2] * self.itemsize
        self.table[t.SCALARS_STEP] = 2 * self._scalars.shape[2] * self.itemsize

    # -- rows --

    def _translate(self, row: Row) -> Iterable[_Operation]:
        return getattr(self, f"_{row.op}")(row)

    def _rows(
        self, operation: int, kernel: int, columns: int, reads, writes, **words: int
    ) -> _Operation:
        fields = {t.OPERATION: operation, t.KERNEL: kernel, t.COLUMNS: columns}
        fields |= {getattr(t, name): value for name, value in words.items()}
        return _Operation(fields, tuple(reads), tuple(writes), ("rows",))

    def _from(self, name: str, base: str, stride: str) -> dict[str, int]:
        return {base: self._address(name), stride: self._stride(name)}

    def _gather(self, row: Row) -> Iterable[_Operation]:
        x, (out,) = self.binding.x, row.writes
        finite = library.plain(self.dtype, "finite") if self.in_place else 0
        if x.dtype.name not in SOURCES or x.strides[1] != x.itemsize:
            raise TypeError(
                f"X has dtype {x.dtype} and strides {x.strides}; expected rows of "
                f"{', '.join(SOURCES)}"
            )
        kernel = library.gather(self.dtype, x.dtype.name)
        operation = self._rows(
            t.GATHER,
            kernel,
            self.plan.inputs,
            (),
            (out,),
            A=x.ctypes.data,
            LDA=x.strides[0],
            TAIL=finite,
            **self._from(out, "C", "LDC"),
        )
        operation.words[t.B] = _INDEX
        yield operation

    def _linear(self, row: Row) -> Iterable[_Operation]:
        x, weight = row.reads[:2]
        inputs, outputs = self.plan.shape(weight)
        place = {"B": self._address(weight), "HAS_BIAS": 1}
        if self.in_place:
            bias = self._address(row.reads[2]) if len(row.reads) > 2 else 0
            place = {"B": self._address(weight), "LDB": outputs, "BIAS": bias}
        activation, dropout = row.settings.get("activation", IDENTITY), row.settings.get("dropout")
        y, slope = row.writes[0], row.writes[1] if len(row.writes) > 1 else None
        kernel = extra = 0
        if not activation.is_identity or dropout is not None or slope:
            kernel = library.activation(
                self.dtype, activation, slope is not None, dropout is not None, False
            )
            extra = self._map_words(dropout, [])
        operation = self._rows(
            t.LINEAR_IN_PLACE if self.in_place else t.LINEAR,
            kernel,
            outputs,
            row.reads,
            row.writes,
            INNER=inputs,
            EXTRA=extra,
            **place,
            **self._from(x, "A", "LDA"),
            **self._from(y, "C", "LDC"),
            **(self._from(slope, "SLOPE", "LD_SLOPE") if slope else {}),
        )
        yield self._shared_by_columns(operation, outputs)

    def _shared_by_columns(self, operation: _Operation, columns: int) -> _Operation:
        threads = self.binding.threads
        panels = -(-columns // memory.panel_columns(self.dtype))
        if threads > 1 and self.plan.chunk_rows <= COLUMN_SPLIT_ROWS and panels >= threads:
            operation.words[t.BY_COLUMNS] = 1
            operation.share = _own()
        return operation

    def _keep(self, words: np.ndarray) -> int:
        """Keep a block of words alive; its address."""
        self._alive.append(words)
        return words.ctypes.data

    def _map_words(self, dropout: Dropout | None, learned: list[Learned]) -> int:
        """The address of the words of a map; null where it needs none."""
        if dropout is None and not learned:
            return 0
        if dropout is not None:
            dropout = dropout._replace(seed=self.binding.seed)
        words = map_words(self.dtype, dropout, learned)
        if dropout is not None:
            self._droppings.append(_Dropping(words, dropout))
        return self._keep(words)

    def _map(self, row: Row) -> Iterable[_Operation]:
        x, *learned = row.reads
        y, *rest = row.writes
        slope = rest[0] if rest else None
        outs = [(self._address(out), self._stride(out)) for out in rest[1:]]
        numbers = [
            Learned(self._address(name), *out)
            for name, out in zip(learned, outs or [()] * len(learned), strict=True)
        ]
        activation, dropout = row.settings["activation"], row.settings.get("dropout")
        shared = (
            bool(learned) and self.plan.shape(learned[0]) == (1,) and (self.plan.shape(x)[-1] != 1)
        )
        kernel = library.activation(
            self.dtype, activation, slope is not None, dropout is not None, shared, len(rest) > 1
        )
        yield self._rows(
            t.MAP,
            kernel,
            self.plan.shape(x)[-1],
            row.reads,
            row.writes,
            EXTRA=self._map_words(dropout, numbers),
            **self._from(x, "A", "LDA"),
            **self._from(y, "C", "LDC"),
            **(self._from(slope, "SLOPE", "LD_SLOPE") if slope else {}),
        )

    def _multiply(self, row: Row) -> Iterable[_Operation]:
        grad, slope = row.reads
        yield self._rows(
            t.MULTIPLY,
            library.plain(self.dtype, "multiply"),
            self.plan.shape(grad)[-1],
            row.reads,
            row.writes,
            **self._from(grad, "C", "LDC"),
            **self._from(slope, "SLOPE", "LD_SLOPE"),
        )

    def _softmax(self, row: Row) -> Iterable[_Operation]:
        x, y = row.reads[0], row.writes[0]
        yield self._rows(
            t.SOFTMAX,
            library.plain(self.dtype, row.op),
            self.plan.shape(x)[-1],
            row.reads,
            row.writes,
            **self._from(x, "A", "LDA"),
            **self._from(y, "C", "LDC"),
        )

    def _softmax_grad(self, row: Row) -> Iterable[_Operation]:
        return self._softmax(row)

    def _weigh(self, row: Row) -> Iterable[_Operation]:
        weights = self.binding.weights
        yield self._rows(
            t.WEIGH,
            library.plain(self.dtype, "batch_scale"),
            0,
            (),
            (),
            A=0 if weights is None else weights.ctypes.data,
            B=_INDEX,
        )

    def _loss(self, row: Row) -> Iterable[_Operation]:
        outputs, use = row.reads[0], row.settings["loss"]
        grad = row.writes[0] if row.writes[0] not in ("row_losses", "row_hits") else None
        targets, columns = self.binding.targets, self.plan.shape(outputs)[-1]
        labels = targets.ndim == 1
        weights = self.binding.weights
        words = loss_words(
            self.dtype,
            use,
            columns,
            targets=targets.ctypes.data,
            target_ld=0 if labels else targets.strides[0] // self.itemsize,
            weights=0 if weights is None else weights.ctypes.data,
            row_losses=self._address("row_losses"),
            row_hits=self._address("row_hits"),
        )
        self._index_words.append((words, LOSS_INDEX))
        yield self._rows(
            t.LOSS,
            library.loss(self.dtype, use, labels, grad is not None),
            columns,
            row.reads,
            row.writes,
            EXTRA=self._keep(words),
            **self._from(outputs, "A", "LDA"),
            **(self._from(grad, "C", "LDC") if grad else {}),
        )

    def _check(self, row: Row) -> Iterable[_Operation]:
        operation = self._rows(
            t.CHECK,
            0,
            0,
            ("row_losses", "row_hits"),
            (),
            A=self._address("row_losses"),
            B=self._address("row_hits"),
            STRICT=int(self.plan.update is not None),
        )
        operation.share = _own()
        yield operation

    def _copy_out(self, row: Row) -> Iterable[_Operation]:
        out, (name,) = self.binding.out, row.reads
        yield self._rows(
            t.COPY_OUT,
            library.gather(self.dtype, self.dtype),
            self.plan.outputs,
            row.reads,
            (),
            C=out.ctypes.data,
            LDC=out.strides[0] // self.itemsize,
            **self._from(name, "A", "LDA"),
        )

    def _linear_grad_input(self, row: Row) -> Iterable[_Operation]:
        grad, weight, *slope = row.reads
        (out,) = row.writes
        inputs, outputs = self.plan.shape(weight)
        multiply = library.plain(self.dtype, "multiply") if slope else 0
        places = {
            **self._from(grad, "A", "LDA"),
            **self._from(out, "C", "LDC"),
            **(self._from(slope[0], "SLOPE", "LD_SLOPE") if slope else {}),
        }
        if self.plan.chunk_rows <= FEW_ROWS:
            operation = self._rows(
                t.DOTS,
                library.plain(self.dtype, "dots"),
                outputs,
                row.reads,
                row.writes,
                INNER=inputs,
                B=self._address(weight),
                TAIL=multiply,
                **places,
            )
            operation.share = _own()
            yield operation
            return
        turned = self._zeros(outputs * memory.padded(inputs, self.dtype))
        kernel = library.plain(self.dtype, "transpose")
        yield _Operation(
            {
                t.OPERATION: t.TRANSPOSE,
                t.KERNEL: kernel,
                t.B: self._address(weight),
                t.C: turned.ctypes.data,
                t.INNER: inputs,
                t.COLUMNS: outputs,
            },
            (weight,),
            (f"{weight}'",),
            _own(),
        )
        operation = self._rows(
            t.GRAD_INPUT,
            multiply,
            inputs,
            (grad, f"{weight}'", *slope),
            row.writes,
            INNER=outputs,
            B=turned.ctypes.data,
            **places,
        )
        yield self._shared_by_columns(operation, inputs)

    def _update_words(self, weight: str) -> dict[int, int]:
        plan = self.plan
        slots = [self._part(base, weight).ctypes.data for base in self._slots]
        decayed = {p.name: p.decayed for p in plan.parameters}
        return {
            t.KERNEL: library.update(
                self.dtype, plan.update, plan.clip_norm is not None, plan.clip_value is not None
            ),
            t.WEIGHT: self._address(weight),
            t.SLOTS: len(slots),
            t.DECAYED: int(decayed[weight]),
            t.BIAS_DECAYED: int(decayed.get(self._biases.get(weight, ""), False)),
            t.HAS_BIAS: int(weight in self._biases),
            **{t.SLOT_0 + number: address for number, address in enumerate(slots)},
        }

    def _linear_grad_weight(self, row: Row) -> Iterable[_Operation]:
        x, grad = row.reads
        weight = row.settings["weight"]
        inputs, outputs = self.plan.shape(weight)
        updates = bool(row.settings.get("update"))
        words = {
            t.OPERATION: t.GRAD_WEIGHT,
            t.INNER: inputs,
            t.COLUMNS: outputs,
            t.UPDATES: int(updates),
            t.HAS_BIAS: int(weight in self._biases),
            t.A: self._address(x),
            t.LDA: self._stride(x),
            t.B: self._address(grad),
            t.LDB: self._stride(grad),
        }
        if updates:
            words |= self._update_words(weight)
            if self.plan.batch_rows <= FEW_ROWS:
                words[t.OUTER_ROWS] = self.plan.batch_rows
                words[t.OUTER] = library.outer_update(
                    self.dtype,
                    self.plan.update,
                    self.plan.batch_rows,
                    self.plan.clip_value is not None,
                )
        else:
            words[t.GRAD] = self._part(self._grads, weight).ctypes.data
        writes = (weight,) if updates else (f"grad {weight}", "grads")
        yield _Operation(words, (x, grad), writes, ("units", weight))

    def _update(self, row: Row) -> Iterable[_Operation]:
        (name,) = row.writes
        shape = self.plan.shape(name)
        words = {
            **self._update_words(name),
            t.GRAD: self._part(self._grads, name).ctypes.data,
        }
        reads = (f"grad {name}", *(("clip_scale",) if self.plan.clip_norm is not None else ()))
        if len(shape) == 2:
            words |= {t.OPERATION: t.UPDATE, t.INNER: shape[0], t.COLUMNS: shape[1]}
            yield _Operation(words, reads, (name,), ("units", name))
        else:
            words |= {t.OPERATION: t.FLAT_UPDATE, t.COLUMNS: shape[0]}
            yield _Operation(words, reads, (name,), ("columns", shape[0]))

    def _norm(self, row: Row) -> Iterable[_Operation]:
        count = -(-self._trained // SQUARES_BLOCK)
        partials = self._zeros(count)
        yield _Operation(
            {
                t.OPERATION: t.SQUARES,
                t.KERNEL: library.plain(self.dtype, "squares"),
                t.A: self._grads.ctypes.data,
                t.COLUMNS: self._trained,
                t.INNER: SQUARES_BLOCK,
                t.PARTIALS: partials.ctypes.data,
            },
            ("grads",),
            ("partials",),
            _own(),
        )
        yield _Operation(
            {
                t.OPERATION: t.CLIP,
                t.KERNEL: library.plain(self.dtype, "clip_scale"),
                t.A: self._number(self.plan.clip_norm),
                t.COLUMNS: count,
                t.PARTIALS: partials.ctypes.data,
            },
            ("partials",),
            ("clip_scale",),
            _own(),
        )

    def _columns(self, operation: int, kernel: int, columns: int, reads, writes, **words):
        result = self._rows(operation, kernel, columns, reads, writes, **words)
        result.share = ("columns", columns)
        return result

    def _moments(self, row: Row) -> Iterable[_Operation]:
        (x,), (mean, variance) = row.reads, row.writes
        yield self._columns(
            t.MOMENTS,
            library.plain(self.dtype, "moments"),
            self.plan.shape(x)[-1],
            row.reads,
            row.writes,
            C=self._address(mean),
            SLOPE=self._address(variance),
            **self._from(x, "A", "LDA"),
        )

    def _running_average(self, row: Row) -> Iterable[_Operation]:
        mean, variance = row.reads
        operation = self._columns(
            t.RUNNING,
            library.plain(self.dtype, "running_average"),
            self.plan.shape(mean)[-1],
            row.reads,
            row.writes,
            A=self._address(mean),
            B=self._address(variance),
            C=self._address(row.writes[0]),
            SLOPE=self._address(row.writes[1]),
        )
        operation.words[t.ARGUMENTS] = self._number(row.settings["momentum"])
        yield operation

    def _number(self, value: float) -> int:
        """The address of one number."""
        array = self._zeros(1)
        array[0] = value
        return array.ctypes.data

    def _batch_norm(self, row: Row) -> Iterable[_Operation]:
        x, *statistics = row.reads
        y, *hat = row.writes
        operation = self._rows(
            t.BATCH_NORM,
            library.plain(self.dtype, "batch_norm"),
            self.plan.shape(x)[-1],
            row.reads,
            row.writes,
            **self._from(x, "A", "LDA"),
            **self._from(y, "C", "LDC"),
            **(self._from(hat[0], "B", "LDB") if hat else {}),
        )
        addresses = [*map(self._address, statistics), self._number(row.settings["eps"])]
        yield _with_arguments(operation, addresses)

    def _batch_norm_grad(self, row: Row) -> Iterable[_Operation]:
        grad, x_hat, variance, gamma, beta = row.reads
        operation = self._rows(
            t.BATCH_NORM_GRAD,
            library.plain(self.dtype, "batch_norm_grad"),
            self.plan.shape(grad)[-1],
            (grad, x_hat, variance, gamma, f"grad {beta}", f"grad {gamma}"),
            (grad,),
            **self._from(grad, "C", "LDC"),
            **self._from(x_hat, "B", "LDB"),
        )
        sums = [self._part(self._grads, name).ctypes.data for name in (beta, gamma)]
        eps = self._number(row.settings["eps"])
        addresses = [self._address(variance), self._address(gamma), eps, *sums]
        yield _with_arguments(operation, addresses)

    def _column_sums(self, row: Row) -> Iterable[_Operation]:
        a, *b = row.reads
        (name,) = row.writes
        columns = self.plan.shape(a)[-1]
        shared = self.plan.shape(name) == (1,) and columns != 1
        part = self._part(self._grads, name)
        total = self._zeros(memory.padded(columns, self.dtype)) if shared else part
        kernel = library.column_sums(self.dtype, bool(b))
        yield self._columns(
            t.COLUMN_TOTAL,
            kernel,
            columns,
            row.reads,
            (f"grad {name}", "grads"),
            C=total.ctypes.data,
            **self._from(a, "A", "LDA"),
            **(self._from(b[0], "B", "LDB") if b else {}),
        )
        if shared:
            yield _Operation(
                {
                    t.OPERATION: t.SUM,
                    t.A: total.ctypes.data,
                    t.COLUMNS: columns,
                    t.C: part.ctypes.data,
                },
                (f"grad {name}",),
                (f"grad {name}", "grads"),
                _own(),
            )

    # -- the table --

    def _assemble(self, operations: list[_Operation], chunk_count: int) -> None:
        plan, threads = self.plan, self.binding.threads
        kinds = (products.EDGE,) if self.in_place else (products.ROWS, products.COLUMNS)
        tiles = {kind: library.tile_table(self.dtype, kind) for kind in kinds}
        first = t.HEADER
        body = first + len(operations) * t.WIDTH
        size = body + sum(map(len, tiles.values()))
        self.table = table = memory.aligned(size, "int64")
        for number, operation in enumerate(operations):
            begin = first + number * t.WIDTH
            row = table[begin : begin + t.WIDTH]
            for word, value in operation.words.items():
                if value is _INDEX:
                    self._index_words.append((row, word))
                else:
                    row[word] = value
            row[t.BARRIER] = operation.barrier
        place = body
        for kind, words in tiles.items():
            table[_TILES[kind]] = place
            table[place : place + len(words)] = words
            place += len(words)
        support = library.support_kernels()
        unit = t.UNIT_ROWS * memory.panel_columns(self.dtype) * self.itemsize
        words = {
            t.ITEMSIZE: self.itemsize,
            t.LANES: memory.padded(1, self.dtype),
            t.PANEL: memory.panel_columns(self.dtype),
            t.ROW_STEP: 6,
            t.BATCH: plan.batch_rows,
            t.CHUNK_ROWS: plan.chunk_rows,
            t.CHUNK_BEGIN: first,
            t.CHUNK_END: first + chunk_count * t.WIDTH,
            t.STEP_END: body,
            t.CHECK_EVERY: max(1, FLOPS_PER_CHECK // (1 + _flops(plan))),
            t.CLIP_SCALE: self._zeros(2).ctypes.data,
            t.BATCH_SCALE: self._zeros(threads * LINE // self.itemsize).ctypes.data,
            t.ONES: self._number(1.0),
            t.SCRATCH: self._zeros(threads * unit // self.itemsize).ctypes.data,
            t.SCRATCH_BYTES: unit,
            t.CLOCK: support["clock"],
            t.BARRIER_KERNEL: support["barrier"],
            t.FLUSH_KERNEL: support["flush"],
            t.RESTORE_KERNEL: support["restore"],
            t.TOTAL_KERNEL: library.plain(self.dtype, "total") if plan.loss else 0,
            t.WIDEST: target().widest(),
            t.DESCRIBE: support["describe"],
        }
        for word, value in words.items():
            table[word] = value
        self.losses = self.hits = np.zeros(0, self.dtype)


def _with_arguments(operation: _Operation, addresses: list[int]) -> _Operation:
    for number, address in enumerate(addresses):
        operation.words[t.ARGUMENTS + number] = address
    return operation


_TILES = {
    products.ROWS: t.ROW_TILES,
    products.COLUMNS: t.COLUMN_TILES,
    products.EDGE: t.EDGE_TILES,
}
"""Where the header says that a table of tiles begins."""
_INDEX = object()
"""Stands for the address of the order of an epoch, which is known when it begins."""


def _own() -> object:
    """A share like no other's: whoever needs what such an operation wrote must wait for all."""
    return object()


def _flops(plan: Plan) -> int:
    return sum(plan.cost(row).flops for row in plan.chunk)


def _place_barriers(operations: list[_Operation]) -> None:
    """Put a barrier before each operation that touches what another share has touched since."""
    since: list[_Operation] = []
    for number, operation in enumerate(operations):
        touched = set(operation.reads) | set(operation.writes)
        for other in since:
            conflict = touched & set(other.writes) or set(operation.writes) & set(other.reads)
            if conflict and operation.share != other.share:
                operations[number - 1].barrier = True
                since = []
                break
        since.append(operation)
