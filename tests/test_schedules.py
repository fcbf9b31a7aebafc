"""Schedules against the reference's formulas, update by update."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference
from checks import Bound, assert_close
from hypothesis import given
from hypothesis import strategies as st

from fastnn import schedules

BASE = 0.1
# Some ten roundings, each within half an ulp of a number no larger than the base.
ROUNDING = Bound(10 * np.finfo(np.float64).eps * BASE, 10 * np.finfo(np.float64).eps * BASE)


def constant(t, updates_per_epoch):
    return reference.constant_rate(BASE, t)


def step(t, updates_per_epoch):
    return reference.step_rate(BASE, t // updates_per_epoch, 3, 0.5)


def exponential(t, updates_per_epoch):
    return reference.exponential_rate(BASE, t // updates_per_epoch, 0.9)


def inverse_time(t, updates_per_epoch):
    return reference.inverse_time_rate(BASE, t, 0.01)


def cosine(t, updates_per_epoch):
    return reference.cosine_rate(BASE, t, 4 * updates_per_epoch, 0.01)


def warm_cosine(t, updates_per_epoch):
    return reference.warm_up_rate(
        BASE,
        t,
        2 * updates_per_epoch,
        lambda rate, t: reference.cosine_rate(rate, t, 4 * updates_per_epoch, 0.01),
    )


def warm_inverse_time(t, updates_per_epoch):
    return reference.warm_up_rate(
        BASE, t, 7, lambda rate, t: reference.inverse_time_rate(rate, t, 0.01)
    )


def by_epoch(t, updates_per_epoch):
    return 1 / (1 + t // updates_per_epoch) / 10


CASES = [
    (schedules.Constant(), constant),
    (schedules.Step(every_epochs=3, factor=0.5), step),
    (schedules.Exponential(0.9), exponential),
    (schedules.InverseTime(0.01), inverse_time),
    (schedules.Cosine(4, minimum=0.01), cosine),
    (schedules.Warmup(2, then=schedules.Cosine(4, minimum=0.01)), warm_cosine),
    (schedules.Warmup(updates=7, then=schedules.InverseTime(0.01)), warm_inverse_time),
    (schedules.ByEpoch(lambda epoch: 1 / (1 + epoch) / 10), by_epoch),
]


@pytest.mark.parametrize(("schedule", "truth"), CASES)
@given(first_update=st.integers(0, 60), count=st.integers(0, 40), per_epoch=st.integers(1, 9))
def test_rates_are_the_formulas_values(schedule, truth, first_update, count, per_epoch):
    rates = schedule.rates(BASE, first_update, count, per_epoch)
    expected = [truth(t, per_epoch) for t in range(first_update, first_update + count)]
    assert rates.dtype == np.float64
    assert_close(rates, np.reshape(expected, count), ROUNDING)


@pytest.mark.parametrize(("schedule", "truth"), CASES)
@given(cut=st.integers(0, 30))
def test_calls_may_be_cut_anywhere(schedule, truth, cut):
    whole = schedule.rates(BASE, 0, 30, 4)
    pieces = [schedule.rates(BASE, 0, cut, 4), schedule.rates(BASE, cut, 30 - cut, 4)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_warmup_lasts_at_least_one_update():
    rates = schedules.Warmup(0.01).rates(BASE, 0, 2, updates_per_epoch=3)
    np.testing.assert_array_equal(rates, [BASE, BASE])


def plateau_rates(values, **settings):
    schedule = schedules.ReduceOnPlateau(**settings)
    rates = []
    for value in values:
        schedule.observe(value)
        rates.append(schedule.rates(1.0, 0, 1, 1)[0])
    return rates


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        # The first value is the best; the third without improvement in a row is one too many.
        ([1, 1, 1, 1, 1, 1, 1], {"patience": 2}, [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ([3, 2, 1, 0], {"patience": 0}, [1, 1, 1, 1]),
        ([1, 2, 0.5, 2], {"patience": 0}, [1, 0.5, 0.5, 0.25]),
        # An improvement of 5 % of the best does not count where 10 % are asked for.
        ([1, 0.95, 0.85], {"patience": 0, "threshold": 0.1}, [1, 0.5, 0.5]),
        ([-1, -1.05, -1.15], {"patience": 0, "threshold": 0.1}, [1, 0.5, 0.5]),
        ([1, 1, 1], {"patience": 0, "minimum": 0.3}, [1, 0.5, 0.3]),
        ([0.8, 0.9, 0.9], {"patience": 0, "monitor": "val_accuracy"}, [1, 1, 0.5]),
        ([0.8, 0.9], {"patience": 0, "monitor": "val_accuracy", "mode": "min"}, [1, 0.5]),
        ([np.nan, np.inf, 1], {"patience": 0}, [0.5, 0.25, 0.25]),
        ([1, np.nan, -np.inf, 0.5], {"patience": 1}, [1, 1, 0.5, 0.5]),
    ],
)
def test_reduce_on_plateau(values, settings, expected):
    assert plateau_rates(values, factor=0.5, **settings) == expected


@given(
    before=st.lists(st.floats(), max_size=20), after=st.lists(st.floats(), min_size=1, max_size=20)
)
def test_plateau_goes_on_from_a_saved_state(before, after):
    unbroken = schedules.ReduceOnPlateau(patience=1)
    for value in before:
        unbroken.observe(value)
    resumed = schedules.Warmup(updates=1, then=schedules.ReduceOnPlateau(patience=1))
    resumed.load_state_dict(json.loads(json.dumps(unbroken.state_dict(), allow_nan=False)))
    for value in after:
        unbroken.observe(value)
        resumed.observe(value)
    assert resumed.state_dict() == unbroken.state_dict()
    assert resumed.rates(BASE, 9, 1, 1) == unbroken.rates(BASE, 9, 1, 1)


def test_reset_forgets():
    schedule = schedules.Warmup(updates=1, then=schedules.ReduceOnPlateau(patience=0))
    fresh = schedule.state_dict()
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert schedule.state_dict() != fresh
    schedule.reset()
    assert schedule.state_dict() == fresh


def test_what_a_schedule_monitors():
    assert schedules.Constant().monitor is None
    plateau = schedules.ReduceOnPlateau(monitor="loss")
    assert plateau.monitor == "loss"
    assert schedules.Warmup(1, then=plateau).monitor == "loss"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"best": 1.0, "epochs_without": 0, "reductions": 0, "more": 1},
        {"best": 1.0, "epochs_without": 2, "reductions": -1},
        {"best": 1.0, "epochs_without": -1, "reductions": 0},
        {"best": float("nan"), "epochs_without": 2, "reductions": 0},
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(state):
    schedule = schedules.ReduceOnPlateau()
    schedule.observe(0.5)
    before = schedule.state_dict()
    with pytest.raises(ValueError, match="must "):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


def test_a_stateless_schedule_refuses_a_state():
    schedules.Constant().load_state_dict({})
    with pytest.raises(ValueError, match=r"must have the keys \[\], got \['best'\]"):
        schedules.Constant().load_state_dict({"best": 1.0})


@pytest.mark.parametrize("name", schedules.BY_NAME)
@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_every_name_suits_a_training_of_any_length(name, epochs):
    rates = schedules.as_schedule(name, epochs).rates(BASE, 0, 5 * epochs, 5)
    assert np.all((rates > 0) & (rates <= BASE))


def test_as_schedule_takes_schedules_functions_and_none():
    cosine_schedule = schedules.Cosine(3)
    assert schedules.as_schedule(cosine_schedule, 5) is cosine_schedule
    assert schedules.as_schedule(None, 5) == schedules.Constant()
    halved = schedules.as_schedule(lambda epoch: 0.5**epoch, 5)
    np.testing.assert_array_equal(halved.rates(BASE, 0, 3, 1), [1, 0.5, 0.25])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: schedules.as_schedule("cosin", 3), ValueError, "did you mean 'cosine'"),
        (lambda: schedules.as_schedule(0.1, 3), TypeError, "schedule must be a Schedule"),
        (lambda: schedules.as_schedule(schedules.Cosine, 3), TypeError, "must be a Schedule"),
        (lambda: schedules.Step(0), ValueError, "every_epochs must be at least 1"),
        (lambda: schedules.Step(1, factor=0), ValueError, "factor must be above 0"),
        (lambda: schedules.Exponential(-1), ValueError, "factor must be above 0"),
        (lambda: schedules.InverseTime(-1), ValueError, "decay must be at least 0"),
        (lambda: schedules.Cosine(0), ValueError, "epochs must be above 0"),
        (lambda: schedules.Cosine(1, minimum=-1), ValueError, "minimum must be at least 0"),
        (lambda: schedules.Warmup(), ValueError, "one of epochs and updates"),
        (lambda: schedules.Warmup(1, updates=1), ValueError, "one of epochs and updates"),
        (lambda: schedules.Warmup(updates=0), ValueError, "updates must be at least 1"),
        (lambda: schedules.Warmup(1, then="cosine"), TypeError, "then must be a Schedule"),
        (lambda: schedules.ReduceOnPlateau(factor=1), ValueError, "factor must be below 1"),
        (lambda: schedules.ReduceOnPlateau(patience=-1), ValueError, "patience must be"),
        (lambda: schedules.ReduceOnPlateau(mode="mx"), ValueError, "did you mean 'max'"),
        (lambda: schedules.ReduceOnPlateau(monitor="val_los"), ValueError, "did you mean 'loss'"),
    ],
)
def test_bad_settings_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    "schedule", [schedules.Cosine(1, minimum=1.0), schedules.ReduceOnPlateau(minimum=1.0)]
)
def test_a_minimum_above_the_learning_rate_is_refused(schedule):
    with pytest.raises(ValueError, match=r"minimum must be at most the learning rate, 0\.1"):
        schedule.rates(BASE, 0, 1, 1)


@pytest.mark.parametrize("rate", [float("nan"), -1.0, float("inf")])
def test_a_function_must_give_finite_rates(rate):
    with pytest.raises(ValueError, match="the schedule's rate for epoch 2 must be"):
        schedules.ByEpoch(lambda epoch: rate).rates(BASE, 4, 1, 2)
