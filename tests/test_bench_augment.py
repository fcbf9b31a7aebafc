"""The benchmark of augmentation: it refuses NumPy code that does something else."""

import json

import numpy as np
import pytest

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import augment


@pytest.fixture
def little(monkeypatch):
    for name, value in {"QUICK_IMAGES": 300, "QUICK_ROUNDS": 1, "QUICK_PATIENCE": 0.0}.items():
        monkeypatch.setattr(augment, name, value)


def test_it_verifies_times_and_writes(little, tmp_path, monkeypatch, capsys):
    chosen = {name: augment.CASES[name] for name in ("crop", "noise")}
    monkeypatch.setattr(augment, "CASES", chosen | {"flip, crop, colours": augment.CASES["crop"]})
    augment.main(["--quick", "--out", str(tmp_path / "augment.json")])
    assert "noise" in capsys.readouterr().out
    results = json.loads((tmp_path / "augment.json").read_text())
    assert len(results["outcomes"]) == 6


def test_each_does_what_ours_does():
    augment.check(augment.images(300, "uint8"))
    augment.check(augment.images(300, "float32"))


def test_something_else_is_refused(monkeypatch):
    monkeypatch.setitem(augment.CASES, "flip", ([augment.augment.HorizontalFlip()], _nothing))
    with pytest.raises(AssertionError, match="flip: the mean of NumPy's images is 127"):
        augment.check(augment.images(300, "uint8"))


def _nothing(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros_like(x)
