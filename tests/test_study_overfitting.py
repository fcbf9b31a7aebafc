"""The study of overfitting: small networks underfit, large ones learn by heart, remedies help."""

from __future__ import annotations

import numpy as np
import pytest
from study_tables import texts

import fastnn
from fastnn.studies import overfitting, samples
from fastnn.studies.overfitting import experiment
from fastnn.words import Words

SMALL = {"seed": 2, "draws": 2, "widths": [1, 128], "epochs": 100}


@pytest.fixture(scope="module")
def found() -> overfitting.Overfitting:
    return overfitting.study(**SMALL)


def test_small_networks_underfit(found: overfitting.Overfitting) -> None:
    assert found.underfits.tolist() == [True, False]
    # even where it is left to train on, one unit cannot tell ten classes apart
    assert found.final_training_loss[0] > 1.0
    assert found.validation_accuracy[0].max() < 0.5


def test_large_networks_learn_wrong_labels_by_heart(found: overfitting.Overfitting) -> None:
    assert found.overfits.tolist() == [False, True]
    assert found.final_training_loss[-1] < 0.1
    for loss in found.validation_loss[-1]:
        best = loss.argmin()
        assert 0 < best < 50 and loss[-1] > 1.1 * loss[best]


def test_curves_are_those_of_the_epochs(found: overfitting.Overfitting) -> None:
    table = found.tables()["curves"]
    columns = ("hidden units", "draw", "epoch", "validation loss")
    rows = list(zip(*(table[name] for name in columns), strict=True))
    assert len(rows) == 2 * 2 * 100
    assert [row[:3] for row in rows] == [
        (width, draw, epoch) for width in (1, 128) for draw in (0, 1) for epoch in range(1, 101)
    ]
    last = [row[3] for row in rows if row[0] == 128 and row[2] == 100]
    assert found.final_loss[-1] == pytest.approx(np.mean(last), rel=1e-12)
    assert found.remedy_loss[0] == pytest.approx(last, rel=1e-6)


def test_remedies_are_compared_over_draws(found: overfitting.Overfitting) -> None:
    table = found.summary()
    assert table["remedy"] == [remedy.name for remedy in experiment.REMEDIES]
    losses = dict(zip(table["remedy"], table["validation loss"], strict=True))
    assert losses["early stopping"] < losses["none"]
    assert losses["all together"] < losses["none"]
    first, second = found.remedy_loss[1]
    assert table["spread of loss"][1] == pytest.approx(abs(first - second) / np.sqrt(2))
    # early stopping gives back the best epoch of the network that nothing is done for
    least = found.validation_loss[-1].min(axis=1)
    assert found.remedy_loss[1] == pytest.approx(least, rel=1e-6)
    assert table["note"].count("chosen") == 1
    assert losses[table["remedy"][table["note"].index("chosen")]] == min(losses.values())


def test_the_seed_repeats_all_and_the_test_rows_are_used_once(
    found: overfitting.Overfitting, monkeypatch
) -> None:
    parts = samples.parts_of(None, SMALL["seed"])
    seen: list[bool] = []
    measure = fastnn.Sequential.evaluate

    def watched(self, X, y, **keywords):
        seen.append(np.shares_memory(X, parts.test[0]))
        return measure(self, X, y, **keywords)

    monkeypatch.setattr(fastnn.Sequential, "evaluate", watched)
    again = overfitting.study(parts, **SMALL)
    assert seen[-1] and sum(seen) == 1
    assert texts(again) == texts(found)
    assert again.findings() == found.findings()


# The draws


def test_draws_are_small_and_their_labels_partly_wrong() -> None:
    parts = samples.parts_of(None, 0)
    truth = {row.tobytes(): label for row, label in zip(*parts.train, strict=True)}
    draws = list(experiment.draw_rows(parts, 150, 0.2, 3, seed=1))
    assert len({draw.seed for draw in draws}) == 3
    for draw in draws:
        X, y = draw.parts.train
        assert len(X) == 150 and set(y) == set(range(10))
        assert sum(truth[row.tobytes()] != label for row, label in zip(X, y, strict=True)) == 30
        watched, labels = draw.parts.validation
        assert len(watched) == len(labels) == 800
        own = {row.tobytes() for row in X}
        assert own.isdisjoint(row.tobytes() for row in watched)
        assert draw.parts.test is parts.test


def test_small_data_give_half_of_their_rows() -> None:
    parts = samples.parts_of((np.random.default_rng(0).random((60, 3)), np.arange(60) % 2), 0)
    (draw,) = experiment.draw_rows(parts, 200, 0.0, 1, seed=0)
    assert len(draw.parts.train[0]) == 21 and len(parts.train[0]) == 42


def test_augmentation_is_for_images() -> None:
    X, y = fastnn.data.digits()
    found = overfitting.study((X[:, 20:40], y), rows=40, draws=2, widths=[8], epochs=2, wrong=0.0)
    notes = dict(zip(found.summary()["remedy"], found.summary()["note"], strict=True))
    assert notes["augmentation"] == "left out: rows of 20 values are no images of a known size"
    assert "without augmentation" in notes["all together"]
    assert np.isnan(found.summary()["validation loss"][4])
    assert len(found.remedies) == len(experiment.REMEDIES) - 1
    assert not any("on purpose" in finding for finding in found.findings())


@pytest.mark.parametrize(
    "sizes", [{"draws": 1}, {"wrong": 1.0}, {"widths": [8, 4]}, {"widths": [0, 4]}]
)
def test_sizes_that_do_not_fit(sizes: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(sizes))):
        overfitting.study(**sizes)


# The figures


def test_figures(found: overfitting.Overfitting, language: str) -> None:
    say, drawn = Words(language), found.plot(language)
    assert list(drawn) == ["epochs", "sizes", "remedies"]
    best = 1 + found.validation_loss[:, 0].argmin(axis=1)
    labels = [axis.get_legend().get_texts()[0].get_text() for axis in drawn["epochs"].axes]
    assert labels == [say("best epoch: {epoch}", epoch=epoch) for epoch in best]
    loss = drawn["sizes"].axes[0].get_lines()[0]
    assert loss.get_ydata() == pytest.approx(found.final_training_loss)
