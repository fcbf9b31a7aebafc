"""Products of matrices: the calls that make them, in tiles that suit their shapes.

A product of the forms ``a b``, ``a b'``, ``a' b`` and ``a' b'`` ends in a *tail* that takes each
finished sum: bias and activation, the slope of the layer before, a gradient, an update.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import numpy as np

from ..contract import IDENTITY, Activation
from ..formulas import UpdateFormula
from .calls import NO_ARRAY, NO_MATRIX, THREADS, Call, Code, Rows, Struct, share
from .formulas import activation_struct, update_struct

WAVE = 128
"""Tiles that keep a device busy: about as many as it has multiprocessors."""
LEAST_SHARE = 256
"""Terms of a slice, at least: fewer would not pay for a kernel that adds the slices."""
BLOCKS_AT_ONCE = 2
"""Blocks of a multiprocessor: one works while the other waits for its operands."""
_VECTOR_BYTES = 16
_SLAB = 64  # slices are multiples of every tile's slab


@dataclass(frozen=True)
class Tile:
    """How a block works on a tile of the result; ``Tile`` of products.cu says what the numbers are.

    Parameters
    ----------
    rows, columns : int
        Of the tile.
    thread_rows, thread_columns : int
        Of a thread's share.
    depth : int
        Terms of a slab that one group of threads takes.
    stages : int
        Slabs in block memory.
    """

    rows: int
    columns: int
    thread_rows: int
    thread_columns: int
    depth: int
    stages: int

    @property
    def groups(self) -> int:
        """Groups of threads that share the terms."""
        return THREADS * self.thread_rows * self.thread_columns // (self.rows * self.columns)

    def shared(self, transposed: tuple[bool, bool], itemsize: int) -> int:
        """Bytes of block memory; ``transposed`` says which operands are."""
        pad = _VECTOR_BYTES // itemsize
        panels = _panel_items(self, self.groups * self.depth, transposed, (pad, pad))
        sums = self.groups * self.rows * self.columns if self.groups > 1 else 0
        return itemsize * max(self.stages * panels, sums, THREADS)

    def spell(self, shared: int) -> str:
        """The C++ type."""
        shares = f"{self.rows}, {self.columns}, {self.thread_rows}, {self.thread_columns}"
        return f"Tile<{shares}, {self.depth}, {self.stages}, {shared}>"


@dataclass(frozen=True)
class TensorTile:
    """The same for tensor cores; ``TensorTile`` of tensor.cu says what the numbers are.

    Parameters
    ----------
    format : {"Tf32", "Bf16"}
        What operands are rounded to.
    rows, columns : int
        Of the tile.
    depth : int
        Terms of a slab.
    stages : int
        Slabs in block memory.
    pads : tuple of int
        Numbers between the lines of an operand along the sums, and of one across.
    """

    format: str
    rows: int
    columns: int
    depth: int
    stages: int
    pads: tuple[int, int]

    def shared(self, transposed: tuple[bool, bool], itemsize: int) -> int:
        """Bytes of block memory; ``transposed`` says which operands are."""
        panels = _panel_items(self, self.depth, transposed, self.pads)
        return itemsize * max(self.stages * panels, THREADS)

    def spell(self, shared: int) -> str:
        """The C++ type."""
        shape = f"{self.rows}, {self.columns}, {self.depth}, {self.stages}"
        return f"TensorTile<{self.format}, {shape}, {self.pads[0]}, {self.pads[1]}, {shared}>"


def _panel_items(
    tile: Tile | TensorTile, slab: int, transposed: tuple[bool, bool], pads: tuple[int, int]
) -> int:
    """Numbers of block memory that a slab of both operands takes; ``Panel`` of products.cu."""
    along_pad, across_pad = pads
    items = 0
    for extent, along in ((tile.rows, not transposed[0]), (tile.columns, transposed[1])):
        items += extent * (slab + along_pad) if along else slab * (extent + across_pad)
    return items


TILES: dict[str, tuple[Tile | TensorTile, ...]] = {
    "float32": (
        Tile(128, 128, 8, 8, 16, 2),
        Tile(64, 64, 8, 4, 8, 4),
        Tile(32, 32, 4, 4, 8, 4),
        Tile(64, 16, 4, 4, 8, 4),
        Tile(16, 16, 4, 4, 4, 4),
    ),
    "float64": (
        Tile(64, 64, 4, 4, 16, 2),
        Tile(32, 32, 4, 4, 4, 4),
        Tile(64, 16, 4, 4, 4, 4),
        Tile(16, 16, 4, 2, 4, 4),
    ),
    "tf32": (
        TensorTile("Tf32", 128, 128, 16, 2, (4, 8)),
        TensorTile("Tf32", 64, 64, 16, 4, (4, 8)),
        TensorTile("Tf32", 32, 32, 32, 4, (4, 8)),
    ),
    "bf16": (
        TensorTile("Bf16", 128, 128, 16, 2, (8, 4)),
        TensorTile("Bf16", 64, 64, 16, 4, (8, 4)),
        TensorTile("Bf16", 32, 32, 32, 4, (8, 4)),
    ),
}
"""By precision, the largest first; float32 and float64 are exact, what others round is float32.
Block memory stays within the 48 KiB that every launch may take."""

STRIPS = ((4, 4), (2, 4), (1, 4))
"""Rows and columns of a thread's share of a small product, the largest first."""


