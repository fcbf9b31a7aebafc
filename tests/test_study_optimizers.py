"""The study of optimizers: what it is to show, against arithmetic of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from study_tables import texts

from fastnn import Adam
from fastnn.perceptron import network
from fastnn.studies import optimizers
from fastnn.studies.optimizers import COMPARED, Optimizers
from fastnn.studies.optimizers.descents import RATES
from fastnn.studies.optimizers.surfaces import SURFACES, Surface
from fastnn.studies.samples import parts_of

EPSILON = np.finfo(np.float64).eps
STEPS = 150
LOCAL_MINIMUM, PLATEAU, SADDLE, VALLEY = SURFACES
each_surface = pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)


@pytest.fixture(scope="module")
def results() -> Optimizers:
    return optimizers.study(steps=STEPS, epochs=3, networks=1)


def points_of(surface: Surface, count: int = 50) -> np.ndarray:
    low, high = np.transpose([surface.x_range, surface.y_range])
    return np.random.default_rng(0).uniform(low, high, (count, 2))


# Surfaces


def test_compared_are_the_six_of_the_courses() -> None:
    assert COMPARED == ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")


@pytest.mark.parametrize(
    ("surface", "point", "loss"),
    [
        (LOCAL_MINIMUM, (1.0, 1.0), 0.45),
        (LOCAL_MINIMUM, (-2.0, 0.0), 1.6),
        (PLATEAU, (0.0, 0.0), 0.09),
        (PLATEAU, (0.0, np.log(4.0)), 0.18),
        (SADDLE, (2.0, 2.0), 4.0),
        (VALLEY, (-1.2, 1.0), 24.2),
    ],
    ids=str,
)
def test_losses_worked_out_by_hand(surface: Surface, point, loss: float) -> None:
    assert abs(surface.loss_at(point) - loss) <= 16 * EPSILON * (1 + loss)


@pytest.mark.parametrize(
    ("surface", "third_derivative"),
    [(LOCAL_MINIMUM, 12.0), (PLATEAU, 1.0), (SADDLE, 9.0), (VALLEY, 3840.0)],
    ids=str,
)
def test_gradients_are_those_of_central_differences(surface, third_derivative: float) -> None:
    x, y = points_of(surface).T
    h = EPSILON ** (1 / 3)
    largest = float(np.abs(surface.loss(x, y)).max()) + 1.0
    bound = h**2 * third_derivative + 16 * EPSILON * largest / h
    by_x, by_y = surface.gradient(x, y)
    across = (surface.loss(x + h, y) - surface.loss(x - h, y)) / (2 * h)
    along = (surface.loss(x, y + h) - surface.loss(x, y - h)) / (2 * h)
    assert np.abs(by_x - across).max() <= bound
    assert np.abs(by_y - along).max() <= bound


@each_surface
def test_the_minimum_is_the_lowest_point_and_flat(surface: Surface) -> None:
    x, y = np.meshgrid(np.linspace(*surface.x_range, 201), np.linspace(*surface.y_range, 201))
    assert surface.loss_at(surface.minimum) <= float(surface.loss(x, y).min())
    slope = surface.gradient(*np.array(surface.minimum))
    assert np.abs(slope).max() <= 16 * EPSILON


def test_each_trap_is_what_it_is_called() -> None:
    around = np.array([[0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]])

    def rise(surface: Surface) -> np.ndarray:
        x, y = (np.array(surface.trap) + around).T
        return surface.loss(x, y) - surface.level(1.0)

    assert (rise(LOCAL_MINIMUM) > 0.0).all()
    assert LOCAL_MINIMUM.level(1.0) > LOCAL_MINIMUM.level(0.0)
    assert (rise(SADDLE) > 0.0).tolist() == [True, True, False, False]
    assert np.abs(PLATEAU.gradient(*np.array(PLATEAU.trap))).max() < 0.02
    assert (rise(VALLEY)[:2] > 2.0).all()


# Descents


def test_descent_by_sgd_is_its_formula(results: Optimizers) -> None:
    (descent,) = (d for d in results.on(SADDLE, "sgd") if d.rate == 0.1)
    x, y = SADDLE.start
    for point in descent.points[:60]:
        assert abs(point[0] - x) <= 1e-13
        assert abs(point[1] - y) <= 1e-13
        x, y = x - 0.1 * x, y - 0.1 * (y**3 - y)


@each_surface
@pytest.mark.parametrize("name", COMPARED)
def test_steps_are_those_after_which_the_loss_stays_low(results, surface, name: str) -> None:
    tried = results.on(surface, name)
    assert [descent.rate for descent in tried] == list(RATES)
    best = results.best_on(surface, name)
    goal = 0.01 * surface.level(1.0) + 0.99 * surface.level(0.0)
    steps = [
        next(
            (s for s in range(STEPS + 1) if (descent.losses[s:] <= goal).all()),
            None,
        )
        for descent in tried
    ]
    assert [descent.reaches_at for descent in tried] == steps
    reached = [step for step in steps if step is not None]
    assert best.reaches_at == (min(reached) if reached else None)


def test_momentum_carries_over_the_local_minimums_rim(results: Optimizers) -> None:
    def leaving(name: str) -> int:
        return sum(d.points[-1, 0] < 0.0 for d in results.on(LOCAL_MINIMUM, name))

    assert [leaving(name) for name in ("sgd", "adagrad", "rmsprop")] == [0, 0, 0]
    assert leaving("momentum") >= 2
    assert leaving("nesterov") >= 2
    assert leaving("adam") >= 1


def test_steps_divided_by_the_gradients_size_leave_the_plateau_first(results) -> None:
    steps = {name: results.best_on(PLATEAU, name).leaves_at for name in COMPARED}
    assert max(steps["rmsprop"], steps["adagrad"], steps["adam"]) < steps["momentum"]
    assert steps["sgd"] is None


def test_adaptive_rates_leave_the_saddle_first(results: Optimizers) -> None:
    steps = {name: results.best_on(SADDLE, name).leaves_at for name in COMPARED}
    assert max(steps["adagrad"], steps["rmsprop"]) < min(
        steps["sgd"], steps["momentum"], steps["nesterov"]
    )


def test_momentum_goes_along_the_valley(results: Optimizers) -> None:
    end = {name: results.best_on(VALLEY, name).points[-1] for name in COMPARED}
    far = {name: float(np.hypot(*(point - 1.0))) for name, point in end.items()}
    assert far["momentum"] < 0.2 < far["sgd"]
    assert results.best_on(VALLEY, "sgd").reaches_at is None


# On data


def test_a_training_is_the_one_that_fit_makes(results: Optimizers) -> None:
    (trained,) = (t for t in results.trained_by("adam") if t.rate == 0.01)
    parts = parts_of(None, 0)
    history = network(parts, [32], seed=0).fit(
        *parts.train, optimizer=Adam(0.01), epochs=3, validation_data=parts.validation
    )
    assert trained.training_losses.tolist() == [history["loss"]]
    assert trained.validation_losses.tolist() == [history["val_loss"]]
    assert trained.validation_accuracies.tolist() == [history["val_accuracy"]]


def test_each_optimizer_learns_the_data_at_a_rate_inside_the_grid(results: Optimizers) -> None:
    for name in COMPARED:
        tried, best = results.trained_by(name), results.best_by(name)
        losses = [t.validation_losses[0, -1] for t in tried]
        assert best.rate == tried[int(np.nanargmin(losses))].rate
        assert tried[0].rate < best.rate < tried[-1].rate
        assert best.validation_accuracies[0, -1] > 0.9
    assert results.best_by("adam").rate < results.best_by("sgd").rate


def test_the_table_and_the_findings_name_rates_and_steps(results: Optimizers) -> None:
    table = results.summary()
    assert table["optimizer"] == ["SGD", "Momentum", "Nesterov", "Adagrad", "RMSprop", "Adam"]
    assert table["rate on data"] == [results.best_by(name).rate for name in COMPARED]
    assert table["local minimum: steps"][0] == "never"
    text = " ".join(results.findings())
    assert f"not within {STEPS} steps: SGD, Adagrad, RMSprop" in text
    assert f"SGD {results.best_by('sgd').rate:g}" in text


def test_a_minimum_that_none_reaches(results: Optimizers) -> None:
    short = [dataclasses.replace(d, points=d.points[:5]) for d in results.descents]
    finding = dataclasses.replace(results, descents=short).findings()[3]
    assert "the minimum is reached by none; not within 4 steps: SGD, Momentum," in finding


def test_the_seed_repeats_every_number() -> None:
    first, again = (texts(optimizers.study(steps=10, epochs=1, networks=1)) for _ in range(2))
    assert set(first) == {"summary", "surfaces", "paths", "rates", "epochs"}
    assert first == again


def test_figures(results: Optimizers, language: str) -> None:
    drawn = results.plot(language)
    assert set(drawn) == {"paths", "descents", "training"}
    for name in ("paths", "descents"):
        assert len(drawn[name].axes) == len(SURFACES)
    assert len(drawn["training"].axes[0].lines) == len(COMPARED)


def test_losses_of_zero_are_drawn_without_a_warning(results: Optimizers) -> None:
    pytest.importorskip("matplotlib")
    best = results.trainings[0]
    perfect = dataclasses.replace(best, validation_losses=0.0 * best.validation_losses)
    drawn = dataclasses.replace(results, trainings=[*results.trainings, perfect]).plot()
    low, high = drawn["training"].axes[2].get_ylim()
    assert 0.0 < low < 1e-5 < high
