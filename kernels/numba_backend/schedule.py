"""Who does what: how threads share out the work of a program, and where they meet."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..contract import Plan
from . import table as t
from .machine import target
from .translate import BY_ROWS, COLUMN_SPLIT_ROWS, Operation


def takes_work(plan: Plan, threads: int) -> bool:
    """Whether threads take blocks of rows, and units of weights, as they get ready.

    A thread that loses its core to another program for a while then does less. In small chunks
    each keeps its own weights in its own cache instead.
    """
    return threads > 1 and plan.chunk_rows > COLUMN_SPLIT_ROWS


def shared_rows(plan: Plan) -> int:
    """Rows are shared out in multiples of this: of the height of the widest tile if there are many.

    Of a few, each thread should rather have as many as the others.
    """
    return _tile_rows() if plan.chunk_rows > COLUMN_SPLIT_ROWS else 1


def _tile_rows() -> int:
    return target().rows(target().widest())


def row_blocks(rows: int, threads: int) -> list[int]:
    """First rows of the blocks that threads take, and the end: large ones first, then smaller.

    Few blocks keep the panels of the weights in use; small last ones let all threads end together.
    """
    begins, step = [0], _tile_rows()
    while begins[-1] < rows:
        part = -(-(rows - begins[-1]) // (3 * threads * step)) * step
        begins.append(min(rows, begins[-1] + max(2 * step, part)))
    return begins


def turned_over_first(operations: list[Operation]) -> None:
    """Move transpositions to the front, and let threads meet behind them.

    They only read weights, which no operation of a chunk changes before its last part; what is
    done by rows then stands together.
    """
    operations.sort(key=lambda operation: operation.words[t.OPERATION] != t.TRANSPOSE)
    turned = [o for o in operations if o.words[t.OPERATION] == t.TRANSPOSE]
    if turned:
        turned[-1].barrier = True


def place_barriers(operations: Sequence[Operation], own: Collection[str] = ()) -> None:
    """Put a barrier before each operation that touches what another share has touched since.

    Of the names in ``own`` every thread has a copy, which nobody else touches.
    """
    since: list[Operation] = []
    for number, operation in enumerate(operations):
        if number and operations[number - 1].barrier:
            since = []
        if any(_conflict(other, operation, own) for other in since):
            operations[number - 1].barrier = True
            since = []
        since.append(operation)


def _conflict(first: Operation, second: Operation, own: Collection[str]) -> bool:
    """Whether a thread may touch in ``second`` what another still wants in ``first``."""
    written, then_written = set(first.writes), set(second.writes)
    names = written & {*second.reads, *then_written} | then_written & set(first.reads)
    whole = {*first.whole, *second.whole}
    return any(first.share != second.share or name in whole for name in names - set(own))


def group_rows(operations: Sequence[Operation]) -> None:
    """Join neighbours that share out rows, so that a thread does all of them for a block."""
    number = 0
    while number < len(operations):
        end = number
        while end < len(operations) and operations[end].share == BY_ROWS:
            end += 1
            if operations[end - 1].barrier:
                break
        if end > number:
            operations[number].group = end - number
        number = max(end, number + 1)
