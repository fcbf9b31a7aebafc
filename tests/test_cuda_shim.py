"""The shim that runs CUDA kernels on the CPU: what is right comes out right, what is wrong is seen.

Most tests here are wrong kernels, each with the words of its refusal.
"""

from __future__ import annotations

import doctest
import os

import numpy as np
import pytest
from cuda import compile as cuda
from cuda import memory
from cuda.compile import CompileError, KernelError
from cuda.require import require
from hypothesis import given
from hypothesis import strategies as st
from processes import run_python

ORDERS = ("ascending", "descending")
FULL = "0xffffffffu"


@pytest.fixture(autouse=True)
def gxx():
    require("g++", cuda.why_no_gxx())


@pytest.fixture(params=ORDERS)
def order(request):
    """Which fibre goes first."""
    with cuda.fibres(request.param):
        yield request.param


def run(body, *arguments, parameters="", grid=(1,), block=(64,), shared=0, before="", **keywords):
    """Run the body of a kernel."""
    source = f'{before}extern "C" __global__ void kernel({parameters}) {{\n{body}\n}}'
    cuda.load(source).launch("kernel", grid, block, arguments, shared, **keywords)


# ---- what is right ----


def test_every_thread_of_every_block_runs_once(order):
    out = np.zeros((2, 3, 4, 5, 2, 2), np.int32)
    run(
        "const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);\n"
        "const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);\n"
        "out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + thread + 100 * block;",
        out, parameters="int *out", grid=(4, 3, 2), block=(2, 2, 5),
    )  # fmt: skip
    expected = 1 + np.arange(20) + 100 * np.arange(24)[:, None]
    np.testing.assert_array_equal(out.reshape(24, 20), expected)


@pytest.mark.parametrize("threads", [1, 31, 32, 33, 255, 256, 1024])
def test_a_barrier_makes_all_writes_seen(threads, order):
    x = np.arange(threads, dtype=np.float64)
    out = np.zeros_like(x)
    run(
        "double *shared = (double *)block_memory();\n"
        "const int i = threadIdx.x, n = blockDim.x;\n"
        "shared[i] = x[i];\n"
        "for (int turn = 0; turn < 5; ++turn) {\n"
        "  __syncthreads();\n"
        "  const double next = shared[(i + 1) % n];\n"
        "  __syncthreads();\n"
        "  shared[i] = next;\n"
        "}\n"
        "out[i] = shared[i];",
        x, out, parameters="const double *x, double *out", block=(threads,), shared=8 * threads,
    )  # fmt: skip
    np.testing.assert_array_equal(out, np.roll(x, -5))


@pytest.mark.parametrize("c_type, dtype", [
    ("float", np.float32), ("double", np.float64), ("int", np.int32), ("unsigned", np.uint32),
    ("long long", np.int64), ("unsigned long long", np.uint64),
])  # fmt: skip
@pytest.mark.parametrize("width", [32, 8])
def test_shuffles(c_type, dtype, width, order):
    x = np.arange(64, dtype=dtype) * 3 + 1
    out = np.zeros((4, 64), dtype)
    run(
        f"const int i = threadIdx.x;\n"
        f"out[i] = __shfl_sync({FULL}, x[i], 5, {width});\n"
        f"out[64 + i] = __shfl_down_sync({FULL}, x[i], 3, {width});\n"
        f"out[128 + i] = __shfl_up_sync({FULL}, x[i], 3, {width});\n"
        f"out[192 + i] = __shfl_xor_sync({FULL}, x[i], 6, {width});",
        x, out, parameters=f"const {c_type} *x, {c_type} *out",
    )  # fmt: skip
    lane = np.arange(64)
    place, group = lane % width, lane - lane % width
    np.testing.assert_array_equal(out[0], x[group + 5])
    np.testing.assert_array_equal(out[1], x[np.where(place + 3 < width, lane + 3, lane)])
    np.testing.assert_array_equal(out[2], x[np.where(place >= 3, lane - 3, lane)])
    np.testing.assert_array_equal(out[3], x[group + (place ^ 6)])


def test_a_shuffle_of_some_lanes_leaves_the_others_alone(order):
    out = np.zeros(32, np.int32)
    run(
        "int value = threadIdx.x;\n"
        "if (threadIdx.x < 16)\n"
        "  for (int step = 8; step; step /= 2) value += __shfl_xor_sync(0xffffu, value, step);\n"
        f"out[threadIdx.x] = value + __shfl_sync({FULL}, value, 31);",
        out, parameters="int *out", block=(32,),
    )  # fmt: skip
    np.testing.assert_array_equal(out, np.where(np.arange(32) < 16, 120, np.arange(32)) + 31)


