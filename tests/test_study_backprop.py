"""The study of backpropagation: its numbers against formulas on whole arrays, and its figures."""

from __future__ import annotations

import numpy as np
import pytest
from study_tables import texts

from fastnn.studies import run
from fastnn.studies.backprop import WEIGHTS, study

EPS = np.finfo(np.float64).eps


@pytest.fixture(scope="module", params=[0, 3])
def worked(request):
    return study(seed=request.param)


def arrays(values):
    """x, W, b, V, c from numbers by name."""
    flat = np.array([values[name] for name in WEIGHTS])
    W, b, V, c = np.split(flat, (4, 6, 10))
    return np.array([values["x1"], values["x2"]]), W.reshape(2, 2), b, V.reshape(2, 2), c


def reference(values, target):
    """The loss and its gradients in the matrix form, in the order of WEIGHTS."""
    x, W, b, V, c = arrays(values)
    h = 1.0 / (1.0 + np.exp(-(x @ W + b)))
    o = h @ V + c
    by_o = np.exp(o) / np.exp(o).sum() - np.eye(2)[int(target) - 1]
    by_z = V @ by_o * h * (1.0 - h)
    gradients = [np.outer(x, by_z).ravel(), by_z, np.outer(h, by_o).ravel(), by_o]
    return np.log(np.exp(o).sum()) - o[int(target) - 1], np.concatenate(gradients)


def test_forward_and_backward_are_those_of_the_matrix_form(worked):
    loss, gradients = reference(worked.before, worked.target)
    assert abs(worked.before["L"] - loss) <= 8 * EPS
    found = np.array([worked.gradients[name] for name in WEIGHTS])
    assert np.abs(found - gradients).max() <= 16 * EPS * np.abs(gradients).max()


def test_downstream_is_upstream_times_local_and_adds_up(worked):
    edges = worked.tables()["edges"]
    ends = [edge.split(" -> ")[1] for edge in edges["edge"]]
    for name, gradient in worked.gradients.items():
        parts = [
            upstream * local
            for end, upstream, local in zip(ends, edges["upstream"], edges["local"], strict=True)
            if end == name
        ]
        assert name == "L" or gradient == sum(parts)
    assert {ends.count("h1"), ends.count("h2")} == {2}


def test_three_ways_to_the_gradients_agree(worked):
    assert worked.difference(worked.fastnn) <= 16 * EPS
    # A central difference errs by the step squared and by eps over the step: both eps ** (2 / 3).
    assert worked.difference(worked.central) <= 10 * EPS ** (2 / 3)


def test_an_update_is_a_step_down_the_gradient(worked):
    gradients = worked.tables()["gradients"]
    for value, slope, after in zip(
        gradients["value"], gradients["backprop"], gradients["after the update"], strict=True
    ):
        assert after == value - 0.5 * slope
    loss, _ = reference(worked.after, worked.target)
    assert abs(worked.after["L"] - loss) <= 8 * EPS
    assert worked.after["L"] < worked.before["L"]


def test_the_same_seed_repeats_and_another_draws_others():
    first, again, other = (texts(run("backprop", seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_a_learning_rate_of_zero_is_refused():
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        study(learning_rate=0.0)


def test_findings_have_the_numbers(worked):
    text = " ".join(worked.findings())
    for number in (worked.before["L"], worked.after["L"], worked.gradients["h1"]):
        assert f"{number:.3g}" in text


def test_figures_show_every_number(worked, language):
    drawn = worked.plot(language)
    assert set(drawn) == {"forward", "backward"}
    words = {
        name: "\n".join(text.get_text() for text in figure.axes[0].texts)
        for name, figure in drawn.items()
    }
    assert all(f"{worked.before[name]:.3g}" in words["forward"] for name in WEIGHTS)
    assert words["backward"].count(r"\times") == len(worked.edges)
