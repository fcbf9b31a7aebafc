"""Products of the CUDA backend: device functions run on the CPU, and compiled by NVRTC.

What every backend must do is said in ``test_operations``; those tests run here by the tiles that
their shapes take. Below stand the other tiles and strips, and what only these have: tails, rows
known late, tensor cores, and what the compilers say.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import reference
from checks import (
    assert_close,
    guarded,
    is_poison,
    magnitude,
    poisoned,
    product_bound,
    sum_bound,
)
from cuda.calls import USUAL_SHARED, judge, run
from cuda.compile import KernelError
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formulas import scalars_of
from test_operations import (  # noqa: F401 - collected here, with the backend below
    DTYPES,
    every_dtype,
    random,
    test_linear,
    test_linear_grad_input,
    test_linear_grad_weight,
    test_products_of_denormals,
    test_products_of_nan_and_infinity,
    widened,
    within,
)

from fastnn.kernels.contract import IDENTITY, Activation, Dropout
from fastnn.kernels.cupy_backend import products
from fastnn.kernels.cupy_backend.calls import Code, Local, Struct
from fastnn.kernels.formulas import ACTIVATIONS, UPDATES
from fastnn.kernels.numpy_backend.operations import Operations

PRECISIONS = ("tf32", "bf16")
FORMS = [(False, False), (False, True), (True, False), (True, True)]
# rows and columns of results that come by each tile, or strip, where tiles need not be many
SHAPES = [(131, 140), (63, 61), (30, 20), (67, 9), (11, 13), (1, 1)]
STRIP_SHAPES = [(131, 140), (47, 45), (2, 70)]

every_form = pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
every_start = pytest.mark.parametrize("odd", [False, True], ids=["aligned", "between vectors"])


def every_shape(shapes):
    return pytest.mark.parametrize("shape", shapes, ids="{0[0]}x{0[1]}".format)


class DeviceProducts:
    """The contract's products by calls of device functions, run on the CPU."""

    def __init__(self, **how):
        self.how = how

    def matmul(self, a, b, out, transpose_a=False, transpose_b=False):
        run(products.matmul(a, b, out, transpose_a, transpose_b, **self.how))

    def linear(self, x, weight, bias, y, slope=None, activation=IDENTITY, place=None):
        run(products.linear(len(x), x, weight, bias, y, slope, activation, place, **self.how))

    def linear_grad_input(self, grad, weight, slope, out):
        run(products.linear_grad_input(len(grad), grad, weight, slope, out, **self.how))

    def linear_grad_weight(self, x, grad, grad_weight, grad_bias=None, adds=False):
        arguments = x, grad, grad_weight, grad_bias, adds
        run(products.linear_grad_weight(len(x), *arguments, **self.how))


@pytest.fixture
def backend():
    return DeviceProducts()


@pytest.fixture
def large_tiles(monkeypatch):
    """Results of one tile are large enough for it."""
    monkeypatch.setattr(products, "WAVE", 1)


@pytest.fixture(params=["tiles", "strips"])
def way(request, large_tiles):
    return DeviceProducts(small=request.param == "strips")


def operands(dtype, sizes, form, odd=False):
    """Both operands of a product; NaN lies behind each row.

    Rows start at multiples of four numbers, or, if ``odd``, anywhere.
    """
    rows, inner, columns = sizes
    rng = np.random.default_rng(0)
    parts = []
    for shape, transposed in zip([(rows, inner), (inner, columns)], form, strict=True):
        height, width = shape[::-1] if transposed else shape
        stride = width // 2 * 2 + 3 if odd else width // 4 * 4 + 4
        wide = np.full((height, stride), np.nan, dtype)
        wide[:, :width] = rng.normal(size=(height, width))
        parts.append(wide[:, :width])
    return parts


def plain(pair, form):
    """Operands as the product multiplies them."""
    return [operand.T if turned else operand for operand, turned in zip(pair, form, strict=True)]


# ---- every tile ----


def check_matmul(backend, dtype, shape, form, odd, inners, rounded=np.asarray):
    for inner in inners:
        pair = operands(dtype, (shape[0], inner, shape[1]), form, odd)
        for operand in pair:
            operand.flags.writeable = False
        out, check = guarded(shape, dtype)
        backend.matmul(*pair, out, *form)
        left, right = (rounded(operand) for operand in plain(pair, form))
        bound = product_bound(dtype, inner, magnitude(left, right))
        assert_close(out, reference.matmul(left, right), bound)
        check()


