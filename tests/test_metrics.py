"""Metrics against row-by-row truths; NaN never counts as right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastnn import metrics

NAN = math.nan
LOGITS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 8), st.integers(2, 6)), elements=st.integers(-2, 2)
)


@st.composite
def classified(draw):
    """Logits with ties and a few NaN, and a class for every row."""
    logits = draw(LOGITS)
    missing = draw(hnp.arrays(bool, logits.shape, elements=st.sampled_from([False] * 9 + [True])))
    labels = draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)))
    return np.where(missing, np.float32(NAN), logits), labels


def ranked_right(row, label, k):
    """Whether the label is among the first k classes, sorted by falling logit."""
    if any(math.isnan(value) for value in row):
        return False
    return label in sorted(range(len(row)), key=lambda c: (-row[c], c))[:k]


@given(classified(), st.integers(1, 6))
def test_top_k_and_accuracy_count_rows(case, k):
    logits, labels = case
    k = min(k, logits.shape[1])
    rows = list(zip(logits.tolist(), labels.tolist(), strict=True))
    expected = sum(ranked_right(row, label, k) for row, label in rows) / len(rows)
    assert metrics.top_k(logits, labels, k) == expected
    if k == 1:
        assert metrics.accuracy(logits, labels) == expected


@given(classified())
def test_accuracy_is_the_first_of_top_k(case):
    assert metrics.accuracy(*case) == metrics.top_k(*case, k=1)


@given(classified())
def test_one_hot_and_soft_labels_mean_their_largest_class(case):
    logits, labels = case
    one_hot = np.eye(logits.shape[1])[labels]
    assert metrics.accuracy(logits, one_hot) == metrics.accuracy(logits, labels)
    assert metrics.accuracy(logits, one_hot * 0.9 + 0.01) == metrics.accuracy(logits, labels)


@pytest.mark.parametrize("column", [lambda a: a, lambda a: a[:, None]])
@pytest.mark.parametrize("targets", [[1, 1, 0, 0, 0], [0.9, 1.0, 0.1, 0.0, 0.2]])
def test_one_column_is_a_binary_logit(column, targets):
    outputs = column(np.array([2.0, -1.0, -3.0, 0.0, NAN]))
    for shaped in (np.array(targets), np.array(targets)[:, None]):
        assert metrics.accuracy(outputs, shaped) == 3 / 5


def test_binary_accuracy_judges_every_element():
    outputs = [[1.0, -1.0], [NAN, 2.0]]
    assert metrics.binary_accuracy(outputs, [[1, 1], [0, 1]]) == 2 / 4


@pytest.mark.parametrize("target", [0, 1])
def test_nan_is_never_right(target):
    assert metrics.accuracy([[NAN, NAN]], [target]) == 0
    assert metrics.accuracy([[NAN]], [target]) == 0
    assert metrics.binary_accuracy([[NAN]], [target]) == 0
    assert metrics.top_k([[NAN, 1.0]], [target], k=2) == 0


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=20))
def test_errors_are_their_definitions(pairs):
    outputs, targets = np.array(pairs, np.float64).T
    # Sums of small integers are exact, so that one division rounds on either side.
    squares = sum((o - t) ** 2 for o, t in pairs)
    distances = sum(abs(o - t) for o, t in pairs)
    for shaped in (outputs, outputs[:, None]):
        assert metrics.mean_squared_error(shaped, targets) == squares / len(pairs)
        assert metrics.mean_absolute_error(shaped, targets) == distances / len(pairs)


def test_r2_by_hand():
    outputs = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [6.0, 0.0]])
    targets = np.array([[1.0, 1.0], [2.0, -1.0], [4.0, 1.0], [5.0, -1.0]])
    # Column 0: residual 0 + 0 + 1 + 1, total 4 + 1 + 1 + 4; column 1: residual 4, total 4.
    assert metrics.r2(outputs, targets) == (0.8 + 0.0) / 2


def test_r2_of_perfect_and_of_constant_columns():
    assert metrics.r2([1.0, 2.0], [1.0, 2.0]) == 1
    assert metrics.r2([3.0, 3.0], [3.0, 3.0]) == 1
    assert metrics.r2([3.0, 4.0], [3.0, 3.0]) == 0


@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "r2"])
def test_regression_metrics_show_divergence(name):
    metric = metrics.METRICS[name]
    assert math.isnan(metric([1.0, NAN], [1.0, 2.0]))
    assert not math.isfinite(metric([1.0, math.inf], [1.0, 2.0]))


def test_float32_outputs_are_judged_in_float64():
    outputs = np.array([1e30, -1e30], np.float32)
    error = metrics.mean_squared_error(outputs, np.zeros(2))
    assert abs(error / float(outputs[0]) ** 2 - 1) <= 1e-15


def test_one_column_is_never_broadcast_against_a_row():
    outputs, targets = np.zeros((3, 1)), np.array([1.0, 2.0, 3.0])
    assert metrics.mean_absolute_error(outputs, targets) == 2


@pytest.mark.parametrize("name", ["binary_accuracy", "mean_squared_error", "r2"])
@pytest.mark.parametrize(("outputs", "targets"), [((3, 2), (3,)), ((3,), (2,)), ((0,), (0,))])
def test_shapes_that_do_not_fit_are_refused(name, outputs, targets):
    with pytest.raises(ValueError, match="must have"):
        metrics.METRICS[name](np.zeros(outputs), np.zeros(targets))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1, 3], "from 0 to 2, got 0 to 3"),
        ([0, -1, 2], "from 0 to 2, got -1 to 2"),
        ([0.0, 1.0, 2.0], "must be class numbers"),
        ([[0], [1], [2]], "must be class numbers"),
        ([0, 1], "as many rows"),
    ],
)
def test_class_numbers_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(np.zeros((3, 3)), targets)


def test_top_k_refuses_more_guesses_than_classes():
    with pytest.raises(ValueError, match="k must be at most the number of classes, 3, got 5"):
        metrics.top_k(np.zeros((2, 3)), [0, 1])


def test_resolve():
    assert metrics.resolve("r2") is metrics.r2
    assert metrics.resolve(max) is max
    with pytest.raises(ValueError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        metrics.resolve("acuracy")


def test_directions():
    falling = {name for name in metrics.METRICS if not metrics.larger_is_better(name)}
    assert falling == {"mean_squared_error", "mean_absolute_error"}
    assert not metrics.larger_is_better("val_loss")
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        metrics.larger_is_better("val_acuracy")
