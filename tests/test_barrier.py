"""The barrier: nobody passes before all have come, whether they wait awake or asleep."""

from __future__ import annotations

import os
import platform
import threading

import numpy as np
import pytest
from numba import njit

from fastnn.kernels.alignment import aligned
from fastnn.kernels.numba_backend import library, objects, support, table
from fastnn.kernels.numba_backend.engine import call

MEETINGS = 3000
LINE = 8
"""Words of a cache line."""
WATCHDOG_SECONDS = 60
needs_linux = pytest.mark.skipif(platform.system() != "Linux", reason="only Linux has futexes")


@njit(nogil=True)
def meet(barrier, control, threads, me, patience, patience_address, keeps, seen):
    """Meet the others time and again; how often one of them was seen before or behind its time."""
    wrong, looks = 0, patience[0]
    for meeting in range(1, MEETINGS + 1):
        if keeps:
            patience[0] = looks
        seen[me * LINE] = meeting
        call(barrier, control, threads, patience_address)
        for other in range(threads):
            ahead = seen[other * LINE] - meeting
            if ahead < 0 or ahead > 1:
                wrong += 1
    return wrong


def check_meetings(barrier, cores, looks, *, keeps=False, first_generation=0):
    """A thread for each of ``cores`` (None: any) meets the others; patience at the end.

    ``looks`` is patience at the beginning, or before every meeting where it ``keeps`` to that.
    """
    threads = len(cores)
    control, seen = aligned(table.CONTROL, "int64"), aligned(threads * LINE, "int64")
    control[table.GENERATION] = first_generation
    patience = aligned(threads * LINE, "int64").reshape(threads, LINE)
    patience[:] = looks
    wrong = [None] * threads

    def work(me):
        if cores[me] is not None:
            os.sched_setaffinity(0, [cores[me]])
        address, mine = control.ctypes.data, patience[me]
        wrong[me] = meet(barrier, address, threads, me, mine, mine.ctypes.data, keeps, seen)

    # one that never returned must not keep the interpreter from ending
    helpers = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(threads)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join(WATCHDOG_SECONDS)
        assert not helper.is_alive(), "a thread waits for ever"
    assert wrong == [0] * threads
    assert control[table.GENERATION] == first_generation + MEETINGS
    assert control[table.ARRIVED] == control[table.SLEEPERS] == 0
    return patience[:, 0]


@pytest.fixture(scope="module", params=["futex", "yield"])
def barrier(request):
    """The address of the barrier that sleeps, and of that for systems without futexes."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "yield":
            patch.setattr(platform, "system", lambda: "Darwin")
        elif platform.system() != "Linux":
            pytest.skip("only Linux has futexes")
        return objects.build(support.module())["barrier"]


@pytest.mark.parametrize("threads", [2, 3, 4, 5])
@pytest.mark.parametrize("looks", [0, 3, support.MOST_LOOKS])
@pytest.mark.parametrize("keeps", [True, False])
def test_nobody_passes_before_all_have_come(barrier, threads, looks, keeps):
    patience = check_meetings(barrier, [None] * threads, looks, keeps=keeps)
    assert ((patience >= 0) & (patience <= support.MOST_LOOKS)).all()


@needs_linux
def test_a_generation_may_outgrow_the_half_that_a_sleeper_compares():
    barrier = library.support_kernels()["barrier"]
    check_meetings(barrier, [None] * 2, 0, keeps=True, first_generation=2**32 - MEETINGS // 2)


@needs_linux
def test_threads_that_share_a_core_lose_patience():
    core = min(os.sched_getaffinity(0))
    patience = check_meetings(library.support_kernels()["barrier"], [core] * 2, support.MOST_LOOKS)
    assert (patience <= support.MOST_LOOKS // 8).all(), patience


@needs_linux
def test_threads_with_a_core_each_find_patience():
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("needs two cores")
    patience = check_meetings(library.support_kernels()["barrier"], cores, 0)
    # one of the two may have been the last at every meeting
    assert np.max(patience) >= support.MOST_LOOKS // 8, patience
