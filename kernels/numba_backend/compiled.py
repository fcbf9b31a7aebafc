"""Control code that Numba compiles, kept as machine code like every other kernel.

Numba is imported only where the cache has no machine code yet: it takes longer to import than a
small network takes to train.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
import sys
from collections.abc import Callable

from .. import cache
from . import objects

_ENTRY = "entry"
_POINTERS = {"p": "int64", "b": "uint8", "s": "float32", "d": "float64"}
_KINDS = {"i": ctypes.c_int64} | dict.fromkeys(_POINTERS, ctypes.c_void_p)
"""How ctypes passes an argument: it takes 0.04 µs for an address, 0.08 for an integer."""


@functools.cache
def control(module: str, name: str, arguments: str, holds_gil: bool = False) -> Callable[..., int]:
    """A compiled function of a module beside this one, called without the GIL unless it is short.

    Parameters
    ----------
    module, name : str
        Where its Python source is.
    arguments : str
        A letter each: ``i`` for an integer; for the address of 64-bit words ``p``, of bytes ``b``,
        of single floats ``s``, of doubles ``d``. It returns an integer.
    """
    address = objects.build_text(
        f"control {module} {name} {arguments}", lambda: (_text(module, name, arguments), [_ENTRY])
    )[_ENTRY]
    convention = ctypes.PYFUNCTYPE if holds_gil else ctypes.CFUNCTYPE
    return convention(ctypes.c_int64, *[_KINDS[letter] for letter in arguments])(address)


def _text(module: str, name: str, arguments: str) -> str:
    """LLVM IR of the function as Numba translates it, behind an entry with C's conventions."""
    print(
        f"fastnn: compiling {name} for this CPU, once for this version "
        f"(kept in {cache.folder() or 'memory: no folder can be written'})",
        file=sys.stderr,
    )
    from numba import types

    pointers = {letter: types.CPointer(getattr(types, kind)) for letter, kind in _POINTERS.items()}
    kinds = {"i": types.int64, **pointers}
    signature = tuple(kinds[letter] for letter in arguments)
    function = getattr(importlib.import_module(f".{module}", __package__), name)
    function.compile(signature)
    native = function.overloads[signature].fndesc.llvm_func_name
    text = function.inspect_llvm(signature)
    # all but the entry may go: what only Python could call would need Python's symbols
    text = re.sub(r"^define (linkonce_odr |dso_local )*", "define internal ", text, flags=re.M)
    text = re.sub(r"^(@\S+ = )common ", r"\1internal ", text, flags=re.M)
    types_of = {"i": "i64"} | dict.fromkeys(_POINTERS, "ptr")
    given = [f"{types_of[letter]} %a{number}" for number, letter in enumerate(arguments)]
    return f"""{text}
define i64 @{_ENTRY}({", ".join(given)}) {{
  %result = alloca i64
  %exception = alloca ptr
  store i64 0, ptr %result
  call i32 @{native}({", ".join(["ptr %result", "ptr %exception", *given])})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""