@given(st.integers(0, 2**32 - 1))
def test_votes(bits):
    require("g++", cuda.why_no_gxx())
    out = np.zeros((3, 32), np.uint32)
    run(
        f"const int predicate = bits >> threadIdx.x & 1;\n"
        f"out[threadIdx.x] = __ballot_sync({FULL}, predicate);\n"
        f"out[32 + threadIdx.x] = __any_sync({FULL}, predicate);\n"
        f"out[64 + threadIdx.x] = __all_sync({FULL}, predicate);",
        np.uint32(bits), out, parameters="unsigned bits, unsigned *out", block=(32,),
    )  # fmt: skip
    expected = [bits, bits != 0, bits == 2**32 - 1]
    np.testing.assert_array_equal(out, np.repeat(np.array(expected, np.uint32)[:, None], 32, 1))


def test_votes_of_a_block(order):
    out = np.zeros((2, 96), np.int32)
    run(
        "const int some = __syncthreads_or(threadIdx.x == 70);\n"
        "const int none = __syncthreads_or(threadIdx.x == 700);\n"
        "const int most = __syncthreads_and(threadIdx.x != 70);\n"
        "const int all = __syncthreads_and(threadIdx.x != 700);\n"
        "out[threadIdx.x] = some + 10 * none;\n"
        "out[96 + threadIdx.x] = most + 10 * all;",
        out, parameters="int *out", block=(96,),
    )  # fmt: skip
    assert (out[0] == 1).all() and (out[1] == 10).all()


GRID_BARRIER = """
__device__ void grid_barrier(unsigned *arrivals, unsigned turn) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(arrivals, 1u);
    while (atomicAdd(arrivals, 0u) < turn * gridDim.x) pause_thread();
  }
  __syncthreads();
}
"""


def test_a_barrier_of_all_blocks(order):
    blocks, out = cuda.RESIDENT_BLOCKS, np.zeros((2, cuda.RESIDENT_BLOCKS), np.int32)
    run(
        "for (unsigned turn = 1; turn < 6; ++turn) {\n"
        "  const int *from = out + turn % 2 * gridDim.x;\n"
        "  int *to = out + (turn + 1) % 2 * gridDim.x;\n"
        "  if (threadIdx.x == 0) to[blockIdx.x] = from[(blockIdx.x + 1) % gridDim.x] + 1;\n"
        "  grid_barrier(arrivals, turn);\n"
        "}",
        np.zeros(1, np.uint32), out, parameters="unsigned *arrivals, int *out", grid=(blocks,),
        before=GRID_BARRIER,
    )  # fmt: skip
    assert (out[0] == 5).all()


def test_more_blocks_than_are_resident_all_run(order):
    blocks, out = 3 * cuda.RESIDENT_BLOCKS + 1, np.zeros(1, np.int32)
    run("atomicAdd(out, 1);", out, parameters="int *out", grid=(blocks,), block=(8,))
    assert out[0] == 8 * blocks


@pytest.mark.parametrize("c_type, dtype", [
    ("int", np.int32), ("unsigned", np.uint32), ("unsigned long long", np.uint64),
])  # fmt: skip
def test_atomics(c_type, dtype):
    x = np.array([5, 5, 5, 5, 5, 5, 5], dtype)
    old = np.zeros(7, dtype)
    run(
        "old[0] = atomicAdd(x, 3); old[1] = atomicExch(x + 1, 3); old[2] = atomicMax(x + 2, 9);\n"
        "old[3] = atomicMin(x + 3, 2); old[4] = atomicCAS(x + 4, 5, 8);\n"
        "old[5] = atomicCAS(x + 5, 6, 8); old[6] = atomicOr(x + 6, 2);"
        .replace("3)", f"({c_type})3)").replace("9)", f"({c_type})9)")
        .replace("2)", f"({c_type})2)").replace("8)", f"({c_type})8)"),
        x, old, parameters=f"{c_type} *x, {c_type} *old", block=(1,),
    )  # fmt: skip
    assert (old == 5).all()
    np.testing.assert_array_equal(x, [8, 3, 9, 2, 8, 5, 7])


