"""Products of the CUDA backend: device functions run on the CPU, and compiled by NVRTC.

What every backend must do is said in ``test_operations``; those tests run here by tiles of every
shape and by strips. Below stands what only these have: tails, rows known late, tensor cores, and
what the compilers say.
"""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from checks import (
    Bound,
    assert_close,
    guarded,
    is_poison,
    magnitude,
    poisoned,
    product_bound,
    sum_bound,
)
from cuda.calls import USUAL_SHARED, judge, run
from cuda.compile import ARCHITECTURES, KernelError
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formulas import CASES, bound as formula_bound, reference_optimizer, scalars_of
from test_operations import (  # noqa: F401 - collected here, with the backend below
    DTYPES,
    every_dtype,
    random,
    test_linear,
    test_linear_grad_input,
    test_linear_grad_weight,
    test_linear_with_an_activation,
    test_matmul,
    test_products_of_denormals,
    test_products_of_nan_and_infinity,
)

from fastnn.kernels.contract import IDENTITY, Activation, Dropout
from fastnn.kernels.cupy_backend import products
from fastnn.kernels.cupy_backend.calls import Code, Local, Struct
from fastnn.kernels.formulas import ACTIVATIONS, UPDATES

PRECISIONS = ("tf32", "bf16")
FORMS = [(False, False), (False, True), (True, False), (True, True)]
# rows and columns of results that come by each tile where one tile is enough of a wave
SHAPES = [(131, 140), (69, 65), (40, 37), (30, 20), (67, 9), (11, 13), (1, 1), (3, 70)]


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


@pytest.fixture(params=["tiles", "strips"])
def backend(request, monkeypatch):
    monkeypatch.setattr(products, "WAVE", 1)
    return DeviceProducts(small=request.param == "strips")


def operands(dtype, sizes, form, offset=0, seed=0):
    """Both operands of a product, read-only, as parts of wider arrays."""
    rows, inner, columns = sizes
    rng = np.random.default_rng(seed)
    shapes = [(rows, inner), (inner, columns)]
    parts = []
    for (height, width), transposed in zip(shapes, form, strict=True):
        height, width = (width, height) if transposed else (height, width)
        part = random(rng, dtype, height, width + offset, strided=offset > 0)[:, offset:]
        part.flags.writeable = False
        parts.append(part)
    return parts


def plain(pair, form):
    """Operands as the product multiplies them."""
    return [operand.T if turned else operand for operand, turned in zip(pair, form, strict=True)]


# ---- every tile ----


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "between vectors"])
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
@every_dtype
def test_every_tile(backend, dtype, shape, form, offset):
    """Inner sizes of no slab, part of one, several, and more than there are stages."""
    for inner in (0, 1, 7, 64, 203):
        a, b = operands(dtype, (shape[0], inner, shape[1]), form, offset)
        out, check = guarded(shape, dtype)
        backend.matmul(a, b, out, *form)
        left, right = plain((a, b), form)
        bound = product_bound(dtype, inner, magnitude(left, right))
        assert_close(out, reference.matmul(left, right), bound)
        check()


def test_the_shapes_come_by_every_tile(monkeypatch):
    monkeypatch.setattr(products, "WAVE", 1)
    for precision, tiles in products.TILES.items():
        assert {products.choose_tile(*shape, precision) for shape in SHAPES} == set(tiles)


SIZE = st.integers(0, 150)


@settings(max_examples=40)
@given(
    st.sampled_from(DTYPES),
    st.tuples(SIZE, SIZE, SIZE),
    st.sampled_from(FORMS),
    st.integers(0, 5),
    st.booleans(),
)
def test_a_product_of_any_shape(dtype, sizes, form, offset, small):
    a, b = operands(dtype, sizes, form, offset)
    out, check = guarded((sizes[0], sizes[2]), dtype)
    DeviceProducts(small=small).matmul(a, b, out, *form)
    left, right = plain((a, b), form)
    bound = product_bound(dtype, sizes[1], magnitude(left, right))
    assert_close(out, reference.matmul(left, right), bound)
    check()


@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("spoiled", [0, 1], ids=["a", "b"])
@pytest.mark.parametrize("shape", [(131, 140), (40, 37), (11, 13)], ids="{0[0]}x{0[1]}".format)
@every_dtype
def test_nan_stays_in_its_row_or_column(backend, dtype, shape, spoiled, form):
    """Also in the last one, beside which a tile holds zeros."""
    a, b = (operand.copy() for operand in operands(dtype, (shape[0], 37, shape[1]), form))
    lines = plain((a, b), form)[spoiled].swapaxes(0, spoiled)  # each belongs to a row, or column
    lines[-1, -1], lines[0, 5] = np.nan, np.inf
    out, check = guarded(shape, dtype)
    backend.matmul(a, b, out, *form)
    by_line = out.swapaxes(0, spoiled)
    assert np.isnan(by_line[-1]).all()
    assert np.isinf(by_line[0]).all()
    assert np.isfinite(by_line[1:-1]).all()
    check()


# ---- tails ----


@pytest.mark.parametrize("shape", [(69, 130), (11, 13)], ids="{0[0]}x{0[1]}".format)
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


