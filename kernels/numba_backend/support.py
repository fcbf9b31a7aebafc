"""Kernels that are not arithmetic: the barrier, the clock, the treatment of denormals."""

from __future__ import annotations

import platform

from llvmlite import ir

from ..contract import MOST_THREADS
from . import table
from .emit import I32, I64, POINTER, Kernel, integer
from .machine import is_arm

MOST_ARGUMENTS = 16
"""The most integers that a kernel takes."""
_MONOTONIC = {"Linux": 1, "Darwin": 6}
MOST_LOOKS = 2000
"""Looks before a thread sleeps: about 50 µs, longer than falling asleep and waking up take."""
_FUTEX_X86, _FUTEX_ARM = 202, 98  # numbers of the system call
_FUTEX_WAIT, _FUTEX_WAKE = I32(0 | 128), I32(1 | 128)  # within one process
_FLUSH_X86 = 0x8040
_FLUSH_ARM = 1 << 24


def module() -> ir.Module:
    """Barrier, clock, flush and restore, describe, and an applier for each number of integers."""
    result = ir.Module("support")
    _barrier(result)
    _take(result)
    _watch(result)
    _clock(result)
    define_denormals(result)
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

    Arguments: control, threads, patience: the word where this thread keeps how often it looks
    before it sleeps, at most MOST_LOOKS. The kernel is entered only where somebody sleeps.
    """
    kernel = _kernel(result, "barrier", "pip")
    builder = kernel.builder
    _, threads, patience = kernel.arguments
    arrived, sleepers, generation = (_shared(kernel, word) for word in _MEETING)
    now = _read(kernel, generation)
    before = _add(kernel, arrived, integer(1))
    is_last = builder.icmp_signed("==", before, builder.sub(threads, integer(1)))
    with builder.if_else(is_last) as (last, others):
        with last:
            with builder.if_then(_any(kernel, sleepers)):
                kernel.store(_core(kernel), _shared(kernel, table.LAST_CORE))
            _add(kernel, arrived, builder.neg(threads))
            _add(kernel, generation, integer(1))
            # a sleeper is counted before its last look at the generation, which changed before
            # this: one of the two sees the other
            with builder.if_then(_any(kernel, sleepers)):
                _wake(kernel, generation)
        with others:
            _wait(kernel, now, patience)
    kernel.finish()


def _wait(kernel: Kernel, now: ir.Value, patience: ir.Value) -> None:
    """Look until the generation is no longer ``now``, or sleep where that takes too long.

    On a core of its own a thread that looks loses nothing, and one that sleeps loses microseconds:
    patience doubles. A thread that is waited for on the very core cannot come while one looks, so
    that patience falls to a quarter where the last to come was there. What another program takes
    of the time of a core does not lower it: beside that, sleep costs a slice of milliseconds.
    """
    builder = kernel.builder
    sleepers, generation = (_shared(kernel, word) for word in _MEETING[1:])
    looks, most = kernel.variable(integer(0)), kernel.load(patience, I64)
    look, pause, sleep, doze, asleep, woken, apart, near, done = (
        builder.append_basic_block(name)
        for name in ("look", "pause", "sleep", "doze", "asleep", "woken", "apart", "near", "done")
    )

    def branch_while_now(waiting: ir.Block, over: ir.Block) -> None:
        is_now = builder.icmp_signed("==", _read(kernel, generation), now)
        builder.cbranch(is_now, waiting, over)

    builder.branch(look)
    builder.position_at_end(look)
    branch_while_now(pause, apart)

    builder.position_at_end(pause)
    _pause(kernel)
    count = builder.add(builder.load(looks), integer(1))
    builder.store(count, looks)
    builder.cbranch(builder.icmp_signed("<=", count, most), look, sleep)

    builder.position_at_end(sleep)
    mine = _core(kernel)
    _add(kernel, sleepers, integer(1))
    builder.branch(doze)
    builder.position_at_end(doze)
    branch_while_now(asleep, woken)
    builder.position_at_end(asleep)
    _sleep(kernel, generation, now)
    builder.branch(doze)
    builder.position_at_end(woken)
    _add(kernel, sleepers, integer(-1))
    last_core = kernel.load(_shared(kernel, table.LAST_CORE), I64)
    builder.cbranch(builder.icmp_signed("==", last_core, mine), near, apart)

    builder.position_at_end(near)
    kernel.store(builder.ashr(most, integer(2)), patience)
    builder.branch(done)

    builder.position_at_end(apart)
    # written only where it changes: on a quiet machine the line stays everybody's
    with builder.if_then(builder.icmp_signed("<", most, integer(MOST_LOOKS))):
        doubled = builder.add(builder.shl(most, integer(1)), integer(1))
        is_less = builder.icmp_signed("<", doubled, integer(MOST_LOOKS))
        kernel.store(builder.select(is_less, doubled, integer(MOST_LOOKS)), patience)
    builder.branch(done)
    builder.position_at_end(done)


_MEETING = (table.ARRIVED, table.SLEEPERS, table.GENERATION)


def _shared(kernel: Kernel, word: int) -> ir.Value:
    """The address of a control word."""
    return kernel.at(kernel.arguments[0], word, element=I64)


def _read(kernel: Kernel, word: ir.Value) -> ir.Value:
    return kernel.builder.load_atomic(word, "seq_cst", 8, typ=I64)


def _any(kernel: Kernel, count: ir.Value) -> ir.Value:
    return kernel.builder.icmp_signed("!=", _read(kernel, count), integer(0))


def _add(kernel: Kernel, word: ir.Value, value: ir.Value) -> ir.Value:
    """Add to a word; what it was."""
    return kernel.builder.atomic_rmw("add", word, value, "seq_cst")


def _pause(kernel: Kernel) -> None:
    """Tell the core that this is a loop that waits."""
    if is_arm():
        kernel.call("llvm.aarch64.hint", ir.VoidType(), I32(1))
    else:
        kernel.call("llvm.x86.sse2.pause", ir.VoidType())


# ---- asleep: by Linux's futexes; elsewhere the core is given away, on a free one just a look ----


def _is_linux() -> bool:
    return platform.system() == "Linux"


def _core(kernel: Kernel) -> ir.Value:
    """The number of this thread's core; one for all where nobody can tell."""
    if not _is_linux():
        return integer(0)
    return kernel.builder.sext(kernel.call("sched_getcpu", I32), I64)


