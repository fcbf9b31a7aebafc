"""From the rows of a plan to operations of the engine: which kernel, on which addresses."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..contract import FEW_ROWS, IDENTITY, Binding, Dropout, Plan, Row
from . import library, memory
from . import table as t
from .elementwise import SOURCES
from .extra import LOSS_INDEX, MAP_SEED, MAP_STREAM, Learned, loss_words, map_words, signed
from .layout import Layout

COLUMN_SPLIT_ROWS = 128
"""Up to this many rows a chunk, threads share out columns: each keeps its weights in its cache."""
BY_ROWS = ("rows",)
"""The share of operations whose threads share out the chunk's rows."""
BY_EVERYONE = ("everyone",)
"""The share of operations that every thread does for itself."""


@dataclass
class Operation:
    """An operation of the engine in the making.

    Attributes
    ----------
    words : dict of int to int
        The fields of ``table`` that are not 0.
    reads, writes : tuple of str
        What it touches, by names that mean the same in every operation.
    share : hashable
        How threads divide it: two operations with the same share need no barrier between them,
        because each thread reads only what it wrote itself, but for what it reads whole.
    order_field : int or None
        The field for the address of an epoch's order, which is known when the epoch begins.
    barrier : bool
        Whether all threads meet behind it.
    group : int
        At the first of operations that are done block of rows by block: how many they are.
    whole : tuple of str
        What every thread reads all of, however they divide the rest.
    """

    words: dict[int, int]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    share: Hashable
    order_field: int | None = None
    barrier: bool = False
    group: int = 0
    whole: tuple[str, ...] = ()


class Dropping(NamedTuple):
    """Where a dropout's extra words stand, to be set for each epoch."""

    words: np.ndarray
    dropout: Dropout

    def set_epoch(self, epoch: int, seed: int) -> None:
        """Drop by the masks of this epoch and seed."""
        self.words[MAP_STREAM] = self.dropout._replace(epoch=epoch).stream
        self.words[MAP_SEED] = signed(seed)

    @property
    def move(self) -> tuple[int, int]:
        """The address of the word that differs from epoch to epoch, and by how much."""
        step = self.dropout._replace(epoch=1).stream - self.dropout._replace(epoch=0).stream
        return self.words[MAP_STREAM:].ctypes.data, step


