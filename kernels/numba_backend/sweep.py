"""Rows one by one: the update by one and the product of the next share a pass over the weights.

At a batch of one row bytes decide, and the weights of the first layer are most of them. The step
that updates them makes the next step's product on the way (``elementwise.sweep_module``); the rows
of even and odd steps therefore lie in two places. The bits are those of the operations apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..contract import IDENTITY, Plan
from . import library
from . import table as t
from .layout import Layout
from .translate import Operation


def let_sweep(operations: Sequence[Operation], plan: Plan, threads: int, layout: Layout) -> bool:
    """Join the first layer's update with its next product, if rows come singly; whether it did.

    Every thread must have its panels to itself, and the layer must read the rows as gathered.
    """
    if plan.batch_rows > 1 or plan.update is None:
        return False
    gather = next(o for o in operations if o.words[t.OPERATION] == t.GATHER)
    readers = [o for o in operations if o.words.get(t.A) == gather.words[t.C]]
    if [o.words[t.OPERATION] for o in readers] != [t.LINEAR, t.GRAD_WEIGHT]:
        return False
    product, update = readers
    alone = threads == 1 or product.words.get(t.BY_COLUMNS)
    if not (alone and update.words.get(t.OUTER) and update.words.get(t.HAS_BIAS)):
        return False
    stride = gather.words[t.LDC]
    rows = layout.zeros(2 * stride)
    shared = {
        t.SWEEPS: 1,
        t.HALF: stride * rows.itemsize,
        t.SUMS: layout.zeros(product.words[t.LDC]).ctypes.data,
    }
    for operation, word in ((gather, t.C), (product, t.A), (update, t.A)):
        operation.words |= shared | {word: rows.ctypes.data}
    update.words[t.SWEEP] = library.sweep(plan.dtype, plan.update, plan.clip_value is not None)
    product.words[t.TAIL] = product.words.get(t.KERNEL) or library.activation(
        plan.dtype, IDENTITY, False, False, False
    )
    return True
