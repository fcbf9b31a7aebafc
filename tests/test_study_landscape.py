"""The study of the landscape: how the loss rises around a trained network."""

from __future__ import annotations

import math

import numpy as np
import pytest
from study_tables import texts

import fastnn
from fastnn.arena import Arena
from fastnn.studies import landscape
from fastnn.studies.landscape import RADII, SETTINGS, Surroundings
from fastnn.words import Words

SMALL = {"rows": 500, "updates": 600, "networks": 2, "directions": 5, "points": 5}


@pytest.fixture(scope="module")
def found() -> landscape.Landscape:
    return landscape.study(**SMALL)


@pytest.fixture(scope="module")
def trained() -> tuple[fastnn.Sequential, np.ndarray, np.ndarray]:
    X, y = (part[:100] for part in fastnn.data.digits())
    model = fastnn.Sequential(fastnn.Linear(64, 16), fastnn.ReLU(), fastnn.Linear(16, 10), seed=1)
    model.fit(X, y, epochs=5)
    return model, X, y


# The surroundings of a network


def test_the_middle_is_the_trained_network(trained) -> None:
    model, X, y = trained
    before = model.arena.flat.copy()
    around = Surroundings(model, X, y)
    direction = around.direction(np.random.default_rng(0))
    loss = model.evaluate(X, y)["loss"]
    assert around.loss(direction) > loss == around.loss(0.0)
    grid = np.array([-1.0, 0.0, 1.0])
    over = around.over((direction, around.direction(np.random.default_rng(1))), grid)
    assert over[1, 1] == loss and over[1, 2] == around.loss(direction)
    assert np.array_equal(model.arena.flat, before)


def test_directions_are_as_long_as_each_neurons_weights(trained) -> None:
    model, X, y = trained
    around, generator = Surroundings(model, X, y), np.random.default_rng(0)
    first = around.direction(generator)
    around.loss(first)
    for direction in (first, around.direction(generator)):  # also of a network that was moved
        parts = Arena(model.arena.parameters, "float64")
        parts.flat[:] = direction
        for number in (0, 2):
            weight = model[number].weight.astype(np.float64)
            moved = parts[f"{number}.weight"]
            norms = np.sqrt((weight**2).sum(axis=0))
            assert np.sqrt((moved**2).sum(axis=0)) == pytest.approx(norms, rel=1e-14)
            assert np.abs(np.corrcoef(moved.ravel(), weight.ravel())[0, 1]) < 0.5
            assert not parts[f"{number}.bias"].any()


def test_losses_and_rises_are_those_of_the_moved_weights(trained) -> None:
    model, X, y = trained
    around = Surroundings(model, X, y)

    def loss(direction: np.ndarray, step: float) -> float:
        parts = Arena(model.arena.parameters, "float64")
        parts.flat[:] = model.arena.flat + step * direction
        hidden = np.maximum(X @ parts["0.weight"] + parts["0.bias"], 0.0)
        logits = hidden @ parts["2.weight"] + parts["2.bias"]
        logits -= logits.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))

    generator = np.random.default_rng(3)
    directions = [around.direction(generator) for _ in range(2)]
    expected = [
        np.mean([loss(d, step) for d in directions for step in (radius, -radius)])
        - loss(directions[0], 0.0)
        for radius in RADII
    ]
    rises = around.rises(np.random.default_rng(3), 2)
    # float32 sums of 64 products, on losses of a few units
    assert (np.abs(rises - expected) <= 64 * np.finfo(np.float32).eps * max(expected)).all()
    assert rises.argmax() == len(RADII) - 1


# The study


def test_small_batches_come_to_flatter_places(found: landscape.Landscape) -> None:
    mini_batches, full_batch = found.sharpness[:2]
    assert (mini_batches < full_batch).all()
    assert "the flatter place from 2 of 2" in found.findings()[0]
    assert [place.updates for place in found.places] == [567, 600, 567, 567]


def test_deep_networks_are_sharp_or_stuck(found: landscape.Landscape) -> None:
    shallow, _, relu, sigmoid = found.sharpness.mean(axis=1)
    assert relu > 5 * shallow > 5 * sigmoid > 0
    stuck = found.places[3]
    assert found.guess == pytest.approx(math.log(10), rel=0.01)
    assert abs(stuck.losses - found.guess).max() < 0.1
    assert "a plateau" in found.findings()[2]
    # far out the plateau is as flat
    assert stuck.loss.max() - stuck.loss.min() < 0.5 < np.ptp(found.places[0].loss)


def test_the_middle_of_each_landscape_is_the_first_network(found: landscape.Landscape) -> None:
    for place in found.places:
        assert place.loss.shape == (5, 5) and place.loss[2, 2] == place.losses[0]
    table = found.tables()["losses"]
    rows = {row[:3]: row[3] for row in table.rows()}
    assert len(rows) == 4 * 25
    assert rows[("deep, ReLU", 1.0, -0.5)] == found.places[2].loss[1, 4]


def test_the_same_seed_gives_the_same_numbers(found: landscape.Landscape) -> None:
    assert texts(landscape.study(**SMALL)) == texts(found)


@pytest.mark.parametrize("sizes", [{"points": 4}, {"points": 1}, {"networks": 1}])
def test_sizes_that_do_not_fit(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(sizes))):
        landscape.study(**sizes)


def test_figures(found: landscape.Landscape, language: str) -> None:
    say, drawn = Words(language), found.plot(language)
    assert list(drawn) == ["contours", "surfaces", "rises"]
    for name in ("contours", "surfaces"):
        titles = [axis.get_title() for axis in drawn[name].axes if axis.get_title()]
        assert [t.split("\n")[0] for t in titles] == [say(setting.name) for setting in SETTINGS]
    filled = [axis.collections[0] for axis in drawn["contours"].axes[:4]]
    assert len({(c.norm.vmin, c.norm.vmax) for c in filled}) == 1
    lines = drawn["rises"].axes[0].get_lines()
    assert lines[0].get_ydata()[landscape.SHARP] == found.sharpness[0].mean()
