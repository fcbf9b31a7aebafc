"""The estimators among scikit-learn's tools: searches, pipelines, ensembles, copies, metadata."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from sklearn import neural_network
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import BaggingClassifier, StackingRegressor, VotingClassifier
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastnn.sklearn

X, LABELS = make_classification(150, 8, n_informative=5, n_classes=3, random_state=0)
XR, TARGETS = make_regression(120, 6, noise=0.1, random_state=0)
TARGETS /= TARGETS.std()
CLOSE = {"rtol": 1e-8, "atol": 1e-10}
"""What roundings of float64 come to in the few epochs here."""
SETTINGS = {"hidden_layer_sizes": (12,), "max_iter": 6, "batch_size": 16, "random_state": 3}
Make = Callable[..., Any]
TAKES_WEIGHTS = "sample_weight" in signature(neural_network.MLPClassifier.fit).parameters

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # of versions that are older than their SciPy
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),
]
in_parallel = pytest.mark.parametrize("backend", ["threading", "loky"])


def both(name: str, **settings: Any) -> list[Make]:
    """What makes scikit-learn's estimator, and what makes ours."""
    return [
        partial(getattr(home, name), **SETTINGS | settings)
        for home in (neural_network, fastnn.sklearn)
    ]


classifiers, regressors = both("MLPClassifier"), both("MLPRegressor")


# Searches


@in_parallel
def test_a_search_finds_the_same(backend: str) -> None:
    grid = {"alpha": [1e-4, 0.3], "solver": ["adam", "sgd", "lbfgs"]}
    theirs, ours = (GridSearchCV(make(), grid, cv=3, n_jobs=2) for make in classifiers)
    theirs.fit(X, LABELS)
    with joblib.parallel_backend(backend):
        ours.fit(X, LABELS)
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], **CLOSE)
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_estimator_.engine_ == "fastnn"
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@in_parallel
def test_cross_validation_scores_the_same(backend: str) -> None:
    theirs, ours = (make() for make in regressors)
    expected = cross_val_score(theirs, XR, TARGETS, cv=4)
    with joblib.parallel_backend(backend):
        scores = cross_val_score(ours, XR, TARGETS, cv=4, n_jobs=2)
    np.testing.assert_allclose(scores, expected, **CLOSE)


def test_cross_validated_probabilities() -> None:
    theirs, ours = (
        cross_val_predict(make(), X, LABELS, cv=3, method="predict_proba") for make in classifiers
    )
    np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_estimators_train_at_once_in_threads() -> None:
    """Each as if it were alone, whatever the others do."""
    seeds = range(6)
    alone = [classifiers[1](random_state=seed).fit(X, LABELS) for seed in seeds]
    together = [classifiers[1](random_state=seed) for seed in seeds]
    threads = [threading.Thread(target=one.fit, args=(X, LABELS)) for one in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(together, alone, strict=True):
        for found, expected in zip(one.coefs_, other.coefs_, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_one_estimator_predicts_at_once_in_threads() -> None:
    fitted = classifiers[1]().fit(X, LABELS)
    expected = fitted.predict_proba(X)
    found = joblib.Parallel(4, backend="threading")(
        joblib.delayed(lambda row: fitted.predict_proba(X[row : row + 1]))(row)
        for row in range(len(X))
    )
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-12)


def test_one_training_after_another_leaves_the_callers_arrays() -> None:
    weights = np.linspace(0.5, 1.5, len(XR))
    arguments = [XR, TARGETS, weights][: 3 if TAKES_WEIGHTS else 2]
    kept = [array.copy() for array in arguments]
    first = regressors[1]().fit(*arguments)
    regressors[1]().fit(XR[::-1].copy(), -2 * TARGETS, *arguments[2:])
    again = regressors[1]().fit(*arguments)
    for array, copied in zip(arguments, kept, strict=True):
        np.testing.assert_array_equal(array, copied)
    np.testing.assert_array_equal(again.predict(XR), first.predict(XR))


# Parts of something larger


def in_pipeline(make: Make) -> Any:
    return make_pipeline(StandardScaler(), make())


def in_vote(make: Make) -> Any:
    members = [(f"net{seed}", make(random_state=seed)) for seed in range(2)]
    return VotingClassifier(members, voting="soft")


def in_bag(make: Make) -> Any:
    return BaggingClassifier(make(), n_estimators=3, random_state=0)


def in_stack(make: Make) -> Any:
    return StackingRegressor([("net", make())], final_estimator=Ridge(), cv=3)


def in_columns(make: Make) -> Any:
    return MultiOutputRegressor(make())


@pytest.mark.parametrize("compose", [in_pipeline, in_vote, in_bag])
def test_classifies_within(compose: Callable[[Make], Any]) -> None:
    theirs, ours = (compose(make).fit(X, LABELS) for make in classifiers)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), **CLOSE)


