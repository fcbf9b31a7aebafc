"""What a type checker must see of the installed package; checked with mypy --strict, never run."""

from typing import assert_type

import numpy as np

import fastnn

X, y = fastnn.data.digits()
train, validation, test = fastnn.data.split(X, y, (0.7, 0.15, 0.15), seed=0)
model = fastnn.Sequential(
    fastnn.Linear(64, 128), fastnn.ReLU(), fastnn.Dropout(0.2), fastnn.Linear(128, 10), seed=0
)
assert_type(model, fastnn.Sequential)

history = model.fit(
    X,
    y,
    optimizer=fastnn.Adam(1e-3),
    loss=fastnn.CrossEntropyLoss(),
    batch_size="full",
    schedule=fastnn.schedules.Cosine(20),
    early_stopping=fastnn.EarlyStopping(patience=5),
    validation_data=validation,
)
assert_type(history, fastnn.History)
assert_type(model.evaluate(X, y), dict[str, float])
assert_type(fastnn.load("digits.safetensors"), fastnn.Sequential)
predictions: np.ndarray = model.predict(X)
with fastnn.use_backend("numpy"):
    assert_type(fastnn.get_num_threads(), int)
