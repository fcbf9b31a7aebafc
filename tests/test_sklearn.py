"""The estimators of fastnn.sklearn train as scikit-learn's own do, in every way that those can."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from itertools import product

import numpy as np
import pytest
import scipy.sparse
import sklearn.neural_network as theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import fastnn
import fastnn.sklearn as ours
from fastnn.sklearn.threads import granted
from fastnn.sklearn.versions import TAKES_WEIGHTS, if_weighted

BOUND = {"float64": 1e-8, "float32": 1e-3}
"""Relative, after ten epochs."""
needs_weights = pytest.mark.skipif(
    not TAKES_WEIGHTS, reason="this scikit-learn trains without sample weights (before 1.7)"
)
needs_poisson = needs_weights  # they came together
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # scikit-learn before 1.8 asks SciPy for what that no longer prints
    pytest.mark.filterwarnings("ignore:.*L-BFGS-B:DeprecationWarning"),
]


def data(kind: str, rows: int = 90, columns: int = 6, dtype: str = "float64", scale: float = 1.0):
    """Rows, and targets of a kind that depend on them."""
    generator = np.random.default_rng(rows + columns)
    X = scale * generator.standard_normal((rows, columns))
    signal = X[:, :3] @ generator.standard_normal((3, 4)) / scale
    y = {
        "binary": np.where(signal[:, 0] > 0, "yes", "no"),
        "multiclass": signal.argmax(axis=1) + 10,
        "multilabel": (signal > 0).astype(int),
        "values": signal[:, 0],
        "several values": signal,
        "counts": generator.poisson(np.exp(signal[:, 0] / 4)).astype(float),
    }[kind]
    return X.astype(dtype), y


EXTRAS = ("dropout", "weight_decay", "class_weight", "n_threads", "progress")
KINDS = ("binary", "multiclass", "multilabel", "values", "several values", "counts")


def estimators(kind: str, **keywords):
    """scikit-learn's estimator for a kind of targets, and fastnn's."""
    if kind in ("values", "several values", "counts"):
        if kind == "counts" and TAKES_WEIGHTS:
            keywords = {"loss": "poisson", "learning_rate_init": 1e-3} | keywords
        name = "MLPRegressor"
    else:
        name = "MLPClassifier"
    keywords = {"hidden_layer_sizes": (9, 5), "max_iter": 10, "random_state": 3} | keywords
    plain = {name: value for name, value in keywords.items() if name not in EXTRAS}
    return getattr(theirs, name)(**plain), getattr(ours, name)(**keywords)


def assert_near(name: str, ours, theirs, bound: float) -> None:
    """Relative to the largest; NaN where NaN is."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs), err_msg=name)
    finite = np.isfinite(theirs)
    size = np.abs(theirs[finite]).max(initial=0.0)
    error = np.abs(ours[finite].astype(float) - theirs[finite]).max(initial=0.0)
    assert error <= bound * max(size, 1e-300), f"{name}: {error} of {size}"


def assert_same(expected, got, X, bound: float) -> None:
    """Everything that a fit leaves behind."""
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(got, name) == getattr(expected, name), name
    for name in ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(got, name), getattr(expected, name), strict=True):
            assert mine.dtype == other.dtype
            assert_near(name, mine, other, bound)
    for name in ("loss_", "loss_curve_", "validation_scores_", "best_loss_"):
        value = getattr(expected, name, None)
        assert (getattr(got, name, None) is None) == (value is None), name
        if value is not None:
            assert type(got.loss_) is type(expected.loss_)
            assert_near(name, getattr(got, name), value, bound)
    assert_near("predict", _numbers(got, X), _numbers(expected, X), bound)


def _numbers(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "classes_") else estimator.predict(X)


def fit_both(kind: str, X, y, fit_keywords=None, **keywords):
    expected, got = estimators(kind, **keywords)
    expected.fit(X, y, **(fit_keywords or {}))
    got.fit(X, y, **(fit_keywords or {}))
    return expected, got


# ---- results ----