@every_start
@every_form
@every_shape(SHAPES)
@every_dtype
def test_every_tile(large_tiles, dtype, shape, form, odd):
    """Inner sizes of no slab, part of one, and more slabs than there are stages."""
    check_matmul(DeviceProducts(), dtype, shape, form, odd, (0, 7, 203))


@every_start
@every_form
@every_shape(STRIP_SHAPES)
def test_every_strip(shape, form, odd):
    check_matmul(DeviceProducts(small=True), "float32", shape, form, odd, (0, 4, 23))


@every_start
def test_strips_of_float64(odd):
    check_matmul(DeviceProducts(small=True), "float64", (47, 45), FORMS[0], odd, (0, 4, 23))


def test_the_shapes_come_by_every_tile(large_tiles):
    for precision, tiles in products.TILES.items():
        assert {products.choose_tile(*shape, precision) for shape in SHAPES} == set(tiles)
    assert {products.choose_strip(*shape) for shape in STRIP_SHAPES} == set(products.STRIPS)


SIZE = st.integers(0, 140)


@settings(max_examples=25)
@given(st.sampled_from(DTYPES), st.tuples(SIZE, SIZE, SIZE), st.sampled_from(FORMS), st.booleans())
def test_a_product_of_any_shape(dtype, sizes, form, odd):
    rows, inner, columns = sizes
    check_matmul(DeviceProducts(), dtype, (rows, columns), form, odd, (inner,))


@every_form
@pytest.mark.parametrize("spoiled", [0, 1], ids=["a", "b"])
@every_shape([(131, 140), (30, 20), (11, 13)])
def test_nan_stays_in_its_row_or_column(way, shape, spoiled, form):
    """Also in the last one, beside which a tile holds zeros."""
    pair = operands("float32", (shape[0], 37, shape[1]), form)
    lines = plain(pair, form)[spoiled].swapaxes(0, spoiled)  # each belongs to a row, or column
    lines[-1, -1], lines[0, 5] = np.nan, np.inf
    out, check = guarded(shape, "float32")
    way.matmul(*pair, out, *form)
    by_line = out.swapaxes(0, spoiled)
    assert np.isnan(by_line[-1]).all()
    assert np.isinf(by_line[0]).all()
    assert np.isfinite(by_line[1:-1]).all()
    check()


# ---- tails ----


@every_shape([(131, 140), (30, 37)])
def test_linear_by_every_way(way, shape):
    """An activation and its slope of a sum with a bias, in tiles of one group and of several."""
    rng = np.random.default_rng(0)
    x, weight = random(rng, "float32", shape[0], 37), random(rng, "float32", 37, shape[1])
    bias = random(rng, "float32", shape[1])
    y, check = guarded(shape, "float32")
    slope, check_slope = guarded(shape, "float32")
    way.linear(x, weight, bias, y, slope, Activation(ACTIVATIONS["tanh"]))
    z = reference.linear(x, weight, bias)
    by_sum = product_bound("float32", 38, magnitude(x, weight) + np.abs(bias))
    bound = widened(by_sum, 1.0, within("float32", 8, 1.0))  # no slope of tanh is above 1
    assert_close(y, np.tanh(z), bound)
    assert_close(slope, 1 - np.tanh(z) ** 2, bound)
    check()
    check_slope()


@every_shape([(131, 140), (30, 37)])
def test_input_gradients_by_every_way(way, shape):
    rng = np.random.default_rng(0)
    grad, weight = random(rng, "float32", shape[0], 37), random(rng, "float32", shape[1], 37)
    slope = random(rng, "float32", *shape)
    out, check = guarded(shape, "float32")
    way.linear_grad_input(grad, weight, slope, out)
    expected = reference.matmul(grad, weight.T) * slope
    size = magnitude(grad, weight.T) * np.abs(slope)
    assert_close(out, expected, product_bound("float32", 38, size))
    check()