@pytest.mark.parametrize("compose", [in_pipeline, in_stack, in_columns])
def test_regresses_within(compose: Callable[[Make], Any]) -> None:
    targets = np.stack([TARGETS, -TARGETS], 1) if compose is in_columns else TARGETS
    theirs, ours = (compose(make).fit(XR, targets) for make in regressors)
    np.testing.assert_allclose(ours.predict(XR), theirs.predict(XR), **CLOSE)


def test_scikit_learn_knows_what_they_are() -> None:
    assert is_classifier(fastnn.sklearn.MLPClassifier())
    assert is_regressor(fastnn.sklearn.MLPRegressor())
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (getattr(home, name) for home in (neural_network, fastnn.sklearn))
        shared = list(signature(theirs).parameters)
        assert list(signature(ours).parameters)[: len(shared)] == shared
        assert {key: value for key, value in ours().get_params().items() if key in shared} == (
            theirs().get_params()
        )


# Copies


def through_joblib(estimator: Any, folder: Any) -> Any:
    joblib.dump(estimator, folder / "estimator.joblib")
    return joblib.load(folder / "estimator.joblib")


COPIES = {
    "pickle": lambda estimator, folder: pickle.loads(pickle.dumps(estimator)),
    "joblib": through_joblib,
    "deepcopy": lambda estimator, folder: copy.deepcopy(estimator),
    "copy": lambda estimator, folder: copy.copy(estimator),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_predicts_and_trains_on(way: str, tmp_path: Any) -> None:
    original = classifiers[1](warm_start=True).fit(X, LABELS)
    original.predict(X[:1])  # whatever is kept for quick predictions is copied or left behind
    copied = COPIES[way](original, tmp_path)
    assert (copied.engine_, copied.engine_reason_) == (original.engine_, original.engine_reason_)
    np.testing.assert_array_equal(copied.predict_proba(X), original.predict_proba(X))
    if way == "copy":
        return  # shares the weights
    before = original.predict_proba(X)
    copied.partial_fit(X, LABELS)
    np.testing.assert_array_equal(original.predict_proba(X), before)
    original.partial_fit(X, LABELS)
    np.testing.assert_allclose(copied.predict_proba(X), original.predict_proba(X), rtol=1e-12)


def test_a_clone_is_unfitted_and_trains_the_same() -> None:
    original = classifiers[1](alpha=0.1).fit(X, LABELS)
    copied = clone(original)
    assert not hasattr(copied, "coefs_") and not hasattr(copied, "engine_")
    assert copied.get_params() == original.get_params()
    np.testing.assert_array_equal(copied.fit(X, LABELS).predict_proba(X), original.predict_proba(X))


# Metadata


@pytest.mark.skipif(not TAKES_WEIGHTS, reason="this scikit-learn's have no sample weights")
def test_weights_are_routed_through_a_search() -> None:
    weights = np.random.default_rng(0).uniform(0.1, 3, len(X))
    scores = []
    with sklearn.config_context(enable_metadata_routing=True):
        for make in classifiers:
            net = make().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            search = GridSearchCV(net, {"alpha": [1e-4]}, cv=3)
            search.fit(X, LABELS, sample_weight=weights)
            scores.append(search.cv_results_["mean_test_score"])
    np.testing.assert_allclose(*scores, **CLOSE)
