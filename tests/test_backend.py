"""The choice of backend, device and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import backend as backends
from fastnn.kernels import contract

SMALL = backends.training_work(weights=10, batch_rows=10)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    """Nobody has chosen a backend or a number of threads, and nobody will have."""
    for name in ("_process_choice", "_threads", "_environment"):
        monkeypatch.setattr(backends, name, None)
    monkeypatch.delenv("FASTNN_NUM_THREADS", raising=False)


def test_the_protocol_is_public():
    assert fastnn.Backend is contract.Backend


def test_numba_is_the_default():
    assert fastnn.get_backend().name == "numba"


def test_the_environment_the_process_and_the_block_choose_in_that_order(monkeypatch):
    monkeypatch.setattr(backends, "_environment", "numpy")
    assert fastnn.get_backend().name == "numpy"
    fastnn.set_backend("numba")
    assert fastnn.get_backend().name == "numba"
    with fastnn.use_backend("numpy") as chosen:
        assert fastnn.get_backend() is chosen and chosen.name == "numpy"
        with fastnn.use_backend("numba"):
            assert fastnn.get_backend().name == "numba"
        assert fastnn.get_backend().name == "numpy"
    assert fastnn.get_backend().name == "numba"
    assert fastnn.get_backend("numpy").name == "numpy"


def test_a_block_is_left_by_an_exception_too():
    with pytest.raises(RuntimeError), fastnn.use_backend("numpy"):
        raise RuntimeError
    assert fastnn.get_backend().name == "numba"


def test_set_backend_reaches_every_thread_and_a_block_only_its_own():
    seen = {}

    def look(name):
        seen[name] = fastnn.get_backend().name

    for name, choose in (("set", fastnn.set_backend), ("block", None)):
        if choose:
            choose("numpy")
            thread = threading.Thread(target=look, args=(name,))
            thread.start()
            thread.join()
        else:
            with fastnn.use_backend("numba"):
                thread = threading.Thread(target=look, args=(name,))
                thread.start()
                thread.join()
    assert seen == {"set": "numpy", "block": "numpy"}


@pytest.mark.parametrize(
    "choose",
    [fastnn.set_backend, fastnn.get_backend, lambda name: fastnn.use_backend(name).__enter__()],
)
def test_an_unknown_backend_lists_near_matches_and_changes_nothing(choose):
    with pytest.raises(ValueError, match="unknown backend 'nunba': did you mean 'numba'"):
        choose("nunba")
    assert fastnn.get_backend().name == "numba"


def test_a_wrong_name_in_the_environment_is_no_silent_default(monkeypatch):
    monkeypatch.setattr(backends, "_environment", "torch")
    with pytest.raises(ValueError, match="unknown backend 'torch'"):
        fastnn.Sequential(fastnn.Linear(2, 2)).predict([[1.0, 2.0]])


def test_a_backend_that_cannot_work_says_why_and_falls_back_on_nothing(monkeypatch):
    monkeypatch.setitem(backends._CLASSES, "broken", ("no_such_backend", "Nothing"))
    with pytest.raises(RuntimeError, match=r"the broken backend does not work here.*no_such"):
        fastnn.set_backend("broken")
    assert "no_such" in backends.why_missing("broken")
    assert backends.why_missing("numpy") is None
    assert fastnn.get_backend().name == "numba"


@pytest.mark.parametrize("device, chosen, expected", [
    (None, None, "numba"), (None, "numpy", "numpy"), ("cpu", None, "numba"),
    ("cpu", "numpy", "numpy"), ("cpu", "numba", "numba"),
])  # fmt: skip
def test_the_device_finds_its_backend(device, chosen, expected):
    if chosen:
        fastnn.set_backend(chosen)
    assert backends.for_device(device, SMALL).name == expected


@pytest.mark.parametrize("chosen", ["numpy", "numba"])
def test_a_device_that_contradicts_the_backend_is_refused(chosen):
    with (
        fastnn.use_backend(chosen),
        pytest.raises(
            ValueError, match=f"device is 'cuda', but the {chosen} backend in use works on 'cpu'"
        ),
    ):
        backends.for_device("cuda", SMALL)


@pytest.mark.parametrize("device", ["gpu", "CPU", 0])
def test_an_unknown_device_is_refused(device):
    message = f"device is {device!r}; expected 'cpu', 'cuda', 'auto' or None"
    with pytest.raises(ValueError, match=message):
        backends.for_device(device, SMALL)


def test_threads_are_set_by_call_then_by_environment(monkeypatch):
    granted = fastnn.get_num_threads()
    assert granted >= 1
    monkeypatch.setenv("FASTNN_NUM_THREADS", "3")
    assert fastnn.get_num_threads() == 3
    fastnn.set_num_threads(np.int64(5))
    assert fastnn.get_num_threads() == 5
    fastnn.set_num_threads(None)
    assert fastnn.get_num_threads() == 3


@pytest.mark.parametrize(
    "count, error",
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)],
)
def test_a_number_of_threads_is_a_whole_number_from_one(count, error):
    with pytest.raises(error, match="count must be"):
        fastnn.set_num_threads(count)


def test_more_threads_than_a_machine_can_take_are_refused():
    with pytest.raises(ValueError, match="count is 1025; expected at most 1024"):
        fastnn.set_num_threads(1025)


@pytest.mark.parametrize("text", ["0", "two", "-1", "", "1025"])
def test_a_wrong_number_of_threads_in_the_environment_is_named(text, monkeypatch):
    monkeypatch.setenv("FASTNN_NUM_THREADS", text)
    with pytest.raises(ValueError, match="FASTNN_NUM_THREADS is"):
        fastnn.get_num_threads()


def test_small_steps_get_one_thread_and_large_ones_all():
    fastnn.set_num_threads(4)
    small = fastnn.Sequential(fastnn.Linear(8, 4)).plan(batch_size=32)
    large = fastnn.Sequential(fastnn.Linear(784, 128)).plan(batch_size=512)
    assert backends.threads_for(small) == 1
    assert backends.threads_for(large) == 4


def test_layers_by_hand_use_as_many_threads_as_were_set():
    backend = fastnn.get_backend("numba")
    for count in (3, 1):
        fastnn.set_num_threads(count)
        assert backend._threads() == count


def test_a_wrong_vector_width_is_named():
    finished = subprocess.run(
        [sys.executable, "-c", "import fastnn; fastnn.ReLU()([[1.0]])"], timeout=60,
        capture_output=True, text=True, cwd=Path(fastnn.__file__).parents[1],
        env={**os.environ, "FASTNN_VECTOR_BITS": "64"},
    )  # fmt: skip
    assert finished.returncode != 0 and "FASTNN_VECTOR_BITS" in finished.stderr
