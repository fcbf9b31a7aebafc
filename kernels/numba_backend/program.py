"""From a plan to the table of integers that the engine walks."""

from __future__ import annotations

import numpy as np

from ..alignment import aligned
from ..contract import Binding, Plan
from . import library, memory, products
from . import table as t
from .few_rows import done_by_everyone, look_ahead, looks_ahead, own_names, with_sweep
from .layout import Layout
from .machine import granted_cores, target
from .schedule import (
    group_rows,
    place_barriers,
    row_blocks,
    shared_rows,
    takes_work,
    turned_over_first,
)
from .translate import Dropping, Operation, Translator

FLOPS_PER_CHECK = 2_000_000
"""Work between two looks at the clock."""
WATCH_LOOKS = 4000
"""Looks of a thread for the next run before it sleeps: some 100 µs, about what waking it takes. It
takes no look where there are fewer cores than threads."""
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
    tables : list of ndarray of int64
        What the engine walks, for each thread.
    counters : int
        Words that the engine wants, twice, to count what threads have taken.
    losses, hits, squares : ndarray
        The record, a place for each step; grown by :meth:`begin`.
    """

    def __init__(self, plan: Plan, binding: Binding, in_place: bool = False) -> None:
        plan = with_sweep(plan, binding)
        self._plan, self._binding = plan, binding
        self._layout = Layout(plan, binding, in_place)
        self._takes = takes_work(plan, binding.threads)
        self._looks_ahead = looks_ahead(plan)
        self._droppings: list[Dropping] = []
        self._order: np.ndarray | None = None
        self._order_words: list[tuple[np.ndarray, int]] = []
        self._translate(in_place)
        self.losses = self.hits = self.squares = np.zeros(0, plan.dtype)

    def _translate(self, in_place: bool) -> None:
        """A table for each thread; all have the same operations, on what they share or own."""
        plan, binding, layout = self._plan, self._binding, self._layout
        everyone = done_by_everyone(plan, binding.threads)
        own = own_names(everyone)
        parts = []
        for number in range(binding.threads if own else 1):
            of_thread = layout.with_own(own) if number else layout
            translator = Translator(plan, binding, of_thread, in_place, self._takes, everyone)
            chunk, step = translator.operations(plan.chunk), translator.operations(plan.step)
            turned_over_first(chunk)
            if self._looks_ahead:
                look_ahead(chunk, plan, layout)
            place_barriers([*chunk, *step], own)
            if self._takes:
                group_rows(chunk)
            parts.append((chunk, step))
            self._droppings += translator.droppings
            self._order_words += translator.order_words
        self.counters = sum(map(len, parts[0])) if self._takes else 0
        self.tables = [
            self._table(*parts[number if own else 0], number, in_place)
            for number in range(binding.threads)
        ]
        self._moves = self._moves_of_epochs()
        first = self.tables[0]
        first[t.MOVES], first[t.MOVE_COUNT] = self._moves.ctypes.data, len(self._moves)

    def _moves_of_epochs(self) -> np.ndarray:
        """What differs from epoch to epoch, (words, 2): addresses, and what is added to each.

        First the addresses of orders, which are moved by the length of one.
        """
        orders = [(words[place:].ctypes.data, 0) for words, place in self._order_words]
        drops = [dropping.move for dropping in self._droppings]
        return np.array([*orders, *drops], np.int64).reshape(-1, 2)

    def takes(self, plan: Plan, binding: Binding) -> bool:
        """Whether :meth:`bind` will do for a run of a plan over these data."""
        mine = self._binding
        return (
            binding.x is mine.x
            and binding.targets is mine.targets
            and binding.weights is mine.weights
            and binding.out is mine.out
            and binding.threads == mine.threads
            and binding.grads.keys() == mine.grads.keys()
            and with_sweep(plan, binding) == self._plan
        )

    def bind(self, binding: Binding) -> None:
        """Work for other parameters, slots and seed, over the same data."""
        self._binding = binding
        self._layout.bind(binding)

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
        """Get epochs ready, or what is left of one: ``steps`` steps; see the contract's Run."""
        for table in self.tables:
            table[t.SAMPLES] = samples
        self._set_order(order, samples)
        for dropping in self._droppings:
            dropping.set_epoch(epoch, self._binding.seed)
        if scalars is not None:
            self._set_scalars(scalars)
        self._make_room(steps)

    def _set_order(self, order: np.ndarray | None, samples: int) -> None:
        self._order = order
        address = 0 if order is None else order.ctypes.data
        for words, place in self._order_words:
            words[place] = address
        self._moves[: len(self._order_words), 1] = 0 if order is None else samples * order.itemsize

    def _set_scalars(self, scalars: np.ndarray) -> None:
        """Use these optimizer scalars, (steps, 2, S), with the limit of clipping behind them."""
        if self._plan.clip_value is not None:
            limit = np.full((*scalars.shape[:2], 1), self._plan.clip_value)
            scalars = np.concatenate([scalars, limit], axis=2)
        self._scalars = np.ascontiguousarray(scalars, self._plan.dtype)
        half = self._scalars.shape[2] * self._layout.itemsize
        for table in self.tables:
            table[t.SCALARS] = self._scalars.ctypes.data
            table[t.SCALARS_HALF], table[t.SCALARS_STEP] = half, 2 * half

    def _make_room(self, steps: int) -> None:
        """Make the record long enough; the first thread's table has it."""
        if steps <= self.losses.size:
            return
        self.losses, self.hits, self.squares = (self._layout.zeros(steps) for _ in range(3))
        self.tables[0][t.LOSSES] = self.losses.ctypes.data
        self.tables[0][t.HITS] = self.hits.ctypes.data
        self.tables[0][t.SQUARE_SUMS] = self.squares.ctypes.data

    # -- the table --

    def _table(
        self, chunk: list[Operation], step: list[Operation], thread: int, in_place: bool
    ) -> np.ndarray:
        """The header, a row for each operation, then the tables of tiles."""
        kinds = (products.EDGE,) if in_place else (products.ROWS, products.COLUMNS)
        tiles = {kind: library.tile_table(self._plan.dtype, kind) for kind in kinds}
        operations = [*chunk, *step]
        chunk_end = t.HEADER + len(chunk) * t.WIDTH
        step_end = t.HEADER + len(operations) * t.WIDTH
        blocks = row_blocks(self._plan.chunk_rows, self._binding.threads)
        tiles_end = step_end + sum(map(len, tiles.values()))
        table = aligned(tiles_end + len(blocks), "int64")
        for word, value in self._header(chunk_end, step_end, thread).items():
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
        return table

    def _header(self, chunk_end: int, step_end: int, thread: int) -> dict[int, int]:
        plan, layout = self._plan, self._layout
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
            t.CLIP_SCALE: layout.scratch("clip scale", 1),
            t.BATCH_SCALE: layout.number(0.0),
            t.ONES: layout.number(1.0),
            t.SCRATCH: layout.zeros(unit).ctypes.data,
            t.LOSSES: layout.number(0.0),
            t.HITS: layout.number(0.0),
            t.SQUARE_SUMS: layout.number(0.0),
            t.RECORD_STEP: 0 if thread else layout.itemsize,
            t.CLOCK: support["clock"],
            t.TOTAL_KERNEL: library.plain(plan.dtype, "total") if plan.loss else 0,
            t.WIDEST: widest,
            t.DESCRIBE: support["describe"],
            t.TAKE: support["take"],
            t.WATCH: support["watch"],
            t.LOOKS: WATCH_LOOKS if self._binding.threads <= granted_cores().count else 0,
            t.SHARES_AS_IT_GOES: int(self._takes),
            t.COUNTERS: self.counters,
            t.LOOKS_AHEAD: int(self._looks_ahead),
        }


def _flops(plan: Plan) -> int:
    return sum(plan.cost(row).flops for row in plan.chunk)