def test_bits_and_numbers():
    x, out = np.array([1.5, -0.0], np.float32), np.zeros(8, np.uint32)
    run(
        "out[0] = __float_as_uint(x[0]); out[1] = __float_as_int(x[1]);\n"
        "out[2] = __float_as_uint(__uint_as_float(0x40490fdbu));\n"
        "out[3] = __umulhi(0x80000001u, 6u); out[4] = __popc(0xf0f0u); out[5] = __clz(255);\n"
        "out[6] = min(3, 4) + max(7u, 2u); out[7] = __double_as_longlong(1.0) >> 32;",
        x, out, parameters="const float *x, unsigned *out", block=(1,),
    )  # fmt: skip
    assert out.tolist() == [0x3FC00000, 0x80000000, 0x40490FDB, 3, 8, 24, 10, 0x3FF00000]


def test_vectors_are_loaded_and_stored_whole():
    x, out = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    run(
        "const float4 v = __ldg((const float4 *)x + threadIdx.x);\n"
        "((float4 *)out)[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);",
        x, out, parameters="const float *x, float *out", block=(2,),
    )  # fmt: skip
    np.testing.assert_array_equal(out, x.reshape(2, 4)[:, ::-1].ravel())


# ---- tensor cores ----


def rounded(x, precision):
    """x with 10 bits of mantissa, ties away from zero (tf32), or with 7, ties to even (bf16)."""
    scale = 2.0 ** (np.floor(np.log2(np.abs(x))) - (10 if precision == "tf32" else 7))
    steps = np.abs(x) / scale
    whole = np.floor(steps + 0.5) if precision == "tf32" else np.round(steps)
    return np.copysign(whole * scale, x)


