"""From LLVM IR to addresses of machine code, kept on disk under the digest of the IR itself.

What is cached cannot go stale: the file's name is the digest of the IR, the target and the versions
of fastnn and LLVM, so an edited kernel is another file. Where no folder can be written, everything
is compiled in memory and nothing else changes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import re
import tempfile
import threading
import time

import llvmlite.binding as llvm
from llvmlite import ir

from .machine import target

_DIGEST_BYTES = 32
_lock = threading.Lock()
_engines: list[llvm.ExecutionEngine] = []
compile_seconds = 0.0


def build(module: ir.Module) -> dict[str, int]:
    """Compile ``module``, or take it from the cache; return the address of each of its functions."""
    text = _with_vector_width(str(module))
    names = [function.name for function in module.functions if not function.is_declaration]
    key = hashlib.sha256(
        "\0".join((text, *map(str, target()), str(llvm.llvm_version_info))).encode()
    ).hexdigest()
    with _lock:
        code = _read(key)
        if code is None:
            code = _compile(text)
            _write(key, code)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _engines.append(engine)
    return {name: engine.get_function_address(name) for name in names}


@functools.cache
def cache_folder() -> pathlib.Path | None:
    """The private folder of compiled code for this version of the kernels; None if unwritable.

    ``FASTNN_CACHE_DIR`` names its parent; otherwise the user's cache folder does. A folder that
    belongs to another user, or that others may write, is refused: its code would run as ours.
    """
    parent = os.environ.get("FASTNN_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(pathlib.Path.home(), ".cache"), "fastnn"
    )
    folder = pathlib.Path(parent) / _source_digest()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        status = folder.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return folder


def _source_digest() -> str:
    """A digest of every source file of the kernels, so that an edited callee is seen."""
    root = pathlib.Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


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
    global compile_seconds
    begun = time.perf_counter()
    machine = _target_machine()
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    llvm_passes = llvm.create_pass_builder(machine, options)
    llvm_passes.getModulePassManager().run(module, llvm_passes)
    code = machine.emit_object(module)
    compile_seconds += time.perf_counter() - begun
    return code


def _read(key: str) -> bytes | None:
    folder = cache_folder()
    if folder is None:
        return None
    try:
        content = (folder / f"{key}.o").read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(key: str, code: bytes) -> None:
    folder = cache_folder()
    if folder is None:
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, folder / f"{key}.o")
    except OSError:
        return
