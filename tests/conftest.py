"""What every test file shares."""

from collections.abc import Iterator

import pytest
from cuda.fixtures import stand_in
from hypothesis import settings

import fastnn

# The first example of a property may compile a kernel; a failure must come again when run again.
settings.register_profile("fastnn", deadline=None, derandomize=True)
settings.load_profile("fastnn")


@pytest.fixture(params=["numpy", "numba"], scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of each backend in turn, which is in use meanwhile."""
    with fastnn.use_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def cupy_for_those_who_name_it(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The stand-in for CuPy, for tests that one of their parameters sends to the cupy backend."""
    parameters = getattr(request.node, "callspec", None)
    if parameters is not None and "cupy" in map(str, parameters.params.values()):
        yield from stand_in(monkeypatch)
    else:
        yield
