"""The study of loss surfaces: single samples' losses, and who escapes a local minimum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import reference
from study_tables import texts

from fastnn.perceptron import network
from fastnn.studies.loss_surfaces import study
from fastnn.studies.loss_surfaces.escape import Sine, escape
from fastnn.studies.samples import parts_of, with_first
from fastnn.studies.two_weights import two_weights

EPS = np.finfo(np.float32).eps
SMALL = {
    "rows": 200,
    "hidden": 16,
    "per_class": 3,
    "epochs": 3,
    "starts": 60,
    "updates": 200,
    "learning_rates": (0.1, 0.2),
}


@pytest.fixture(scope="module")
def small():
    return study(**SMALL)


@pytest.fixture(scope="module")
def parts():
    return with_first(parts_of(None, 0), SMALL["rows"])


# One sample's surface beside another's


def test_an_update_on_a_raises_b_and_the_whole(small) -> None:
    unit, pair = small.pair.unit, small.pair
    X, t = unit.inputs, unit.targets
    least = np.linalg.solve(X.T @ X, X.T @ t)
    slopes = (X @ least - t)[:, np.newaxis] * X
    assert np.argmax((slopes**2).sum(axis=1)) == pair.a
    updated = least - slopes[pair.a] / (X**2).sum(axis=1).max()
    assert np.abs(updated - pair.updated).max() <= 1e-12
    before, after = (0.5 * (X @ weights - t) ** 2 for weights in (least, updated))
    assert np.argmax(after - before) == pair.b != pair.a
    table = small.tables()["surfaces"]
    for name, losses in (("before", before), ("after an update on A", after)):
        right = [losses[pair.a], losses[pair.b], losses.mean()]
        assert np.abs(np.array(table[name]) - right).max() <= 1e-12
    falls = np.diff([table["before"], table["after an update on A"]], axis=0)[0] < 0.0
    assert falls.tolist() == [True, False, False]


def test_a_sample_alone_has_a_valley_and_all_have_one_minimum(small) -> None:
    unit, pair = small.pair.unit, small.pair
    x = unit.inputs[pair.a]
    along = np.array([-x[1], x[0]])  # the prediction of A does not change that way
    points = unit.minimum + np.linspace(-2.0, 2.0, 5)[:, np.newaxis] * along
    assert np.ptp(unit.loss(points, [pair.a])) <= 1e-12
    w1, w2, loss = unit.surface(points)
    lowest = np.unravel_index(loss.argmin(), loss.shape)
    assert abs(w1[lowest[1]] - unit.minimum[0]) <= np.diff(w1)[0]
    assert abs(w2[lowest[0]] - unit.minimum[1]) <= np.diff(w2)[0]


# Updates on one sample of a network


def test_changes_are_those_of_the_formulas(small, parts) -> None:
    X, y = parts.train
    model = network(parts, [16], seed=0)
    standard = model[0](X)
    weights = [model.arena[f"{layer}.weight"] for layer in (1, 3)]
    biases = [model.arena[f"{layer}.bias"] for layer in (1, 3)]

    def losses(weights, biases) -> np.ndarray:
        outputs = reference.dense_forward(weights, biases, "relu", standard)[1][-1]
        rows = range(len(y))
        return np.array(
            [reference.cross_entropy(outputs[i : i + 1], y[i : i + 1])[0] for i in rows]
        )

    changes = []
    updated = [row for number in range(10) for row in np.flatnonzero(y == number)[:3]]
    for row in updated:
        one = slice(row, row + 1)
        after = reference.train_dense(
            weights,
            biases,
            "relu",
            reference.cross_entropy,
            lambda: reference.SGD(0.02),
            [(standard[one], y[one])],
        )
        changes.append(losses(*after[:2]) - losses(weights, biases))
    changes, (before, _) = np.array(changes), small.responses
    # A logit is two sums; its rounding is that of the larger one, in the loss as in its change.
    bound = 2 * X.shape[1] * EPS * max(np.abs(losses(weights, biases)).max(), 1.0)
    itself = np.arange(len(y)) == np.array(updated)[:, np.newaxis]
    assert np.abs(before.own - changes[itself]).max() <= bound
    assert np.abs(before.whole - changes.mean(axis=1)).max() <= bound
    by_class = np.array(
        [
            [
                np.mean([changes[3 * a + k, (y == b) & ~itself[3 * a + k]] for k in range(3)])
                for b in range(10)
            ]
            for a in range(10)
        ]
    )
    assert np.abs(before.by_class - by_class).max() <= bound


def test_own_loss_falls_others_rise(small) -> None:
    before, after = small.responses
    assert [before.epochs, after.epochs] == [0, 3]
    for one in small.responses:
        assert (one.own < 0.0).all()
        assert one.same < 0.1 and 0.4 < one.others < 1.0
        assert (np.diag(one.by_class) < 0.0).all()
    # Near the minimum of the whole, what is good for one sample is more often bad for the whole.
    assert np.mean(before.whole > 0.0) < np.mean(after.whole > 0.0)


# Escape from a local minimum


def escaped(*, starts=2, updates=1, batch_sizes=(), rate=0.1, seed=0):
    return escape(
        samples=30,
        starts=starts,
        updates=updates,
        batch_sizes=batch_sizes,
        momentum=0.9,
        learning_rates=(rate,),
        seed=seed,
    )


@pytest.fixture(scope="module")
def sine():
    return escaped().sine


def test_the_loss_is_a_mean_over_samples(sine: Sine) -> None:
    points = np.array([[0.7], [3.1]])
    assert (sine.loss(points[:, 0]) == np.mean(sine.losses(points[:, 0]), axis=1)).all()
    every = [sine.gradient(points, np.full((2, 1), row)) for row in range(30)]
    whole = sine.gradient(points, np.arange(30)[np.newaxis])
    assert np.abs(np.mean(every, axis=0) - whole).max() <= 1e-12
    for point, slope in zip(points, whole, strict=True):
        right = reference.central_difference(lambda w: sine.loss(w)[0], point)
        assert np.abs(slope - right).max() <= 1e-6


def test_the_valley_of_the_global_minimum(sine: Sine) -> None:
    low, high = sine.basin
    inside = np.linspace(low, high, 500)[1:-1]
    loss = sine.loss(inside)
    bottom = int(loss.argmin())
    assert (np.diff(loss[: bottom + 1]) < 0.0).all() and (np.diff(loss[bottom:]) > 0.0).all()
    assert np.isclose(inside[bottom], 3.0, atol=0.1)
    step = np.diff(sine.frequencies)[0]
    for edge in (low, high):
        assert sine.loss(np.array([edge]))[0] >= sine.loss(edge + step * np.array([-1, 1])).max()
    assert len(sine.minima) > 2
    assert sine.loss(inside[[bottom]])[0] < 0.1 * np.sort(sine.loss(sine.minima))[1]


@pytest.mark.parametrize("seed", range(4))
def test_single_samples_escape_and_the_full_batch_does_not(seed: int) -> None:
    found = escaped(starts=80, updates=300, batch_sizes=(1, 5), rate=0.2, seed=seed)
    stochastic, mini, full = (found.shown(0.0, size) for size in (1, 5, 30))
    assert stochastic > mini + 0.1 > full + 0.1 and stochastic > full + 0.25
    # Momentum drives mini-batches out as well, and single samples out of the global one too.
    assert found.shown(0.9, 5) > mini + 0.1 and found.shown(0.9, 1) < full
    assert [way.shape for way in found.ways.values()] == [(301, 80)] * 3
    assert all((way[0] == found.starts).all() for way in found.ways.values())
    assert found.sine.share_in_basin(found.ways[1][-1]) == stochastic


def test_small_steps_of_the_full_batch_end_where_the_slope_leads() -> None:
    found = escaped(starts=100, updates=300, rate=0.02, seed=3)
    low, high = found.sine.basin
    step = np.diff(found.sine.frequencies)[0]  # so exactly are the hilltops known
    starts, ends = found.starts, found.ways[30][-1]
    inside = (starts > low + step) & (starts < high - step)
    outside = (starts < low - step) | (starts > high + step)
    assert found.sine.share_in_basin(ends[inside]) == 1.0 and inside.sum() > 20
    assert found.sine.share_in_basin(ends[outside]) == 0.0 and outside.sum() > 20


# All of it


def test_the_same_seed_repeats(small) -> None:
    assert texts(study(**SMALL)) == texts(small) != texts(study(**SMALL, seed=1))


def test_summary_and_findings_have_the_numbers(small) -> None:
    summary, found = small.summary(), small.escape
    assert found.shown_rate == 0.2
    assert summary["share at rate 0.2"] == [found.shown(*kind) for kind in found.shares]
    assert summary["share at the best rate"] == [max(v) for v in found.shares.values()]
    assert len(small.tables()["updates"]["mean change"]) == 2 * 10 * 10
    assert len(small.tables()["escape"]["learning rate"]) == 2 * 3 * 2
    text = " ".join(small.findings())
    assert f"{found.begun:.0%} of 60 starts" in text
    assert f"{found.shown(0.0, 1):.0%} with batches of 1" in text


def test_arguments_are_checked() -> None:
    for name, wrong in (
        ("batch_sizes", (0,)),
        ("learning_rates", ()),
        ("learning_rates", (-0.1,)),
        ("momentum", 1.0),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            study(**{**SMALL, name: wrong})


def test_figures(small, language: str) -> None:
    drawn = small.plot(language)
    assert set(drawn) == {"surfaces", "updates", "escape", "ways"}
    image = drawn["updates"].axes[0].get_images()[0]
    assert (image.get_array() == small.responses[0].by_class).all()
    shares = drawn["escape"].axes[1].get_lines()
    assert [list(line.get_ydata()) for line in shares] == list(small.escape.shares.values())


def test_class_names_are_letters_and_have_room(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    X = np.random.default_rng(0).normal(size=(60, 3))
    parts = parts_of((X, np.arange(60) % 2), 0)._replace(classes=["$_$", "long" * 20])
    figure = study(parts, rows=40, per_class=2, starts=2, updates=2).plot()["updates"]
    figure.savefig(tmp_path / "names.png")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0] == "$_$" and len(names[1]) <= 12


def test_classes_of_one_sample_each() -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    result = study((X, np.arange(40)), per_class=1, starts=2, updates=2)
    assert not any("nan" in finding for finding in result.findings())


def test_the_first_class_need_not_be_among_the_rows() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    parts = parts_of((X, np.arange(60) % 3), 0)
    inputs, labels = parts.train
    unit = two_weights(parts._replace(train=(inputs[labels > 0], labels[labels > 0])))
    assert np.isfinite(unit.minimum).all()


def test_updates_where_nothing_is_left_to_learn_are_told(small) -> None:
    own = np.array([-0.1, -0.1, -0.1, 0.0])
    finding = dataclasses.replace(small.responses[1], own=own).finding()
    assert "lowers its own loss in 75% of cases and leaves it as small as it is in 25%." in finding
