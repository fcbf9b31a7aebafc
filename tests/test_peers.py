"""The comparison with other libraries: the same function, or no timing; figures and targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import (
    cliff,
    contended,
    contenders,
    matmul,
    peers,
    pictures,
    processes,
    quiet,
    tables,
    targets,
)  # fmt: skip
from bench.cases import BATCHES

CHECKOUT = Path(__file__).parent.parent


# Contenders


@pytest.mark.parametrize("optimizer", contenders.RATES)
@pytest.mark.parametrize("widths", [(5, 7, 3), (8, 6, 6, 2)])
def test_ours_and_plain_numpy_train_the_same_function(widths, optimizer):
    task = contenders.Task(widths, optimizer, batch=4, steps=5)
    ours, theirs = contenders.fastnn(task, 1), contenders.numpy(task, 1)
    for _ in range(3):
        assert ours.epoch()() == pytest.approx(theirs.epoch()(), rel=1e-5)
    one = task.data()[0][:1]
    assert theirs.predict(one).shape == ours.predict(one).shape == (1, widths[-1])


@pytest.mark.parametrize("library", ["sklearn", "onnxruntime"])
def test_what_is_installed_predicts_the_same(library):
    if not processes.is_installed(library):
        pytest.skip(f"{library} is not installed")
    task = contenders.Task((5, 7, 3), "SGD", batch=1, steps=1)
    x, labels = task.data()
    losses = [
        contenders.prediction_loss(make(task, 1), x[:1], labels[0])
        for make in (contenders.fastnn, contenders.CONTENDERS[library])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_what_is_installed_trains_the_same(library):
    if not processes.is_installed(library):
        pytest.skip(f"{library} is not installed")
    task = contenders.Task((5, 7, 3), "Adam", batch=4, steps=5)
    theirs, known = contenders.CONTENDERS[library](task, 1), contenders.numpy(task, 1)
    for _ in range(2):
        assert theirs.epoch()() == pytest.approx(known.epoch()(), rel=1e-5)


def test_probabilities_are_judged_as_their_logits():
    one, logits = np.zeros((1, 4)), np.array([[0.5, -2.0, 300.0]])
    shifted = contenders.Prepared(None, lambda _: logits - 299.0)
    assert contenders.prediction_loss(shifted, one, 0) == pytest.approx(299.5)
    probabilities = contenders.Prepared(None, lambda _: np.array([[0.2, 0.5, 0.3]]), True)
    assert contenders.prediction_loss(probabilities, one, 1) == pytest.approx(np.log(2))


def test_a_contender_that_computes_something_else_is_refused():
    same = {("a", 1): 2.30, ("b", 1): 2.3001, ("c", 2): 2.2999}
    processes.check_losses(same)
    for wrong in (2.32, np.nan, np.inf):
        with pytest.raises(AssertionError, match="d with 1 threads lost"):
            processes.check_losses(same | {("d", 1): wrong})


# Processes


def serve(*requests):
    return subprocess.run(
        [sys.executable, "-m", "bench.contenders", "numpy", "1"],
        input="\n".join(map(json.dumps, requests)),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )


def test_a_process_answers_a_line_for_a_line():
    done = serve(
        ["prepare", [[5, 7, 3], "Adam", 4, 5]], ["judge"], ["learn"], ["train", 1e-3],
        ["predict", 1e-3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, judged, loss, step, prediction = map(json.loads, done.stdout.splitlines())
    task = contenders.Task((5, 7, 3), "Adam", 4, 5)
    x, labels = task.data()
    known = contenders.numpy(task, 1)
    assert judged == pytest.approx(contenders.prediction_loss(known, x[:1], labels[0]), rel=1e-6)
    assert loss == pytest.approx(known.epoch()(), rel=1e-6)
    assert 0 < step < 1
    assert 0 < prediction < 1


def test_a_process_refuses_what_it_does_not_know():
    done = serve(["prepare", [[5, 7, 3], "Adam", 4, 5]], ["trian"])
    assert done.returncode != 0
    assert "request is 'trian'" in done.stderr
    assert "request is 'trian'" in json.loads(done.stdout.splitlines()[-1])["error"]


class Fake:
    """A contender that answers at once, and keeps what it was asked."""

    def __init__(self, library="fastnn", threads=1, seconds=1e-6, loss=2.0):
        self.library = self.name = library
        self.threads, self.seconds, self.loss = threads, seconds, loss
        self.asked, self.closed = [], False

    trains = True

    def takes(self, widths):
        return True

    def ask(self, request, *arguments):
        self.asked.append(request)
        return self.loss if request in ("learn", "judge") else self.seconds

    def close(self):
        self.closed = True


def test_nothing_is_timed_that_trains_something_else():
    same, other = Fake(), Fake("other", loss=3.0)
    with pytest.raises(AssertionError), processes.running([same, other, Fake("third")]) as runners:
        processes.prepare_training(runners, [5, 3], "SGD", 8, 100)
    assert "train" not in same.asked
    assert same.closed
    assert other.closed


def test_all_are_asked_in_turn():
    one, two = Fake(seconds=1.0), Fake(threads=2, seconds=0.5)
    found = processes.time_in_turn([one, two], "train", 3)
    assert found == {"fastnn": {"1": [1.0] * 3, "2": [0.5] * 3}}
    assert processes.best(found["fastnn"]) == [0.5] * 3


def test_rounds_wait_for_cores_but_not_for_ever(monkeypatch):
    there = iter([1.2, 1.7, 1.9, 1.3, 1.2])
    monkeypatch.setattr(quiet, "cores_at_hand", lambda threads: next(there))
    monkeypatch.setattr(quiet, "_BETWEEN_LOOKS", 0.0)
    waiting = quiet.Quiet(2, patience=60.0)
    waiting()
    assert waiting.disturbed == 0
    assert next(there) == 1.3
    waiting.patience = 0.0
    waiting()
    assert waiting.report()["disturbed rounds"] == 1


def test_a_process_of_ours_trains_and_is_ended():
    with processes.running([processes.Contender("fastnn", "fastnn", 1)]) as (ours,):
        processes.prepare_training([ours], [5, 7, 3], "Adam", 4, 5)
        assert 0 < ours.ask("train", 1e-3) < 1
        process = ours._process
    assert process.poll() == 0


def test_why_a_process_ended_is_told():
    with processes.running([processes.Contender("fastnn", "ours", 1)]) as (ours,):
        with pytest.raises(RuntimeError, match=r"ours with 1 threads ended; .*'trian'"):
            ours.ask("trian")
        with pytest.raises((RuntimeError, BrokenPipeError)):
            ours.ask("train", 1e-3)


# Peers


def test_odd_sizes_are_among_the_networks():
    odd = next(network for network in peers.NETWORKS if network.layers == "37-101-53-7")
    assert odd.widths == (37, 101, 53, 7)
    assert 13 in odd.batches
    assert {batch for network in peers.NETWORKS for batch in network.batches} == set(peers.STEPS)


def test_everything_is_measured(monkeypatch):
    fakes = [Fake(), Fake(threads=2), Fake("onnxruntime")]
    fakes[2].trains = False
    monkeypatch.setattr(peers, "contenders", lambda names: fakes)
    results = peers.measure_all(["fastnn", "onnxruntime"], [1, 13], 2, lambda: None)
    assert list(results["training"]) == [str(network) for network in peers.NETWORKS]
    assert list(results["training"]["37-101-53-7 Adam"]) == ["1", "13"]
    assert results["training"]["784-128-10 SGD"]["1"] == {
        "fastnn": {"1": [1e-6] * 2, "2": [1e-6] * 2}
    }
    assert set(results["prediction"]["8-64-64-2"]) == {"fastnn", "onnxruntime"}
    assert results["one thread"] == {title: [1e-6] * 2 for title in targets.ONE_THREAD}
    assert all(fake.closed for fake in fakes)


SECONDS = {
    "fastnn": {"1": [2e-6, 1e-6, 3e-6], "2": [4e-6, 4e-6, 4e-6]},
    "jax": {"1": [8e-6, 6e-6, 9e-6]},
}
RESULTS = {
    "machine": {"CPU": "a slow one"},
    "threads": 2,
    "training": {
        str(network): {str(batch): SECONDS for batch in network.batches}
        for network in peers.NETWORKS
    },
    "prediction": dict.fromkeys(targets.PREDICTION, SECONDS),
    "one thread": {title: [1.1e-6, 1.05e-6] for title in targets.ONE_THREAD},
    "percent of roofline": {
        str(network): {
            str(batch): {"median": 82.0, "best": 85.0, "bound by": "L1"}
            for batch in network.batches
        }
        for network in peers.NETWORKS
    },
}


def outcome(what, batch, beside):
    found = [
        each for each in targets.outcomes(RESULTS)
        if (each.what, each.batch, each.beside) == (what, batch, beside)
    ]  # fmt: skip
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("what", "batch", "beside", "median", "best", "target", "met"),
    [
        ("784-128-10 SGD", 1, "jax", 4.0, 6.0, 3.5, True),
        ("784-128-10 Adam", 1, "jax", 4.0, 6.0, 4.5, False),
        ("37-101-53-7 Adam", 13, "jax", 4.0, 6.0, 1.0, True),
        ("8-64-64-2 predict", 1, "jax", 4.0, 6.0, 1.0, True),
        ("8-64-64-2 predict", 1, "Python call included", 2e-6, 1e-6, 1.5e-6, False),
        ("8-64-64-2 SGD", 1, "one thread", 1.075e-6, 1.05e-6, 1e-6, False),
        ("8-64-64-2 Adam", 1, "one thread", 1.075e-6, 1.05e-6, 1.2e-6, True),
        ("784-512-512-10 Adam", 512, "percent of roofline", 82.0, 85.0, 80.0, True),
        ("784-512-512-10 Adam", 2048, "percent of roofline", 82.0, 85.0, 84.0, False),
        ("8-64-64-2 Adam", 1, "percent of roofline", 82.0, 85.0, 100 / 1.4, True),
    ],
)
def test_figures_are_put_beside_their_targets(what, batch, beside, median, best, target, met):
    found = outcome(what, batch, beside)
    numbers = (found.median, found.best, found.target)
    assert numbers == pytest.approx((median, best, target))
    assert found.met == met


def test_a_figure_that_is_not_a_number_has_missed():
    results = RESULTS | {"one thread": {"8-64-64-2 SGD": [np.nan], "8-64-64-2 Adam": [1e-9]}}
    missed = {
        each.what
        for each in targets.outcomes(results)
        if each.beside == "one thread" and not each.met
    }
    assert missed == {"8-64-64-2 SGD"}


def test_every_batch_has_its_target():
    for by_peer in targets.RATIOS.values():
        for by_batch in by_peer.values():
            assert tuple(by_batch) == BATCHES


def test_tables_show_median_minimum_ratio_and_target():
    text = tables.tables(RESULTS, targets.outcomes(RESULTS))
    assert "2.0 (1.0)   1.00x" in text
    assert "8.0 (6.0)   4.00x" in text
    assert "4.00 6.00 (4.50) !" in text
    assert "1.07 1.05 (1.20) us" in text or "1.08 1.05 (1.20) us" in text


def test_pictures_are_drawn(tmp_path):
    pictures.draw(RESULTS, tmp_path)
    for name in ("time_per_sample.png", "percent_of_roofline.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_every_library_has_a_colour():
    drawn = {fake.name for fake in processes_named(peers.LIBRARIES)}
    assert drawn - {"onnxruntime"} <= set(pictures._COLOURS)


def processes_named(libraries):
    return [Fake(name) for name in (*libraries, "torch compiled", "numpy, AVX-512")]


# The cliff


def test_the_cliff_is_measured_width_by_width(monkeypatch):
    ours = Fake()
    monkeypatch.setattr(cliff, "contenders", lambda names: [ours])
    found = cliff.measure([44, 45], rounds=2)
    assert found == {width: {"fastnn": {"1": [1e-6] * 2}} for width in (44, 45)}
    assert ours.asked.count("train") == 4
    assert ours.closed


def test_a_cliff_is_seen():
    assert cliff.steepest({47: 9.0, 44: 1.0, 45: 1.5, 46: 9.0}) == 6.0
    assert cliff.steepest({44: 1.0}) == 1.0
    found = {w: {"fastnn": {"1": [s, s, 2 * s]}} for w, s in ((44, 1e-6), (45, 3e-6))}
    lines = cliff.table(found).splitlines()
    assert "3.0 (3.0)" in lines[-2]
    assert "3.00x (3.00x)" in lines[-1]


# Shared cores


def test_two_threads_on_one_core_are_judged():
    line = contended.one_core_line({"1": [1e-6, 1e-6, 5e-6], "2": [1.2e-6]})
    assert "1.20x" in line
    assert line.endswith("met")
    assert contended.one_core_line({"1": [1e-6], "2": [1.31e-6]}).endswith("MISSED")
    assert contended.one_core_line({"1": [1e-6], "2": [np.nan]}).endswith("MISSED")


def test_the_slowdown_is_that_of_the_threads_that_are_best_alone():
    shared = {"alone": {"1": [3.0], "2": [2.0]}, "busy": {"1": [6.0], "2": [10.0]}}
    assert contended.slowdown(shared) == 5.0


def test_a_peer_that_slows_down_less_is_named():
    slow, fast = ({"alone": {"1": [1.0]}, "busy": {"1": [busy]}} for busy in (3.0, 2.0))
    assert contended.busy_table({"fastnn": fast, "jax": slow}).endswith("met")
    assert contended.busy_table({"fastnn": slow, "jax": fast}).endswith("jax slow down less")


def test_other_programs_run_only_inside_the_block():
    others = contended.OtherPrograms([min(os.sched_getaffinity(0))])
    (process,) = others._processes

    def changed(what):
        return os.waitid(os.P_PID, process.pid, what).si_code

    try:
        assert changed(os.WSTOPPED) == os.CLD_STOPPED
        with others.running():
            assert changed(os.WCONTINUED) == os.CLD_CONTINUED
        assert changed(os.WSTOPPED) == os.CLD_STOPPED
    finally:
        others.close()
    assert process.poll() is not None


def test_other_programs_end_whatever_happens(monkeypatch):
    closed = []

    class Others:
        def __init__(self, cores):
            assert set(cores) == os.sched_getaffinity(0)

        def running(self):
            raise RuntimeError("no more")

        def close(self):
            closed.append(self)

    ours = Fake()
    monkeypatch.setattr(contended, "contenders", lambda names: [ours])
    monkeypatch.setattr(contended, "OtherPrograms", Others)
    with pytest.raises(RuntimeError, match="no more"):
        contended.measure_busy(["fastnn"], 32, 1)
    assert len(closed) == 1
    assert ours.closed


# ---------------------------------------------------------------------------
# Products beside NumPy's
# ---------------------------------------------------------------------------


def test_products_are_measured_in_turn():
    found = matmul.measure(48, 1, rounds=2)
    fastnn.set_num_threads(None)
    assert {name: len(rates) for name, rates in found.items()} == {
        "fastnn": 2, "numpy": 2, "peak": 1,
    }  # fmt: skip
    assert all(rate > 0 for rates in found.values() for rate in rates)


def test_a_product_is_put_beside_the_peak():
    line = matmul.line("1 thread", {"fastnn": [90.0, 92.0], "numpy": [50.0], "peak": [100.0]})
    ours, theirs = line.split("numpy")
    assert ours.split() == ["1", "thread", "fastnn", "91.0", "(92.0)", "91.0", "%"]
    assert theirs.split() == ["50.0", "(50.0)", "50.0", "%", "peak", "100.0"]
