"""CUDA sources without a GPU: run by g++ and the shim, compiled by NVRTC.

This folder has no ``__init__.py``: it shares the name ``cuda`` with NVIDIA's packages, of which
CuPy imports one, and folders of one name are one package only while none of them has that file.

A source is compiled once and kept in a folder of the user's, by a digest of all that it was made
from. Kernels are launched with arguments of exactly the types that their parameters have.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .memory import guarded

MOST_THREADS = 1024
MOST_SHARED = 232_448
"""Bytes of dynamic shared memory of a block, where the kernel asked for more than the usual."""
RESIDENT_BLOCKS = 32
"""Blocks that are alive at once, as on a device of four multiprocessors."""
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
NVRTC_OPTIONS = (
    "--fmad=false", "--std=c++17", "--ptxas-options=-v", "-default-device",
)  # fmt: skip

_FOLDER = Path(__file__).parent
_KEPT_SECONDS = 7 * 24 * 3600
_FLAGS = (
    "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-ffp-contract=off",
    "-w",
)  # fmt: skip
# What a GPU does not forgive either; the shim reports it with the line.
_CHECKS = (
    "-fsanitize=alignment,null,bounds,shift,integer-divide-by-zero,signed-integer-overflow,"
    "return,bool",
    "-fno-sanitize-recover=all",
)
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s*(?:__launch_bounds__\s*\(([^()]*(?:\([^()]*\))?[^()]*)\)'
    r"\s*)?(\w+)\s*\("
)


class CompileError(RuntimeError):
    """A source that does not compile; the message is the compiler's."""


class KernelError(RuntimeError):
    """A kernel that did what it must not do."""


# ---- on the CPU ----


def why_no_gxx() -> str | None:
    """Why kernels cannot be run under g++ here; None where they can."""
    if platform.machine() not in ("x86_64", "AMD64") or not sys.platform.startswith("linux"):
        return f"the shim knows Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    return None if shutil.which("g++") else "no g++ on the path"


