"""Helper threads: where they run, and what happens where the system does not let them move."""

from __future__ import annotations

import os
import threading

import pytest

from fastnn.kernels.numba_backend import workers

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks"
)


def cores_of_two_threads() -> list[int]:
    cores = [-1, -1]
    meet = threading.Barrier(2, timeout=60)

    def work(me: int) -> None:
        cores[me] = workers._core()
        meet.wait()

    workers.together(2, work)
    return cores


@needs_affinity
def test_a_helper_leaves_the_core_of_its_caller():
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("this process has one core")
    taken = {workers._core()}
    workers._take_core(taken)
    assert len(taken) == 2
    assert os.sched_getaffinity(0) == allowed


@needs_affinity
def test_a_helper_that_may_not_move_works_where_it_is(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "not here")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    monkeypatch.setattr(workers, "_core", lambda: 0)
    assert cores_of_two_threads() == [0, 0]


@needs_affinity
def test_cores_given_by_somebody_else_meanwhile_are_kept(monkeypatch):
    masks = [{0, 1}]

    def give(_, cores: set[int]) -> None:
        masks.append({1, 2} if cores == {1} else cores)

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: masks[-1])
    monkeypatch.setattr(os, "sched_setaffinity", give)
    monkeypatch.setattr(workers, "_core", lambda: 0)
    workers._take_core({0})
    assert masks[-1] == {1, 2}