def test_operands_are_rounded_as_the_instructions_say():
    x = np.random.default_rng(0).normal(size=256).astype(np.float32)
    ties = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8], np.float32)
    x = np.concatenate([x, ties, -ties]).astype(np.float32)
    tf32, bf16 = np.zeros((2, x.size), np.uint32)
    run(
        "const int i = threadIdx.x;\n"
        "tf32[i] = to_tf32(x[i]);\n"
        "bf16[i] = pack_bf16(x[i], -x[i]);",
        x, tf32, bf16, parameters="const float *x, unsigned *tf32, unsigned *bf16",
        block=(x.size,),
    )  # fmt: skip
    np.testing.assert_array_equal(tf32.view(np.float32), rounded(x.astype(np.float64), "tf32"))
    np.testing.assert_array_equal(tf32 & 0x1FFF, 0)
    low, high = (bf16 << 16).view(np.float32), (bf16 & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(low, rounded(x.astype(np.float64), "bf16"))
    np.testing.assert_array_equal(high, -low)


@pytest.mark.parametrize("function", ["to_tf32(x[0])", "pack_bf16(x[0], x[0])"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_operands_that_are_no_numbers_stay_so(function, value):
    out = np.zeros(1, np.uint32)
    run(
        f"out[0] = {function} & 0xffff0000u;",
        np.array([value], np.float32), out, parameters="const float *x, unsigned *out", block=(1,),
    )  # fmt: skip
    np.testing.assert_array_equal(out.view(np.float32), np.array([value], np.float32))


# The fragments as the PTX ISA has them (mma.m16n8k8, mma.m16n8k16): where lane and element lie.
MMA = {
    "tf32": (8, "mma_m16n8k8_tf32", """
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? group : group + 8, column = i < 2 ? place : place + 4;
    a[i] = to_tf32(A[row * 8 + column]);
  }
  for (int i = 0; i < 2; ++i) {
    const int row = i == 0 ? place : place + 4;
    b[i] = to_tf32(B[row * 8 + group]);
  }"""),
    "bf16": (16, "mma_m16n8k16_bf16", """
  float as[8], bs[4];
  for (int i = 0; i < 8; ++i) {
    const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
    const int column = i < 4 ? place * 2 + (i & 1) : place * 2 + (i & 1) + 8;
    as[i] = A[row * 16 + column];
  }
  for (int i = 0; i < 4; ++i) {
    const int row = i < 2 ? place * 2 + (i & 1) : place * 2 + (i & 1) + 8;
    bs[i] = B[row * 8 + group];
  }
  for (int i = 0; i < 4; ++i) a[i] = pack_bf16(as[2 * i], as[2 * i + 1]);
  for (int i = 0; i < 2; ++i) b[i] = pack_bf16(bs[2 * i], bs[2 * i + 1]);"""),
}  # fmt: skip


@pytest.mark.parametrize("precision", MMA)
def test_a_product_of_the_tensor_cores(precision, order):
    inner, function, load = MMA[precision]
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(16, inner)), rng.normal(size=(inner, 8))
    a, b = rounded(a, precision).astype(np.float32), rounded(b, precision).astype(np.float32)
    # whole numbers at first, so that the product is exact; then what was there is added to
    start = rng.integers(-8, 8, (16, 8)).astype(np.float32)
    out = start.copy()
    run(
        "const int lane = threadIdx.x, group = lane >> 2, place = lane % 4;\n"
        f"unsigned a[4], b[2];\nfloat d[4];{load}\n"
        "for (int i = 0; i < 4; ++i)\n"
        "  d[i] = D[(i < 2 ? group : group + 8) * 8 + place * 2 + (i & 1)];\n"
        f"{function}(d, a, b);\n"
        "for (int i = 0; i < 4; ++i)\n"
        "  D[(i < 2 ? group : group + 8) * 8 + place * 2 + (i & 1)] = d[i];",
        a, b, out, parameters="const float *A, const float *B, float *D", block=(32,),
    )  # fmt: skip
    expected = (start + a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(out, expected)


def test_tensor_cores_cut_what_was_not_rounded():
    out = np.zeros(1, np.float32)
    run(
        "unsigned a[4] = {}, b[2] = {};\nfloat d[4] = {};\n"
        "if (threadIdx.x == 0) a[0] = 0x3fffffffu, b[0] = 0x3f800000u;\n"
        "mma_m16n8k8_tf32(d, a, b);\n"
        "if (threadIdx.x == 0) out[0] = d[0];",
        out, parameters="float *out", block=(32,),
    )  # fmt: skip
    assert out[0] == 2 - 2.0**-10


# ---- copies that go on by themselves ----

PIPELINE = """
  float *shared = (float *)block_memory();
  const int i = threadIdx.x;
  for (int stage = 0; stage < 3; ++stage) {
    copy_async_4(shared + stage * 64 + i, x + stage * 64 + i);
    commit_copies();
  }
  wait_copies<%d>();
  __syncthreads();
  out[i] = shared[(%d) * 64 + 63 - i];"""


@pytest.mark.parametrize("left, stage, arrives", [
    (2, 0, True), (1, 1, True), (0, 2, True), (2, 1, False), (1, 2, False),
])  # fmt: skip
def test_a_copy_is_there_after_its_wait_and_not_before(left, stage, arrives, order):
    x, out = np.arange(192, dtype=np.float32), np.zeros(64, np.float32)
    run(
        PIPELINE % (left, stage) + "\n  __syncthreads();\n  wait_copies<0>();",
        x, out, parameters="const float *x, float *out", shared=3 * 256,
    )  # fmt: skip
    expected = x[64 * stage :][:64][::-1] if arrives else np.full(64, np.nan)
    np.testing.assert_array_equal(out, expected)


def test_copies_of_16_8_and_4_bytes_fill_the_rest_with_zeros():
    x, out = np.arange(1, 9, dtype=np.float32), np.zeros(8, np.float32)
    run(
        "float *shared = (float *)block_memory();\n"
        "copy_async_16(shared, x, 12);\n"
        "copy_async_8(shared + 4, x + 4, 8);\n"
        "copy_async_4(shared + 6, x + 6);\n"
        "copy_async_4(shared + 7, nullptr, 0);\n"
        "commit_copies();\n"
        "wait_copies<0>();\n"
        "for (int i = 0; i < 8; ++i) out[i] = shared[i];",
        x, out, parameters="const float *x, float *out", block=(1,), shared=32,
    )  # fmt: skip
    assert out.tolist() == [1, 2, 3, 0, 5, 6, 7, 0]


def test_a_copy_into_what_others_still_read_shows(order):
    x, out = np.ones((2, 64), np.float32)

    def copy_over(between):
        run(
            "float *shared = (float *)block_memory();\n"
            "const int i = threadIdx.x;\n"
            "shared[i] = 1;\n"
            "__syncthreads();\n"
            f"out[i] = shared[63 - i];\n{between}\n"
            "copy_async_4(shared + i, x + i); commit_copies();\n"
            "__syncthreads();\n"
            "wait_copies<0>();",
            x, out, parameters="const float *x, float *out", shared=256,
        )  # fmt: skip
        return int(np.isnan(out).sum())

    assert copy_over("__syncthreads();") == 0
    assert copy_over("") == 32


# ---- what is wrong ----

WRONG = {
    "different barriers": (
        "if (threadIdx.x < 5) __syncthreads();\nelse __syncthreads();",
        r"thread 5: is in __syncthreads at line 3 `else __syncthreads\(\);` \(kernel\), but "
        r"thread 0 waits in __syncthreads at line 2",
    ),
    "a barrier and a vote": (
        "if (threadIdx.x < 5) __syncthreads();\nelse __syncthreads_or(1);",
        r"is in __syncthreads_or at line 3 .* but thread 0 waits in __syncthreads at line 2",
    ),
    "a barrier that some left before": (
        "if (threadIdx.x < 5) return;\n__syncthreads();",
        r"thread 5: is in __syncthreads at line 3 .* but thread 0 has finished",
    ),
    "a barrier that some leave": (
        "if (threadIdx.x >= 5) return;\n__syncthreads();",
        r"thread 5: ends while thread 0 waits in __syncthreads at line 3",
    ),
    "lanes that have finished": (
        "if (threadIdx.x < 5) __syncwarp();",
        r"waits in __syncwarp at line 2 .* with mask ffffffff, but thread 5 has finished",
    ),
    "lanes at a barrier": (
        "if (threadIdx.x < 5) __syncwarp();\nelse __syncthreads();",
        r"waits in __syncwarp at line 2 .* but thread 5 waits in __syncthreads at line 3",
    ),
    "lanes at different operations": (
        "int x = 1;\nif (threadIdx.x < 5) x = __shfl_sync(0xffffffffu, x, 0);\n"
        "else x = __shfl_sync(0xffffffffu, x, 0);",
        r"is in __shfl_sync at line 4 .* but thread 0 waits in __shfl_sync at line 3",
    ),
    "lanes with different masks": (
        "__syncwarp(threadIdx.x < 5 ? 0xffffffffu : 0xfffffff0u);",
        r"with mask [0f]*, but thread \d+ waits in __syncwarp at line 2 .* with mask",
    ),
    "a lane outside its mask": (
        "__syncwarp(0xffu);",
        r"thread 8: is in __syncwarp at line 2 .* but not in its mask 000000ff",
    ),
    "a shuffle from outside the mask": (
        "if (threadIdx.x < 8) __shfl_sync(0xffu, 1, 20);\nelse if (threadIdx.x == 99) return;",
        r"lane 0 reads lane 20, which is not in the mask 000000ff",
    ),
    "a spin for nothing": (
        "volatile int *flag = (int *)block_memory();\nflag[0] = 0;\n"
        "while (flag[0] == 0) pause_thread();",
        r"deadlock: waits in pause_thread at line 4 .* for what never comes; 1 of 1 blocks",
    ),
    "a spin for a thread at a barrier": (
        "volatile int *flag = (int *)block_memory();\nflag[0] = 0;\n"
        "if (threadIdx.x == 0) while (flag[0] == 0) pause_thread();\n"
        "__syncthreads();\nflag[0] = 1;",
        r"deadlock: waits in pause_thread at line 4",
    ),
    "a write behind the block's memory": (
        "block_memory()[1024 + threadIdx.x] = 1;", r"wrote behind its 1024 bytes of shared memory",
    ),
    "a write before the block's memory": (
        "block_memory()[-1] = 1;", r"wrote before its shared memory",
    ),
    "a copy outside the block's memory": (
        "copy_async_16(block_memory() + 1024, block_memory());",
        r"copy_async_16 writes outside the block's shared memory",
    ),
    "a copy to a place between": (
        "copy_async_8(block_memory() + 4, block_memory());",
        r"copy_async_8 needs addresses that are multiples of 8",
    ),
    "a copy of more than there is": (
        "copy_async_4(block_memory(), block_memory(), 8);", r"fills 0 to 4 bytes, got 8",
    ),
    "a copy that is never waited for": (
        "copy_async_4(block_memory(), block_memory());\ncommit_copies();",
        r"ends with 1 copies that were never waited for",
    ),
    "a copy that was not committed": (
        "copy_async_4(block_memory(), block_memory());\nwait_copies<0>();",
        r"ends with 1 copies that were never waited for",
    ),
    "a number at a place between": (
        "*(float *)(block_memory() + 2) = 1;", r"misaligned address .* at line 2",
    ),
    "a vector at a place between": (
        "*(float4 *)(block_memory() + 4) = make_float4(1, 2, 3, 4);",
        r"misaligned address .* at line 2",
    ),
    "a null address": ("*(float *)nullptr = 1;", r"null address .* at line 2"),
    "a wild address": (
        "*(volatile float *)(0x100000000000ull + 16 * blockDim.x) = 1;",
        r"touched the address 0x1000000004\w\w, where nothing is",
    ),
    "an index outside an array": (
        "volatile float sums[4];\nfor (int i = 0; i <= (int)blockDim.x / 16; ++i) sums[i] = i;",
        r"index outside an array at line 3",
    ),
    "a product beyond int": (
        "volatile int rows = 1 << 20;\nrows = rows * rows;", r"product beyond the range .* line 3",
    ),
    "a shift by too much": (
        "volatile int bits = 40;\nbits = 1 << bits;",
        r"shift by more bits than there are at line 3",
    ),
    "a division by zero": (
        "volatile int zero = 0;\nzero = 7 / zero;", r"division of integers by zero .* at line 3",
    ),
    "a stack that is too small": (
        "volatile char big[80000];\nfor (int i = 0; i < 80000; ++i) big[i] = 1;",
        r"overflowed its stack",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_kernel_is_refused(mistake):
    body, message = WRONG[mistake]
    with pytest.raises(KernelError, match=message):
        run(body, shared=1024)
    with cuda.fibres("descending"), pytest.raises(KernelError):
        run(body, shared=1024)
    run("__syncthreads();")  # and the next one is not the worse for it


def test_a_missing_barrier_is_seen_in_one_of_the_orders():
    def reversed_without_barrier(order):
        out = np.zeros(64, np.float32)
        run(
            "float *shared = (float *)block_memory();\n"
            "shared[threadIdx.x] = threadIdx.x;\n"
            "out[threadIdx.x] = shared[(threadIdx.x + 63) % 64];",
            out, parameters="float *out", shared=256, order=order,
        )  # fmt: skip
        return np.isnan(out).sum()

    # ascending, each reads what the one before has written; descending, nobody has
    assert reversed_without_barrier("ascending") == 1
    assert reversed_without_barrier("descending") == 63


@pytest.mark.parametrize("c_type, dtype", [("float", np.float32), ("double", np.float64)])
def test_the_memory_of_a_block_is_nan_until_written(c_type, dtype):
    out = np.zeros(40, dtype)
    run(
        f"out[blockIdx.x * 8 + threadIdx.x] = (({c_type} *)block_memory())[threadIdx.x];\n"
        f"__syncthreads();\n(({c_type} *)block_memory())[threadIdx.x] = 1;",
        out, parameters=f"{c_type} *out", grid=(5,), block=(8,), shared=64,
    )  # fmt: skip
    assert np.isnan(out).all()


def test_a_barrier_over_more_blocks_than_are_resident_is_a_deadlock():
    blocks = cuda.RESIDENT_BLOCKS
    with pytest.raises(KernelError, match=f"deadlock.* {blocks} of {blocks + 1} blocks"):
        run(
            "grid_barrier(arrivals, 1);", np.zeros(1, np.uint32), parameters="unsigned *arrivals",
            grid=(blocks + 1,), before=GRID_BARRIER,
        )  # fmt: skip


def test_only_a_cooperative_launch_may_wait_for_other_blocks():
    def launch(blocks, cooperative):
        run(
            "grid_barrier(arrivals, 1);", np.zeros(1, np.uint32), parameters="unsigned *arrivals",
            grid=(blocks,), before=GRID_BARRIER, cooperative=cooperative,
        )  # fmt: skip

    launch(2, True)
    launch(1, False)
    with pytest.raises(KernelError, match=r"pause_thread .* in a launch that is not cooperative"):
        launch(2, False)


@pytest.mark.parametrize("body", [
    "atomicAdd((float *)block_memory(), 1.f);", "atomicAdd((double *)block_memory(), 1.0);",
    "float x = max(1.f, 2.f);", "float x = min(1.f, 2.f);", "__shared__ float x[4];",
    "volatile float x = 1; x = __expf(x);", "#include <nothing.h>",
])  # fmt: skip
def test_what_kernels_must_not_use_does_not_compile(body):
    with pytest.raises(CompileError, match=r"error|not all that the source names is there"):
        run(body)


def test_a_source_without_a_kernel_is_refused():
    with pytest.raises(CompileError, match="__global__ void kernel, found none"):
        cuda.load("__device__ void function() {}")


# ---- launching ----


def test_arguments_must_have_the_types_of_the_parameters():
    library = cuda.load('extern "C" __global__ void kernel(const float *x, int n, double a) {}')
    x, n, a = np.zeros(3, np.float32), np.int32(3), np.float64(1)
    library.launch("kernel", (1,), (1,), (x, n, a))
    for wrong, message in [
        ((np.zeros(3), n, a), r"argument 0 is a parameter of type \*float32, got \*float64"),
        ((x, np.int64(3), a), "argument 1 is a parameter of type int32, got int64"),
        ((x, 3, a), "argument 1 .* got a Python int, which CuPy would pass in 8 bytes"),
        ((x, n, 1.0), "argument 2 .* got a Python float"),
        ((n, n, a), r"argument 0 is a parameter of type \*float32, got int32"),
        ((x, n), "takes 3 arguments, got 2"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=message):
            library.launch("kernel", (1,), (1,), wrong)


def test_a_grid_must_be_one_that_a_device_takes():
    library = cuda.load(
        'constexpr int THREADS = 128;\n'
        'extern "C" __global__ void __launch_bounds__(THREADS, 2) kernel() {}'
    )  # fmt: skip
    assert library.kernels["kernel"].most_threads == 128
    for grid, block, shared, message in [
        ((0,), (1,), 0, "grid must be up to 3 numbers"),
        ((1, 70_000), (1,), 0, "grid must be up to 3 numbers"),
        ((1, 1, 1, 1), (1,), 0, "grid must be up to 3 numbers"),
        ((1,), (1, 1, 65), 0, "block must be up to 3 numbers"),
        ((1,), (129,), 0, "block must have at most 128 threads, got 129"),
        ((1,), (1,), 232_449, "shared must be 0 to 232448 bytes, got 232449"),
    ]:
        with pytest.raises(ValueError, match=message):
            library.launch("kernel", grid, block, (), shared)
    with pytest.raises(ValueError, match=r"name must be one of \['kernel'\], got 'kernal'"):
        library.launch("kernal", (1,), (1,), ())
    with pytest.raises(ValueError, match="order must be 'ascending' or 'descending'"), \
            cuda.fibres("up"):  # fmt: skip
        pass


@pytest.mark.parametrize("place", [-1, 12])
def test_a_write_beside_an_array_is_refused(place):
    x = np.arange(12, dtype=np.float32)
    for write in ("x[place] = 1;", "x[place] *= 2;"):
        with pytest.raises(MemoryError, match="kernel: wrote beside array 0 of its arguments"):
            run(write, x, np.int32(place), parameters="float *x, int place", block=(1,))
    np.testing.assert_array_equal(x, np.arange(12))


def test_a_read_beside_an_array_gives_nan():
    x, out = np.ones(4, np.float32), np.zeros(2, np.float32)
    run(
        "out[0] = x[-1]; out[1] = x[4];",
        x, out, parameters="const float *x, float *out", block=(1,),
    )  # fmt: skip
    assert np.isnan(out).all()


def test_views_keep_their_place_in_what_they_are_views_of():
    whole = np.arange(40, dtype=np.float64).reshape(5, 8)
    left, right = whole[:, :3], whole[:, 4:7]
    run(
        "const int row = threadIdx.x / 3, column = threadIdx.x % 3;\n"
        "right[row * stride + column] = -left[row * stride + column];",
        left, right, np.int64(8), parameters="const double *left, double *right, long long stride",
        block=(15,),
    )  # fmt: skip
    expected = np.arange(40).reshape(5, 8)
    expected[:, 4:7] = -expected[:, :3]
    np.testing.assert_array_equal(whole, expected)


def test_an_array_that_is_not_writeable_is_not_written():
    x = np.ones(3)
    x.flags.writeable = False
    run("x[0] = 1;", x, parameters="double *x", block=(1,))
    with pytest.raises(MemoryError, match="read-only"):
        run("x[0] = 2;", x, parameters="double *x", block=(1,))


def test_float16_arrays_are_bits_to_a_kernel():
    x = np.ones(2, np.float16)
    run("x[0] += 1;", x, parameters="unsigned short *x", block=(1,))
    assert x[0] == np.nextafter(np.float16(1), np.float16(2))


def test_a_library_is_compiled_once_and_by_any_process(tmp_path):
    source = f'extern "C" __global__ void kernel(int *x) {{ x[0] = {os.getpid()}; }}'
    path = cuda.build(source)
    made = path.stat().st_ino
    assert cuda.build(source) == path and path.stat().st_ino == made
    assert run_python(f"from cuda import compile; print(compile.build({source!r}))") == str(path)
    x = np.zeros(1, np.int32)
    cuda.load_binary(path.read_bytes()).launch("kernel", (1,), (1,), (x,))
    assert x[0] == os.getpid()


def test_what_another_shim_compiled_is_refused(monkeypatch):
    path = cuda.build('extern "C" __global__ void other_shim() {}')
    with monkeypatch.context() as patch:
        patch.setattr(cuda, "_runtime_path", lambda: path)
        with pytest.raises(CompileError, match="another version of the shim"):
            cuda.Library(path)
    with pytest.raises(CompileError, match="expected a library that build made"):
        cuda.load_binary(b"cubin")


def test_nvidias_packages_of_the_same_name_are_still_found(tmp_path):
    # CuPy imports cuda.pathfinder, which no folder of ours may hide
    (tmp_path / "cuda" / "pathfinder").mkdir(parents=True)
    (tmp_path / "cuda" / "pathfinder" / "__init__.py").write_text("found = True")
    found = run_python(
        f"""
        import sys
        sys.path.append({str(tmp_path)!r})
        from cuda import compile, pathfinder
        print(compile.__file__, pathfinder.found)
        """
    )
    assert found == f"{cuda.__file__} True"


@pytest.mark.parametrize("module", [cuda, memory])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


# ---- NVRTC ----

ADDS = (
    'extern "C" __global__ void __launch_bounds__(256) kernel(float *x, float a) {\n'
    "  x[blockIdx.x * blockDim.x + threadIdx.x] += a;\n}"
)


@pytest.fixture
def nvrtc():
    require("nvrtc", cuda.why_no_nvrtc())


@pytest.mark.parametrize("architecture", cuda.ARCHITECTURES)
def test_nvrtc_compiles_and_reports(architecture, nvrtc):
    report = cuda.nvrtc(ADDS, architecture)
    assert f".target {architecture}" in report.ptx and ".entry kernel(" in report.ptx
    assert report.cubin.startswith(b"\x7fELF")
    assert 0 < report.registers <= 32
    assert report.spill_bytes == report.stack_bytes == report.shared_bytes == 0


def test_nvrtc_reports_spills_and_shared_memory(nvrtc):
    source = """
extern "C" __global__ void __launch_bounds__(1024, 2) kernel(double *x, int n) {
  __shared__ double shared[100];
  double sums[48];
  for (int i = 0; i < 48; ++i) sums[i] = x[i * n + threadIdx.x];
  shared[threadIdx.x % 100] = sums[n % 48];
  __syncthreads();
  for (int turn = 0; turn < n; ++turn)
    for (int i = 0; i < 48; ++i) sums[i] = sums[i] * sums[(i + 7) % 48] + shared[i];
  for (int i = 0; i < 48; ++i) x[i * n + threadIdx.x] = sums[i];
}"""
    report = cuda.nvrtc(source, "sm_90")
    assert report.registers <= 32 and report.stack_bytes > 0 and report.shared_bytes == 800
    assert report.spill_bytes > 0


def test_nvrtc_says_what_does_not_compile(nvrtc):
    with pytest.raises(CompileError, match='identifier "nothing" is undefined'):
        cuda.nvrtc("__global__ void kernel() { nothing(); }", "sm_90")


# ---- what may be skipped ----


def test_what_is_required_may_not_be_skipped(monkeypatch):
    monkeypatch.setenv("FASTNN_REQUIRE", "g++, cuda")
    with pytest.raises(pytest.fail.Exception, match="FASTNN_REQUIRE lists cuda: no device"):
        require("cuda", "no device")
    with pytest.raises(pytest.skip.Exception, match="nvrtc: no library"):
        require("nvrtc", "no library")
    require("cuda", None)
    monkeypatch.setenv("FASTNN_REQUIRE", "gpu")
    with pytest.raises(ValueError, match=r"FASTNN_REQUIRE lists \['gpu'\]"):
        require("cuda", None)
    monkeypatch.delenv("FASTNN_REQUIRE")
    with pytest.raises(ValueError, match="thing must be one of"):
        require("gpu", None)