@dataclass(frozen=True)
class Kernel:
    """A kernel in a loaded library.

    Parameters
    ----------
    name : str
        Its name in the source.
    parameters : tuple of str
        The NumPy type of each parameter, with a ``*`` before it for a pointer; ``*`` alone is a
        pointer to anything.
    most_threads : int
        Threads that its launch bounds allow.
    entry : int
        The address of the function that calls it.
    source : str
        The text it was compiled from, for messages.
    """

    name: str
    parameters: tuple[str, ...]
    most_threads: int
    entry: int
    source: str

    def check_arguments(self, dtypes: Sequence[str]) -> None:
        """Raise unless arguments of these types (``*float32`` for an array) fit."""
        if len(dtypes) != len(self.parameters):
            raise TypeError(
                f"kernel {self.name} takes {len(self.parameters)} arguments, got {len(dtypes)}"
            )
        for place, (got, wanted) in enumerate(zip(dtypes, self.parameters, strict=True)):
            if got != wanted and not (wanted == "*" and got.startswith("*")):
                raise TypeError(
                    f"kernel {self.name}: argument {place} is a parameter of type {wanted}, "
                    f"got {got}"
                )

    def check_shape(self, grid: Sequence[int], block: Sequence[int], shared: int) -> None:
        """Raise unless a device could launch this."""
        for name, size, most in (
            ("grid", grid, (2**31 - 1, 65535, 65535)),
            ("block", block, (1024, 1024, 64)),
        ):
            if len(size) > 3 or any(not 1 <= n <= m for n, m in zip(size, most, strict=False)):
                raise ValueError(
                    f"kernel {self.name}: {name} must be up to 3 numbers of 1 to {most}, "
                    f"got {tuple(size)}"
                )
        threads = int(np.prod(block))
        if threads > self.most_threads:
            raise ValueError(
                f"kernel {self.name}: block must have at most {self.most_threads} threads, "
                f"got {threads}"
            )
        if not 0 <= shared <= MOST_SHARED:
            raise ValueError(
                f"kernel {self.name}: shared must be 0 to {MOST_SHARED} bytes, got {shared}"
            )

    def run(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[np.generic],
        shared: int = 0,
        *,
        cooperative: bool = True,
        order: str | None = None,
    ) -> None:
        """Run with arguments as they lie in memory, addresses as uint64; see ``Library.launch``."""
        self.check_shape(grid, block, shared)
        cells = [np.array(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * max(1, len(cells)))(*(cell.ctypes.data for cell in cells))
        message = _runtime().shim_launch(
            self.entry,
            addresses,
            (ctypes.c_uint * 3)(*grid, *(1,) * (3 - len(grid))),
            (ctypes.c_uint * 3)(*block, *(1,) * (3 - len(block))),
            shared,
            RESIDENT_BLOCKS,
            (order or _order[-1]) == "descending",
            cooperative,
        )
        if message is not None:
            raise KernelError(f"kernel {self.name}: {self._with_lines(message.decode())}")

    def _with_lines(self, message: str) -> str:
        lines = self.source.splitlines()

        def spell(match: re.Match[str]) -> str:
            number = int(match[1])
            text = lines[number - 1].strip() if 0 < number <= len(lines) else "?"
            return f"line {number} `{text}`"

        return re.sub(r"line (\d+)", spell, message)


class Library:
    """The kernels of one source, run on the CPU.

    Parameters
    ----------
    path : pathlib.Path
        A file that ``build`` made.

    Examples
    --------
    >>> source = '''
    ... extern "C" __global__ void twice(float *x, int n) {
    ...   const int i = blockIdx.x * blockDim.x + threadIdx.x;
    ...   if (i < n) x[i] *= 2;
    ... }'''
    >>> x = np.ones(5, np.float32)
    >>> load(source).launch("twice", (2,), (4,), (x, np.int32(5)))
    >>> x
    array([2., 2., 2., 2., 2.], dtype=float32)
    """

    def __init__(self, path: Path):
        _runtime()
        try:
            loaded = ctypes.PyDLL(str(path))
        except OSError as error:
            raise CompileError(f"not all that the source names is there: {error}") from None
        made_with = ctypes.c_char_p.in_dll(loaded, "shim_made_with").value
        if made_with != _runtime_path().stem.encode():
            raise CompileError(f"{path} was compiled with another version of the shim")
        source = ctypes.c_char_p.in_dll(loaded, "shim_source").value or b""
        self.kernels = _kernels(loaded, source.decode())

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared: int = 0,
        *,
        cooperative: bool = True,
        order: str | None = None,
    ) -> None:
        """Run a kernel on NumPy arrays, which it reads and writes between guards.

        Parameters
        ----------
        name : str
            The kernel's.
        grid, block : sequence of int
            Blocks and threads, up to three numbers each.
        arguments : sequence of ndarray or NumPy scalar
            An array for a pointer to its type (views with strides too: all between their first and
            last byte is there), a scalar of exactly the parameter's type otherwise. An array that
            is not writeable may not be written.
        shared : int
            Bytes of block memory. Default: 0.
        cooperative : bool
            Whether threads may wait for other blocks. Default: True.
        order : str or None
            "ascending" or "descending": which fibre goes first; None for what ``fibres`` set.

        Raises
        ------
        KernelError
            The kernel wrote outside its memory, its threads met at different barriers, waited for
            what never comes, or did what the compiler's checks forbid.
        TypeError, ValueError
            The arguments, the grid or the block do not fit the kernel.
        """
        if name not in self.kernels:
            raise ValueError(f"name must be one of {sorted(self.kernels)}, got {name!r}")
        kernel = self.kernels[name]
        kernel.check_arguments([spelt_type(argument) for argument in arguments])
        arrays = [argument for argument in arguments if isinstance(argument, np.ndarray)]
        with guarded(arrays, kernel.name) as addresses:
            pointers = iter(addresses)
            kernel.run(
                grid,
                block,
                [
                    np.uint64(next(pointers)) if isinstance(argument, np.ndarray) else argument
                    for argument in arguments
                ],
                shared,
                cooperative=cooperative,
                order=order,
            )


def spelt_type(argument: Any) -> str:
    """What ``Kernel.check_arguments`` calls an argument's type; an array's with a ``*``."""
    if isinstance(argument, np.generic):
        return argument.dtype.name
    if isinstance(argument, np.ndarray):
        return pointer_to(argument.dtype)
    return f"a Python {type(argument).__name__}, which CuPy would pass in 8 bytes"


def pointer_to(dtype: np.dtype) -> str:
    """What ``Kernel.check_arguments`` calls an array of a dtype; kernels see float16 as bits."""
    return "*uint16" if dtype == np.float16 else f"*{dtype.name}"


def shim_version() -> int:
    """A number that changes with the shim, and with it what ``build`` makes."""
    return int(_runtime_path().stem[-7:], 16)


@contextmanager
def fibres(order: str) -> Iterator[None]:
    """Run fibres, warps and blocks "ascending" (the default) or "descending" meanwhile."""
    if order not in ("ascending", "descending"):
        raise ValueError(f"order must be 'ascending' or 'descending', got {order!r}")
    _order.append(order)
    try:
        yield
    finally:
        _order.pop()


_order = ["ascending"]