@every_shape([(69, 130), (11, 13)])
@every_dtype
def test_dropout(backend, dtype, shape):
    rng = np.random.default_rng(0)
    x, weight = random(rng, dtype, shape[0], 9), random(rng, dtype, 9, shape[1])
    dropout = Dropout(0.3, layer=2, seed=2**40 + 5, epoch=3, step=17)
    words = dropout.step, dropout.stream, dropout.seed % 2**32, dropout.seed >> 32
    scale = np.dtype(dtype).type(dropout.scale)
    first_row = np.int32(6)
    numbers = (*map(np.uint32, words), np.uint32(dropout.threshold), first_row, scale)
    y, check = guarded(shape, dtype)
    slope, check_slope = guarded(shape, dtype)
    sigmoid = Activation(ACTIVATIONS["sigmoid"])
    backend.linear(x, weight, None, y, slope, sigmoid, Struct("Place", numbers))
    bare, bare_slope = poisoned(shape, dtype), poisoned(shape, dtype)
    backend.linear(x, weight, None, bare, bare_slope, sigmoid)
    rows = shape[0] + first_row
    keep = reference.dropout_mask(2**40 + 5, 3, 17, 2, rows, shape[1], 0.3)[first_row:]
    assert 0.5 < keep.mean() < 0.9
    np.testing.assert_array_equal(y, np.where(keep, bare * scale, 0))
    np.testing.assert_array_equal(slope, np.where(keep, bare_slope * scale, 0))
    check()
    check_slope()


@every_shape([(131, 140), (30, 37), (67, 9)])
def test_later_chunks_add_their_gradients(way, shape):
    dtype = "float32"
    rng = np.random.default_rng(0)
    x, grad = random(rng, dtype, 90, shape[0]), random(rng, dtype, 90, shape[1])
    grad_weight, check = guarded(shape, dtype)
    grad_bias, check_bias = guarded(shape[1], dtype)
    way.linear_grad_weight(x[:50], grad[:50], grad_weight, grad_bias)
    way.linear_grad_weight(x[50:], grad[50:], grad_weight, grad_bias, adds=True)
    _, by_weight, by_bias = reference.linear_backward(x, np.zeros(shape), grad)
    assert_close(grad_weight, by_weight, product_bound(dtype, 90, magnitude(x.T, grad)))
    assert_close(grad_bias, by_bias, sum_bound(dtype, grad, axis=0))
    check()
    check_bias()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("rows", [0, 63, 300])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_by_slices_of_the_batch(rows, count, with_bias):
    rng = np.random.default_rng(0)
    x, grad = random(rng, "float32", rows, 37), random(rng, "float32", rows, 9)
    grad_weight, check = guarded((37, 9), "float32")
    grad_bias, check_bias = guarded(9, "float32")
    grad_weight[...] = grad_bias[...] = 1
    partial = poisoned((count * 38, 9), "float32")
    bias = grad_bias if with_bias else None
    run(*products.sliced_grad_weight(rows, x, grad, grad_weight, bias, partial, adds=True))
    size = magnitude(x.T, grad)
    bound = product_bound("float32", rows + 1, 1 + size)
    assert_close(grad_weight, 1 + reference.matmul(x.T, grad), bound)
    if with_bias:
        total = np.vstack([np.ones((1, 9), "float32"), grad])
        assert_close(grad_bias, total.sum(axis=0, dtype=float), sum_bound("float32", total, axis=0))
    else:
        assert (grad_bias == 1).all()
    check()
    check_bias()


