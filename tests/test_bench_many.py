"""The benchmark of many networks: it refuses other bits, and judges by its targets."""

import pytest

pytest.importorskip("bench", reason="the benchmarks are in the checkout only")

from bench import many


@pytest.fixture
def little(monkeypatch):
    for name, value in {"EPOCHS": 2, "GROUP": 3, "SHARE_OF_SKLEARN": 2, "QUICK_NETWORKS": 6,
                        "QUICK_ROUNDS": 1, "QUICK_PATIENCE": 0.0}.items():  # fmt: skip
        monkeypatch.setattr(many, name, value)


def test_it_verifies_times_and_writes(little, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(many, "find_spec", lambda name: None)
    many.main(["--quick", "--out", str(tmp_path / "many.json")])
    assert "fit in turn" in capsys.readouterr().out
    assert (tmp_path / "many.json").exists()


def test_other_bits_than_those_of_fit_are_refused(little):
    models, expected = many.by_fit_many(3)(), many.by_fit(3)()
    many.check_bits(models, expected)
    models[1].arena.flat[0] += 1e-6
    with pytest.raises(AssertionError, match="network 1 does not have the bits of fit"):
        many.check_bits(models, expected)


def test_a_peer_that_learns_something_else_is_refused(little):
    peer = many.Contender("a peer", lambda count: lambda: float("nan"), lambda loss: loss)
    with pytest.raises(AssertionError, match="a peer ends at a loss of nan"):
        many.check([peer], 6)


def test_outcomes_are_medians_of_rounds_beside_targets():
    seconds = {
        "fit_many": [1.0, 2.0, 4.0],
        "fit in turn": [3.0, 4.0, 4.0],
        "JAX, 5": [1.0, 1.5, 2.0],
    }
    ours, in_turn, jax = many.outcomes_of(seconds)
    assert (ours.seconds, ours.ratio) == (2.0, 1.0)
    assert (in_turn.ratio, in_turn.target, in_turn.met) == (2.0, 1.8, True)
    assert (jax.ratio, jax.target, jax.met) == (0.75, 1.0, False)
