"""What the suites share: engines, the roofline, how long to time, and the table at the end.

A default run takes a few minutes. ``-m "" --bench-seconds 1`` adds the largest cases, which are
marked slow, and times each for longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastnn.backend import why_missing

from . import roofline as rooflines
from .cases import Case, roofline_table, time_case
from .engines import Engine, engines

_measured = pytest.StashKey[rooflines.Roofline]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bench-seconds", type=float, default=0.1, help="how long to time a case (default 0.1)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seconds = config.getoption("bench_seconds")
    for item in items:
        item.add_marker(pytest.mark.benchmark(max_time=seconds, min_rounds=3))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        chosen = getattr(metafunc.module, "ENGINES", None) or engines()
        metafunc.parametrize("engine", chosen, ids=str, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """A backend and its threads; skipped where the backend is missing."""
    reason = why_missing(request.param.backend)
    if reason:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def backend(engine: Engine) -> Iterator[Any]:
    """The engine's operations; it is also the one that fastnn uses meanwhile."""
    with engine.in_use() as operations:
        yield operations


@pytest.fixture(scope="session")
def roofline(pytestconfig: pytest.Config) -> rooflines.Roofline:
    """This machine's limits, measured once a session."""
    measured = pytestconfig.stash[_measured] = rooflines.measure()
    return measured


@pytest.fixture
def time(engine: Engine, benchmark: Any, roofline: rooflines.Roofline) -> Any:
    """A function that verifies a case and times it."""

    def verify_and_time(case: Case) -> None:
        time_case(benchmark, case, roofline, engine.threads)

    return verify_and_time


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    timed = [each for each in session.benchmarks if each.extra_info] if session else []
    if not timed:
        return
    terminalreporter.section("against the roofline")
    terminalreporter.write_line(str(config.stash[_measured]))
    table = roofline_table({each.name: each.extra_info for each in timed})
    terminalreporter.write_line(f"\n{table}")