@given(st.integers(0, 20_000), st.integers(1, 3000), st.integers(1, 3000))
def test_slices_fill_a_wave_and_are_not_too_thin(rows, inputs, outputs):
    count = products.slices(rows, inputs, outputs, "float32")
    tile = products.choose_tile(inputs, outputs, "float32")
    tiles = -(-inputs // tile.rows) * -(-outputs // tile.columns)
    assert count == 1 or (count * tiles <= products.WAVE and rows >= count * products.LEAST_SHARE)


def test_slabs_divide_slices():
    for tiles in products.TILES.values():
        for tile in tiles:
            groups = getattr(tile, "groups", 1)
            assert products._SLAB % (groups * tile.depth) == 0


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop_centered_momentum"])
def test_update(way, name):
    """As gradients that are stored and then used; the bias takes scalars of its own."""
    formula, dtype = UPDATES[name], np.dtype("float32")
    rng = np.random.default_rng(0)
    x, grad = random(rng, dtype, 21, 12), random(rng, dtype, 21, 7)
    gradients = np.empty((13, 7), dtype)
    way.linear_grad_weight(x, grad, gradients[:12], gradients[12])
    parameters, *slots = arrays = [
        np.abs(random(rng, dtype, 13, 7)) for _ in range(1 + len(formula.slots))
    ]
    scalars = [np.array(scalars_of(name, 3, rate, {}), dtype) for rate in (0.05, 0.02)]
    expected = [array.copy() for array in arrays]
    for part, numbers in zip((slice(0, 12), slice(12, 13)), scalars, strict=True):
        weight, *moved = (array[part] for array in expected)
        Operations().update(weight, gradients[part], moved, numbers, formula, 2.0, 0.75)
    update = products.Update(
        formula,
        weight=parameters[:12],
        weight_slots=[slot[:12] for slot in slots],
        weight_scalars=scalars[0],
        bias=parameters[12],
        bias_slots=[slot[12] for slot in slots],
        bias_scalars=scalars[1],
        clip_value=dtype.type(2.0),
        scale=dtype.type(0.75),
    )
    run(products.update_weight(21, x, grad, update, **way.how))
    for array, truth in zip(arrays, expected, strict=True):
        assert_close(array, truth, within(dtype, 8, 1 + np.abs(truth)))


def test_update_of_a_weight_alone():
    rng = np.random.default_rng(0)
    x, grad, weight = (random(rng, "float32", *shape) for shape in ((5, 3), (5, 4), (3, 4)))
    expected = weight - 0.5 * reference.matmul(x.T, grad)
    scalars = np.array(scalars_of("sgd", 1, 0.5, {}), "float32")
    update = products.Update(UPDATES["sgd"], weight, (), scalars)
    size = np.abs(weight) + magnitude(x.T, grad)
    run(products.update_weight(5, x, grad, update))
    assert_close(weight, expected, product_bound("float32", 7, size))


# ---- what a call takes ----


@pytest.mark.parametrize("how", [{}, {"small": True}], ids=["tiles", "strips"])
def test_rows_known_late(how):
    """Rows given as text count in the kernel; the arrays' rows decide the tile."""
    rng = np.random.default_rng(0)
    x, weight = random(rng, "float32", 40, 9), random(rng, "float32", 9, 5)
    y, check = guarded((40, 5), "float32")
    late = products.linear(Code("17"), x, weight, None, y, **how)
    assert late.function == products.linear(40, x, weight, None, y, **how).function
    run(late)
    assert is_poison(y[17:]).all()
    bound = product_bound("float32", 9, magnitude(x[:17], weight))
    assert_close(y[:17], reference.matmul(x[:17], weight), bound)
    check()


def test_no_rows():
    x, grad = np.ones((0, 9), np.float32), np.ones((0, 5), np.float32)
    grad_weight, grad_bias = np.ones((9, 5), np.float32), np.ones(5, np.float32)
    DeviceProducts().linear_grad_weight(x, grad, grad_weight, grad_bias)
    assert not grad_weight.any()
    assert not grad_bias.any()
    DeviceProducts().linear(x, grad_weight, None, grad)


def test_strips_of_a_local():
    """Arrays that a persistent kernel knows by expressions are no parameters."""
    dtype = np.dtype("float32")
    a, b = Local("left", dtype, (4, 8), 8), Local("right", dtype, (8, 5), 8)
    call = products.matmul(a, b, Local("out", dtype, (4, 5), 5), small=True)
    assert call.function == "Strip<1, 4, true>::product<false, false>"
    assert call.values() == (4, 5, 8)
    assert "Matrix<float>{left, 8}" in call.source()
    unaligned = dataclasses.replace(b, stride=5)
    call = products.matmul(a, unaligned, Local("out", dtype, (4, 5), 5), small=True)
    assert call.function == "Strip<1, 4, false>::product<false, false>"


def test_the_checks_see_a_call_that_depends_on_its_blocks():
    a, b = np.ones((40, 4), np.float32), np.ones((4, 40), np.float32)
    out = np.zeros((40, 40), np.float32)
    call = products.matmul(a, b, out)
    tail = Struct("Gradient<true, false>", (np.int32(40), out, Code("nullptr")))
    # every block makes every tile, and adds it
    wrong = dataclasses.replace(
        call,
        arguments=(*call.arguments[:-1], tail),
        formulas="struct All { template <bool A, bool B, class Tail> static __device__ void "
        "product(Team, int rows, int columns, int inner, const Matrix<real> &a, "
        f"const Matrix<real> &b, const Tail &tail) {{ {call.function.split('::')[0]}::"
        "product<A, B>(Team{0, 1}, rows, columns, inner, a, b, tail); } };",
        function="All::product<false, false>",
    )
    with pytest.raises(KernelError, match="decides bits"):
        run(wrong)


@pytest.mark.parametrize(
    ("dtype", "how", "said"),
    [
        ("float32", {"precision": "fp8"}, "precision is 'fp8'; expected"),
        ("float64", {"precision": "tf32"}, "precision is 'tf32' for float64 arrays"),
        ("float32", {"precision": "bf16", "small": True}, "'bf16' for small products"),
    ],
)
def test_precisions_refused(dtype, how, said):
    x = np.ones((4, 4), dtype)
    with pytest.raises(ValueError, match=said):
        products.matmul(x, x, x, **how)


# ---- which tile, whose product ----


@given(st.sampled_from(list(products.TILES)), st.integers(1, 9000), st.integers(1, 9000))
def test_a_tile_is_not_half_empty(precision, rows, columns):
    tile = products.choose_tile(rows, columns, precision)
    smallest = products.TILES[precision][-1]
    assert tile == smallest or (tile.rows < 2 * rows and tile.columns < 2 * columns)


def test_block_memory_is_the_usual():
    for precision, tiles in products.TILES.items():
        itemsize = 8 if precision == "float64" else 4
        assert all(tile.shared(form, itemsize) <= USUAL_SHARED for tile in tiles for form in FORMS)


def test_cublas_by_the_stated_rule():
    """Nothing was measured yet."""
    assert not products.uses_cublas("NN", 512, 512, 512, "float32")
    assert products.uses_cublas("NN", 512, 512, 513, "float32")
    assert products.uses_cublas("TN", 4096, 4096, 4096, "float64")
    assert not products.uses_cublas("NN", 4096, 4096, 4096, "float32", "tf32")


def test_cublas_by_the_nearest_measurement(monkeypatch):
    def point(size, ours, cublas, form="NN"):
        kind = {"form": form, "dtype": "float32", "precision": "float32"}
        sizes = dict.fromkeys(("rows", "columns", "inner"), size)
        return {**kind, **sizes, "ours": ours, "cublas": cublas}

    measured = [point(64, 1.0, 2.0), point(4096, 2.0, 1.0), point(64, 2.0, 1.0, form="TN")]
    table = {**products.product_table(), "measured": measured}
    monkeypatch.setattr(products, "product_table", lambda: json.loads(json.dumps(table)))
    assert not products.uses_cublas("NN", 100, 128, 300, "float32")
    assert products.uses_cublas("NN", 1000, 1000, 1000, "float32")
    assert products.uses_cublas("TN", 100, 128, 300, "float32")
    assert not products.uses_cublas("NN", 1, 0, 1, "float32")


# ---- tensor cores ----

# The multiplication of fragments by shuffles, exact: what the index arithmetic is worth.
EXACT = """
struct Exact {
  static constexpr int PACKED = 1;
  static __device__ __forceinline__ unsigned word(const Run<1> &terms) {
    return __float_as_uint(terms.at[0]);
  }
  static __device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i)
      for (int term = 0; term < 8; ++term) {
        const int half = term / 4, column = 2 * (lane % 4) + i % 2;
        const unsigned left = __shfl_sync(~0u, a[i / 2 + 2 * half], lane / 4 * 4 + term % 4);
        const unsigned right = __shfl_sync(~0u, b[half], column * 4 + term % 4);
        d[i] = fmaf(__uint_as_float(left), __uint_as_float(right), d[i]);
      }
  }
};
"""


def as_tf32(values):
    """To 11 bits, halves away from zero."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.copysign(np.floor(np.abs(fraction) * 2**11 + 0.5), fraction), exponent - 11)


def as_bf16(values):
    """To 8 bits, halves to even."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(fraction * 2**8), exponent - 8)


ROUNDED = {"tf32": as_tf32, "bf16": as_bf16}


class ExactTensorProducts:
    """Tiles for tensor cores, without what tensor cores round."""

    def matmul(self, a, b, out, *form):
        call = products.matmul(a, b, out, *form, precision="tf32")
        function = call.function.replace("Tf32", "Exact")
        run(dataclasses.replace(call, function=function, formulas=EXACT))


@every_form
@every_shape([(131, 140), (63, 61), (11, 13)])
def test_indices_of_tensor_tiles(large_tiles, shape, form):
    check_matmul(ExactTensorProducts(), "float32", shape, form, True, (17,))


@every_form
@every_shape([(63, 61), (11, 13)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensor_tiles(large_tiles, precision, shape, form):
    backend, rounded = DeviceProducts(precision=precision), ROUNDED[precision]
    check_matmul(backend, "float32", shape, form, False, (0, 5, 71), rounded)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tails_of_tensor_tiles(large_tiles, precision):
    rounded = ROUNDED[precision]
    backend = DeviceProducts(precision=precision)
    rng = np.random.default_rng(0)
    x, weight = random(rng, "float32", 70, 67), random(rng, "float32", 67, 33)
    bias, grad = random(rng, "float32", 33), random(rng, "float32", 70, 33)
    y, check_y = guarded((70, 33), "float32")
    slope, check_slope = guarded((70, 33), "float32")
    relu = Activation(ACTIVATIONS["relu"])
    backend.linear(x, weight, bias, y, slope, relu)
    z = reference.linear(rounded(x), rounded(weight), bias)
    size = magnitude(rounded(x), rounded(weight)) + np.abs(bias)
    assert_close(y, np.maximum(z, 0), product_bound("float32", 68, size))
    np.testing.assert_array_equal(slope, y > 0)
    by_x, check_x = guarded((70, 67), "float32")
    backend.linear_grad_input(grad, weight, x, by_x)
    expected = rounded(grad) @ rounded(weight).T * x
    size = magnitude(rounded(grad), rounded(weight).T) * np.abs(x)
    assert_close(by_x, expected, product_bound("float32", 34, size))
    by_weight, check_weight = guarded((67, 33), "float32")
    by_bias, check_bias = guarded(33, "float32")
    backend.linear_grad_weight(x, grad, by_weight, by_bias)
    expected, size = rounded(x).T @ rounded(grad), magnitude(rounded(x).T, rounded(grad))
    assert_close(by_weight, expected, product_bound("float32", 70, size))
    assert_close(by_bias, grad.sum(axis=0, dtype=np.float64), sum_bound("float32", grad, axis=0))
    for check in (check_y, check_slope, check_x, check_weight, check_bias):
        check()


# ---- what the compilers say ----


def heaviest_calls(dtype, **how):
    """Products of each kind by the largest tile, with the tails that are the most work."""
    x, weight, y = (np.empty(shape, dtype) for shape in ((4096, 5), (5, 4096), (4096, 4096)))
    bias, gelu = np.empty(4096, dtype), Activation(ACTIVATIONS["gelu"])
    yield products.linear(4096, x, weight, bias, y, y, gelu, Code("Place{}"), **how)
    yield products.linear_grad_input(4096, x, weight.T, y, y, **how)
    yield products.linear_grad_weight(5, x.T, weight, y, bias, adds=True, **how)


def every_call(dtype, **how):
    """Products of every form by every tile."""
    gelu = Activation(ACTIVATIONS["gelu"])
    for rows, columns in ((4096, 4096), (768, 768), (400, 400), (8192, 16), (16, 16)):
        a, b, c = (np.empty(shape, dtype) for shape in ((rows, 5), (5, columns), (rows, columns)))
        bias = np.empty(columns, dtype)
        yield products.linear(rows, a, b, bias, c, c, gelu, Code("Place{}"), **how)
        yield products.linear_grad_input(rows, a, b.T, c, c, **how)
        yield products.linear_grad_weight(5, a.T, b, c, bias, adds=True, **how)
        yield products.matmul(a.T, b.T, c, True, True, **how)
        partial = np.empty((2 * (rows + 1), columns), dtype)
        yield from products.sliced_grad_weight(5, a.T, b, c, bias, partial, adds=True, **how)


def every_strip(dtype):
    gelu = Activation(ACTIVATIONS["gelu"])
    for rows in (2, 47, 131):
        for stride in (144, 145):
            square = np.empty((rows, stride), dtype)[:, :rows]
            yield products.linear(rows, square, square, None, square, square, gelu, small=True)
            yield products.linear_grad_input(rows, square, square, square, square, small=True)
            yield products.linear_grad_weight(rows, square, square, square, small=True)


KINDS = [("float64", "float32"), ("float32", "tf32"), ("float32", "bf16")]
every_kind = pytest.mark.parametrize(("dtype", "precision"), KINDS)


def test_the_heaviest_kernels_fit():
    judge(heaviest_calls("float32"))


@every_kind
def test_the_heaviest_kernels_of_every_kind_fit(dtype, precision):
    judge(heaviest_calls(dtype, precision=precision), ["sm_90"])


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "precision"), [("float32", "float32"), *KINDS])
def test_every_kernel_fits(dtype, precision):
    judge(every_call(dtype, precision=precision))


@pytest.mark.slow
@every_dtype
def test_every_strip_fits(dtype):
    judge(every_strip(dtype))
