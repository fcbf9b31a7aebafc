"""What every test file shares."""

import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cuda.fixtures import cupy_here, cupy_module  # noqa: F401 - a fixture of every file
from hypothesis import settings

import fastnn
from fastnn.words import LANGUAGES

# The first example of a property may compile a kernel; a failure must come again when run again.
settings.register_profile("fastnn", deadline=None, derandomize=True)
settings.load_profile("fastnn")

# A shell's background jobs ignore it, and so would they who test an interruption.
signal.signal(signal.SIGINT, signal.default_int_handler)


def each_backend(*names: str) -> Any:
    """A fixture: the name of each backend in turn, which is in use meanwhile."""

    @pytest.fixture(params=names, scope="module")
    def backend(request: pytest.FixtureRequest) -> Iterator[str]:
        with pytest.MonkeyPatch.context() as patch:
            for _ in cupy_here(patch) if request.param == "cupy" else (None,):
                with fastnn.use_backend(request.param):
                    yield request.param

    return backend


backend = each_backend("numpy", "numba")


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each language that figures speak; the machine need have no font with its letters."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("fastnn.figures._hangul_font", lambda: "DejaVu Sans")
    return request.param


@pytest.fixture(autouse=True)
def cupy_for_those_who_name_it(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A device, or the stand-in for CuPy, for tests that a parameter sends to the cupy backend."""
    is_there = "cupy" in sys.modules  # for the whole module of the test
    if names_cupy(request.node) and not is_there:
        yield from cupy_here(monkeypatch)
    else:
        yield


def names_cupy(test: pytest.Item) -> bool:
    """Whether one of a test's parameters is the cupy backend."""
    parameters = getattr(test, "callspec", None)
    return parameters is not None and "cupy" in map(str, parameters.params.values())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever works on a CUDA device where there is one is run by ``-m gpu``."""
    for item in items:
        if names_cupy(item) or "cupy_module" in getattr(item, "fixturenames", ()):
            item.add_marker("gpu")
