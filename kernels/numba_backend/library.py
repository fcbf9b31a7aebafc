"""Addresses of compiled kernels, each built on first use."""

from __future__ import annotations

import functools

import numpy as np

from .. import formulas
from ..contract import Activation, Loss
from . import columns, elementwise, memory, objects, products, rows, support
from . import table as t
from .emit import NAME
from .machine import Tile, target


@functools.cache
def support_kernels() -> dict[str, int]:
    """Barrier, clock, denormals."""
    return objects.build_part(f"support {object.__basicsize__}", support.module)


@functools.cache
def header(dtype: str) -> dict[int, int]:
    """The words of a table's header that depend on the dtype alone, but for the tables of tiles."""
    kernels = support_kernels()
    lanes, panel = target().lanes(dtype), memory.panel_columns(dtype)
    return {
        t.ITEMSIZE: np.dtype(dtype).itemsize,
        t.LANES: lanes,
        t.LANES_SHIFT: lanes.bit_length() - 1,
        t.PANEL: panel,
        t.PANEL_SHIFT: panel.bit_length() - 1,
        t.BARRIER_KERNEL: kernels["barrier"],
        t.FLUSH_KERNEL: kernels["flush"],
        t.RESTORE_KERNEL: kernels["restore"],
        t.PATIENCE: support.MOST_LOOKS,
    }


@functools.cache
def tile_table(dtype: str, kind: str) -> list[int]:
    """For a kind of product: height and address of its tile for each width and rest of rows."""
    kinds = (kind,) if kind == products.EDGE else (products.ROWS, products.COLUMNS)
    addresses = objects.build_part(
        f"products {kinds} {dtype}", lambda: products.module(dtype, *kinds)
    )
    words, tiles = [], products.tiles(kind)
    for vectors in range(1, t.EDGE_VECTORS + 1):
        heights = [tile.rows for tile in tiles if tile.vectors == vectors]
        for rest in range(t.TALLEST + 1):
            height = max((h for h in heights if h <= rest), default=0)
            name = products.name(kind, Tile(vectors, height))
            words += [height, addresses.get(name, 0)]
    return words


@functools.cache
def activation(
    dtype: str,
    use: Activation,
    slope: bool,
    dropout: bool,
    shared: bool,
    learned_slopes: bool = True,
) -> int:
    """A map of an activation formula."""
    module = elementwise.map_module(
        dtype,
        use.formula,
        use.keywords,
        slope=slope,
        dropout=dropout,
        shared=shared,
        learned_slopes=learned_slopes,
    )
    return objects.build(module)[NAME]


@functools.cache
def update(dtype: str, formula: formulas.UpdateFormula, scaled: bool, clipped: bool) -> int:
    """One optimizer step."""
    if len(formula.slots) > t.MOST_SLOTS:
        raise ValueError(
            f"optimizer {formula.name!r} has {len(formula.slots)} slots; the numba backend takes "
            f"at most {t.MOST_SLOTS}"
        )
    return objects.build(elementwise.update_module(dtype, formula, scaled=scaled, clipped=clipped))[
        NAME
    ]


@functools.cache
def outer_update(dtype: str, formula: formulas.UpdateFormula, batch: int, clipped: bool) -> int:
    """One optimizer step by the gradient of a few rows."""
    return objects.build(elementwise.outer_update_module(dtype, formula, batch, clipped=clipped))[
        NAME
    ]


@functools.cache
def sweep(dtype: str, formula: formulas.UpdateFormula, clipped: bool) -> int:
    """One optimizer step by one row, and the product of the next row."""
    return objects.build(elementwise.sweep_module(dtype, formula, clipped=clipped))[NAME]


@functools.cache
def loss(dtype: str, use: Loss, labels: bool, gradient: bool) -> int:
    """A loss, with its gradient if wanted."""
    limited = use.limits is not None
    if use.formula is None:
        return objects.build_part(
            f"cross_entropy {labels} {gradient} {limited} {dtype}",
            lambda: rows.cross_entropy_module(
                dtype, labels=labels, gradient=gradient, limited=limited
            ),
        )[NAME]
    return objects.build(
        rows.elementwise_loss_module(
            dtype, use.formula, use.keywords, gradient=gradient, limited=limited
        )
    )[NAME]


@functools.cache
def gather(dtype: str, source: str) -> int:
    """Rows by index, converted from the source's dtype."""
    return objects.build_part(
        f"gather {source} {dtype}", lambda: elementwise.gather_module(dtype, source)
    )[NAME]


@functools.cache
def column_sums(dtype: str, products: bool) -> int:
    """Column sums, of one array or of a product of two."""
    return objects.build_part(
        f"column_sums {products} {dtype}",
        lambda: columns.column_sums_module(dtype, products=products),
    )[NAME]


@functools.cache
def philox() -> int:
    """A stream of random words."""
    return objects.build_part("philox", columns.philox_module)[NAME]


_PLAIN = {
    "multiply": elementwise.multiply_module,
    "softmax": rows.softmax_module,
    "softmax_grad": rows.softmax_grad_module,
    "total": columns.total_module,
    "batch_scale": columns.batch_scale_module,
    "clip_scale": columns.clip_scale_module,
    "squares": columns.squares_module,
    "moments": columns.moments_module,
    "batch_norm": columns.batch_norm_module,
    "batch_norm_grad": columns.batch_norm_grad_module,
    "running_average": columns.running_average_module,
    "finite": columns.finite_module,
    "transpose": columns.transpose_module,
    "dots": columns.dots_module,
}


@functools.cache
def plain(dtype: str, name: str) -> int:
    """A kernel that depends on nothing but the dtype."""
    return objects.build_part(f"{name} {dtype}", lambda: _PLAIN[name](dtype))[NAME]
