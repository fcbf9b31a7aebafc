"""Networks of other libraries, lifted and handed back: the same outputs, or a clear refusal."""

from __future__ import annotations

import itertools
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference
from checks import Bound, assert_close
from hypothesis import given
from hypothesis import strategies as st

import fastnn

neural_network = pytest.importorskip("sklearn.neural_network")

DTYPES = ("float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def near(dtype, expected, roundings=100):
    """The bound of a small network's rounding: its outputs are of the size of one."""
    limit = roundings * float(np.finfo(dtype).eps) * (1 + np.abs(expected).max())
    return Bound(limit, limit)


# ---- arrays ----


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.sampled_from(DTYPES),
    st.sampled_from(["relu", "tanh", "elu", "silu", "identity"]),
    st.sampled_from(["softmax", "sigmoid", "identity"]),
    st.booleans(),
)
def test_from_numpy(widths, dtype, hidden, last, has_bias):
    shapes = list(itertools.pairwise(widths))
    weights = [
        (normal(s, dtype, n), normal(s[1], dtype, 9 + n) if has_bias else None)
        for n, s in enumerate(shapes)
    ]
    names = [hidden] * (len(shapes) - 1) + [last]
    model = fastnn.from_numpy(weights, activations=names)
    assert model.dtype == dtype
    x = normal((5, widths[0]), dtype, 20)
    expected = x.astype(np.float64)
    for (weight, bias), name in zip(weights, names, strict=True):
        sums = reference.matmul(expected, weight) + (0 if bias is None else bias)
        expected = (
            reference.softmax(sums) if name == "softmax" else reference.activation(name, sums)
        )
    size = np.prod([1 + np.abs(weight).sum(axis=0).max() for weight, _ in weights])
    assert_close(model.predict(x), expected, near(dtype, size))
    again, found = model.to_numpy()
    assert found == names
    for (weight, bias), (W, b) in zip(weights, again, strict=True):
        np.testing.assert_array_equal(W, weight)
        assert (b is None) == (bias is None)
        assert b is None or (b == bias).all()


def test_arrays_are_copied_either_way():
    weight = np.ones((2, 1))
    model = fastnn.from_numpy([(weight, None)], ["identity"])
    weight[:] = 5.0
    (copied, _), *_ = model.to_numpy()[0]
    copied[:] = 6.0
    np.testing.assert_array_equal(model[0].weight, 1.0)


def test_dtype_of_mixed_and_other_arrays():
    single, double = np.ones((2, 2), "f4"), np.ones((2, 2))
    both = [(single, None), (double, None)]
    assert fastnn.from_numpy(both, ["relu", "relu"]).dtype == "float64"
    assert fastnn.from_numpy(both, ["relu", "relu"], dtype="float32").dtype == "float32"
    assert fastnn.from_numpy([([[1, 2]], [3, 4])], ["identity"]).dtype == "float32"
    for wide in (">f8", np.longdouble):
        assert fastnn.from_numpy([(double.astype(wide), None)], ["relu"]).dtype == "float64"


def test_an_activation_with_settings_and_what_is_left_out():
    model = fastnn.from_numpy([(-np.ones((1, 1)), None)], [fastnn.LeakyReLU(0.25)])
    assert model.predict([[4.0]]) == -1.0
    model = fastnn.Sequential(
        fastnn.Flatten(), fastnn.Linear(2, 2), fastnn.Dropout(), fastnn.Tanh()
    )
    assert model.to_numpy()[1] == ["tanh"]


def test_a_lifted_network_is_trained_on():
    X, y = fastnn.data.digits()
    rng = np.random.default_rng(0)
    weights = [(rng.normal(0, 0.1, (64, 32)), np.zeros(32)), (rng.normal(0, 0.1, (32, 10)), None)]
    model = fastnn.from_numpy(weights, ["relu", "softmax"])
    before = model.evaluate(X, y)
    model.fit(X, y, epochs=5)
    assert model.evaluate(X, y)["loss"] < 0.5 * before["loss"]


