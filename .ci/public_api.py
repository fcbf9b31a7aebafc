"""What a type checker must see of the installed package; checked with mypy --strict, never run."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastnn
from fastnn import augment, functional, init, metrics, schedules
from fastnn.data import Dataset
from fastnn.kernels.contract import Plan

Pair = tuple[NDArray[Any], NDArray[Any]]

# Data

assert_type(fastnn.data.digits(), Dataset)
assert_type(fastnn.data.load("flowers.csv", label="species"), Dataset)
X, y = fastnn.data.digits()
parts = fastnn.data.split(X, y, (0.7, 0.15, 0.15), seed=0)
assert_type(parts, list[Pair])
train, validation, test = parts

changes = augment.Compose([augment.HorizontalFlip(), augment.Rotation(10)], shape=(8, 8))
assert_type(changes(X, seed=1, epoch=2), NDArray[Any])

# Networks

activations: list[fastnn.Layer] = [
    fastnn.Identity(),
    fastnn.Sigmoid(),
    fastnn.Tanh(),
    fastnn.ReLU(),
    fastnn.LeakyReLU(0.01),
    fastnn.PReLU(128),
    fastnn.ELU(),
    fastnn.SELU(),
    fastnn.GELU("tanh"),
    fastnn.SiLU(),
    fastnn.Softplus(),
    fastnn.Softmax(),
    fastnn.Activation(lambda m, x: x * m.sigmoid(x), name="mine", beta=1.0),
]
model = fastnn.Sequential(
    fastnn.Flatten(),
    fastnn.Standardize.fit(X),
    fastnn.Linear(64, 128),
    fastnn.BatchNorm1d(128),
    *activations,
    fastnn.Dropout(0.2),
    fastnn.Linear(128, 10),
    seed=0,
    dtype="float64",
)
assert_type(model, fastnn.Sequential)
assert_type(model.parameter_count, int)
assert_type(model.classes, list[str] | None)
assert_type(model[0], fastnn.Layer)
assert_type(model.plan(32), Plan)
assert_type(fastnn.load("digits.safetensors"), fastnn.Sequential)
model.save("digits.safetensors")

# Training

optimizers: list[fastnn.Optimizer] = [
    fastnn.SGD(0.1, momentum=0.9),
    fastnn.Momentum(0.1),
    fastnn.Nesterov(0.1),
    fastnn.Adagrad(),
    fastnn.RMSprop(alpha=0.9),
    fastnn.Adam(1e-3, betas=(0.9, 0.99)),
    fastnn.AdamW(weight_decay=0.1),
]
losses: list[fastnn.Loss] = [
    fastnn.CrossEntropyLoss(label_smoothing=0.1),
    fastnn.BCEWithLogitsLoss(),
    fastnn.MSELoss(),
    fastnn.L1Loss(),
    fastnn.HuberLoss(),
    fastnn.PoissonNLLLoss(),
    fastnn.Loss(lambda m, output, target: m.abs(output - target), name="mine"),
]


def stop(info: fastnn.EpochInfo) -> None:
    info.stop()


history = model.fit(
    X,
    y,
    optimizer=optimizers[0],
    loss=losses[0],
    batch_size="full",
    schedule=schedules.Warmup(2, then=schedules.Cosine(20)),
    early_stopping=fastnn.EarlyStopping(patience=5),
    validation_data=validation,
    class_weight="balanced",
    callbacks=[stop],
    metrics=["accuracy", metrics.accuracy],
    clip_norm=1.0,
)
assert_type(history, fastnn.History)
assert_type(history["loss"], list[float])
assert_type(model.evaluate(*test), dict[str, float])
histories = fastnn.fit_many(
    [model], X, y, optimizers=[optimizers[0]], seeds=[1], early_stopping=3, epochs=2
)
assert_type(histories, list[fastnn.History])
predictions: NDArray[Any] = model.predict(X)
probabilities: NDArray[Any] = model.predict_proba(X)
try:
    model.fit(X, y, schedule=lambda epoch: 0.1 / (epoch + 1))
except fastnn.DivergedError as error:
    assert_type(error, fastnn.DivergedError)

eager: type[UserWarning] = fastnn.EagerWarning

# A loop by hand, and the kernels alone

logits: NDArray[Any] = model.train()(X)
loss, grad = losses[0](logits, y)
assert_type(loss, float)
model.backward(grad)
optimizers[1].step(model)
optimizers[2].step([np.zeros(3)], [np.ones(3)])
assert_type(fastnn.check_gradients(model, X, y, loss="cross_entropy"), dict[str, float])
products: NDArray[Any] = functional.linear(X, np.zeros((64, 3)), np.zeros(3), activation="relu")
functional.adam_update(np.ones(3), np.ones(3), np.zeros(3), np.zeros(3), lr=0.1, step=1)
weight: NDArray[Any] = init.he_normal(np.random.default_rng(0), (64, 3))

# Networks of other libraries

lifted = fastnn.from_numpy([(np.ones((4, 2)), None)], activations=["softmax"])
assert_type(lifted, fastnn.Sequential)
assert_type(fastnn.from_sklearn(lifted.to_sklearn()), fastnn.Sequential)
assert_type(fastnn.from_torch(None), fastnn.Sequential)
weights, names = lifted.to_numpy()
assert_type(names, list[str])

# Studies

numbers = fastnn.studies.run("batch-size", (np.ones((4, 2)), np.ones(4, int)), seed=1)
print(numbers.summary(), numbers.findings(), numbers.to_csv("out"), numbers.plot("ko"))

# Backends

with fastnn.use_backend("numpy") as backend:
    assert_type(backend, fastnn.Backend)
fastnn.set_backend("numba")
fastnn.set_num_threads(2)
assert_type(fastnn.get_num_threads(), int)
assert_type(fastnn.get_backend(), fastnn.Backend)
