"""The study of schedules: what it is to show, against arithmetic of its own."""

from __future__ import annotations

import numpy as np
import pytest
from study_tables import texts

from fastnn.schedules import BY_NAME
from fastnn.studies import schedules
from fastnn.studies.schedules import Effect, Schedules

EPOCHS = 20
RATE = 0.03


@pytest.fixture(scope="module")
def results() -> Schedules:
    return schedules.study(networks=4)


def effect_of(results: Schedules, name: str) -> Effect:
    return next(effect for effect in results.effects if effect.name == name)


def expected_rates(name: str, t: np.ndarray, epoch: np.ndarray) -> np.ndarray:
    """Of each update, from the schedules' formulas."""
    length, warm = len(t), len(t) // 10
    by_name = {
        "constant": np.full(length, RATE),
        "step": RATE * 0.1 ** (epoch // 7),
        "exponential": RATE * 0.95**epoch,
        "inverse_time": RATE / (1.0 + 0.001 * t),
        "cosine": RATE * (1.0 + np.cos(np.pi * t / length)) / 2.0,
        "warmup": RATE * np.minimum((t + 1) / warm, 1.0),
        "warmup_cosine": np.where(
            t < warm,
            RATE * (t + 1) / warm,
            RATE * (1.0 + np.cos(np.pi * (t - warm) / (length - warm))) / 2.0,
        ),
    }
    return by_name[name]


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "reduce_on_plateau"])
def test_the_curve_is_the_schedules_formula(results: Schedules, name: str) -> None:
    rates = effect_of(results, name).rates
    t = np.arange(len(rates))
    expected = expected_rates(name, t, t // (len(rates) // EPOCHS))
    assert len(rates) == EPOCHS * 79  # 1,258 rows in batches of 16
    assert (np.abs(rates - expected) <= 1e-14 * RATE).all()


def test_the_plateau_is_where_the_validation_loss_has_not_improved_for_long(results) -> None:
    effect = effect_of(results, "reduce_on_plateau")
    rate, best, waited, expected = RATE, np.inf, 0, []
    for loss in effect.validation_losses[0]:
        expected.append(rate)
        if best - loss > 1e-4 * best or best == np.inf:
            best, waited = loss, 0
        else:
            waited += 1
        if waited > 10:
            rate, waited = 0.1 * rate, 0
    by_epoch = effect.rates.reshape(EPOCHS, -1)
    assert (np.abs(by_epoch - np.array(expected)[:, None]) <= 1e-15).all()


def test_all_begin_alike(results: Schedules) -> None:
    first = results.reference.training_losses[:, 0]
    assert (effect_of(results, "step").training_losses[:, 0] == first).all()
    assert (effect_of(results, "exponential").training_losses[:, 0] == first).all()
    assert (effect_of(results, "warmup").training_losses[:, 0] != first).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rate_that_falls_ends_lower_than_one_that_stays_too_high(results, seed: int) -> None:
    seen = results if seed == 0 else schedules.study(seed=seed, networks=4)
    assert {effect.name for effect in seen.falling} >= set(BY_NAME) - {
        "constant",
        "warmup",
        "reduce_on_plateau",
    }
    for name in ("step", "exponential", "inverse_time", "cosine", "warmup_cosine"):
        assert effect_of(seen, name).training_loss < seen.reference.training_loss / 2.0
        assert effect_of(seen, name).validation_loss < seen.reference.validation_loss


def test_the_findings_count_what_the_table_has(results: Schedules) -> None:
    table = results.summary()
    assert table["schedule"] == list(BY_NAME)
    falls = [rate < RATE for rate in table["last rate"]]
    lower = [loss < table["validation loss"][0] for loss in table["validation loss"]]
    count = sum(f and v for f, v in zip(falls, lower, strict=True))
    assert f"Of the {sum(falls)} schedules" in results.findings()[1]
    assert f"and {count} with a lower validation loss" in results.findings()[1]
    best = table["schedule"][int(np.argmin(table["validation loss"]))]
    assert f"is that of {best}:" in results.findings()[2]


def test_a_training_that_diverges_has_an_infinite_loss() -> None:
    with np.errstate(all="ignore"):
        lost = schedules.study(epochs=1, networks=1, rate=1e30)
    assert lost.reference.validation_loss == np.inf
    assert lost.reference.validation_accuracies.tolist() == [0.0]
    assert "validation loss after it inf" in lost.findings()[0]


def test_the_seed_repeats_every_number() -> None:
    first, again = (texts(schedules.study(epochs=2, networks=1)) for _ in range(2))
    assert set(first) == {"summary", "rates", "losses"}
    assert first == again


def test_figures(results: Schedules, language: str) -> None:
    drawn = results.plot(language)
    assert set(drawn) == {"rates", "losses"}
    titles = [axis.get_title() for axis in drawn["rates"].axes]
    assert titles[: len(BY_NAME)] == list(BY_NAME)
    assert len(drawn["losses"].axes[0].lines) == len(BY_NAME)
