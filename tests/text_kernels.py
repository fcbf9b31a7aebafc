"""Compiles the text reading of formulas with the host's g++, so that tests can run it on arrays."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastnn.kernels.tracing import PREAMBLE, function_text

_serial = itertools.count()
COMPILER = shutil.which("g++")
_TYPES = {"float32": "float", "float64": "double", "uint32": "unsigned int"}


def text_kernels(
    formulas: Mapping[str, tuple[Callable[..., Any], int]], dtype: str, folder: Path
) -> dict[str, Callable[..., Any]]:
    """Return, by name, functions of arrays that run `formula(m, *numbers)`.

    `formulas` gives each formula and how many numbers it takes; each returns a tuple.
    """
    texts = [PREAMBLE]
    for name, (formula, inputs) in formulas.items():
        parameters = [f"x{number}" for number in range(inputs)]
        texts.append(function_text(name, formula, parameters, dtype))
        texts.append(_loop(name, inputs, _results(texts[-1]), _TYPES[dtype]))
    # a library of the same name would not be loaded again
    name = f"{dtype}_{next(_serial)}"
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    source.write_text("\n".join(texts))
    options = ["-O1", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC"]
    command = [str(COMPILER), *options, str(source), "-o", str(library)]
    subprocess.run(command, check=True, timeout=120)
    loaded = ctypes.CDLL(str(library))
    return {
        name: _runner(loaded[f"run_{name}"], _results(text), dtype)
        for name, text in zip(formulas, texts[1::2], strict=True)
    }


def _results(text: str) -> int:
    return text.split("{")[0].count("*")


def _loop(name: str, inputs: int, outputs: int, kind: str) -> str:
    arguments = [f"in[{number}][i]" for number in range(inputs)]
    arguments += [f"out[{number}] + i" for number in range(outputs)]
    return (
        f'extern "C" void run_{name}({kind} **in, {kind} **out, long long count) {{\n'
        f"  for (long long i = 0; i < count; ++i) {name}({', '.join(arguments)});\n}}\n"
    )


def _runner(function: Any, outputs: int, dtype: str) -> Callable[..., tuple[Any, ...]]:
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong]

    def run(*arrays: Any) -> tuple[Any, ...]:
        broadcast = np.broadcast_arrays(*(np.asarray(array, dtype=dtype) for array in arrays))
        inputs = [np.ascontiguousarray(array) for array in broadcast]
        results = tuple(np.empty_like(inputs[0]) for _ in range(outputs))
        function(addresses(inputs), addresses(results), inputs[0].size)
        return results

    return run


def addresses(arrays: Sequence[np.ndarray]) -> Any:
    """The addresses of arrays, as C takes them."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
