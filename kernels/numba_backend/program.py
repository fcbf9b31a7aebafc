"""From a plan to the table of integers that the engine walks."""

from __future__ import annotations

import numpy as np

from ..alignment import ALIGNMENT, aligned
from ..contract import Binding, Plan
from . import library, memory, products
from . import table as t
from .layout import Layout
from .machine import target
from .schedule import (
    group_rows,
    place_barriers,
    row_blocks,
    shared_rows,
    takes_work,
    turned_over_first,
)
from .sweep import let_sweep
from .translate import Operation, Translator

FLOPS_PER_CHECK = 2_000_000
"""Work between two looks at the clock."""
LONG_CHUNK = 1_000_000_000
"""Flops of a chunk within which a run may stop: a core's few milliseconds."""
_TILE_WORDS = {
    products.ROWS: t.ROW_TILES,
    products.COLUMNS: t.COLUMN_TILES,
    products.EDGE: t.EDGE_TILES,
}
"""Where the header says that a table of tiles begins."""


class Program:
    """A plan laid out in memory for one binding.

    Parameters
    ----------
    plan : Plan
    binding : Binding
    in_place : bool, default False
        Read weights where the binding has them, C-contiguous, rather than from panels: for a plan
        that predicts a few rows.

    Attributes
    ----------
    table : ndarray of int64
        What the engine walks.
    counters : int
        Words that the engine wants, twice, to count what threads have taken.
    losses, hits : ndarray
        The record, a place for each step; grown by :meth:`begin`.
    """

    def __init__(self, plan: Plan, binding: Binding, in_place: bool = False) -> None:
        self._plan, self._binding = plan, binding
        self._itemsize = np.dtype(plan.dtype).itemsize
        self._layout = Layout(plan, binding, in_place)
        self._takes = takes_work(plan, binding.threads)
        translator = Translator(plan, binding, self._layout, in_place, self._takes)
        chunk, step = translator.operations(plan.chunk), translator.operations(plan.step)
        turned_over_first(chunk)
        place_barriers([*chunk, *step])
        self._sweeps = let_sweep(chunk, plan, binding.threads, self._layout)
        if self._takes:
            group_rows(chunk)
        self._droppings = translator.droppings
        self._order: np.ndarray | None = None
        self._order_words = translator.order_words
        self._write_table(chunk, step, in_place)
        self.losses = self.hits = np.zeros(0, plan.dtype)

    def load(self) -> None:
        """Take parameters, constants and slots from the arrays of the binding."""
        self._layout.load()

    def store(self) -> None:
        """Give them back; gradients too, where the binding has arrays for them."""
        self._layout.store()

    # -- what changes from epoch to epoch --

    def begin(
        self,
        order: np.ndarray | None,
        samples: int,
        scalars: np.ndarray | None,
        epoch: int,
        steps: int,
    ) -> None:
        """Get an epoch ready, or what is left of it: ``steps`` steps; see the contract's Run."""
        self.table[t.SAMPLES] = samples
        self._set_order(order)
        for dropping in self._droppings:
            dropping.set_epoch(epoch)
        if scalars is not None:
            self._set_scalars(scalars)
        self._make_room(steps)

    def _set_order(self, order: np.ndarray | None) -> None:
        self._order = order
        address = 0 if order is None else order.ctypes.data
        for words, place in self._order_words:
            words[place] = address

    def _set_scalars(self, scalars: np.ndarray) -> None:
        """Use these optimizer scalars, (steps, 2, S), with the limit of clipping behind them."""
        if self._plan.clip_value is not None:
            limit = np.full((*scalars.shape[:2], 1), self._plan.clip_value)
            scalars = np.concatenate([scalars, limit], axis=2)
        self._scalars = np.ascontiguousarray(scalars, self._plan.dtype)
        self.table[t.SCALARS] = self._scalars.ctypes.data
        self.table[t.SCALARS_HALF] = self._scalars.shape[2] * self._itemsize
        self.table[t.SCALARS_STEP] = 2 * self._scalars.shape[2] * self._itemsize

    def _make_room(self, steps: int) -> None:
        """Make the record long enough; other threads than the first write before its begin."""
        if steps <= self.losses.size:
            return
        spare = ALIGNMENT * self._binding.threads // self._itemsize
        self.losses, self.hits = (self._layout.zeros(spare + steps)[spare:] for _ in range(2))
        self.table[t.LOSSES] = self.losses.ctypes.data
        self.table[t.HITS] = self.hits.ctypes.data

    # -- the table --

    def _write_table(self, chunk: list[Operation], step: list[Operation], in_place: bool) -> None:
        """The header, a row for each operation, then the tables of tiles."""
        kinds = (products.EDGE,) if in_place else (products.ROWS, products.COLUMNS)
        tiles = {kind: library.tile_table(self._plan.dtype, kind) for kind in kinds}
        operations = [*chunk, *step]
        chunk_end = t.HEADER + len(chunk) * t.WIDTH
        step_end = t.HEADER + len(operations) * t.WIDTH
        blocks = row_blocks(self._plan.chunk_rows, self._binding.threads)
        tiles_end = step_end + sum(map(len, tiles.values()))
        self.counters = len(operations) if self._takes else 0
        self.table = table = aligned(tiles_end + len(blocks), "int64")
        for word, value in self._header(chunk_end, step_end).items():
            table[word] = value
        table[t.BLOCKS], table[t.BLOCK_COUNT] = tiles_end, len(blocks) - 1
        table[tiles_end:] = blocks
        rows = table[t.HEADER : step_end].reshape(-1, t.WIDTH)
        for number, (operation, fields) in enumerate(zip(operations, rows, strict=True)):
            for field, value in operation.words.items():
                fields[field] = value
            fields[t.BARRIER], fields[t.COUNTER] = operation.barrier, number
            if operation.group:
                fields[t.GROUP_END] = t.HEADER + (number + operation.group) * t.WIDTH
            if operation.order_field is not None:
                self._order_words.append((fields, operation.order_field))
        begin = step_end
        for kind, words in tiles.items():
            table[_TILE_WORDS[kind]] = begin
            table[begin : begin + len(words)] = words
            begin += len(words)

    def _header(self, chunk_end: int, step_end: int) -> dict[int, int]:
        plan, layout, threads = self._plan, self._layout, self._binding.threads
        unit = t.UNIT_ROWS * memory.panel_columns(plan.dtype)
        widest, support, flops = target().widest(), library.support_kernels(), _flops(plan)
        return library.header(plan.dtype) | {
            t.ROW_STEP: shared_rows(plan),
            t.BATCH: plan.batch_rows,
            t.CHUNK_ROWS: plan.chunk_rows,
            t.CHUNK_BEGIN: t.HEADER,
            t.CHUNK_END: chunk_end,
            t.STEP_END: step_end,
            t.CHECK_EVERY: max(1, FLOPS_PER_CHECK // (1 + flops)),
            t.TAKES_LONG: int(flops > LONG_CHUNK),
            t.CLIP_SCALE: layout.zeros(1).ctypes.data,
            t.BATCH_SCALE: layout.zeros(threads * ALIGNMENT // self._itemsize).ctypes.data,
            t.ONES: layout.number(1.0),
            t.SCRATCH: layout.zeros(threads * unit).ctypes.data,
            t.SCRATCH_BYTES: unit * self._itemsize,
            t.CLOCK: support["clock"],
            t.TOTAL_KERNEL: library.plain(plan.dtype, "total") if plan.loss else 0,
            t.WIDEST: widest,
            t.DESCRIBE: support["describe"],
            t.TAKE: support["take"],
            t.SHARES_AS_IT_GOES: int(self._takes),
            t.COUNTERS: self.counters,
            t.SWEEPING: int(self._sweeps),
        }


def _flops(plan: Plan) -> int:
    return sum(plan.cost(row).flops for row in plan.chunk)