@functools.lru_cache(maxsize=256)
def load(source: str) -> Library:
    """Compile a CUDA source with g++ and load it.

    Raises
    ------
    CompileError
        g++ refuses the source, or it holds no ``extern "C" __global__ void`` kernel.
    """
    return Library(build(source))


def load_binary(binary: bytes) -> Library:
    """Load a library that was read from where ``build`` put it.

    Raises
    ------
    CompileError
        It was compiled with another version of the shim, or is none.
    """
    if b"shim_made_with" not in binary:
        raise CompileError("binary: expected a library that build made")
    digest = hashlib.sha256(binary).hexdigest()
    path = _cached("binary", ".so", [digest], lambda path: path.write_bytes(binary))
    return Library(path)


def build(source: str) -> Path:
    """Compile a CUDA source with g++ to a library; return its path in the cache."""
    entries = [
        f"SHIM_ENTRY({match[2]}, ({(match[1] or str(MOST_THREADS)).split(',')[0]}))"
        for match in _KERNEL.finditer(source)
    ]
    if not entries:
        raise CompileError('source: expected an extern "C" __global__ void kernel, found none')
    runtime, header = _runtime_path(), _header_path()
    text = "\n".join(
        [
            '#line 1 "source"',
            source,
            f'#line 1 "{runtime.stem}"',
            f"SHIM_SHOWN const shim::Entry shim_kernels[] = {{{', '.join(entries)}}};",
            f"SHIM_SHOWN const int shim_kernel_count = {len(entries)};",
            f'SHIM_SHOWN const char *const shim_made_with = "{runtime.stem}";',
            f'SHIM_SHOWN const char *const shim_source = R"SHIM_TEXT({source})SHIM_TEXT";',
        ]
    )
    # The checks would bring a library along that the shim stands in for.
    options = (*_kernel_flags(), "-shared", "-nodefaultlibs", "-Wl,-s,-z,noseparate-code")

    def compile_to(path: Path) -> None:
        place = ["-include", str(header), "-x", "c++", "-", "-o", str(path)]
        _gxx([*options, *place, "-lm", "-lc"], text)

    return _cached("kernel", ".so", [*options, str(header), text], compile_to)


class _Entry(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("most_threads", ctypes.c_int),
        ("parameters", ctypes.c_int),
        ("types", ctypes.POINTER(ctypes.c_char_p)),
    )


def _kernels(loaded: ctypes.PyDLL, source: str) -> dict[str, Kernel]:
    count = ctypes.c_int.in_dll(loaded, "shim_kernel_count").value
    return {
        entry.name.decode(): Kernel(
            entry.name.decode(),
            tuple(entry.types[place].decode() for place in range(entry.parameters)),
            min(MOST_THREADS, entry.most_threads),
            entry.call,
            source,
        )
        for entry in (_Entry * count).in_dll(loaded, "shim_kernels")
    }


# ---- g++ and what it made ----


def _kernel_flags() -> tuple[str, ...]:
    # fmaf is a call, and slow, where the processor's own is not allowed.
    fused = ("-mfma",) if "fma" in _processor_flags() else ()
    return ("-O1", *_FLAGS, *_CHECKS, *fused)


@functools.cache
def _processor_flags() -> frozenset[str]:
    text = Path("/proc/cpuinfo").read_text()
    line = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split() if line else ())


@functools.cache
def _runtime_path() -> Path:
    """The library of the fibres."""
    source = (_FOLDER / "shim.cpp").read_text()
    header = (_FOLDER / "shim.h").read_text()

    def compile_to(path: Path) -> None:
        _gxx(
            ["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror",
             "-Wno-unused-function", "-o", str(path), str(_FOLDER / "shim.cpp")]
        )  # fmt: skip

    return _cached("shim", ".so", [source, header], compile_to)


@functools.cache
def _header_path() -> Path:
    """The shim's header, precompiled beside."""
    source = _FOLDER / "shim.h"
    text = source.read_text()

    def compile_to(path: Path) -> None:
        _gxx([*_kernel_flags(), "-x", "c++-header", str(source), "-o", str(path)])

    compiled = _cached("header", ".h.gch", [*_kernel_flags(), text], compile_to)
    header = compiled.with_suffix("")
    if not header.exists():
        _replace(header, lambda path: path.write_text(text))
    return header


@functools.cache
def _runtime() -> ctypes.PyDLL:
    # PyDLL holds the GIL: the fibres' state is one for the process.
    runtime = ctypes.PyDLL(str(_runtime_path()), mode=ctypes.RTLD_GLOBAL)
    runtime.shim_launch.restype = ctypes.c_char_p
    runtime.shim_launch.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t,
        ctypes.c_int, ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    return runtime


def _gxx(options: Sequence[str], text: str | None = None) -> None:
    why = why_no_gxx()
    if why:
        raise CompileError(why)
    done = subprocess.run(["g++", *options], input=text, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stderr.strip()[:20_000])