class Translator:
    """Makes operations from rows; a method for each ``op`` of the contract.

    Parameters
    ----------
    plan : Plan
    binding : Binding
    layout : Layout
    in_place : bool
        As the layout's: weights are read where the binding has them.
    takes_work : bool
        No thread has units of weights for good.
    by_everyone : sequence of Row
        What every thread does for itself.

    Attributes
    ----------
    droppings : list of Dropping
    order_words : list of (ndarray, int)
        Words, besides fields of operations, that want the address of an epoch's order.
    """

    def __init__(
        self,
        plan: Plan,
        binding: Binding,
        layout: Layout,
        in_place: bool,
        takes_work: bool,
        by_everyone: Sequence[Row],
    ) -> None:
        self._plan, self._binding, self._layout = plan, binding, layout
        self._in_place, self._takes_work, self._dtype = in_place, takes_work, plan.dtype
        self._by_everyone = by_everyone
        self._decayed = {parameter.name: parameter.decayed for parameter in plan.parameters}
        self.droppings: list[Dropping] = []
        self.order_words: list[tuple[np.ndarray, int]] = []

    def operations(self, rows: Iterable[Row]) -> list[Operation]:
        """The operations of some rows, in order."""
        operations = []
        for row in rows:
            for operation in getattr(self, f"_{row.op}")(row):
                if row in self._by_everyone:
                    operation.words[t.BY_EVERYONE] = 1
                    operation.share = BY_EVERYONE
                operations.append(operation)
        return operations

    # -- parts --

    def _plain(self, name: str) -> int:
        return library.plain(self._dtype, name)

    def _place(self, name: str, base: str, stride: str) -> dict[str, int]:
        """The words for where a buffer begins and for its stride."""
        return {base: self._layout.address(name), stride: self._layout.stride(name)}

    def _slope(self, names: Sequence[str]) -> dict[str, int]:
        """The words for the first of some names as the slope, if there is any."""
        return self._place(names[0], "SLOPE", "LD_SLOPE") if names else {}

    def _columns_of(self, name: str) -> int:
        return self._plan.shape(name)[-1]

    def _shared_by_columns(self, operation: Operation, columns: int) -> Operation:
        """The product, its columns shared out instead of its rows where that is better."""
        panels = memory.panel_count(columns, self._dtype)
        if self._plan.chunk_rows <= COLUMN_SPLIT_ROWS and panels >= self._binding.threads > 1:
            operation.words[t.BY_COLUMNS] = 1
            operation.share = _by_panels(columns)
            operation.whole = (operation.reads[0],)
        return operation

    def _map_words(self, dropout: Dropout | None, learned: Sequence[Learned] = ()) -> int:
        """The address of the words of a map; null where it needs none."""
        if dropout is None:
            if not learned:
                return 0
            return self._layout.keep(map_words(self._dtype, None, learned))
        words = map_words(self._dtype, dropout, learned)
        self.droppings.append(Dropping(words, dropout))
        return self._layout.keep(words)

    # -- data in and out --

    def _gather(self, row: Row) -> Iterator[Operation]:
        x, (out,) = self._binding.x, row.writes
        if x.dtype.name not in SOURCES or x.strides[1] != x.itemsize:
            raise TypeError(
                f"X has dtype {x.dtype} and strides {x.strides}; expected rows of "
                f"{', '.join(SOURCES)}"
            )
        yield _operation(
            t.GATHER,
            (),
            (out,),
            BY_ROWS,
            order_field=t.B,
            KERNEL=library.gather(self._dtype, x.dtype.name),
            COLUMNS=self._plan.inputs,
            A=x.ctypes.data,
            LDA=x.strides[0],
            SOURCE_BYTES=x.itemsize,
            TAIL=self._plain("finite") if self._in_place else 0,
            **self._place(out, "C", "LDC"),
        )

    def _copy_out(self, row: Row) -> Iterator[Operation]:
        out, (name,) = self._binding.out, row.reads
        assert out is not None
        yield _operation(
            t.COPY_OUT,
            row.reads,
            (),
            BY_ROWS,
            KERNEL=library.gather(self._dtype, self._dtype),
            COLUMNS=self._plan.outputs,
            C=out.ctypes.data,
            LDC=out.strides[0] // out.itemsize,
            **self._place(name, "A", "LDA"),
        )

    # -- linear layers --

    def _linear(self, row: Row) -> Iterator[Operation]:
        x, weight, *bias = row.reads
        y, *slope = row.writes
        inputs, outputs = self._plan.shape(weight)
        activation, dropout = row.settings.get("activation", IDENTITY), row.settings.get("dropout")
        kernel = extra = 0
        if not activation.is_identity or dropout is not None or slope:
            kernel = library.activation(
                self._dtype, activation, bool(slope), dropout is not None, False
            )
            extra = self._map_words(dropout)
        if self._in_place:
            bias_address = self._layout.address(bias[0]) if bias else 0
            bias_words = {"LDB": outputs, "BIAS": bias_address}
        else:
            bias_words = {"HAS_BIAS": 1}
        operation = _operation(
            t.LINEAR_IN_PLACE if self._in_place else t.LINEAR,
            row.reads,
            row.writes,
            BY_ROWS,
            KERNEL=kernel,
            INNER=inputs,
            COLUMNS=outputs,
            EXTRA=extra,
            B=self._layout.address(weight),
            **bias_words,
            **self._place(x, "A", "LDA"),
            **self._place(y, "C", "LDC"),
            **self._slope(slope),
        )
        yield self._shared_by_columns(operation, outputs)

    def _linear_grad_input(self, row: Row) -> Iterator[Operation]:
        grad, weight, *slope = row.reads
        (out,) = row.writes
        places = {
            **self._place(grad, "A", "LDA"),
            **self._place(out, "C", "LDC"),
            **self._slope(slope),
        }
        multiply = self._plain("multiply") if slope else 0
        if self._plan.chunk_rows > FEW_ROWS:
            yield from self._product_with_transposed(row, multiply, places)
            return
        inputs, outputs = self._plan.shape(weight)
        operation = _operation(
            t.DOTS,
            row.reads,
            row.writes,
            Alone(),
            KERNEL=self._plain("dots"),
            TAIL=multiply,
            INNER=inputs,
            COLUMNS=outputs,
            B=self._layout.address(weight),
            **places,
        )
        if memory.panels_evenly(inputs, self._dtype, self._binding.threads):
            operation.words[t.BY_COLUMNS] = 1
            operation.share, operation.whole = _by_panels(inputs), (grad, weight)
        yield operation

    def _product_with_transposed(
        self, row: Row, multiply: int, places: dict[str, int]
    ) -> Iterator[Operation]:
        """The gradient by the inputs through panels of the transposed weights, made first."""
        grad, weight, *slope = row.reads
        inputs, outputs = self._plan.shape(weight)
        turned_name = f"{weight}'"
        size = outputs * memory.padded(inputs, self._dtype)
        turned = self._layout.scratch(turned_name, size)
        yield _operation(
            t.TRANSPOSE,
            (weight,),
            (turned_name,),
            Alone(),
            KERNEL=self._plain("transpose"),
            INNER=inputs,
            COLUMNS=outputs,
            B=self._layout.address(weight),
            C=turned,
        )
        operation = _operation(
            t.GRAD_INPUT,
            (grad, turned_name, *slope),
            row.writes,
            BY_ROWS,
            KERNEL=multiply,
            INNER=outputs,
            COLUMNS=inputs,
            B=turned,
            **places,
        )
        yield self._shared_by_columns(operation, inputs)

    def _linear_grad_weight(self, row: Row) -> Iterator[Operation]:
        plan, (x, grad) = self._plan, row.reads
        weight = row.settings["weight"]
        inputs, outputs = plan.shape(weight)
        words = {"HAS_BIAS": int(weight in self._layout.biases)}
        writes: tuple[str, ...] = (f"grad {weight}", "grads")
        if row.settings.get("update"):
            writes = (weight,)
            words |= {"UPDATES": 1, **self._update_words(weight)}
            if plan.batch_rows <= FEW_ROWS:
                words["OUTER_ROWS"] = plan.batch_rows
                words["OUTER"] = library.outer_update(
                    self._dtype, plan.update, plan.batch_rows, plan.clip_value is not None
                )
        else:
            words["GRAD"] = self._layout.grad(weight)
        operation = _operation(
            t.GRAD_WEIGHT,
            (x, grad),
            writes,
            self._units(weight),
            INNER=inputs,
            COLUMNS=outputs,
            TAIL=self._plain("transpose"),
            **self._place(x, "A", "LDA"),
            **self._place(grad, "B", "LDB"),
            **words,
        )
        if self._shares_panels(outputs):
            share_panels(operation)
        yield operation

    def _shares_panels(self, outputs: int) -> bool:
        """Whether threads have whole panels of a weight of so many outputs."""
        few = self._plan.batch_rows <= FEW_ROWS
        return few and memory.panels_evenly(outputs, self._dtype, self._binding.threads)

    # -- updates --

    def _units(self, weight: str) -> Hashable:
        """The share of the units of a weight."""
        return Alone() if self._takes_work else ("units", weight)

    def _update_words(self, name: str) -> dict[str, int]:
        """The words for an optimizer step of a parameter, and of the bias packed behind it."""
        plan, layout = self._plan, self._layout
        slots, bias = layout.slots(name), layout.biases.get(name)
        return {
            "KERNEL": library.update(
                self._dtype, plan.update, plan.clip_norm is not None, plan.clip_value is not None
            ),
            "WEIGHT": layout.address(name),
            "DECAYED": int(self._decayed[name]),
            "HAS_BIAS": int(bias is not None),
            "BIAS_DECAYED": int(bias is not None and self._decayed[bias]),
            **{f"SLOT_{number}": address for number, address in enumerate(slots)},
        }

    def _update(self, row: Row) -> Iterator[Operation]:
        (name,) = row.writes
        reads = (f"grad {name}", *(("clip_scale",) if self._plan.clip_norm is not None else ()))
        words = {"GRAD": self._layout.grad(name), **self._update_words(name)}
        shape = self._plan.shape(name)
        if len(shape) == 2:
            share = self._units(name)
            words |= {"INNER": shape[0], "COLUMNS": shape[1]}
            yield _operation(t.UPDATE, reads, (name,), share, **words)
        else:
            share = ("columns", shape[0])
            yield _operation(t.FLAT_UPDATE, reads, (name,), share, COLUMNS=shape[0], **words)

    def _norm(self, row: Row) -> Iterator[Operation]:
        layout, limit = self._layout, self._plan.clip_norm
        assert limit is not None
        count = -(-layout.trained // t.SQUARES_BLOCK)
        partials = layout.scratch("partials", count)
        yield _operation(
            t.SQUARES,
            ("grads",),
            ("partials",),
            Alone(),
            KERNEL=self._plain("squares"),
            A=layout.grads(),
            COLUMNS=layout.trained,
            INNER=t.SQUARES_BLOCK,
            PARTIALS=partials,
        )
        yield _operation(
            t.CLIP,
            ("partials",),
            ("clip_scale",),
            Alone(),
            KERNEL=self._plain("clip_scale"),
            A=layout.number(limit),
            COLUMNS=count,
            PARTIALS=partials,
        )

    def _square_sum(self, row: Row) -> Iterator[Operation]:
        layout, biases = self._layout, self._layout.biases
        weights = [name for name in row.reads if name not in biases.values()]
        counts = [memory.unit_count(self._plan.shape(name), self._dtype) for name in weights]
        partials = layout.scratch("partial squares", sum(counts))
        place = partials
        for name, count in zip(weights, counts, strict=True):
            inputs, outputs = self._plan.shape(name)
            operation = _operation(
                t.WEIGHT_SQUARES,
                (name,),
                ("partial squares",),
                self._units(name),
                KERNEL=self._plain("squares"),
                INNER=inputs,
                COLUMNS=outputs,
                WEIGHT=layout.address(name),
                PARTIALS=place,
                BIAS_DECAYED=int(biases.get(name) in row.reads),
            )
            if self._shares_panels(outputs):
                operation.words[t.BY_COLUMNS], operation.share = 1, _by_panels(outputs)
            yield operation
            place += count * layout.itemsize
        yield _operation(
            t.SQUARE_SUM,
            ("partial squares",),
            (),
            Alone(),
            COLUMNS=sum(counts),
            PARTIALS=partials,
        )

    # -- element by element --

    def _map(self, row: Row) -> Iterator[Operation]:
        x, *learned = row.reads
        y, *slopes = row.writes
        columns = self._columns_of(x)
        numbers = [Learned(self._layout.address(name)) for name in learned]
        if len(slopes) > 1:
            numbers = [
                number._replace(out=self._layout.address(out), ld_out=self._layout.stride(out))
                for number, out in zip(numbers, slopes[1:], strict=True)
            ]
        activation, dropout = row.settings["activation"], row.settings.get("dropout")
        shared = bool(learned) and self._plan.shape(learned[0]) == (1,) and columns != 1
        yield _operation(
            t.MAP,
            row.reads,
            row.writes,
            BY_ROWS,
            KERNEL=library.activation(
                self._dtype,
                activation,
                bool(slopes),
                dropout is not None,
                shared,
                len(slopes) > 1,
            ),
            COLUMNS=columns,
            EXTRA=self._map_words(dropout, numbers),
            **self._place(x, "A", "LDA"),
            **self._place(y, "C", "LDC"),
            **self._slope(slopes),
        )

    def _multiply(self, row: Row) -> Iterator[Operation]:
        grad, slope = row.reads
        yield _operation(
            t.MULTIPLY,
            row.reads,
            row.writes,
            BY_ROWS,
            KERNEL=self._plain("multiply"),
            COLUMNS=self._columns_of(grad),
            **self._place(grad, "C", "LDC"),
            **self._slope([slope]),
        )

    # -- row by row --

    def _softmax(self, row: Row) -> Iterator[Operation]:
        x, y = row.reads[0], row.writes[0]
        yield _operation(
            t.SOFTMAX,
            row.reads,
            row.writes,
            BY_ROWS,
            KERNEL=self._plain(row.op),
            COLUMNS=self._columns_of(x),
            **self._place(x, "A", "LDA"),
            **self._place(y, "C", "LDC"),
        )

    _softmax_grad = _softmax

    def _weigh(self, row: Row) -> Iterator[Operation]:
        weights = self._binding.weights
        yield _operation(
            t.WEIGH,
            (),
            (),
            Alone(),
            order_field=t.B,
            KERNEL=self._plain("batch_scale"),
            A=0 if weights is None else weights.ctypes.data,
        )

    def _loss(self, row: Row) -> Iterator[Operation]:
        (outputs,) = row.reads
        *grad, row_losses, row_hits = row.writes
        loss, columns = row.settings["loss"], self._columns_of(outputs)
        targets, weights = self._binding.targets, self._binding.weights
        assert targets is not None
        labels = targets.ndim == 1
        words = loss_words(
            self._dtype,
            loss,
            columns,
            targets=targets.ctypes.data,
            target_ld=0 if labels else targets.strides[0] // targets.itemsize,
            weights=0 if weights is None else weights.ctypes.data,
            row_losses=self._layout.address(row_losses),
            row_hits=self._layout.address(row_hits),
        )
        self.order_words.append((words, LOSS_INDEX))
        yield _operation(
            t.LOSS,
            row.reads,
            row.writes,
            BY_ROWS,
            KERNEL=library.loss(self._dtype, loss, labels, bool(grad)),
            COLUMNS=columns,
            EXTRA=self._layout.keep(words),
            **self._place(outputs, "A", "LDA"),
            **(self._place(grad[0], "C", "LDC") if grad else {}),
        )

    def _check(self, row: Row) -> Iterator[Operation]:
        row_losses, row_hits = row.reads
        yield _operation(
            t.CHECK,
            row.reads,
            (),
            Alone(),
            A=self._layout.address(row_losses),
            B=self._layout.address(row_hits),
            STRICT=int(self._plan.update is not None),
        )

    # -- normalisation, column by column --

    def _moments(self, row: Row) -> Iterator[Operation]:
        (x,), (mean, variance) = row.reads, row.writes
        columns = self._columns_of(x)
        yield _operation(
            t.MOMENTS,
            row.reads,
            row.writes,
            ("columns", columns),
            KERNEL=self._plain("moments"),
            COLUMNS=columns,
            C=self._layout.address(mean),
            SLOPE=self._layout.address(variance),
            **self._place(x, "A", "LDA"),
        )

    def _running_average(self, row: Row) -> Iterator[Operation]:
        (mean, variance), (running_mean, running_variance) = row.reads, row.writes
        columns = self._columns_of(mean)
        operation = _operation(
            t.RUNNING,
            row.reads,
            row.writes,
            ("columns", columns),
            KERNEL=self._plain("running_average"),
            COLUMNS=columns,
            A=self._layout.address(mean),
            B=self._layout.address(variance),
            C=self._layout.address(running_mean),
            SLOPE=self._layout.address(running_variance),
        )
        yield _with_arguments(operation, [self._layout.number(row.settings["momentum"])])

    def _batch_norm(self, row: Row) -> Iterator[Operation]:
        x, *statistics = row.reads
        y, *hat = row.writes
        operation = _operation(
            t.BATCH_NORM,
            row.reads,
            row.writes,
            BY_ROWS,
            KERNEL=self._plain("batch_norm"),
            COLUMNS=self._columns_of(x),
            **self._place(x, "A", "LDA"),
            **self._place(y, "C", "LDC"),
            **(self._place(hat[0], "B", "LDB") if hat else {}),
        )
        eps = self._layout.number(row.settings["eps"])
        yield _with_arguments(operation, [*map(self._layout.address, statistics), eps])

    def _batch_norm_grad(self, row: Row) -> Iterator[Operation]:
        layout, (grad, x_hat, variance, gamma, beta) = self._layout, row.reads
        operation = _operation(
            t.BATCH_NORM_GRAD,
            (grad, x_hat, variance, gamma, f"grad {beta}", f"grad {gamma}"),
            (grad,),
            BY_ROWS,
            KERNEL=self._plain("batch_norm_grad"),
            COLUMNS=self._columns_of(grad),
            **self._place(grad, "C", "LDC"),
            **self._place(x_hat, "B", "LDB"),
        )
        eps = layout.number(row.settings["eps"])
        statistics = layout.address(variance), layout.address(gamma)
        sums = layout.grad(beta), layout.grad(gamma)
        yield _with_arguments(operation, [*statistics, eps, *sums])

    def _column_sums(self, row: Row) -> Iterator[Operation]:
        a, *b = row.reads
        (name,) = row.writes
        columns, out = self._columns_of(a), self._layout.grad(name)
        shared = self._plan.shape(name) == (1,) and columns != 1
        total = out
        if shared:
            total = self._layout.scratch(f"{name} by column", memory.padded(columns, self._dtype))
        made = f"grad {name}"
        yield _operation(
            t.COLUMN_TOTAL,
            row.reads,
            (made, "grads"),
            ("columns", columns),
            KERNEL=library.column_sums(self._dtype, bool(b)),
            COLUMNS=columns,
            C=total,
            **self._place(a, "A", "LDA"),
            **(self._place(b[0], "B", "LDB") if b else {}),
        )
        if shared:
            yield _operation(
                t.SUM, (made,), (made, "grads"), Alone(), COLUMNS=columns, A=total, C=out
            )


def share_panels(gradient: Operation) -> None:
    """Let threads share out a weight gradient in whole panels."""
    gradient.words[t.BY_COLUMNS] = 1
    gradient.share = _by_panels(gradient.words[t.COLUMNS])
    gradient.whole = gradient.reads[:1]


def _by_panels(columns: int) -> Hashable:
    """The share of operations whose threads have whole panels of so many columns."""
    return ("panels", columns)


class Alone:
    """A share like no other's: whoever needs what such an operation wrote must wait for all."""


def _operation(
    operation: int,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    share: Hashable,
    *,
    order_field: int | None = None,
    **fields: int,
) -> Operation:
    """An operation; ``fields`` are words of its row by their names in ``table``."""
    words = {t.OPERATION: operation} | {getattr(t, name): value for name, value in fields.items()}
    return Operation(words, reads, writes, share, order_field)


def _with_arguments(operation: Operation, addresses: Iterable[int]) -> Operation:
    for number, address in enumerate(addresses):
        operation.words[t.ARGUMENTS + number] = address
    return operation
