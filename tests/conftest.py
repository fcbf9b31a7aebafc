"""What every test file shares."""

from collections.abc import Iterator

import pytest
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
