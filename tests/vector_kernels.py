"""Compiles a formula's vector reading to machine code, so that tests can run it on arrays."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from text_kernels import addresses

from fastnn.kernels.tracing import VectorMath

_INDEX = ir.IntType(64)
_ELEMENTS = {"float32": ir.FloatType(), "float64": ir.DoubleType(), "uint32": ir.IntType(32)}
_serial = itertools.count()


def vector_kernel(
    formula: Callable[..., Any], dtype: str, lanes: int, inputs: int = 1, element: str = ""
) -> Callable[..., Any]:
    """Return a function of arrays that runs `formula(m, *numbers)`.

    It takes arrays of `element`, which is `dtype` unless given, and returns one, or a tuple of
    them where the formula does.
    """
    element = element or dtype
    name = f"kernel_{next(_serial)}"
    module, outputs = vector_module(name, formula, dtype, lanes, inputs, element)
    call = _compile(name, module)

    def run(*arrays: Any) -> Any:
        arrays = np.broadcast_arrays(*(np.asarray(array, dtype=element) for array in arrays))
        shape, size = arrays[0].shape, arrays[0].size
        padded = [np.resize(array, -(-size // lanes) * lanes) for array in arrays]
        results = [np.empty_like(padded[0]) for _ in range(outputs or 1)]
        call(addresses(padded), addresses(results), padded[0].size)
        results = [result[:size].reshape(shape) for result in results]
        return tuple(results) if outputs else results[0]

    return run


def vector_module(
    name: str,
    formula: Callable[..., Any],
    dtype: str,
    lanes: int,
    inputs: int = 1,
    element: str = "",
) -> tuple[ir.Module, int]:
    """Return a loop of the formula over arrays, and the length of its tuple (0: no tuple)."""
    scalar = _ELEMENTS[element or dtype]
    vector = ir.VectorType(scalar, lanes)
    table = scalar.as_pointer().as_pointer()
    module = ir.Module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [table, table, _INDEX]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    sources, targets, count = function.args
    entry, body, done = builder.block, *map(function.append_basic_block, ("body", "done"))
    builder.cbranch(builder.icmp_signed("<", _INDEX(0), count), body, done)
    builder.position_at_end(body)
    position = builder.phi(_INDEX)
    position.add_incoming(_INDEX(0), entry)

    def place(base: ir.Value, number: int) -> ir.Value:
        array = builder.load(builder.gep(base, [_INDEX(number)]))
        return builder.bitcast(builder.gep(array, [position]), vector.as_pointer())

    m = VectorMath(builder, dtype, lanes)
    wrap = m.integer if scalar == _ELEMENTS["uint32"] else m.vector
    loaded = [builder.load(place(sources, number), align=4) for number in range(inputs)]
    results = formula(m, *map(wrap, loaded))
    for number, result in enumerate(results if isinstance(results, tuple) else (results,)):
        builder.store(wrap(result).value, place(targets, number), align=4)
    following = builder.add(position, _INDEX(lanes))
    position.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), body, done)
    builder.position_at_end(done)
    builder.ret_void()
    return module, len(results) if isinstance(results, tuple) else 0


def _compile(name: str, module: ir.Module) -> Callable[..., None]:
    machine, engine = _target()
    compiled = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(compiled, passes)
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine.emit_object(compiled)))
    engine.finalize_object()
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return signature(engine.get_function_address(name))


@cache
def _target() -> tuple[llvm.TargetMachine, llvm.ExecutionEngine]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        jit=True,
    )
    return machine, llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
