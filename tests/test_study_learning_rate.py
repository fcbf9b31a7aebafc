"""The study of the learning rate: what it is to show, against arithmetic of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from study_tables import texts

from fastnn import SGD, DivergedError
from fastnn.perceptron import network
from fastnn.studies import learning_rate
from fastnn.studies.learning_rate import LearningRate, Run
from fastnn.studies.learning_rate.range_test import FIRST, LAST, Rising
from fastnn.studies.samples import parts_of

EPSILON = np.finfo(np.float64).eps


@pytest.fixture(scope="module")
def results() -> LearningRate:
    return learning_rate.study()


def run_at(results: LearningRate, rate: float) -> Run:
    return next(run for run in results.runs if run.rate == rate)


def test_on_a_parabola_each_step_multiplies_by_one_minus_rate_times_curvature(results) -> None:
    steps = np.arange(learning_rate.STEPS + 1)
    for rate, way in zip(learning_rate.RATES_BY_CURVATURE, results.parabola, strict=True):
        expected = (1.0 - rate) ** steps
        error = np.abs(way - expected)
        assert (error <= 2 * (steps + 1) * EPSILON * np.abs(expected)).all()
    ends = dict(zip(learning_rate.RATES_BY_CURVATURE, np.abs(results.parabola[:, -1]), strict=True))
    assert ends[1.8] < ends[2.0] == 1.0 < ends[2.1]


def test_too_small_right_and_too_large(results: LearningRate) -> None:
    verdicts = [results.verdict(run) for run in results.runs]
    assert verdicts[0] == "too small"
    assert verdicts[-1] == "diverged"
    assert "right" in verdicts[1:-1]
    slow, best = results.runs[0], results.best
    assert slow.training_loss > 100.0 * best.training_loss
    assert slow.validation_accuracy < 0.5 < 0.95 < best.validation_accuracy
    assert run_at(results, 3.0).validation_accuracy < 0.5


def test_divergence_is_caught_at_the_update_and_finite_weights_are_kept(results) -> None:
    diverged = run_at(results, 10.0)
    assert diverged.keeps_finite_weights
    assert len(diverged.losses) == diverged.diverged_at
    assert np.isfinite(diverged.losses[:-1]).all()
    assert not np.isfinite(diverged.losses[-1])
    parts = parts_of(None, 0)
    with pytest.raises(DivergedError, match=f"at update {diverged.diverged_at} "):
        network(parts, [32], seed=0).fit(*parts.train, optimizer=SGD(10.0), epochs=10)
    text = " ".join(results.findings())
    assert f"10 at update {diverged.diverged_at};" in text
    assert "from before that update, are finite" in text


def test_a_run_is_the_training_that_fit_makes(results: LearningRate) -> None:
    parts, run = parts_of(None, 0), run_at(results, 0.1)
    model = network(parts, [32], seed=0)
    history = model.fit(*parts.train, optimizer=SGD(0.1), epochs=10, history="update")
    assert run.losses.tolist() == history.updates["loss"]
    assert run.training_loss == history["loss"][-1]
    assert run.validation_accuracy == model.evaluate(*parts.validation)["accuracy"]


def test_the_range_test_raises_the_rate_by_equal_factors_until_it_diverges(results) -> None:
    rates = results.tested.rates
    expected = FIRST * (LAST / FIRST) ** (np.arange(len(rates)) / 199)  # 5 epochs of 40 updates
    assert (np.abs(rates - expected) <= 20 * EPSILON * expected).all()
    assert results.tested.diverged is not None
    assert 100 < len(rates) < 200
    assert np.isfinite(results.tested.losses).all()


def test_the_range_test_suggests_a_tenth_of_where_the_smoothed_loss_is_least(results) -> None:
    losses, rates = results.tested.losses, results.tested.rates
    age = np.arange(len(losses))[:, None] - np.arange(len(losses))
    shares = np.where(age >= 0, 0.9 ** np.maximum(age, 0), 0.0)
    averages = shares @ losses / shares.sum(axis=1)
    error = np.abs(results.tested.smoothed - averages)
    assert (error <= 4 * len(losses) * EPSILON * averages).all()
    assert results.suggested.rate == 0.1 * rates[averages.argmin()]


def test_the_network_trained_with_the_suggestion_does_well(results: LearningRate) -> None:
    assert results.verdict(results.suggested) == "right"
    assert results.suggested.validation_accuracy > results.best.validation_accuracy - 0.02


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_show_the_same(seed: int) -> None:
    other = learning_rate.study(seed=seed)
    assert other.verdict(other.runs[0]) == "too small"
    assert other.verdict(other.runs[-1]) == "diverged"
    assert other.suggested.validation_accuracy > other.best.validation_accuracy - 0.02


def test_the_rate_stays_after_its_rise() -> None:
    rates = Rising(last=1.0, updates=3).rates(0.01, 1, 4, 1)
    assert np.abs(rates - [0.1, 1.0, 1.0, 1.0]).max() <= 4 * EPSILON


@pytest.mark.parametrize("wrong", [{"last": 0.0, "updates": 3}, {"last": 1.0, "updates": 1}])
def test_a_rise_that_is_none_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"last|updates"):
        Rising(**wrong)


def test_findings_say_what_was_seen_where_nothing_diverged(results: LearningRate) -> None:
    tested = dataclasses.replace(results.tested, diverged=None)
    tame = dataclasses.replace(results, runs=results.runs[:4], tested=tested)
    text = " ".join(tame.findings())
    assert "At none of the rates did the loss stop being finite." in text
    assert "The range test came to its end" in text
    assert "too large" not in text


def test_few_rows_of_other_data() -> None:
    generator = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = generator.normal(size=(60, 4)) + y[:, None]
    small = learning_rate.study((X, y), epochs=1, range_updates=1)
    assert len(small.tested.rates) <= 2
    assert len(small.summary()["verdict"]) == len(learning_rate.RATES) + 1
    assert all(small.findings())


def test_the_seed_repeats_every_number(results: LearningRate) -> None:
    assert texts(learning_rate.study()) == texts(results)


def test_figures(results: LearningRate, language: str) -> None:
    drawn = results.plot(language)
    assert set(drawn) == {"parabola", "curves", "range"}
    curves = drawn["curves"].axes[0]
    assert len(curves.lines) == len(results.runs)
    assert len(drawn["parabola"].axes) == len(learning_rate.RATES_BY_CURVATURE)
