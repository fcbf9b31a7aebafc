"""Kernels that are not arithmetic: the barrier, the clock, the treatment of denormals."""

from __future__ import annotations

import platform

from llvmlite import ir

from . import table
from .emit import I32, I64, POINTER, Kernel, integer
from .machine import is_arm

MOST_ARGUMENTS = 16
"""The most integers that a kernel takes."""
_MONOTONIC = {"Linux": 1, "Darwin": 6}
_FLUSH_X86 = 0x8040
_FLUSH_ARM = 1 << 24


def module() -> ir.Module:
    """Barrier, clock, flush and restore, describe, and an applier for each number of integers."""
    result = ir.Module("support")
    _barrier(result)
    _take(result)
    _watch(result)
    _clock(result)
    _denormals(result)
    _describe(result)
    for count in range(MOST_ARGUMENTS + 1):
        _applier(result, count)
    return result


def applier(count: int) -> str:
    """The name of the function that calls a kernel with ``count`` integers, denormals flushed."""
    return f"apply_{count}"


def _kernel(result: ir.Module, name: str, arguments: str, returns: bool = False) -> Kernel:
    return Kernel(result, name, arguments, "float32", 4, returns)


def _barrier(result: ir.Module) -> None:
    """Wait until all threads are here; the last to come opens the next generation.

    Arguments: control, threads, patience: how often to look before giving the core away.
    """
    kernel = _kernel(result, "barrier", "pii")
    builder = kernel.builder
    control, threads, patience = kernel.arguments
    arrived = kernel.at(control, table.ARRIVED, element=I64)
    generation = kernel.at(control, table.GENERATION, element=I64)

    def read() -> ir.Value:
        return builder.load_atomic(generation, "acquire", 8, typ=I64)

    now = read()
    before = builder.atomic_rmw("add", arrived, integer(1), "seq_cst")
    is_last = builder.icmp_signed("==", before, builder.sub(threads, integer(1)))
    wait, check, give_way, done = (
        builder.append_basic_block(name) for name in ("wait", "check", "give_way", "done")
    )
    with builder.if_then(is_last):
        builder.atomic_rmw("sub", arrived, threads, "seq_cst")
        builder.atomic_rmw("add", generation, integer(1), "seq_cst")
        builder.branch(done)
    pauses = kernel.variable(integer(0))
    builder.branch(wait)
    builder.position_at_end(wait)
    builder.cbranch(builder.icmp_signed("==", read(), now), check, done)
    builder.position_at_end(check)
    if is_arm():
        kernel.call("llvm.aarch64.hint", ir.VoidType(), I32(1))
    else:
        kernel.call("llvm.x86.sse2.pause", ir.VoidType())
    count = builder.add(builder.load(pauses), integer(1))
    builder.store(count, pauses)
    builder.cbranch(builder.icmp_signed(">", count, patience), give_way, wait)
    builder.position_at_end(give_way)
    kernel.call("sched_yield", I32)
    builder.branch(wait)
    builder.position_at_end(done)
    kernel.finish()


def _take(result: ir.Module) -> None:
    """What a counter stood at; it then stands one higher."""
    kernel = _kernel(result, "take", "p", returns=True)
    (counter,) = kernel.arguments
    kernel.finish(kernel.builder.atomic_rmw("add", counter, integer(1), "monotonic"))


def _watch(result: ir.Module) -> None:
    """Wait for a word to change, but no longer than so many looks.

    Arguments: the word's address, what it was, looks.
    """
    kernel = _kernel(result, "watch", "pii")
    builder = kernel.builder
    word, seen, looks = kernel.arguments
    look, go_on, pause, done = (
        builder.append_basic_block(name) for name in ("look", "go_on", "pause", "done")
    )
    entry = builder.block
    builder.branch(look)
    builder.position_at_end(look)
    count = builder.phi(I64)
    count.add_incoming(integer(0), entry)
    now = builder.load_atomic(word, "acquire", 8, typ=I64)
    builder.cbranch(builder.icmp_signed("==", now, seen), go_on, done)
    builder.position_at_end(go_on)
    builder.cbranch(builder.icmp_signed("<", count, looks), pause, done)
    builder.position_at_end(pause)
    _pause(kernel)
    count.add_incoming(builder.add(count, integer(1)), pause)
    builder.branch(look)
    builder.position_at_end(done)
    kernel.finish()


def _clock(result: ir.Module) -> None:
    """out[0], out[1] = seconds and nanoseconds of the clock of ``time.monotonic``."""
    kernel = _kernel(result, "clock", "p")
    kernel.call("clock_gettime", I32, I32(_MONOTONIC[platform.system()]), kernel.arguments[0])
    kernel.finish()


def _denormals(result: ir.Module) -> None:
    """Flush denormals to zero in this thread; hand back what the mode was."""
    flush = _kernel(result, "flush", "", returns=True)
    restore = _kernel(result, "restore", "i")
    if is_arm():
        saved = flush.call("llvm.aarch64.get.fpcr", I64)
        flush.call(
            "llvm.aarch64.set.fpcr", ir.VoidType(), flush.builder.or_(saved, integer(_FLUSH_ARM))
        )
        flush.finish(saved)
        restore.call("llvm.aarch64.set.fpcr", ir.VoidType(), restore.arguments[0])
        restore.finish()
        return
    slot = flush.variable(I32(0))
    flush.call("llvm.x86.sse.stmxcsr", ir.VoidType(), slot)
    saved = flush.builder.load(slot)
    flush.builder.store(flush.builder.or_(saved, I32(_FLUSH_X86)), slot)
    flush.call("llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)
    flush.finish(flush.builder.zext(saved, I64))
    slot = restore.variable(restore.narrow(restore.arguments[0]))
    restore.call("llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)
    restore.finish()


def _applier(result: ir.Module, count: int) -> None:
    """Call the kernel with the integers that follow it; hand back what it returns."""
    kernel = _kernel(result, applier(count), "i" * (count + 1), returns=True)
    address, *arguments = kernel.arguments
    functions = {function.name: function for function in result.functions}
    saved = kernel.builder.call(functions["flush"], [])
    pointer = ir.FunctionType(I64, [I64] * count).as_pointer()
    value = kernel.builder.call(kernel.builder.inttoptr(address, pointer), arguments)
    kernel.builder.call(functions["restore"], [saved])
    kernel.finish(value)


def _describe(result: ir.Module) -> None:
    """Copy what a NumPy array object says of itself, lengths and strides where it has two axes.

    Arguments: array (the object), out. The fields are those of ``PyArrayObject_fields``, part of
    NumPy's binary interface: data, axes, lengths, strides, base, dtype behind the object's head.
    """
    kernel = _kernel(result, "describe", "pp")
    builder = kernel.builder
    array, out = kernel.arguments
    head = object.__basicsize__ // 8

    def field(number: int, kind: ir.Type = I64) -> ir.Value:
        return kernel.load(kernel.at(array, head + number, element=I64), kind)

    def put(place: int, value: ir.Value) -> None:
        kernel.store(value, kernel.at(out, place, element=I64))

    put(table.ARRAY_DATA, field(0))
    axes = builder.sext(field(1, I32), I64)
    put(table.ARRAY_AXES, axes)
    put(table.ARRAY_TYPE, field(5))
    with builder.if_then(builder.icmp_signed("==", axes, integer(2))):
        for first, number in ((table.ARRAY_ROWS, 2), (table.ARRAY_ROW_BYTES, 3)):
            values = field(number, POINTER)
            for axis in range(2):
                put(first + axis, kernel.load(kernel.at(values, axis, element=I64), I64))
    kernel.finish()