def choose_tile(rows: int, columns: int, precision: str) -> Tile | TensorTile:
    """The tile for a result: the largest that makes a wave of tiles, else the smallest.

    Tiles that would be half empty, or more, in either direction are left out.

    Parameters
    ----------
    rows, columns : int
    precision : {"float32", "float64", "tf32", "bf16"}

    Returns
    -------
    Tile or TensorTile

    Examples
    --------
    >>> choose_tile(4096, 4096, "float32").rows, choose_tile(128, 128, "float32").rows
    (128, 16)
    """
    *larger, smallest = TILES[precision]
    for tile in larger:
        fits = tile.rows < 2 * rows and tile.columns < 2 * columns
        if fits and _tiles(tile, rows, columns) >= WAVE:
            return tile
    return smallest


def choose_strip(rows: int, columns: int) -> tuple[int, int]:
    """A thread's share of a small product: the largest that keeps a block busy, else the smallest.

    Parameters
    ----------
    rows, columns : int

    Returns
    -------
    tuple of int
        Rows and columns.

    Examples
    --------
    >>> choose_strip(64, 64), choose_strip(32, 10)
    ((4, 4), (1, 4))
    """
    *larger, smallest = STRIPS
    for height, width in larger:
        if -(-rows // height) * -(-columns // width) >= THREADS:
            return height, width
    return smallest


def _tiles(tile: Tile | TensorTile, rows: int, columns: int) -> int:
    """Tiles of a result."""
    return -(-rows // tile.rows) * -(-columns // tile.columns)


# ---- calls ----
# An array is a CuPy array, or a Local. `rows` says how many rows of the arrays count; where it is
# known only on the device, as Code, the arrays' own rows decide the tile.


def matmul(
    a: Any, b: Any, out: Any, transpose_a: bool = False, transpose_b: bool = False, **how: Any
) -> Call:
    """out = a b, either transposed first.

    Parameters
    ----------
    a, b, out : array
        2-D.
    transpose_a, transpose_b : bool, default False
    **how
        ``small`` (bool, default False): by strips, for operands in block memory, in rows that
        start at multiples of 16 bytes. ``precision`` ("float32", "tf32" or "bf16", default
        "float32"): what the operands are rounded to, of float32 products.

    Returns
    -------
    Call
    """
    rows, columns = out.shape
    inner = a.shape[0 if transpose_a else 1]
    sizes = (np.int32(rows), np.int32(columns), np.int32(inner))
    tail = Struct("Store", (out,))
    return _product(sizes, out.shape, (a, b), (transpose_a, transpose_b), tail, **how)


def linear(
    rows: Rows,
    x: Any,
    weight: Any,
    bias: Any,
    y: Any,
    slope: Any = None,
    activation: Activation = IDENTITY,
    place: Code | Struct | None = None,
    **how: Any,
) -> Call:
    """y = f(x weight + bias) and, if wanted, the slope; a dropout mask on both.

    Parameters
    ----------
    rows : np.int32 or Code
    x : array, (B, I)
    weight : array, (I, O)
    bias : array, (O,), or None
    y : array, (B, O)
    slope : array, (B, O), or None
    activation : Activation
        One without learned numbers.
    place : Code, Struct or None
        A ``Place``: where the mask stands. None for no dropout.
    **how
        See :func:`matmul`.

    Returns
    -------
    Call
    """
    inputs, outputs = weight.shape
    tail, text, files = _activation_tail(bias, y, slope, activation, place)
    sizes = (_count(rows), np.int32(outputs), np.int32(inputs))
    shape = (_capacity(rows, y), outputs)
    return _product(
        sizes, shape, (x, weight), (False, False), tail, files=files, formulas=text, **how
    )


def finish_linear(
    rows: Rows,
    bias: Any,
    y: Any,
    slope: Any = None,
    activation: Activation = IDENTITY,
    place: Code | None = None,
) -> Call:
    """y = f(y + bias) and, if wanted, the slope: what :func:`linear` does after its product.

    Parameters
    ----------
    rows, bias, y, slope, activation, place
        See :func:`linear`.

    Returns
    -------
    Call
    """
    dtype, columns = np.dtype(y.dtype).name, y.shape[1]
    tail, text, files = _activation_tail(bias, y, slope, activation, place)
    blocks = share(_capacity(rows, y) * columns, THREADS * _VECTOR_BYTES // y.dtype.itemsize)
    arguments = (_count(rows), np.int32(columns), y, tail)
    return Call("finish", arguments, dtype, blocks, (*files, "products"), text)


def linear_grad_input(rows: Rows, grad: Any, weight: Any, slope: Any, out: Any, **how: Any) -> Call:
    """out = (grad weight') * slope.

    Parameters
    ----------
    rows : np.int32 or Code
    grad : array, (B, O)
    weight : array, (I, O)
    slope : array, (B, I), or None
    out : array, (B, I)
    **how
        See :func:`matmul`.

    Returns
    -------
    Call
    """
    inputs, outputs = weight.shape
    tail = Struct("Store", (out,)) if slope is None else Struct("TimesSlope", (slope, out))
    sizes = (_count(rows), np.int32(inputs), np.int32(outputs))
    shape = (_capacity(rows, out), inputs)
    return _product(sizes, shape, (grad, weight), (False, True), tail, **how)


def linear_grad_weight(
    rows: Rows,
    x: Any,
    grad: Any,
    grad_weight: Any,
    grad_bias: Any = None,
    adds: bool = False,
    **how: Any,
) -> Call:
    """grad_weight = x' grad, and grad_bias = column sums of grad.

    Parameters
    ----------
    rows : np.int32 or Code
    x : array, (B, I)
    grad : array, (B, O)
    grad_weight : array, (I, O)
    grad_bias : array, (O,), or None
    adds : bool, default False
        Whether the sums are added to what the gradients hold.
    **how
        See :func:`matmul`.

    Returns
    -------
    Call
    """
    has_bias = grad_bias is not None
    inputs = np.int32(grad_weight.shape[0])
    tail = Struct(
        f"Gradient<{_spell(adds)}, {_spell(has_bias)}>",
        (inputs, grad_weight, grad_bias if has_bias else NO_ARRAY),
    )
    return _outer_product(rows, x, grad, tail, grad_weight.shape, **how)


def slices(rows: int, inputs: int, outputs: int, dtype: str, precision: str = "float32") -> int:
    """Into how many slices of the batch a weight gradient is best cut; 1 for not at all.

    A gradient of few tiles would leave most of a device idle.

    Parameters
    ----------
    rows, inputs, outputs : int
    dtype : {"float32", "float64"}
    precision : {"float32", "tf32", "bf16"}

    Returns
    -------
    int

    Examples
    --------
    >>> slices(8192, 128, 10, "float32"), slices(8192, 4096, 4096, "float32")
    (16, 1)
    """
    tile = choose_tile(inputs, outputs, dtype if precision == "float32" else precision)
    return max(1, min(WAVE // max(1, _tiles(tile, inputs, outputs)), rows // LEAST_SHARE))


def sliced_grad_weight(
    rows: Rows,
    x: Any,
    grad: Any,
    grad_weight: Any,
    grad_bias: Any,
    partial: Any,
    adds: bool = False,
    precision: str = "float32",
) -> tuple[Call, Call]:
    """The same as :func:`linear_grad_weight` by slices of the batch, and by adding those.

    Parameters
    ----------
    rows : np.int32 or Code
    x : array, (B, I)
    grad : array, (B, O)
    grad_weight : array, (I, O)
    grad_bias : array, (O,), or None
    partial : array, (slices * (I + 1), O)
        Scratch memory, for as many slices as its rows hold.
    adds : bool, default False
        Whether the sums are added to what the gradients hold.
    precision : {"float32", "tf32", "bf16"}, default "float32"

    Returns
    -------
    tuple of Call
        In the order to make them.
    """
    whole = linear_grad_weight(rows, x, grad, grad_weight, grad_bias, adds, precision=precision)
    *sizes, _, _, tail = whole.arguments
    inputs, outputs = grad_weight.shape
    count = partial.shape[0] // (inputs + 1)
    share_of_slice = -(-_capacity(rows, x) // (count * _SLAB)) * _SLAB
    way = whole.function.removesuffix("::product<true, false>")
    by_slice = replace(
        whole,
        function=f"product_slices<{way}, true, false, {_spell(grad_bias is not None)}>",
        arguments=(*sizes, np.int32(count), np.int32(share_of_slice), x, grad, partial),
        blocks=whole.blocks * count,
    )
    runs = -(-outputs * np.dtype(x.dtype).itemsize // _VECTOR_BYTES)
    added = Call(
        "add_slices",
        (*sizes[:2], np.int32(count), partial, tail),
        whole.dtype,
        share((inputs + 1) * runs),
        ("products",),
    )
    return by_slice, added


@dataclass(frozen=True)
class Update:
    """An optimizer's step on a layer's weight and bias.

    Parameters
    ----------
    formula : UpdateFormula
    weight, bias : array, (I, O) and (O,); bias may be None
    weight_slots, bias_slots : sequence of array
        In the formula's order.
    weight_scalars, bias_scalars : array, (S,), or Code
        In the formula's order.
    clip_value : NumPy number, Code or None
        The limit of each gradient; None for no limit.
    scale : NumPy number or Code
        Each gradient is multiplied by this first.
    """

    formula: UpdateFormula
    weight: Any
    weight_slots: Sequence[Any]
    weight_scalars: Any
    bias: Any = None
    bias_slots: Sequence[Any] = ()
    bias_scalars: Any = NO_ARRAY
    clip_value: Any = None
    scale: Any = field(default=Code("real(1)"))


def update_weight(rows: Rows, x: Any, grad: Any, update: Update, **how: Any) -> Call:
    """An optimizer's step with the gradients x' grad and column sums of grad, stored nowhere.

    Parameters
    ----------
    rows : np.int32 or Code
    x : array, (B, I)
    grad : array, (B, O)
    update : Update
    **how
        See :func:`matmul`.

    Returns
    -------
    Call
    """
    dtype = np.dtype(update.weight.dtype).name
    clips = update.clip_value is not None
    formula, text = update_struct(update.formula, clips, dtype)
    has_bias = update.bias is not None
    biases = (update.bias, *update.bias_slots) if has_bias else (NO_ARRAY,)
    tail = Struct(
        f"Updated<{formula}, {_spell(has_bias)}>",
        (
            np.int32(update.weight.shape[0]),
            Struct("", (update.weight, *update.weight_slots)),
            Struct("", biases),
            update.weight_scalars,
            update.bias_scalars,
            update.clip_value if clips else Code("real(0)"),
            update.scale,
        ),
    )
    return _outer_product(rows, x, grad, tail, update.weight.shape, formulas=text, **how)


def _activation_tail(
    bias: Any, y: Any, slope: Any, activation: Activation, place: Code | Struct | None
) -> tuple[Struct, str, tuple[str, ...]]:
    """A tail that ends in an activation, the text of its formula, and the file of its mask."""
    formula, text = activation_struct(activation, np.dtype(y.dtype).name)
    tail = Struct(
        f"BiasActivation<{formula}, {'Place' if place else 'NoDropout'}>",
        (
            NO_ARRAY if bias is None else bias,
            y,
            NO_MATRIX if slope is None else slope,
            place or Code("NoDropout{}"),
        ),
    )
    return tail, text, ("elementwise",) if place else ()


def _outer_product(
    rows: Rows, x: Any, grad: Any, tail: Struct, shape: tuple[int, int], **rest: Any
) -> Call:
    sizes = (np.int32(shape[0]), np.int32(shape[1]), _count(rows))
    return _product(sizes, shape, (x, grad), (True, False), tail, **rest)


def _product(
    sizes: tuple[Any, Any, Any],
    shape: tuple[int, int],
    operands: tuple[Any, Any],
    transposed: tuple[bool, bool],
    tail: Struct,
    *,
    small: bool = False,
    precision: str = "float32",
    files: tuple[str, ...] = (),
    formulas: str = "",
) -> Call:
    """The call of a product of so many rows, columns and terms; ``shape`` is what it can hold."""
    dtype = np.dtype(operands[0].dtype).name
    if precision not in TILES or precision == "float64":
        raise ValueError(f"precision is {precision!r}; expected 'float32', 'tf32' or 'bf16'")
    if precision != "float32" and (dtype != "float32" or small):
        where = "small products" if small else f"{dtype} arrays"
        raise ValueError(f"precision is {precision!r} for {where}, which take 'float32' alone")
    files += ("products",)
    if small:
        height, width = choose_strip(*shape)
        way, shared = f"Strip<{height}, {width}, {_spell(_are_aligned(operands))}>", 0
        blocks, at_once = share(-(-shape[0] // height) * -(-shape[1] // width)), 1
    else:
        tile = choose_tile(*shape, dtype if precision == "float32" else precision)
        shared = tile.shared(transposed, np.dtype(dtype).itemsize)
        way, blocks, at_once = tile.spell(shared), _tiles(tile, *shape), BLOCKS_AT_ONCE
        files += ("tensor",) if precision != "float32" else ()
    return Call(
        f"{way}::product<{', '.join(map(_spell, transposed))}>",
        (*sizes, *operands, tail),
        dtype,
        blocks,
        files,
        formulas,
        shared,
        at_once,
    )


def _are_aligned(operands: Sequence[Any]) -> bool:
    return all(
        _stride(operand) * operand.dtype.itemsize % _VECTOR_BYTES == 0 for operand in operands
    )


def _stride(array: Any) -> int:
    """Elements from row to row."""
    return array.stride if hasattr(array, "stride") else array.strides[0] // array.dtype.itemsize


def _count(rows: Rows) -> Any:
    return rows if isinstance(rows, Code) else np.int32(rows)


def _capacity(rows: Rows, array: Any) -> int:
    """Rows that there can be."""
    return array.shape[0] if isinstance(rows, Code) else int(rows)


def _spell(flag: bool) -> str:
    return "true" if flag else "false"


# ---- our products or cuBLAS ----


@functools.cache
def product_table() -> dict[str, Any]:
    """The file products.json: which product is faster, ours or cuBLAS', as a device measured it.

    Returns
    -------
    dict
        ``device``: its name, or None where nothing was measured. ``command``: what wrote the
        file. ``largest``: without a measurement, ours are used up to so many rows * columns *
        inner. ``measured``: a list of dicts with ``form`` ("NN", "NT", "TN" or "TT"), ``dtype``,
        ``precision``, ``rows``, ``columns``, ``inner``, and the seconds that ``ours`` and
        ``cublas`` take (for the latter, with what its tail needs besides).
    """
    return json.loads((resources.files(__package__) / "products.json").read_text())


def uses_cublas(
    form: str, rows: int, columns: int, inner: int, dtype: str, precision: str = "float32"
) -> bool:
    """Whether cuBLAS makes a product: where the nearest one that was measured was faster by it.

    Parameters
    ----------
    form : {"NN", "NT", "TN", "TT"}
        Which operands are transposed.
    rows, columns, inner : int
    dtype : {"float32", "float64"}
    precision : {"float32", "tf32", "bf16"}

    Returns
    -------
    bool
    """
    table = product_table()
    sizes = (rows, columns, inner)
    kind = (form, dtype, precision)
    measured = [
        point
        for point in table["measured"]
        if (point["form"], point["dtype"], point["precision"]) == kind
    ]
    if not measured:
        # tensor cores round as asked only in our own products
        return precision == "float32" and math.prod(sizes) > table["largest"]
    nearest = min(measured, key=lambda point: _distance(sizes, point))
    return nearest["cublas"] < nearest["ours"]


def _distance(sizes: tuple[int, int, int], point: dict[str, Any]) -> float:
    """How far apart two products are, by the logarithms of their sizes."""
    others = (point["rows"], point["columns"], point["inner"])
    return sum(math.log(max(1, a) / max(1, b)) ** 2 for a, b in zip(sizes, others, strict=True))
