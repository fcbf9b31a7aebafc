"""The study of activations: what it is to show, on the embedded digits, and its figures."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from study_tables import texts

from fastnn import Linear, ReLU, Sequential, data, layers
from fastnn.studies import activations
from fastnn.studies.activations import curves, dead, gradients
from fastnn.studies.activations.part import ELEMENTWISE

DEEPEST = 30


@pytest.fixture(scope="module")
def made():
    return activations.study(networks=3, epochs=12, updates=160, depths=(2, DEEPEST))


def quick(seed, samples=None):
    return activations.study(
        samples, seed=seed, rows=200, networks=2, epochs=1, updates=3, depths=(3, 2)
    )


# The functions


def test_every_elementwise_activation_is_there():
    found = curves.measure()
    assert set(found.values) == set(found.derivatives) == set(layers.ACTIVATIONS) - {"softmax"}


def test_derivatives_are_those_of_the_formulas(made):
    z, slopes = made.curves.z, made.curves.derivatives
    sigmoid = 1.0 / (1.0 + np.exp(-z))
    expected = {
        "sigmoid": sigmoid * (1.0 - sigmoid),
        "tanh": 1.0 - np.tanh(z) ** 2,
        "relu": (z > 0.0).astype(float),
        "softplus": sigmoid,
    }
    for name, slope in expected.items():
        assert np.abs(slopes[name] - slope).max() <= 8 * np.finfo(np.float64).eps


def test_the_sigmoid_is_never_steeper_than_a_quarter(made):
    assert made.curves.derivatives["sigmoid"].max() <= 0.25
    assert made.curves.steepest("sigmoid") == 0.25


# Without an activation


def test_linear_layers_are_one(made):
    # Each of the products sums up to 64 terms, with one rounding each.
    for count, difference in made.linearity.differences.items():
        assert difference <= count * 64 * np.finfo(np.float32).eps


def test_xor_takes_an_activation(made):
    accuracies = made.linearity.accuracies
    # A line that leaves one cloud on the wrong side is wrong about 1 of 4 points.
    assert max(accuracies["identity"]) <= 0.8
    assert min(accuracies["tanh"]) >= 0.98
    assert min(accuracies["relu"]) >= 0.98


def test_the_border_without_an_activation_is_a_line(made):
    region = np.clip(made.linearity.regions["identity"].astype(float), 1e-9, 1.0 - 1e-9)
    logit = np.log(region) - np.log1p(-region)
    bend = np.abs(np.diff(logit, n=2, axis=0)).max()
    # The probabilities are float32: a logit is off by a few eps over p (1 - p).
    noise = np.finfo(np.float32).eps / (region * (1.0 - region)).min()
    assert bend <= 16 * noise
    curved = made.linearity.regions["tanh"].astype(float)
    assert np.abs(np.diff(curved, n=2, axis=0)).max() > 1e-3


# Gradients through many layers


def test_norms_are_those_of_the_chain_rule():
    generator = np.random.default_rng(3)
    x, classes = generator.normal(size=(5, 4)), np.array([0, 1, 2, 1, 0])
    model = Sequential(
        Linear(4, 6), layers.Tanh(), Linear(6, 6), layers.Tanh(), Linear(6, 3), dtype="float64"
    )
    first, second, last = (model.arena[f"{place}.weight"] for place in (0, 2, 4))
    h1 = np.tanh(x @ first)
    h2 = np.tanh(h1 @ second)
    odds = np.exp(h2 @ last)
    by_logits = (odds / odds.sum(axis=1, keepdims=True) - np.eye(3)[classes]) / len(x)
    by_z2 = by_logits @ last.T * (1.0 - h2**2)
    by_z1 = by_z2 @ second.T * (1.0 - h1**2)
    expected = np.array([np.linalg.norm(by_z1), np.linalg.norm(by_z2)])
    found = gradients._norms(model, x, classes)
    assert np.abs(found / expected - 1.0).max() <= 64 * np.finfo(np.float64).eps


def test_the_sigmoids_gradient_is_lost_on_the_way(made):
    arrived = {name: made.gradients.at_first(name, DEEPEST) for name in ("sigmoid", "tanh", "relu")}
    assert arrived["sigmoid"] <= 1e-12
    assert arrived["sigmoid"] <= 1e-9 * min(arrived["tanh"], arrived["relu"])
    assert made.gradients.at_first("sigmoid", DEEPEST) < made.gradients.at_first("sigmoid", 2)


def test_initialisers_keep_or_lose_it(made):
    at_first = made.gradients.at_first
    for name in ("relu", "selu", "tanh"):
        assert 1e-2 <= at_first(name, DEEPEST) <= 1e2
        assert at_first(name, DEEPEST, "normal 0.01") <= 1e-20
    assert at_first("relu", DEEPEST, "glorot_uniform") <= 1e-2 * at_first("relu", DEEPEST)


# Training


def test_updates_are_counted_to_the_first_that_reaches_the_error(made):
    for name, errors in made.speed.errors.items():
        for error in (0.1, 0.01, -1.0):
            for counted, curve in zip(made.speed.updates_to(error, name), errors, strict=True):
                hits = [update for update, value in enumerate(curve) if value <= error]
                assert counted == (hits[0] if hits else float("inf"))


def test_relu_is_the_first_to_a_small_error(made):
    relu, tanh = (statistics.median(made.speed.updates_to(0.01, n)) for n in ("relu", "tanh"))
    assert relu < tanh


def test_units_that_are_off_are_counted():
    model = Sequential(Linear(2, 4), ReLU(), Linear(4, 2), ReLU(), Linear(2, 2))
    model[0].bias = [-1e6, 1e6, -1e6, 1e6]
    model[2].bias = [1e9, 1e9]
    inputs = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    assert dead.share_off(model, inputs) == 2 / 6


def test_relus_that_are_off_stay_off_and_leaky_ones_come_back(made):
    relu, leaky = (made.dead.trained["bias -5", name] for name in ("relu", "leaky_relu"))
    assert min(relu.after) >= 0.9
    assert (relu.after >= relu.before).all()
    assert max(leaky.after) <= 0.1 and min(leaky.before) >= 0.9


def test_a_rate_that_is_too_large_switches_relus_off(made):
    trained = made.dead.trained
    too_large = [trained["rate 0.1", name].after.mean() for name in ("relu", "leaky_relu")]
    assert too_large[0] >= too_large[1] + 0.1
    assert trained["usual", "relu"].after.mean() <= 0.05


def test_every_activation_is_judged(made):
    accuracies = made.accuracy.accuracies
    assert list(accuracies) == list(ELEMENTWISE)
    for name, values in accuracies.items():
        mean, spread = statistics.mean(values.tolist()), statistics.stdev(values.tolist())
        assert abs(made.accuracy.means()[name] - mean) <= 1e-12
        assert abs(made.accuracy.deviations()[name] - spread) <= 1e-12
    means = made.accuracy.means()
    assert means["relu"] > max(means["identity"], means["sigmoid"])


# As a study


def test_the_same_seed_repeats_and_another_draws_others():
    first, again, other = (texts(quick(seed)) for seed in (3, 3, 4))
    assert first == again
    assert all(first[name] != other[name] for name in ("xor-points", "gradients", "dead"))


def test_other_data_have_findings_too():
    generator = np.random.default_rng(1)
    X = generator.normal(size=(120, 5))
    found = quick(0, (X, (X[:, 0] > 0.0).astype(int) + 7))
    assert len(found.findings()) == len(found.parts) == 6
    assert "more than 2" in found.speed.finding()


def test_arguments_are_checked():
    for wrong in ({"networks": 1}, {"depths": ()}, {"depths": (0,)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            activations.study(**wrong)
    X, _ = data.digits()
    with pytest.raises(ValueError, match="y is float"):
        activations.study((X, X[:, 0].astype(float)))


def test_figures(made, language):
    drawn = made.plot(language)
    names = {"curves", "xor", "gradients", "initialisers", "updates", "dead", "accuracy"}
    assert set(drawn) == names
    (axis,) = drawn["accuracy"].axes
    ranked = [label.get_text() for label in axis.get_yticklabels()]
    marks = next(line for line in axis.get_lines() if line.get_marker() == "D")
    assert dict(zip(ranked, marks.get_xdata(), strict=True)) == made.accuracy.means()