def _sleep(kernel: Kernel, word: ir.Value, value: ir.Value) -> None:
    """Sleep, perhaps not for long, unless the word is no longer ``value``."""
    if _is_linux():
        _futex(kernel, word, _FUTEX_WAIT, kernel.narrow(value), integer(0))
    else:
        kernel.call("sched_yield", I32)


def _wake(kernel: Kernel, word: ir.Value) -> None:
    """Wake all who sleep until the word changes."""
    if _is_linux():
        _futex(kernel, word, _FUTEX_WAKE, I32(MOST_THREADS))


def _futex(kernel: Kernel, word: ir.Value, *arguments: ir.Value) -> None:
    """Linux's futex, on the low half of a word; no C library has a function for it."""
    module = kernel.builder.module
    function = module.globals.get("syscall") or ir.Function(
        module, ir.FunctionType(I64, [I64], var_arg=True), "syscall"
    )
    number = _FUTEX_ARM if is_arm() else _FUTEX_X86
    kernel.builder.call(function, [integer(number), word, *arguments])


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


def define_denormals(result: ir.Module) -> tuple[ir.Function, ir.Function]:
    """``flush``, of denormals in this thread, which returns what the mode was, and ``restore``."""
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
        return flush.function, restore.function
    slot = flush.variable(I32(0))
    flush.call("llvm.x86.sse.stmxcsr", ir.VoidType(), slot)
    saved = flush.builder.load(slot)
    flush.builder.store(flush.builder.or_(saved, I32(_FLUSH_X86)), slot)
    flush.call("llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)
    flush.finish(flush.builder.zext(saved, I64))
    slot = restore.variable(restore.narrow(restore.arguments[0]))
    restore.call("llvm.x86.sse.ldmxcsr", ir.VoidType(), slot)
    restore.finish()
    return flush.function, restore.function


def _applier(result: ir.Module, count: int) -> None:
    """Call the kernel with the integers that follow it; hand back what it returns.

    Argument: where they stand, first the kernel's address.
    """
    kernel = _kernel(result, applier(count), "p", returns=True)
    words = [
        kernel.load(kernel.at(kernel.arguments[0], number, element=I64), I64)
        for number in range(count + 1)
    ]
    address, *arguments = words
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