SOLVERS = (
    {"solver": "adam"},
    {"solver": "sgd", "learning_rate_init": 0.05, "nesterovs_momentum": True},
    {"solver": "sgd", "learning_rate_init": 0.05, "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate_init": 0.05, "momentum": 0.0},
    {"solver": "lbfgs"},
)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda it: "-".join(map(str, it.values())))
@pytest.mark.parametrize("kind", KINDS)
def test_every_solver_on_every_kind_of_targets(kind, solver, dtype):
    X, y = data(kind, dtype=dtype)
    expected, got = fit_both(kind, X, y, batch_size=25, alpha=0.05, **solver)
    assert got.engine_ == "fastnn"
    assert_same(expected, got, X, BOUND[dtype])


@pytest.mark.parametrize("learning_rate", ["constant", "invscaling", "adaptive"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", ["multiclass", "values"])
def test_rates_and_stopping(kind, early_stopping, learning_rate):
    X, y = data(kind, rows=150)
    expected, got = fit_both(
        kind,
        X,
        y,
        solver="sgd",
        learning_rate=learning_rate,
        early_stopping=early_stopping,
        max_iter=60,
        tol=5e-2,
        n_iter_no_change=2,
    )
    assert expected.n_iter_ < 60 or learning_rate != "constant"
    assert_same(expected, got, X, 1e-7)  # for six times ten epochs
    assert got._optimizer.learning_rate == pytest.approx(expected._optimizer.learning_rate)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", ["csr", "csc"])
def test_sparse_rows(kind, format):
    X, y = data(kind, columns=12)
    X[np.abs(X) < 1] = 0
    X = getattr(scipy.sparse, f"{format}_matrix")(X)
    for solver in ("adam", "lbfgs"):
        expected, got = fit_both(kind, X, y, solver=solver)
        assert got.engine_ == "fastnn"
        assert_same(expected, got, X, 1e-8)


@needs_weights
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sample_weights(kind, early_stopping):
    X, y = data(kind)
    if kind == "binary":
        y = y == "yes"  # before 1.9 early stopping could not score strings
    weights = np.random.default_rng(0).uniform(0.0, 3.0, len(X))
    weights[::7] = 0
    for solver in ("adam", "sgd", "lbfgs"):
        expected, got = fit_both(
            kind,
            X,
            y,
            {"sample_weight": weights},
            solver=solver,
            early_stopping=early_stopping,
            batch_size=27,
        )
        assert_same(expected, got, X, 1e-8)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_unscaled_rows_whose_probabilities_are_clipped(kind, dtype):
    X, y = data(kind, dtype=dtype, scale=300.0)
    expected, got = fit_both(kind, X, y, max_iter=3, learning_rate_init=1e-4)
    limit = -np.log(np.finfo(dtype).eps)
    assert max(expected.loss_curve_) > 0.2 * limit, "no probability was clipped"
    assert_same(expected, got, X, BOUND[dtype])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 90, "auto"])
def test_batches(batch_size, shuffle):
    X, y = data("multiclass")
    expected, got = fit_both("multiclass", X, y, batch_size=batch_size, shuffle=shuffle)
    assert_same(expected, got, X, 1e-8)