def _cached(
    kind: str, suffix: str, made_from: Sequence[str], make: Callable[[Path], object]
) -> Path:
    """The file of the cache that was made from these texts; made now if there is none."""
    digest = hashlib.sha256("\0".join([_gxx_version(), *made_from]).encode()).hexdigest()[:32]
    path = _cache_folder() / f"{kind}-{digest}{suffix}"
    if path.exists():
        os.utime(path)
    else:
        _replace(path, make)
    return path


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    """Make a file beside its place, then put it there: a reader finds it whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(handle)
    try:
        make(Path(name))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@functools.cache
def _gxx_version() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout


@functools.cache
def _cache_folder() -> Path:
    """A folder that only this user can write to; what was not used for a week leaves it."""
    folder = Path(tempfile.gettempdir()) / f"fastnn-cuda-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder that only this user can write to")
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink()
    return folder


# ---- by NVRTC ----


@dataclass(frozen=True)
class Report:
    """What NVRTC made of a source, the largest over its kernels where ptxas counts.

    Parameters
    ----------
    ptx, log : str
        The text of the PTX, and what NVRTC and ptxas said.
    cubin : bytes
        The machine code.
    registers : int
        Registers of a thread.
    spill_bytes, stack_bytes : int
        Bytes that a thread stores for want of registers, and its stack frame.
    shared_bytes : int
        Bytes of static shared memory of a block.
    """

    ptx: str
    cubin: bytes
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    log: str


def why_no_nvrtc() -> str | None:
    """Why NVRTC cannot be called here; None where it can."""
    return None if _nvrtc() else "no libnvrtc.so.13 or .12 (pip install nvidia-cuda-nvrtc)"


def nvrtc(source: str, architecture: str, options: Sequence[str] = NVRTC_OPTIONS) -> Report:
    """Compile a source for a device, which need not be here.

    Parameters
    ----------
    source : str
        CUDA C++ that includes nothing.
    architecture : str
        Such as "sm_90".
    options : sequence of str
        What NVRTC is told besides. Default: ``NVRTC_OPTIONS``.

    Raises
    ------
    CompileError
        NVRTC is missing or refuses the source; the message is its log.
    """
    library = _nvrtc()
    if library is None:
        raise CompileError(str(why_no_nvrtc()))
    program = ctypes.c_void_p()
    given = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in options)]
    status = library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), b"source.cu", 0, None, None
    )
    if status:
        raise CompileError(f"nvrtcCreateProgram returned {status}")
    try:
        status = library.nvrtcCompileProgram(
            program, len(given), (ctypes.c_char_p * len(given))(*given)
        )
        log = _product(library, "ProgramLog", program).decode()
        if status:
            raise CompileError(log)
        return _report(
            _product(library, "PTX", program).decode(), _product(library, "CUBIN", program), log
        )
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def nvrtc_each(source: str, architectures: Sequence[str] = ARCHITECTURES) -> list[Report]:
    """Compile a source for several devices at once; see ``nvrtc``."""
    with ThreadPoolExecutor(len(architectures)) as pool:
        return list(pool.map(functools.partial(nvrtc, source), architectures))


def _report(ptx: str, cubin: bytes, log: str) -> Report:
    def most(pattern: str) -> int:
        return max((int(number) for number in re.findall(pattern, log)), default=0)

    if not re.search(r"Used \d+ registers", log):
        raise CompileError(f"ptxas reported no registers: {log!r}")
    return Report(
        ptx=ptx,
        cubin=cubin,
        registers=most(r"Used (\d+) registers"),
        spill_bytes=most(r"(\d+) bytes spill stores") + most(r"(\d+) bytes spill loads"),
        stack_bytes=most(r"(\d+) bytes stack frame"),
        shared_bytes=most(r"(\d+) bytes smem"),
        log=log,
    )


def _product(library: ctypes.CDLL, name: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{name}Size")(program, ctypes.byref(size)), name)
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{name}")(program, text), name)
    return text.raw if name == "CUBIN" else text.value


def _check(status: int, name: str) -> None:
    if status:
        raise CompileError(f"nvrtcGet{name} returned {status}")


@functools.cache
def _nvrtc() -> ctypes.CDLL | None:
    """NVRTC out of its wheel, or of a toolkit that the loader knows."""
    names = [
        str(path)
        for folder in map(Path, sys.path)
        for path in (
            folder / "nvidia" / "cu13" / "lib" / "libnvrtc.so.13",
            folder / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12",
        )
        if path.exists()
    ]
    for name in (*names, "libnvrtc.so.13", "libnvrtc.so.12"):
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None