@pytest.mark.parametrize("shape", [(131, 140), (40, 37), (67, 9)], ids="{0[0]}x{0[1]}".format)
@every_dtype
def test_later_chunks_add_their_gradients(backend, dtype, shape):
    rng = np.random.default_rng(0)
    x, grad = random(rng, dtype, 90, shape[0]), random(rng, dtype, 90, shape[1])
    grad_weight, check = guarded(shape, dtype)
    grad_bias, check_bias = guarded(shape[1], dtype)
    backend.linear_grad_weight(x[:50], grad[:50], grad_weight, grad_bias)
    backend.linear_grad_weight(x[50:], grad[50:], grad_weight, grad_bias, adds=True)
    _, by_weight, by_bias = reference.linear_backward(x, np.zeros(shape), grad)
    assert_close(grad_weight, by_weight, product_bound(dtype, 90, magnitude(x.T, grad)))
    assert_close(grad_bias, by_bias, sum_bound(dtype, grad, axis=0))
    check()
    check_bias()


@pytest.mark.parametrize(("name", "optimizer_settings"), CASES)
@every_dtype
def test_update(backend, dtype, name, optimizer_settings):
    """A step with gradients that are stored nowhere; the bias takes scalars of its own."""
    formula, number = UPDATES[name], np.dtype(dtype).type
    rng = np.random.default_rng(0)
    x, grad = random(rng, dtype, 21, 12), random(rng, dtype, 21, 7)
    both = random(rng, dtype, 13, 8)[:, :7]  # the bias is the last row
    starts = formula.initial_slots(**optimizer_settings)
    slots = [np.full((13, 8), start, dtype)[:, :7] for start in starts]
    gradient = np.vstack([x.astype(np.float64).T @ grad, grad.sum(axis=0, dtype=np.float64)])
    limit, scale = 2.0, 0.75
    expected = both.astype(np.float64)
    clipped = np.clip(scale * gradient, -limit, limit)
    rates = (0.05, 0.02)
    for part, rate in ((slice(0, 12), rates[0]), (slice(12, 13), rates[1])):
        optimizer = reference_optimizer(name, rate, optimizer_settings)
        expected[part] = optimizer.step(expected[part], clipped[part])
    scalars = [np.array(scalars_of(name, 1, rate, optimizer_settings), dtype) for rate in rates]
    update = products.Update(
        formula,
        both[:12],
        [slot[:12] for slot in slots],
        scalars[0],
        both[12],
        [slot[12] for slot in slots],
        scalars[1],
        number(limit),
        number(scale),
    )
    run(products.update_weight(21, x, grad, update, **backend.how))
    # Signs of gradients near 0, and quotients of a gradient and its size, magnify its rounding
    error = product_bound(dtype, 21, np.vstack([magnitude(x.T, grad), np.abs(grad).sum(axis=0)]))
    certain = np.abs(gradient) > 1e3 * error.maximum
    assert certain.mean() > 0.9
    expected = np.where(certain, expected, both)
    rounding = formula_bound(dtype, 1 + np.abs(expected))
    by_gradient = 0.05 * 1e-3 + error.maximum  # learning rate times relative, and absolute, error
    assert_close(both, expected, Bound(rounding.maximum + by_gradient, rounding.rms + by_gradient))


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
        assert all(
            tile.shared(form, itemsize) <= USUAL_SHARED for tile in tiles for form in FORMS
        )


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


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "between vectors"])
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("precision", ["exact", *PRECISIONS])
def test_tensor_tiles(monkeypatch, precision, shape, form, offset):
    monkeypatch.setattr(products, "WAVE", 1)
    for inner in (0, 5, 71):
        a, b = operands("float32", (shape[0], inner, shape[1]), form, offset)
        out, check = guarded(shape, "float32")
        how = "tf32" if precision == "exact" else precision
        call = products.matmul(a, b, out, *form, precision=how)
        left, right = plain((a, b), form)
        if precision == "exact":
            function = call.function.replace("Tf32", "Exact")
            call = dataclasses.replace(call, function=function, formulas=EXACT)
        else:
            left, right = ROUNDED[precision](left), ROUNDED[precision](right)
        run(call)
        bound = product_bound("float32", inner, magnitude(left, right))
        assert_close(out, reference.matmul(left, right), bound)
        check()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tails_of_tensor_tiles(monkeypatch, precision):
    monkeypatch.setattr(products, "WAVE", 1)
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


def every_call(precision):
    """A product of each form by each tile, with the tail that is the most work."""
    dtype = "float64" if precision == "float64" else "float32"
    how = {"precision": precision} if precision in PRECISIONS else {}
    gelu = Activation(ACTIVATIONS["gelu"])
    for rows, columns in ((4096, 4096), (768, 768), (400, 400), (8192, 16), (16, 16)):
        a, b, c = (np.empty(shape, dtype) for shape in ((rows, 5), (5, columns), (rows, columns)))
        bias = np.empty(columns, dtype)
        place = Code("Place{}")
        yield products.linear(rows, a, b, bias, c, c, gelu, place, **how)
        yield products.linear_grad_input(rows, a, b.T, c, c, **how)
        yield products.linear_grad_weight(5, a.T, b, c, bias, adds=True, **how)
        yield products.matmul(a.T, b.T, c, True, True, **how)


def every_strip(dtype):
    gelu = Activation(ACTIVATIONS["gelu"])
    for rows in (4, 16, 64):
        for stride in (60, 61):
            local = SimpleNamespace(
                dtype=np.dtype(dtype), shape=(rows, 60), ndim=2, strides=(stride * 8, 8), itemsize=8
            )
            yield products.linear(rows, local, local, None, local, local, gelu, small=True)
            yield products.linear_grad_input(rows, local, local, local, local, small=True)
            yield products.linear_grad_weight(rows, local, local, local, small=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", list(products.TILES))
def test_ptxas_has_room(precision, architecture):
    judge({call.source(): call for call in every_call(precision)}.values(), architecture)
