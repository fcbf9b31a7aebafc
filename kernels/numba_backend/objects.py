"""From LLVM IR to addresses of machine code, kept on disk.

A file in the cache is named after what it holds: the digest of the IR itself where that was made
from a formula, which may be the user's, or else the name of a part of these sources. So nothing in
the cache can go stale. Where no folder can be written, everything is compiled in memory and nothing
else changes.
"""

from __future__ import annotations

import functools
import hashlib
import re
import threading
from collections.abc import Callable

import llvmlite.binding as llvm
from llvmlite import ir

from .. import cache
from .machine import target

_lock = threading.RLock()
_built: dict[str, tuple[llvm.ExecutionEngine, dict[str, int]]] = {}


def build(module: ir.Module) -> dict[str, int]:
    """Compile ``module``, or take it from the cache; the address of each of its functions."""
    text = str(module)
    return _build(text, lambda: (text, _defined(module)))


def build_part(name: str, make: Callable[[], ir.Module]) -> dict[str, int]:
    """The same for a module that depends on these sources alone: it is made only if need be."""

    def made() -> tuple[str, list[str]]:
        module = make()
        return str(module), _defined(module)

    return _build(name, made)


def build_text(name: str, make: Callable[[], tuple[str, list[str]]]) -> dict[str, int]:
    """The same for IR as text, with the names of the functions wanted."""
    return _build(name, make)


def _defined(module: ir.Module) -> list[str]:
    return [function.name for function in module.functions if not function.is_declaration]


def _build(what: str, make: Callable[[], tuple[str, list[str]]]) -> dict[str, int]:
    key = hashlib.sha256(
        "\0".join((what, *map(str, target()), str(llvm.llvm_version_info))).encode()
    ).hexdigest()
    with _lock:
        if key in _built:
            return _built[key][1]
        kept = _read(key)
        if kept is None:
            text, names = make()
            kept = names, _compile(_with_vector_width(text))
            _write(key, *kept)
        names, code = kept
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        addresses = {name: engine.get_function_address(name) for name in names}
        _built[key] = engine, addresses  # the code lives as long as its engine
    return addresses


def _with_vector_width(text: str) -> str:
    """Let every function keep vectors whole: LLVM halves 512-bit ones on some CPUs otherwise."""
    bits = target().vector_bits
    text = re.sub(r"^(define .*\))$", r"\1 #0", text, flags=re.MULTILINE)
    width = f'"prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}"'
    return f"{text}\nattributes #0 = {{ nounwind {width} }}\n"


@functools.cache
def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=target().name, features=target().features, opt=3, jit=True
    )


def _compile(text: str) -> bytes:
    machine = _target_machine()
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    llvm_passes = llvm.create_pass_builder(machine, options)
    llvm_passes.getModulePassManager().run(module, llvm_passes)
    return machine.emit_object(module)


def _read(key: str) -> tuple[list[str], bytes] | None:
    content = cache.read(f"{key}.o")
    if content is None:
        return None
    names, _, code = content.partition(b"\n")
    return names.decode().split(), code


def _write(key: str, names: list[str], code: bytes) -> None:
    cache.write(f"{key}.o", " ".join(names).encode() + b"\n" + code)
