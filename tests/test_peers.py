"""The comparison with other libraries: the same function, or no timing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import contenders, peers

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.parametrize("optimizer", contenders.RATES)
@pytest.mark.parametrize("widths", [(5, 7, 3), (8, 6, 6, 2)])
def test_ours_and_plain_numpy_train_the_same_function(widths, optimizer):
    task = contenders.Task(widths, optimizer, batch=4, steps=5)
    ours, theirs = contenders.fastnn(task, 1), contenders.numpy(task, 1)
    for _ in range(3):
        assert ours.epoch()() == pytest.approx(theirs.epoch()(), rel=1e-5)
    one = task.data()[0][:1]
    assert theirs.predict(one).shape == ours.predict(one).shape == (1, widths[-1])


def test_a_contender_that_trains_something_else_is_refused():
    same = {("a", 1): 2.30, ("b", 1): 2.3001, ("c", 2): 2.2999}
    peers.check_losses(same)
    for wrong in (2.32, np.nan, np.inf):
        with pytest.raises(AssertionError, match="d with 1 threads lost"):
            peers.check_losses(same | {("d", 1): wrong})


def test_a_process_answers_a_line_for_a_line():
    requests = [{"prepare": [[5, 7, 3], "Adam", 4, 5]}, "train", "predict"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.contenders", "numpy", "1"],
        input="\n".join(map(json.dumps, requests)),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    loss, step, prediction = map(json.loads, done.stdout.splitlines())
    task = contenders.Task((5, 7, 3), "Adam", 4, 5)
    assert loss == pytest.approx(contenders.numpy(task, 1).epoch()(), rel=1e-6)
    assert 0 < step < 1
    assert 0 < prediction < 1


def test_tables_show_median_minimum_and_ratio():
    seconds = {"fastnn": [2e-6, 1e-6, 3e-6], "jax": [8e-6, 7e-6, 9e-6]}
    results = {"training": {"8-2 SGD": {"1": seconds}}, "prediction": {"8-2": seconds}}
    text = peers.tables(results)
    assert "2.0 (1.0)   1.00x" in text
    assert "8.0 (7.0)   4.00x" in text