TWO = np.ones((2, 2))
PAIR = (TWO, None)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fastnn.from_numpy([], []), ValueError, "weights is empty"),
        (lambda: fastnn.from_numpy(None, ["relu"]), TypeError, "weights is None; expected a list"),
        (lambda: fastnn.from_numpy([TWO], ["relu"]), TypeError, r"weights\[0\] is a ndarray"),
        (lambda: fastnn.from_numpy([PAIR], "relu"), TypeError, "activations is 'relu'; expected"),
        (lambda: fastnn.from_numpy([PAIR] * 2, ["relu"]), ValueError, "1 entries; expected 2"),
        (lambda: fastnn.from_numpy([PAIR], ["rleu"]), ValueError, "did you mean 'relu'"),
        (
            lambda: fastnn.from_numpy([PAIR], [fastnn.Dropout()]),
            TypeError,
            r"activations\[0\] is Dropout.*expected an activation",
        ),
        (
            lambda: fastnn.from_numpy([PAIR, (np.ones((3, 1)), None)], ["relu", "relu"]),
            ValueError,
            r"weights\[1\] takes 3 inputs; the one before gives 2",
        ),
        (
            lambda: fastnn.from_numpy([(TWO, np.ones(3))], ["relu"]),
            ValueError,
            r"weights\[0\]\[1\] must hold numbers of shape \(2,\)",
        ),
        (lambda: fastnn.from_numpy([(TWO * np.nan, None)], ["relu"]), ValueError, "NaN or inf"),
        (lambda: fastnn.from_numpy([(TWO[0], None)], ["relu"]), ValueError, "2 dimensions"),
        (lambda: fastnn.from_numpy([(TWO[:0], None)], ["relu"]), ValueError, "one input"),
        (
            lambda: fastnn.Sequential(fastnn.Linear(2, 2), fastnn.BatchNorm1d(2)).to_numpy(),
            ValueError,
            "does not cover layer 1, BatchNorm1d",
        ),
        (
            lambda: fastnn.Sequential(fastnn.Linear(2, 2), fastnn.LeakyReLU(0.2)).to_numpy(),
            ValueError,
            r"does not cover layer 1, LeakyReLU\(negative_slope=0.2\): no name",
        ),
        (
            lambda: fastnn.Sequential(fastnn.Linear(2, 2), fastnn.PReLU()).to_numpy(),
            ValueError,
            "does not cover layer 1, PReLU",
        ),
        (
            lambda: fastnn.Sequential(fastnn.Linear(2, 2), fastnn.ReLU(), fastnn.Tanh()).to_numpy(),
            ValueError,
            "does not cover layer 2, Tanh",
        ),
        (lambda: fastnn.Sequential(fastnn.ReLU()).to_numpy(), ValueError, "layer 0, ReLU"),
        (lambda: fastnn.Sequential(fastnn.Dropout()).to_numpy(), ValueError, "no Linear"),
    ],
)
def test_what_arrays_do_not_cover(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- scikit-learn ----


def data(kind, dtype):
    """Rows, and targets of a kind."""
    X = normal((60, 4), dtype)
    scores = X @ normal((4, 3), dtype, 1)
    targets = {
        "binary": np.where(scores[:, 0] > 0, "yes", "no"),
        "classes": scores.argmax(axis=1) * 2 + 1,
        "labels": (scores > 0).astype(int),
        "value": scores[:, 0],
        "values": scores,
        "counts": np.floor(np.exp(scores[:, 0])),
    }
    return X, targets[kind]


def fitted(kind, dtype, **settings):
    X, y = data(kind, dtype)
    settings = {"max_iter": 4, "random_state": 0, "hidden_layer_sizes": (6, 5)} | settings
    if kind in ("binary", "classes", "labels"):
        mlp = neural_network.MLPClassifier(**settings)
    else:
        mlp = neural_network.MLPRegressor(**settings)
    classes = range(y.shape[1]) if kind == "labels" else np.unique(y)
    return mlp.partial_fit(X, y, **({"classes": classes} if is_classifier(mlp) else {})), X, y


def is_classifier(mlp):
    return isinstance(mlp, neural_network.MLPClassifier)


KINDS = ["binary", "classes", "labels", "value", "values"]


@every_dtype
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_from_sklearn_and_back(kind, activation, dtype):
    mlp, X, _ = fitted(kind, dtype, activation=activation)
    model = fastnn.from_sklearn(mlp)
    assert model.dtype == dtype
    if is_classifier(mlp):
        expected = mlp.predict_proba(X)
        assert_close(model.predict_proba(X), expected, near(dtype, expected))
        assert model.classes == [str(name) for name in mlp.classes_]
    else:
        expected = mlp.predict(X).reshape(len(X), -1)
        assert_close(model.predict(X), expected, near(dtype, expected))
    again = model.to_sklearn()
    assert type(again) is type(mlp)
    outputs = "predict_proba" if is_classifier(mlp) else "predict"
    expected = getattr(mlp, outputs)(X)
    assert_close(getattr(again, outputs)(X), expected, near(dtype, expected))
    if is_classifier(mlp):
        np.testing.assert_array_equal(again.predict(X), mlp.predict(X))


def test_an_estimator_of_fastnn_with_an_activation_of_its_own():
    from fastnn.sklearn import MLPRegressor

    X, y = data("value", "float64")
    mlp = MLPRegressor(activation="elu", random_state=0)
    mlp.partial_fit(X, y)
    expected = mlp.predict(X)[:, None]
    assert_close(fastnn.from_sklearn(mlp).predict(X), expected, near("float64", expected))


@pytest.mark.parametrize("kind", KINDS)
def test_what_to_sklearn_gives_is_an_estimator_like_any(kind):
    mlp, X, y = fitted(kind, "float64")
    again = fastnn.from_sklearn(mlp).to_sklearn()
    copy = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(copy.predict(X), again.predict(X))
    before = copy.score(X, y)
    for _ in range(200):
        copy.partial_fit(X, y)
    assert copy.score(X, y) > before
    assert copy.t_ == 200 * len(X) and len(copy.loss_curve_) == 200


def test_the_means_of_counts():
    settings = {"loss": "poisson"}
    if "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("this scikit-learn has no Poisson loss")
    mlp, X, _ = fitted("counts", "float64", **settings)
    model = fastnn.from_sklearn(mlp)
    expected = mlp.predict(X)[:, None]
    assert_close(model.predict(X), expected, near("float64", expected))
    with pytest.raises(ValueError, match=r"does not cover layer 5, Activation\('exp'\)"):
        model.to_sklearn()


def test_a_trained_network_as_an_estimator():
    X, y = data("classes", "float32")
    model = fastnn.Sequential(
        fastnn.Linear(4, 8), fastnn.ReLU(), fastnn.Dropout(0.1), fastnn.Linear(8, 3, bias=False)
    )
    model.fit(X, y // 2, epochs=3)
    model.classes = ["a", "b", "c"]
    expected = model.predict_proba(X)
    mlp = model.to_sklearn()
    assert_close(mlp.predict_proba(X), expected, near("float32", expected))
    names = np.array(model.classes)[expected.argmax(axis=1)]
    np.testing.assert_array_equal(mlp.predict(X), names)


@pytest.mark.parametrize("classes", [[-1, 0, 1], ["01", "02"], ["10", "9"], ["a", "b", "c"]])
def test_classes_come_back(classes):
    """Also those that are, or look like, numbers: so that labels are what they were."""
    X, y = normal((6, 2)), np.resize(classes, 6)
    mlp = neural_network.MLPClassifier(3).partial_fit(X, y, classes=classes)
    again = fastnn.from_sklearn(mlp).to_sklearn()
    assert again.classes_.tolist() == classes
    assert again.score(X, mlp.predict(X)) == 1.0


def test_two_softmax_outputs_are_one_logistic():
    model = fastnn.Sequential(fastnn.Linear(3, 2), fastnn.Softmax(), dtype="float64")
    X = normal((9, 3))
    expected = model.predict_proba(X)
    assert_close(model.to_sklearn().predict_proba(X), expected, near("float64", expected))


def network(*layers, classes=None):
    model = fastnn.Sequential(*layers)
    model.classes = classes
    return model


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: fastnn.from_sklearn(neural_network.MLPClassifier()),
            ValueError,
            "mlp is MLPClassifier.*not fitted",
        ),
        (lambda: fastnn.from_sklearn("mlp"), TypeError, "mlp is a str; expected a fitted MLP"),
        (
            lambda: network(
                fastnn.Linear(2, 2), fastnn.ReLU(), fastnn.Linear(2, 2), fastnn.Tanh(),
                fastnn.Linear(2, 1),
            ).to_sklearn(),
            ValueError,
            "hidden activations relu, tanh: scikit-learn has one for all",
        ),
        (
            lambda: network(fastnn.Linear(2, 2), fastnn.ELU(), fastnn.Linear(2, 1)).to_sklearn(),
            ValueError,
            "hidden activations elu",
        ),
        (
            lambda: network(fastnn.Linear(2, 2), fastnn.ReLU()).to_sklearn(),
            ValueError,
            "last activation, relu",
        ),
        (
            lambda: network(fastnn.Linear(2, 1), fastnn.Sigmoid(), classes=["a"]).to_sklearn(),
            ValueError,
            "expected 2 names",
        ),
        (
            lambda: network(
                fastnn.Linear(2, 3), fastnn.Softmax(), classes=["b", "a", "c"]
            ).to_sklearn(),
            ValueError,
            "different ones, in their order",
        ),
    ],
)  # fmt: skip
def test_what_scikit_learn_has_not(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- PyTorch ----


class Tensor:
    """What is read of a tensor."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.dtype = f"torch.{self.values.dtype}"

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> np.ndarray:
        return self.values


OWN = {"__module__": "torch.nn.modules.some"}
HOOKS: dict[str, Any] = {"_forward_hooks": {}, "_forward_pre_hooks": {}}


def module(kind: str, **attributes: Any) -> Any:
    """What is read of a module of PyTorch's class of this name."""
    return type(kind, (SimpleNamespace,), OWN)(**HOOKS | {"training": True} | attributes)


def sequential(*modules: Any, **attributes: Any) -> Any:
    kind = type("Sequential", (tuple,), OWN | HOOKS | {"training": False} | attributes)
    return kind(modules)


def linear(inputs, outputs, dtype="float32", bias=True):
    return module(
        "Linear", in_features=inputs, out_features=outputs,
        weight=Tensor(normal((outputs, inputs), dtype)),
        bias=Tensor(normal(outputs, dtype, 1)) if bias else None,
    )  # fmt: skip


def batch_norm(width, **changed):
    settings = {"eps": 1e-3, "momentum": 0.2, "affine": True, "track_running_stats": True}
    tensors = {
        name: Tensor(normal(width, "float32", seed) ** 2 + 0.5)
        for seed, name in enumerate(("weight", "bias", "running_mean", "running_var"))
    }
    return module("BatchNorm1d", num_features=width, **{**settings, **tensors, **changed})


@every_dtype
def test_linear_layers_are_turned_round(dtype):
    part = linear(3, 2, dtype)
    model = fastnn.from_torch(sequential(part, sequential(module("ReLU"), linear(2, 2, dtype))))
    assert model.dtype == dtype and not model.training and len(model) == 3
    np.testing.assert_array_equal(model[0].weight, part.weight.values.T)
    np.testing.assert_array_equal(model[0].bias, part.bias.values)
    part.weight.values[:] = 0.0
    assert (model[0].weight != 0.0).all()


def test_settings_and_statistics_come_along():
    model = fastnn.from_torch(
        sequential(
            module("Flatten", start_dim=1, end_dim=-1),
            linear(3, 4, bias=False),
            batch_norm(4),
            module("LeakyReLU", negative_slope=0.3),
            module("PReLU", num_parameters=4, weight=Tensor(normal(4, "float32"))),
            module("ELU", alpha=0.5),
            module("GELU", approximate="tanh"),
            module("Softplus", beta=2.0, threshold=10.0),
            module("Dropout", p=0.25),
            module("Softmax", dim=-1),
            training=True,
        )
    )
    assert model.training
    norm, leaky, slopes, elu, gelu, softplus, dropout = model.layers[2:9]
    assert not model[1].has_bias and (norm.eps, norm.momentum) == (1e-3, 0.2)
    np.testing.assert_array_equal(norm.running_var, normal(4, "float32", 3) ** 2 + 0.5)
    np.testing.assert_array_equal(slopes.slope, normal(4, "float32"))
    assert leaky.arguments() == {"negative_slope": 0.3} and elu.arguments() == {"alpha": 0.5}
    assert gelu.approximate == "tanh" and softplus.arguments() == {"beta": 2.0, "threshold": 10.0}
    assert dropout.p == 0.25 and isinstance(model[9], fastnn.Softmax)


@pytest.mark.parametrize(
    "part, error, message",
    [
        (module("Conv2d"), ValueError, "layer 1.0, .*: unknown kind of layer 'Conv2d'"),
        (module("Relu"), ValueError, "did you mean 'ReLU'"),
        (module("Softmax", dim=0), ValueError, "layer 1.0, .*dim=0"),
        (module("Flatten", start_dim=0, end_dim=-1), ValueError, "start_dim=0"),
        (module("Dropout", p=1.0), ValueError, "p must be below 1"),
        (batch_norm(2, affine=False), ValueError, "affine=False"),
        (batch_norm(2, track_running_stats=False), ValueError, "track_running_stats=False"),
        (batch_norm(2, momentum=None), ValueError, "momentum=None"),
        (linear(2, 2, "float16"), TypeError, "its weight is float16; expected float32 or float64"),
        (module("Tanh", _forward_hooks={0: print}), ValueError, "layer 1.0, .*forward hooks"),
        (sequential(_forward_pre_hooks={0: print}), ValueError, "layer 1.0, .*forward hooks"),
        (type("Tanh", (), {"__module__": "mine"})(), ValueError, "kind of layer 'mine.Tanh'"),
    ],
)
def test_what_from_torch_does_not_cover(part, error, message):
    with pytest.raises(error, match=f"from_torch does not cover .*{message}"):
        fastnn.from_torch(sequential(linear(2, 2), sequential(part)))


SHARED = linear(2, 2)


@pytest.mark.parametrize(
    "whole, error, message",
    [
        (sequential(), ValueError, "module has no layers"),
        (sequential(linear(2, 2), linear(2, 2, "float64")), ValueError, "float32 and float64"),
        (sequential(linear(2, 3), linear(2, 2)), ValueError, "layer 1: .*takes 2 inputs, got 3"),
        (
            "a text",
            ValueError,
            "does not cover module, 'a text': unknown kind of layer 'builtins.str'",
        ),
        (sequential(SHARED, module("ReLU"), SHARED), ValueError, "layers 0 and 2, which are one"),
    ],
)
def test_wholes_that_from_torch_refuses(whole, error, message):
    with pytest.raises(error, match=message):
        fastnn.from_torch(whole)


@every_dtype
@pytest.mark.parametrize("training", [False, True])
def test_a_network_of_torch_itself(training, dtype):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 9), nn.BatchNorm1d(9), nn.PReLU(9),
        nn.Sequential(nn.Linear(9, 8, bias=False), nn.LeakyReLU(0.3), nn.Identity()),
        nn.Linear(8, 8), nn.ELU(0.7), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8),
        nn.GELU(approximate="tanh"), nn.Linear(8, 8), nn.SELU(), nn.SiLU(), nn.Tanh(),
        nn.Sigmoid(), nn.Softplus(2.0), nn.PReLU(), nn.Dropout(0.0), nn.ReLU(),
        nn.Linear(8, 3), nn.Softmax(dim=1),
    ).to(getattr(torch, dtype))  # fmt: skip
    x = torch.tensor(normal((20, 3, 4), dtype))
    net(x)  # moves the running statistics
    model = fastnn.from_torch(net.train(training))
    assert model.training == training
    expected = net.eval()(x).detach().numpy()
    assert_close(model.predict(x.numpy()), expected, near(dtype, expected, 500))
    model.fit(x.numpy(), np.arange(20) % 3, epochs=1, batch_size=10)