def test_a_batch_larger_than_the_data_is_clipped_with_a_warning():
    X, y = data("values", rows=30)
    for estimator in estimators("values", batch_size=100, max_iter=1):
        with pytest.warns(UserWarning, match="It is going to be clipped"):
            estimator.fit(X, y)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_activations(activation):
    X, y = data("several values")
    expected, got = fit_both("several values", X, y, activation=activation, alpha=0.0)
    assert_same(expected, got, X, 1e-8)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 70),
    columns=st.integers(1, 20),
    hidden=st.lists(st.integers(1, 40), max_size=3),
    batch_size=st.integers(1, 40),
    solver=st.sampled_from(["adam", "sgd"]),
    seed=st.integers(0, 1000),
)
def test_shapes(rows, columns, hidden, batch_size, solver, seed):
    X, y = data("values", rows, columns if columns > 2 else 3)
    expected, got = (
        cls(
            hidden_layer_sizes=hidden,
            solver=solver,
            batch_size=min(batch_size, rows),
            max_iter=3,
            random_state=seed,
        )
        for cls in (theirs.MLPRegressor, ours.MLPRegressor)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert_same(expected.fit(X, y), got.fit(X, y), X, 1e-8)


# ---- going on ----


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_warm_start(solver):
    X, y = data("multiclass")
    both = estimators("multiclass", solver=solver, warm_start=True, max_iter=4)
    for estimator in both:
        for _ in range(3):
            estimator.fit(X, y)
    assert_same(*both, X, 1e-8)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("kind", KINDS)
def test_partial_fit_with_batches_of_several_sizes(kind, solver):
    X, y = data(kind)
    classes = {"binary": ["no", "yes"], "multiclass": range(10, 14), "multilabel": range(4)}
    keywords = {"classes": list(classes[kind])} if kind in classes else {}
    both = estimators(kind, solver=solver)
    for estimator in both:
        for begin, end in product((0, 5, 40), (60, 72, 61)):
            estimator.partial_fit(X[begin:end], y[begin:end], **keywords)
    assert_same(*both, X, 1e-8)
    for name in ("velocities",) if solver == "sgd" else ("ms", "vs"):
        pairs = zip(*(getattr(it._optimizer, name) for it in both), strict=True)
        for expected, got in pairs:
            assert_near(name, got, expected, 1e-7)


def test_weights_changed_between_calls_count():
    X, y = data("values")
    both = estimators("values")
    for estimator in both:
        estimator.partial_fit(X, y)
        estimator.coefs_[0] = np.asfortranarray(estimator.coefs_[0] * 2)
        estimator.intercepts_[1][:] = 0.5
        estimator.partial_fit(X, y).partial_fit(X, y)
    assert_same(*both, X, 1e-8)


def test_rows_of_another_dtype_than_the_weights():
    X, y = data("values")
    for first, second in (("float32", "float64"), ("float64", "float32")):
        both = estimators("values")
        for estimator in both:
            estimator.partial_fit(X.astype(first), y).partial_fit(X.astype(second), y)
        assert_same(*both, X.astype(second), 1e-3)


def test_float64_rows_beside_float32_weights_lose_what_float64_can_tell():
    X, y = data("binary")
    expected, got = estimators("binary", solver="sgd")
    for estimator in (expected, got):
        estimator.fit(X.astype("float32"), y)
        estimator.coefs_ = [50 * weight for weight in estimator.coefs_]
        estimator.partial_fit(X, y[::-1])
    assert expected.loss_ > -np.log(np.finfo("float32").eps)
    assert_same(expected, got, X, 1e-3)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("before, after", [(1, 3), (3, 1), (3, 2)])
def test_partial_fit_of_targets_of_another_width_ends_as_scikit_learns(solver, before, after):
    X, values = data("several values")
    y = {1: values[:, 0], 2: values[:, :2], 3: values[:, :3]}
    outcomes = []
    pair = estimators("several values", solver=solver)
    for estimator in pair:
        estimator.partial_fit(X, y[before])
        try:
            estimator.partial_fit(X, y[after])
            outcomes.append("trained")
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert "another network" in pair[1].engine_reason_
    for mine, other in zip(pair[1].coefs_, pair[0].coefs_, strict=True):
        assert_near("coefs_", mine, other, 1e-8)


def test_partial_fit_with_the_optimizer_of_another_network():
    X, y = data("several values")
    outcomes = []
    for estimator in estimators("several values", hidden_layer_sizes=(4,), solver="adam"):
        estimator.partial_fit(X, y)
        estimator.set_params(solver="lbfgs", hidden_layer_sizes=(7,)).fit(X, y)
        estimator.set_params(solver="adam")
        estimator.loss_curve_, estimator._no_improvement_count = [], 0
        with pytest.raises(ValueError) as raised:
            estimator.partial_fit(X, y)
        outcomes.append(str(raised.value))
    assert outcomes[0] == outcomes[1]
    assert "optimizer" in estimator.engine_reason_


@pytest.mark.parametrize("change", ["outputs", "hidden"])
def test_lbfgs_refuses_to_go_on_with_weights_of_another_network(change):
    """scikit-learn's own writes past the end of its arrays there."""
    X, y = data("several values")
    _, estimator = estimators("several values", solver="lbfgs", warm_start=True)
    estimator.fit(X, y)
    if change == "hidden":
        estimator.set_params(hidden_layer_sizes=(9, 6))
    with pytest.raises(ValueError, match=r"\[6, 9, 5, 4\] wide; expected \[6, 9,"):
        estimator.fit(X, y if change == "hidden" else y[:, :2])


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("layout", ["column", "reversed column", "reversed row"])
def test_rows_that_are_contiguous_with_odd_strides(layout, solver):
    table = data("values")[0]
    X = {
        "column": np.asfortranarray(table)[:, ::6].T[:1].T,
        "reversed column": np.ndarray((90, 1), buffer=table, strides=(8, 24)),
        "reversed row": table[:1][::-1],
    }[layout]
    assert X.flags.c_contiguous
    expected, got = (
        estimator.fit(X, X.sum(axis=1)) for estimator in estimators("values", solver=solver)
    )
    assert got.engine_ == "fastnn"
    assert_same(expected, got, X, BOUND["float64"])


@pytest.mark.parametrize("batch_size", ["auto", 7])
def test_the_loss_of_float32_data_is_of_scikit_learns_type(batch_size):
    X, y = data("values", dtype="float32")
    for extra in ({}, {"sample_weight": np.ones(len(y))} if TAKES_WEIGHTS else {}):
        expected, got = (
            estimator.fit(X, y.astype("float32"), **extra)
            for estimator in estimators("values", batch_size=batch_size)
        )
        assert type(got.loss_) is type(expected.loss_)


@needs_poisson
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # scikit-learn divides by nothing
@pytest.mark.parametrize("target", [0.0, 2.0])
def test_poisson_losses_of_outputs_whose_exponential_is_nothing(target):
    X = np.full((20, 1), 1e4)
    settings = {"solver": "sgd", "learning_rate_init": 1e-9, "max_iter": 3}
    expected, got = estimators("counts", hidden_layer_sizes=(), **settings)
    for estimator in (expected, got):
        estimator.fit(np.zeros((1, 1)), [0.0])
        estimator.coefs_ = [np.full((1, 1), -1.0)]
        estimator.set_params(warm_start=True).fit(X, np.full(20, target))
    assert not np.isfinite(expected.loss_curve_[3:]).any()
    np.testing.assert_array_equal(got.loss_curve_[3:], expected.loss_curve_[3:])


def test_the_loss_of_float32_rows_and_float64_weights_is_float64():
    X, y = data("values")
    expected, got = (
        estimator.fit(X, y).fit(X.astype("float32"), y.astype("float32"))
        for estimator in estimators("values", warm_start=True)
    )
    assert type(got.loss_) is type(expected.loss_)


def test_partial_fit_of_one_network_beside_another_of_its_shape():
    """Runs are shared by networks of one shape; weights and state are not."""
    X, y = data("values")
    expected = [estimators("values", random_state=seed)[0] for seed in range(3)]
    got = [estimators("values", random_state=seed)[1] for seed in range(3)]
    for estimator in expected + got:
        estimator.partial_fit(X[:30], y[:30])
    for group in (expected, got):
        for turn in range(4):
            for estimator in group:
                estimator.partial_fit(X[10 * turn :], y[10 * turn :])
    for one, other in zip(expected, got, strict=True):
        assert_same(one, other, X, 1e-8)


# ---- what does not go well ----


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_training_that_diverges_ends_as_scikit_learns():
    X, y = data("values", scale=1e100)
    for estimator in estimators("values", solver="sgd", learning_rate_init=1e50):
        with pytest.raises(ValueError, match="non-finite parameter weights"):
            estimator.fit(X, 1e200 * y)
    assert estimator.engine_ == "scikit-learn"
    assert "loss was" in estimator.engine_reason_
    estimator.set_params(dropout=0.5)  # which scikit-learn would drop
    with pytest.raises(ValueError, match=r"dropout=0\.5 needs fastnn's engine"):
        estimator.fit(X, 1e200 * y)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_lbfgs_on_values_whose_squares_overflow():
    X, y = data("values")
    expected, got = fit_both("values", X, 1e200 * y, solver="lbfgs", max_iter=3)
    assert_same(expected, got, X, 1e-8)
    assert not np.isfinite(expected.loss_)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scores_of_a_diverging_training_are_nan():
    X, y = data("values", rows=200)
    keywords = {"solver": "sgd", "learning_rate_init": 3.0, "activation": "identity"}
    endings = []
    for estimator in estimators("values", early_stopping=True, max_iter=30, **keywords):
        try:
            estimator.fit(X, y)
        except ValueError as error:  # before 1.6 they were refused
            endings.append(str(error))
        else:
            endings.append(np.isnan(estimator.validation_scores_).tolist())
            assert any(endings[-1])
    assert endings[0] == endings[1]


@pytest.mark.parametrize("name", ["numpy", "cupy"])
def test_another_backend(name, monkeypatch):
    X, y = data("multiclass")
    if name == "cupy":  # whether there is one or not
        monkeypatch.setattr("fastnn.backend._environment", "cupy")
        expected, got = fit_both("multiclass", X, y)
        assert got.engine_ == "scikit-learn"
        assert "cupy" in got.engine_reason_
    else:
        with fastnn.use_backend("numpy"):
            expected, got = fit_both("multiclass", X, y)
            assert got.engine_ == "fastnn"
            assert_same(expected, got, X[:3], 1e-8)
    assert_same(expected, got, X, 1e-8)


@needs_weights
def test_a_batch_without_weight_raises_as_scikit_learn_does():
    X, y = data("values")
    weights = np.ones(len(X))
    weights[40:60] = 0
    for estimator in estimators("values", batch_size=20, shuffle=False):
        with pytest.raises(ZeroDivisionError, match="sum to zero"):
            estimator.fit(X, y, sample_weight=weights)


def test_an_interrupt_keeps_the_weights(monkeypatch):
    X, y = data("values")
    expected, got = estimators("values")
    for estimator in (expected, got):
        count = estimator._update_no_improvement_count

        def interrupt(*arguments, estimator=estimator, count=count):
            count(*arguments)
            if estimator.n_iter_ == 4:
                raise KeyboardInterrupt

        estimator._update_no_improvement_count = interrupt
        with pytest.warns(UserWarning, match="Training interrupted by user"):
            estimator.fit(X, y)
    assert got.n_iter_ == 4
    assert_same(expected, got, X, 1e-8)


def test_verbose_prints_what_scikit_learn_prints():
    X, y = data("multiclass")
    printed = []
    for estimator in estimators(
        "multiclass", verbose=True, early_stopping=True, tol=0.5, n_iter_no_change=1, max_iter=30
    ):
        with redirect_stdout(io.StringIO()) as out:
            estimator.fit(X, y)
        printed.append(out.getvalue())
    assert printed[0] == printed[1]
    assert "Stopping" in printed[1]


# ---- predictions ----


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_of_few_and_many_rows(kind, dtype):
    X, y = data(kind, rows=600, dtype=dtype)
    expected, got = fit_both(kind, X, y, max_iter=2)
    got.coefs_, got.intercepts_ = expected.coefs_, expected.intercepts_
    for rows in (1, 2, 8, 9, 31, 33, 600):
        x = X[:rows]
        mine, other = got.predict(x), expected.predict(x)
        assert mine.dtype == other.dtype
        assert mine.shape == other.shape
        if hasattr(got, "classes_"):
            np.testing.assert_array_equal(mine, other)
            assert_near("log", got.predict_log_proba(x), expected.predict_log_proba(x), 1e-4)
        assert_near("numbers", _numbers(got, x), _numbers(expected, x), 30 * np.finfo(dtype).eps)
    wide = X.astype("float64" if dtype == "float32" else "float32")[:3]
    assert _numbers(got, wide).dtype == _numbers(expected, wide).dtype


def test_large_predictions_run_on_the_engine(monkeypatch):
    monkeypatch.setattr("fastnn.sklearn.predicting.LEAST_FLOPS", 0)
    for kind, dtype in product(KINDS, BOUND):
        X, y = data(kind, rows=1200, dtype=dtype)
        expected, got = fit_both(kind, X[:90], y[:90], max_iter=2)
        got.coefs_, got.intercepts_ = expected.coefs_, expected.intercepts_
        for x in (X, np.asfortranarray(X), X[::-1]):
            bound = 30 * np.finfo(dtype).eps
            assert_near("numbers", _numbers(got, x), _numbers(expected, x), bound)


def test_predictions_see_weights_that_were_replaced_or_changed():
    X, y = data("values")
    expected, got = fit_both("values", X, y, max_iter=2)
    for change in range(3):
        for estimator in (expected, got):
            estimator.predict(X[:1])
            if change == 0:
                estimator.coefs_[0] = estimator.coefs_[0] * 3
            elif change == 1:
                estimator.intercepts_[0][:] += 1
            else:
                estimator.coefs_ = [weight * 0.5 for weight in estimator.coefs_]
        assert_near("predict", got.predict(X[:1]), expected.predict(X[:1]), 1e-8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_refused(bad):
    X, y = data("binary")
    got = estimators("binary", max_iter=1)[1].fit(X, y)
    wrong = X[:1].copy()
    wrong[0, 2] = bad
    with pytest.raises(ValueError, match="contains"):
        got.predict(wrong)
    with pytest.raises(ValueError, match="features"):
        got.predict(X[:1, :4])


def test_predict_before_fit():
    with pytest.raises(ValueError, match="not fitted"):
        ours.MLPClassifier().predict(np.zeros((1, 3)))


# ---- copies and company ----


@pytest.mark.parametrize(
    "copied", [clone, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies(copied):
    X, y = data("multiclass")
    first = estimators("multiclass", dropout=0.25, class_weight="balanced", n_threads=1)[1]
    first.fit(X, y)
    first.predict_proba(X[:1])
    other = copied(first)
    assert other.get_params() == first.get_params()
    if hasattr(other, "coefs_"):
        np.testing.assert_array_equal(other.predict_proba(X), first.predict_proba(X))
        before = first.predict_proba(X)
        other.coefs_[0][:] = 0
        assert np.abs(other.predict_proba(X[:2]) - before[:2]).max() > 1e-3
        np.testing.assert_array_equal(first.predict_proba(X), before)
    else:
        other.fit(X, y)
        np.testing.assert_array_equal(other.coefs_[0], first.coefs_[0])


@pytest.mark.parametrize("solver", ["adamw", "lbfgs"])
def test_copies_made_amid_a_training_are_as_the_estimator_was(solver, monkeypatch):
    X, y = data("binary")
    held = {} if solver == "lbfgs" else {"validation_data": (X, y)}
    estimator = ours.MLPClassifier((4,), solver=solver, max_iter=2, random_state=0)
    copies = []

    def copied(self, *arguments):
        amid = [copy.deepcopy(self), pickle.loads(pickle.dumps(self)), clone(self)]
        copies.extend(amid)
        return method(self, *arguments)

    name = "_loss_grad_lbfgs" if solver == "lbfgs" else "_update_no_improvement_count"
    method = getattr(ours.MLPClassifier, name)
    monkeypatch.setattr(ours.MLPClassifier, name, copied)
    estimator.fit(X, y, **held)
    monkeypatch.undo()
    assert copies
    for it in (*copies, estimator):
        assert it.get_params() == estimator.get_params()
        assert it.solver == solver
        assert not {"_decoupled", "_validation_data", "_full_batch"} & set(vars(it))
    again = copies[0].fit(X, y)
    np.testing.assert_array_equal(again.coefs_[0], estimator.coefs_[0])


def test_an_extra_is_named_where_a_training_diverges():
    X, y = data("values")
    estimator = ours.MLPRegressor(activation="gelu", solver="sgd", learning_rate_init=1e200)
    with pytest.raises(
        ValueError, match=r"^activation='gelu' needs .* go on: the loss was (inf|nan)$"
    ):
        estimator.fit(X, y)


def test_an_estimator_pickled_without_the_extras_works():
    X, y = data("multiclass")
    got = estimators("multiclass")[1].fit(X, y)
    for name in ("dropout", "weight_decay", "class_weight", "n_threads", "progress"):
        del got.__dict__[name]
    restored = pickle.loads(pickle.dumps(got))
    restored.fit(X, y)
    assert restored.get_params()["dropout"] == 0.0
    np.testing.assert_array_equal(restored.coefs_[0], got.coefs_[0])


def test_fits_at_once_in_several_threads():
    X, y = data("multiclass", rows=200)
    alone = [estimators("multiclass", random_state=seed)[1].fit(X, y) for seed in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with ThreadPoolExecutor(4) as pool:
            together = list(
                pool.map(
                    lambda seed: estimators("multiclass", random_state=seed)[1].fit(X, y), range(8)
                )
            )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.coefs_[0], other.coefs_[0])


def test_threads_are_shared_by_what_works_at_once(monkeypatch):
    monkeypatch.setattr("fastnn.backend.get_num_threads", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")

    def at_once() -> int:
        with granted(None, 10**9) as most:
            return most

    with granted(None, 10**9) as alone, granted(None, 10**9) as nested:
        assert (alone, nested) == (6, 6)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(at_once).result() == 3
    with granted(None, 10) as small, granted(5, 10**9) as chosen:
        assert (small, chosen) == (1, 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert at_once() == 8


# ---- who trains ----


def test_the_engine_is_named(capsys, monkeypatch):
    X, y = data("values")
    got = estimators("values", max_iter=1)[1].fit(X, y)
    assert got.engine_ == "fastnn"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FASTNN_VERBOSE", "1")
    got.fit(X, y)
    assert "MLPRegressor: fastnn trains" in capsys.readouterr().err


def test_sparse_rows_that_scikit_learn_is_faster_on():
    X = scipy.sparse.random(400, 3000, 0.001, "csr", random_state=0)
    y = np.arange(400.0)
    expected, got = fit_both("values", X, y, hidden_layer_sizes=(64,), max_iter=1, solver="sgd")
    assert got.engine_ == "scikit-learn"
    assert "nonzero" in got.engine_reason_
    assert_same(expected, got, X, 1e-12)
    got.set_params(dropout=0.5).fit(X, y)  # which scikit-learn would drop
    assert got.engine_ == "fastnn"


def test_sparse_rows_that_do_not_fit(monkeypatch):
    monkeypatch.setattr("fastnn.sklearn.sparse.ALWAYS_FITS", 0)
    monkeypatch.setattr("fastnn.sklearn.sparse.available_bytes", lambda: 1000)
    X, y = data("values")
    X = scipy.sparse.csr_matrix(X)
    expected, got = fit_both("values", X, y)
    assert got.engine_ == "scikit-learn"
    assert "memory" in got.engine_reason_
    assert_same(expected, got, X, 1e-12)
    with pytest.raises(ValueError, match=r"dropout=0\.5 needs fastnn's engine"):
        got.set_params(dropout=0.5).fit(X, y)


# ---- extras ----


def test_extras_change_nothing_when_left_out():
    X, y = data("multiclass")
    plain = estimators("multiclass")[1].fit(X, y)
    named = estimators(
        "multiclass", dropout=0.0, class_weight=None, n_threads=1, weight_decay=0.5, progress=False
    )[1].fit(X, y)
    for one, other in zip(plain.coefs_, named.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_weights
def test_class_weight_is_a_weight_of_each_row():
    X, y = data("multiclass")
    weight = {10: 1.0, 11: 3.0, 12: 0.5, 13: 2.0}
    expected, _ = estimators("multiclass")
    expected.fit(X, y, sample_weight=np.array([weight[label] for label in y]))
    for class_weight in (weight, "balanced"):
        got = estimators("multiclass", class_weight=class_weight)[1].fit(X, y)
        if class_weight == "balanced":
            counts = {label: np.sum(y == label) for label in weight}
            rows = np.array([len(y) / (4 * counts[label]) for label in y])
            expected.fit(X, y, sample_weight=rows)
        assert_same(expected, got, X, 1e-8)
    with pytest.raises(ValueError, match="partial_fit cannot"):
        got.partial_fit(X, y)


def test_dropout_and_decay_change_the_training():
    X, y = data("multiclass")
    plain = estimators("multiclass", alpha=0.0)[1].fit(X, y)
    for keywords in (
        {"dropout": 0.4},
        {"dropout": [0.0, 0.3]},
        {"solver": "adamw", "weight_decay": 0.5},
        {"activation": "silu"},
    ):
        first, second = (
            estimators("multiclass", alpha=0.0)[1].set_params(**keywords).fit(X, y)
            for _ in range(2)
        )
        np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])
        assert np.abs(first.coefs_[0] - plain.coefs_[0]).max() > 1e-4
        one_by_one = np.concatenate([first.predict_proba(X[row : row + 1]) for row in range(90)])
        for x in (X, X.astype("float32"), scipy.sparse.csr_matrix(X)):
            assert_near("predict_proba", first.predict_proba(x), one_by_one, 1e-5)
        assert first.get_params()["solver"] == keywords.get("solver", "adam")


def test_a_decay_of_nothing_is_adam():
    X, y = data("multiclass")
    expected = estimators("multiclass", alpha=0.0)[0].fit(X, y)
    got = estimators("multiclass")[1].set_params(solver="adamw", weight_decay=0.0).fit(X, y)
    assert_same(expected, got, X, 1e-8)
    got.partial_fit(X, y)


def test_weight_decay_shrinks_weights_alone():
    """One step of one batch: weights are 1 - rate decay of what they were, less Adam's step."""
    X, y = data("values")
    keywords = {"alpha": 0.0, "max_iter": 1, "batch_size": 90, "learning_rate_init": 0.1}
    plain = estimators("values", **keywords)[1].fit(X, y)
    start = estimators("values", **keywords)[1]
    start.set_params(solver="adamw", weight_decay=0.3).fit(X, y)
    fresh = np.random.RandomState(3)
    for number, (one, other) in enumerate(zip(plain.coefs_, start.coefs_, strict=True)):
        inputs, outputs = one.shape
        bound = np.sqrt(6 / (inputs + outputs))
        first = fresh.uniform(-bound, bound, one.shape)
        fresh.uniform(-bound, bound, outputs)
        np.testing.assert_allclose(other, one - 0.03 * first, atol=1e-12, err_msg=str(number))
    for one, other in zip(plain.intercepts_, start.intercepts_, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["multiclass", "values"])
def test_validation_data(kind):
    X, y = data(kind, rows=160)
    train, held = (X[:100], y[:100]), (X[100:], y[100:])
    got = estimators(kind)[1].fit(*train, validation_data=held)
    plain = estimators(kind)[1].fit(*train)
    np.testing.assert_array_equal(got.coefs_[0], plain.coefs_[0])
    assert len(got.validation_loss_curve_) == 10
    error = {
        "multiclass": lambda: -np.log(got.predict_proba(X[100:])[np.arange(60), y[100:] - 10]),
        "values": lambda: 0.5 * (got.predict(X[100:]) - y[100:]) ** 2,
    }[kind]()
    assert got.validation_loss_curve_[-1] == pytest.approx(error.mean(), rel=1e-12)
    stopped = estimators(kind, early_stopping=True)[1].fit(*train, validation_data=held)
    assert len(stopped.validation_scores_) == 10
    assert not hasattr(stopped.fit(*train), "validation_loss_curve_")
    stopped.fit(*train, validation_data=held)
    assert stopped.best_validation_score_ == pytest.approx(stopped.score(*held), rel=1e-12)


@pytest.mark.parametrize(
    ("held", "error", "message"),
    [
        (3, TypeError, r"expected \(X, y\)"),
        ((np.zeros((4, 5)), np.full(4, 10)), ValueError, "5 columns; expected 6"),
        ((np.zeros((4, 6)), np.full(3, 10)), ValueError, "validation_data: "),
        ((np.zeros((4, 6)), np.full(4, 99)), ValueError, r"classes \[99\]"),
    ],
)
def test_validation_data_that_do_not_fit(held, error, message):
    X, y = data("multiclass")
    with pytest.raises(error, match=message):
        estimators("multiclass")[1].fit(X, y, validation_data=held)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": [0.1]}, "2 hidden layers"),
        ({"dropout": [0.1, 1.5]}, "from 0 to below 1"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"class_weight": "equal"}, "class_weight"),
        ({"n_threads": 0}, "n_threads"),
        ({"progress": "yes"}, "progress"),
        ({"solver": "newton"}, "solver"),
        ({"activation": "prelu"}, "activation"),
    ],
)
def test_extras_that_are_refused(keywords, message):
    X, y = data("multiclass")
    with pytest.raises(ValueError, match=message):
        estimators("multiclass")[1].set_params(**keywords).fit(X, y)


def test_extras_of_solvers_with_epochs():
    X, y = data("multiclass")
    got = estimators("multiclass", solver="lbfgs")[1]
    with pytest.raises(ValueError, match="validation_data are given, which needs a solver"):
        got.fit(X, y, validation_data=(X, y))
    with pytest.raises(ValueError, match=r"dropout is 0\.5, which needs a solver"):
        got.set_params(dropout=0.5).fit(X, y)


def test_progress_and_threads_give_the_same_bits(capsys):
    X, y = data("multiclass")
    plain = estimators("multiclass")[1].fit(X, y)
    shown = estimators("multiclass", progress=True, n_threads=2)[1].fit(X, y)
    np.testing.assert_array_equal(plain.coefs_[0], shown.coefs_[0])
    assert "update" in capsys.readouterr().err


def test_the_argument_for_weights_is_given_where_there_is_one():
    assert if_weighted(None) == ((None,) if TAKES_WEIGHTS else ())
