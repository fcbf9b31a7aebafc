"""Steps of a few rows, which are over before threads could meet often.

Three things make them short. What is small, every thread does for itself, on buffers and weights
of its own, so that nobody waits for it. Rows are gathered ahead, so that nobody waits for them
either. And where rows come singly, bytes decide, and the weights of the first layer are most of
them: the step that updates them makes the next step's product on the way
(``elementwise.sweep_module``). The bits are those of the operations apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..contract import FEW_ROWS, IDENTITY, Binding, Buffer, Plan, Row
from . import library, memory
from . import table as t
from .layout import Layout
from .translate import Alone, Operation, share_panels

AHEAD_ROWS = 32
"""Up to so many rows are gathered ahead: two batches of more crowd the weights in their caches."""
OWN_ELEMENTS = 4096
"""Up to so many weights, or elements of a buffer, all threads do what two would share out: that
half takes about as long as it takes them to meet."""
SUMS = "sums of the first layer"
"""The buffer of a product that a sweep has made, before its tail."""
_RECORDS = ("row_losses", "row_hits")
_BY_ROWS = ("linear", "linear_grad_input", "loss", "map", "multiply", "softmax", "softmax_grad")


def with_sweep(plan: Plan, binding: Binding) -> Plan:
    """The plan, the tail of its first product made an operation of its own if sweeps can make that.

    They can where rows come singly, every thread has its panels to itself, and the layer reads the
    rows as they are gathered.
    """
    if not looks_ahead(plan) or plan.batch_rows > 1:
        return plan
    linear, *grads = _readers(plan)
    if len(linear.reads) < 3 or [row.op for row in grads] != ["linear_grad_weight"]:
        return plan
    panels = memory.panel_count(plan.shape(linear.reads[1])[1], plan.dtype)
    if panels < binding.threads > 1 or not grads[0].settings.get("update"):
        return plan
    tail = Row("map", (SUMS,), linear.writes, {"activation": IDENTITY, **linear.settings})
    product = replace(linear, writes=(SUMS,), settings={})
    chunk = [part for row in plan.chunk for part in ((product, tail) if row is linear else (row,))]
    buffers = (*plan.buffers, Buffer(SUMS, plan.shape(linear.writes[0])[-1]))
    return replace(plan, chunk=tuple(chunk), buffers=buffers)


def sweeps(plan: Plan) -> bool:
    """Whether the plan is one of ``with_sweep`` that sweeps."""
    return any(buffer.name == SUMS for buffer in plan.buffers)


def looks_ahead(plan: Plan) -> bool:
    """Whether rows are gathered before their step: few, and read by layers as they are gathered."""
    if plan.batch_rows > AHEAD_ROWS or plan.chunk_rows < plan.batch_rows or plan.update is None:
        return False
    readers = [row.op for row in _readers(plan)]
    return readers[:1] == ["linear"] and set(readers) <= {"linear", "linear_grad_weight"}


def _readers(plan: Plan) -> list[Row]:
    """The rows that read what is gathered."""
    (rows,) = next(row for row in plan.chunk if row.op == "gather").writes
    return [row for row in plan.chunk if rows in row.reads]


def done_by_everyone(plan: Plan, threads: int) -> list[Row]:
    """The rows of a chunk that every thread does for itself."""
    if threads == 1 or plan.batch_rows > FEW_ROWS:
        return []
    swept = _readers(plan) if sweeps(plan) else []
    chosen = [row for row in plan.chunk if row not in swept and _is_small(row, plan, threads)]
    while True:
        others = [row for row in (*plan.chunk, *plan.step) if row not in chosen]
        shared = {name for row in others for name in _written(row)}
        kept = [row for row in chosen if not shared & set(_written(row))]
        if len(kept) == len(chosen):
            return kept
        chosen = kept


def own_names(rows: Sequence[Row]) -> frozenset[str]:
    """The buffers and weights of which every thread has its own, if all do these rows."""
    return frozenset(name for row in rows for name in _written(row))


def _is_small(row: Row, plan: Plan, threads: int) -> bool:
    if row.op == "linear_grad_weight":
        return bool(row.settings.get("update")) and _has_few(plan, row.settings["weight"])
    if row.op not in _BY_ROWS:
        return False
    if row.op == "linear_grad_input" and memory.panels_evenly(
        plan.shape(row.writes[0])[-1], plan.dtype, threads
    ):
        return False
    touched = [name for name in (*row.reads, *row.writes) if name not in _RECORDS]
    return all(_has_few(plan, name) for name in touched)


def _has_few(plan: Plan, name: str) -> bool:
    return math.prod(plan.shape(name)) <= OWN_ELEMENTS


def _written(row: Row) -> tuple[str, ...]:
    if row.op == "linear_grad_weight":
        return (row.settings["weight"],)
    return row.writes


def look_ahead(operations: Sequence[Operation], plan: Plan, layout: Layout) -> None:
    """Give the rows that are gathered as many places as are in use at once; let sweeps sweep."""
    gather = next(o for o in operations if o.words[t.OPERATION] == t.GATHER)
    readers = [o for o in operations if o.words.get(t.A) == gather.words[t.C]]
    stride, itemsize = gather.words[t.LDC], layout.itemsize
    places = 3 if sweeps(plan) else 2
    rows = layout.scratch("gathered ahead", places * plan.batch_rows * stride)
    turns = {t.PLACES: places, t.PLACE_BYTES: plan.batch_rows * stride * itemsize}
    gather.words |= {t.C: rows} | turns
    gather.share = Alone()
    for operation in readers:
        operation.words |= {t.A: rows} | turns
    if not sweeps(plan):
        return
    product, update = readers
    share_panels(update)
    tail = next(o for o in operations if o.words.get(t.A) == product.words[t.C])
    line = product.words[t.LDC]
    sums = layout.scratch(SUMS, 2 * line)
    product.words |= {t.C: sums, t.SUMS_BYTES: line * itemsize}
    tail.words |= {t.A: sums, t.PLACES: 2, t.PLACE_BYTES: line * itemsize}
    update.words |= {
        t.SUMS: sums,
        t.SUMS_BYTES: line * itemsize,
        t.SWEEP: library.sweep(plan.dtype, plan.update, plan.clip_value is not None),
    }
