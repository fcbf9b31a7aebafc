"""Training: epochs, validation, early stopping, checkpoints. Steps run inside the backend."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import backend as backends
from . import checks, losses, model_files, optim
from . import metrics as metric_functions
from .kernels.contract import Binding
from .kernels.interrupts import interrupts_later
from .layers import BatchNorm1d, Dropout
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss
from .plan import Training, can_lower, lower
from .schedules import Schedule, as_schedule

if TYPE_CHECKING:
    from .model import Sequential

_SLICE = 0.05
"""Seconds between two looks at signals and progress."""
_MOST_EPOCHS = 2**24
"""Dropout counters have 24 bits for the epoch."""


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite; the model has the weights of the last good step."""


class EagerWarning(UserWarning):
    """Training runs step by step in Python, because a layer is not one of fastnn's own."""


class History(Mapping[str, list[float]]):
    """What a training measured: a list an epoch for each name.

    Attributes
    ----------
    updates : dict of str to list
        With ``history="update"``: "loss" and "lr" of every update.
    stopped_early : bool

    Examples
    --------
    >>> history = History()
    >>> history.add({"loss": 0.5})
    >>> history["loss"], len(history)
    ([0.5], 1)
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[float]] = {}
        self.updates: dict[str, list[float]] = {}
        self.stopped_early = False

    def add(self, logs: Mapping[str, float]) -> None:
        """Append an epoch."""
        for name, value in logs.items():
            self._lists.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        return self._lists[name]

    def __iter__(self):
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    @property
    def epochs(self) -> int:
        """Epochs that were finished."""
        return max(map(len, self._lists.values()), default=0)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self._lists.items())
        return f"History({self.epochs} epochs; last: {last})"


@dataclass
class EpochInfo:
    """What a callback is given after each epoch.

    Attributes
    ----------
    epoch : int
        From 1.
    logs : dict
        "loss", "val_loss", metrics, "lr".
    model : Sequential
        With the weights of this moment.
    """

    epoch: int
    logs: dict[str, float]
    model: Sequential
    stopped: bool = field(default=False, repr=False)

    def stop(self) -> None:
        """End the training after this epoch."""
        self.stopped = True


@dataclass
class EarlyStopping:
    """Stops when a value has not improved for a while, and brings the best weights back.

    Parameters
    ----------
    patience : int, default 10
        Epochs without improvement.
    monitor : str, optional
        A name of the history; by default "val_loss" where there is one, else "loss".
    min_delta : float, default 0
        What counts as an improvement.
    restore_best : bool, default True
    """

    patience: int = 10
    monitor: str | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        checks.positive_int("patience", self.patience)
        checks.number("min_delta", self.min_delta, at_least=0.0)


# ---- fit ----


def fit(
    model: Sequential,
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: Loss | str | None = None,
    optimizer: optim.Optimizer | str | None = None,
    batch_size: int | str = 32,
    epochs: int = 1,
    shuffle: bool = True,
    sampling: str = "shuffle",
    seed: int = 0,
    validation_data: Sequence[ArrayLike] | None = None,
    schedule: Schedule | str | Callable[[int], float] | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Iterable[Callable[[EpochInfo], Any]] = (),
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[int, float] | Sequence[float] | str | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    metrics: Iterable[str | Callable[..., float]] | None = None,
    history: str = "epoch",
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool | None = None,
    device: str | None = None,
) -> History:
    """Train the network.

    Parameters
    ----------
    X : array (N, I), or (N, ...) with rows that flatten to I
        Any numeric dtype; converted as rows are gathered, never copied as a whole.
    y : array
        Class numbers (N,), probabilities or values (N, O).
    loss : Loss or str, optional
        Cross-entropy for integer ``y``, mean squared error for floating by default.
    optimizer : Optimizer or str, optional
        That of the last ``fit``, which continues, else ``Adam(1e-3)``. A new object starts anew.
    batch_size : int or "full", default 32
        1 is stochastic, "full" full-batch descent. The last short batch is used.
    epochs : int, default 1
    shuffle : bool, default True
        Take the rows in a new order each epoch.
    sampling : "shuffle" or "replacement", default "shuffle"
        "replacement" draws each row anew.
    seed : int, default 0
        Of shuffles and dropout: the same seed gives the same bits, at any number of threads.
    validation_data : (X, y) or (X, y, sample_weight), optional
    schedule : Schedule, str or callable, optional
        How the learning rate changes; see ``fastnn.schedules``.
    early_stopping : EarlyStopping or int, optional
        A number is its patience.
    callbacks : iterable of callable
        Each is called with an :class:`EpochInfo` after every epoch; training goes on with the
        weights that it leaves.
    sample_weight : array (N,), optional
        Weighted losses divide by the sum of the weights.
    class_weight : dict, array or "balanced", optional
        Multiplied into the sample weights.
    clip_norm, clip_value : float, optional
        The most that the norm of all gradients, or any element, may be; the norm first.
    augment : callable, optional
        ``augment(X, generator)`` gives the rows of an epoch, of X's shape.
    metrics : iterable of str or callable, optional
        By default accuracy, where the loss has classes.
    history : "epoch" or "update", default "epoch"
        "update" keeps loss and learning rate of every update too.
    checkpoint : path, optional
        Written after every epoch.
    resume : bool, default False
        Go on from ``checkpoint``, if it is there: the bits are those of an unbroken run.
    progress : bool, optional
        A progress bar; by default where standard error is a terminal.
    device : "cpu" or "cuda", optional
        By default that of the backend in use.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; nothing has then changed.
    DivergedError
        Where the loss is no longer finite. ``model.history`` and the weights of the last good step
        are kept, as they are after ``KeyboardInterrupt``.

    Examples
    --------
    >>> import fastnn
    >>> X, y = fastnn.data.digits()
    >>> model = fastnn.Sequential(fastnn.Linear(64, 32), fastnn.ReLU(), fastnn.Linear(32, 10))
    >>> history = model.fit(X, y, epochs=3)
    >>> history["loss"][2] < history["loss"][0]
    True
    """
    session = _Session(
        model,
        _Data(model, X, y, losses.as_loss(loss, y), sample_weight, class_weight, batch_size),
        optimizer=optimizer,
        epochs=checks.integer("epochs", epochs, at_least=0),
        order=_Order(bool(shuffle), sampling, checks.integer("seed", seed, at_least=0)),
        validation_data=validation_data,
        schedule=schedule,
        early_stopping=early_stopping,
        callbacks=_functions(callbacks),
        clip_norm=_limit("clip_norm", clip_norm),
        clip_value=_limit("clip_value", clip_value),
        augment=augment,
        metrics=metrics,
        keeps_updates=_keeps_updates(history),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        resume=resume,
        progress=progress,
        device=device,
    )
    return session.run()


def _functions(callbacks: Iterable[Callable[[EpochInfo], Any]]) -> tuple[Callable, ...]:
    functions = tuple(callbacks) if isinstance(callbacks, Iterable) else (None,)
    if not all(map(callable, functions)):
        raise TypeError(
            f"callbacks is {callbacks!r}; expected a list of functions, each called with an "
            "EpochInfo"
        )
    return functions


def _limit(name: str, value: float | None) -> float | None:
    return None if value is None else checks.number(name, value, above=0.0)


def _keeps_updates(history: str) -> bool:
    return checks.lookup("history", history, {"epoch": False, "update": True})


class _Data:
    """Training data, checked: rows, targets, weights, and how they fall into batches."""

    def __init__(self, model, X, y, loss, sample_weight, class_weight, batch_size) -> None:
        self.loss = loss
        self.x = model.rows("X", X)
        self.y = np.asarray(y)
        checks.same_rows("y", self.y, "X", self.x)
        self.layers = model.logit_layers(loss)
        width = self.x.shape[1]
        for layer in self.layers:
            width = layer.outputs(width)
        self.outputs, self.dtype, rows = width, model.dtype, len(self.x)
        self.targets = loss.targets(self.y, width, model.dtype, rows)
        weights = losses.weights_of(sample_weight, rows, model.dtype)
        if class_weight is not None:
            folded = _class_weights(class_weight, self.targets, width, loss)
            weights = folded if weights is None else folded * weights
            weights = losses.weights_of(weights, rows, model.dtype)
        self.weights = weights
        if batch_size == "full":
            batch_size = rows
        elif isinstance(batch_size, str):
            raise ValueError(f"batch_size is {batch_size!r}; expected a whole number or 'full'")
        self.batch_rows = min(checks.positive_int("batch_size", batch_size), rows)
        self.steps = -(-rows // self.batch_rows)

    def check_normalisation(self) -> None:
        """A batch of one row has no variance: say so before training rather than in its midst."""
        rows = len(self.x)
        single = self.batch_rows == 1 or rows % self.batch_rows == 1
        if single and any(isinstance(layer, BatchNorm1d) for layer in self.layers):
            raise ValueError(
                f"batch_size {self.batch_rows} leaves a batch of one row out of {rows}, which "
                "batch normalisation cannot take; choose another batch_size"
            )

    def mean_loss(self, step_losses: np.ndarray, order: np.ndarray | None) -> float:
        """The mean loss of an epoch: of its steps, each by the weight of its rows."""
        begins = np.arange(0, len(self.x), self.batch_rows)
        if self.weights is None:
            shares = np.minimum(self.batch_rows, len(self.x) - begins).astype(np.float64)
        else:
            weights = self.weights if order is None else self.weights[order]
            shares = np.add.reduceat(weights, begins, dtype=np.float64)
        shares = shares[: len(step_losses)]
        return float((step_losses.astype(np.float64) * shares).sum() / shares.sum())


def _class_weights(class_weight, targets, outputs, loss) -> np.ndarray:
    """The weight of each row by its class."""
    if isinstance(loss, CrossEntropyLoss):
        classes = outputs
        members = np.eye(classes)[targets] if targets.ndim == 1 else targets.astype(np.float64)
    elif isinstance(loss, BCEWithLogitsLoss) and outputs == 1:
        classes = 2
        members = np.hstack([1.0 - targets, targets]).astype(np.float64)
    else:
        raise ValueError("class_weight needs a cross-entropy, or a binary one with one output")
    if isinstance(class_weight, str):
        checks.lookup("class_weight", class_weight, {"balanced": None})
        counts = members.sum(axis=0)
        table = np.divide(len(members), classes * counts, where=counts > 0, out=np.zeros(classes))
    elif isinstance(class_weight, Mapping):
        wrong = [c for c in class_weight if c not in range(classes)]
        if wrong:
            raise ValueError(f"class_weight names class {wrong[0]!r}; expected 0 to {classes - 1}")
        table = np.array([class_weight.get(c, 1.0) for c in range(classes)], np.float64)
    else:
        table = np.asarray(class_weight, np.float64)
        if table.shape != (classes,):
            raise ValueError(f"class_weight has shape {table.shape}; expected ({classes},)")
    if not (np.isfinite(table).all() and (table >= 0.0).all()):
        raise ValueError(
            f"class_weight is {class_weight!r}; expected finite weights, none negative"
        )
    return members @ table


@dataclass(frozen=True)
class _Order:
    """In which order an epoch takes the rows."""

    shuffle: bool
    sampling: str
    seed: int

    def __post_init__(self) -> None:
        checks.lookup("sampling", self.sampling, {"shuffle": 0, "replacement": 0})
        if self.seed >= 2**64:
            raise ValueError(f"seed is {self.seed}; expected less than 2**64")

    def of(self, epoch: int, rows: int, backend: Any) -> np.ndarray | None:
        """Row numbers, or None for the rows as they stand."""
        if self.sampling == "replacement":
            return backend.draws(self.seed, epoch, rows, rows)
        return backend.permutation(self.seed, epoch, rows) if self.shuffle else None


class Evaluation:
    """Loss and metrics on one set of data, prepared once and measured often."""

    def __init__(self, model, X, y, loss, sample_weight=None, metrics=None) -> None:
        self.model = model
        self.data = _Data(model, X, y, loss, sample_weight, None, "full")
        self.metrics = _metrics(metrics, loss)
        self._run: Any = None

    def measure(self) -> dict[str, float]:
        """The values now, "loss" first."""
        if can_lower(self.data.layers):
            values = self._measure_compiled()
        else:
            values = self._measure_eagerly()
        result = {"loss": values["loss"]}
        outputs = None
        for name, function in self.metrics.items():
            if function is None:
                result[name] = values["accuracy"]
                continue
            outputs = self.model.predict(self.data.x) if outputs is None else outputs
            result[name] = float(function(outputs, self.data.y))
        return result

    def _measure_compiled(self) -> dict[str, float]:
        data, model = self.data, self.model
        rows = len(data.x)
        if self._run is None:
            plan = lower(data.layers, data.x.shape[1], rows, model.dtype, loss=data.loss.use)
            binding = Binding(
                data.x,
                model.arrays(),
                data.targets,
                data.weights,
                threads=backends.threads_for(plan),
            )
            self._run = backends.get_backend().start(plan, binding)
        else:
            self._run.load()
        self._run.begin(None, rows, None)
        while self._run.advance(_SLICE) == "stopped":
            pass
        return {
            "loss": float(self._run.losses()[0]),
            "accuracy": float(self._run.hits()[0]) / rows,
        }

    def _measure_eagerly(self) -> dict[str, float]:
        data = self.data
        outputs = self.model.predict_by_layers(data.layers, data.x)
        loss, hits = _measure_rows(data, slice(None), outputs, None)
        return {"loss": loss, "accuracy": hits / len(data.x)}


def _measure_rows(
    data: _Data, rows: np.ndarray | slice, outputs: np.ndarray, grad: np.ndarray | None
) -> tuple[float, float]:
    """Mean loss and hits of some rows of the data; their gradient goes into ``grad``."""
    weights = None if data.weights is None else data.weights[rows]
    return data.loss.measure(outputs, data.targets[rows], weights, grad)


def _metrics(metrics: Iterable[Any] | None, loss: Loss) -> dict[str, Callable | None]:
    """Metrics by name; None for accuracy, which the loss counts as it goes."""
    if metrics is None:
        return {"accuracy": None} if loss.classifies else {}
    if isinstance(metrics, str):
        metrics = [metrics]
    chosen: dict[str, Callable | None] = {}
    for metric in metrics:
        function = metric_functions.resolve(metric)
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
        chosen[name] = None if name == "accuracy" and loss.classifies else function
    return chosen


class _Session:
    """One call of ``fit``: everything is checked as it is made, before anything changes."""

    def __init__(
        self,
        model: Sequential,
        data: _Data,
        *,
        optimizer,
        epochs,
        order,
        validation_data,
        schedule,
        early_stopping,
        callbacks,
        clip_norm,
        clip_value,
        augment,
        metrics,
        keeps_updates,
        checkpoint,
        resume,
        progress,
        device,
    ) -> None:
        data.check_normalisation()
        self.model, self.data, self.order = model, data, order
        self.backend = backends.for_device(device)
        self.epochs, self.callbacks, self.augment = epochs, callbacks, augment
        self.optimizer = self._choose(optimizer)
        self.schedule = as_schedule(schedule, epochs)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.metrics = _metrics(metrics, data.loss)
        self.validation = self._validation(validation_data, metrics)
        self.stopping = _Stopping(early_stopping, self.validation is not None)
        self.keeps_updates, self.progress = keeps_updates, progress
        self.checkpoint = checkpoint
        if resume and checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the file to go on from")
        if checkpoint is not None and not checkpoint.parent.is_dir():
            raise FileNotFoundError(f"checkpoint is {checkpoint}, in a folder that does not exist")
        self.saved = self._read_checkpoint() if resume and checkpoint.exists() else None
        if not (augment is None or callable(augment)):
            raise TypeError(f"augment is {augment!r}; expected a function(X, generator)")
        if self.optimizer.epochs + epochs > _MOST_EPOCHS:
            raise ValueError(f"epochs is {epochs}; at most {_MOST_EPOCHS} in all are possible")
        self.begun_at = self.optimizer.updates
        self.first_epoch = 0
        self._check_monitors()

    def _choose(self, optimizer) -> optim.Optimizer:
        if optimizer is None:
            return self.model.optimizer or optim.Adam(1e-3)
        return optim.as_optimizer(optimizer)

    def _check_monitors(self) -> None:
        """What early stopping or the schedule watches must be in the history."""
        known = ["loss", *self.metrics]
        if self.validation is not None:
            known += [f"val_{name}" for name in ("loss", *self.validation.metrics)]
        watched = [self.schedule.monitor, self.stopping.monitor if self.stopping.settings else None]
        for monitor in watched:
            if monitor is not None:
                checks.lookup("quantity to monitor", monitor, dict.fromkeys(known))

    def _validation(self, validation_data, metrics) -> Evaluation | None:
        if validation_data is None:
            return None
        if not isinstance(validation_data, (tuple, list)):
            raise TypeError(
                f"validation_data is a {type(validation_data).__name__}; expected (X, y) or "
                "(X, y, sample_weight)"
            )
        if not 2 <= len(validation_data) <= 3:
            raise ValueError(
                f"validation_data has {len(validation_data)} parts; expected (X, y) or "
                "(X, y, sample_weight)"
            )
        X, y, *weight = validation_data
        try:
            return Evaluation(self.model, X, y, self.data.loss, *(weight or [None]), metrics)
        except (ValueError, TypeError) as error:
            raise type(error)(f"validation_data: {error}") from None

    # -- running --

    def run(self) -> History:
        model = self.model
        self.optimizer.attach(model)
        model.optimizer, model.loss, model.history = self.optimizer, self.data.loss, History()
        self.schedule.reset()
        if self.saved is not None:
            self._resume(*self.saved)
        model.history.stopped_early = self.stopping.done
        stepper = self._stepper()
        with _Progress(
            self.progress, self.epochs * self.data.steps, self.first_epoch * self.data.steps
        ) as bar:
            try:
                for epoch in range(self.first_epoch, self.epochs):
                    if self.stopping.done or self._epoch(stepper, epoch, bar):
                        break
            finally:
                stepper.store()
        self.stopping.restore(model)
        return model.history

    def _stepper(self) -> _CompiledSteps | _EagerSteps:
        if can_lower(self.data.layers):
            return _CompiledSteps(self)
        own = next(layer for layer in self.data.layers if not can_lower([layer]))
        warnings.warn(
            f"{type(own).__name__} is not one of fastnn's own layers: training runs step by step "
            "in Python",
            EagerWarning,
            stacklevel=4,
        )
        return _EagerSteps(self)

    def _epoch(self, stepper, epoch: int, bar: _Progress) -> bool:
        """Train one epoch and everything that follows it; whether training ends here."""
        data, optimizer, history = self.data, self.optimizer, self.model.history
        order = self.order.of(optimizer.epochs, len(data.x), self.backend)
        rates = self.schedule.rates(
            optimizer.lr, optimizer.updates - self.begun_at, data.steps, data.steps
        )
        if self.augment is not None:
            stepper.replace_rows(self._augmented())
        stepper.begin(order, rates)
        try:
            stepper.finish(bar)
        finally:
            done = stepper.losses
            optimizer.updates += stepper.steps_done
            if self.keeps_updates:
                history.updates.setdefault("loss", []).extend(done.tolist())
                history.updates.setdefault("lr", []).extend(rates[: len(done)].tolist())
        optimizer.epochs += 1
        logs = {"loss": data.mean_loss(done, order)}
        if self._observed:
            stepper.store()
        for name, function in self.metrics.items():
            if function is None:
                logs[name] = stepper.hits / len(data.x)
            else:
                logs[name] = float(function(self.model.predict(data.x), data.y))
        if self.validation is not None:
            logs |= {f"val_{name}": value for name, value in self.validation.measure().items()}
        logs["lr"] = float(rates[-1])
        history.add(logs)
        ends = self._after(epoch, logs, bar)
        if self.callbacks:
            stepper.load()
        return ends

    @property
    def _observed(self) -> bool:
        """Whether anything looks at the weights between epochs."""
        return bool(
            self.validation
            or self.callbacks
            or self.stopping.settings
            or self.checkpoint
            or any(self.metrics.values())
        )

    def _after(self, epoch: int, logs: dict[str, float], bar: _Progress) -> bool:
        bar.show(logs)
        if self.schedule.monitor is not None:
            self.schedule.observe(logs[self.schedule.monitor])
        self.stopping.see(epoch, logs, self.model)
        self.first_epoch = epoch + 1
        if self.checkpoint is not None:
            self._save_checkpoint()
        info = EpochInfo(epoch + 1, logs, self.model)
        for callback in self.callbacks:
            callback(info)
        self.model.history.stopped_early = self.stopping.done or info.stopped
        return info.stopped

    def _augmented(self) -> np.ndarray:
        generator = np.random.Generator(
            np.random.Philox(key=[self.order.seed, self.optimizer.epochs])
        )
        x = self.data.x.view()
        x.flags.writeable = False  # it may be the caller's own
        rows = self.model.rows("augment(X)", self.augment(x, generator))
        if rows.shape != self.data.x.shape:
            raise ValueError(
                f"augment gave shape {rows.shape}; expected that of X, {self.data.x.shape}"
            )
        return rows

    # -- checkpoints --

    def _save_checkpoint(self) -> None:
        tensors, metadata = self.model.state()
        tensors |= {f"best {name}": array for name, array in self.stopping.best.items()}
        history = self.model.history
        metadata["training"] = {
            "epoch": self.first_epoch,
            "begun_at": self.begun_at,
            "schedule": self.schedule.state_dict(),
            "stopping": self.stopping.state(),
            "history": {name: _to_text(values) for name, values in history.items()},
            "updates": {name: _to_text(values) for name, values in history.updates.items()},
        }
        model_files.save_tensors(self.checkpoint, tensors, metadata)

    def _read_checkpoint(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Contents of the checkpoint, which must be of this network and this optimizer."""
        tensors, metadata = model_files.load_tensors(self.checkpoint)
        if "training" not in metadata:
            raise ValueError(f"{self.checkpoint} is not a checkpoint of fit")
        self.model.check_tensors(tensors)
        saved = optim.from_state(metadata["optimizer"], [self.optimizer])
        mine = self.optimizer
        if (saved.name, saved.lr, saved.settings) != (mine.name, mine.lr, mine.settings):
            raise ValueError(f"optimizer is {mine!r}; {self.checkpoint} was written with {saved!r}")
        return tensors, metadata

    def _resume(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        state = metadata["training"]
        self.model.restore(tensors, metadata)
        self.first_epoch, self.begun_at = state["epoch"], state["begun_at"]
        self.schedule.load_state_dict(state["schedule"])
        self.stopping.load(state["stopping"], tensors)
        history = self.model.history
        history._lists = _from_text(state["history"])
        history.updates = _from_text(state["updates"])


def _to_text(values: Sequence[float]) -> list[str]:
    """Numbers as text that reads back to the same bits, NaN and infinity included."""
    return [float(value).hex() for value in values]


def _from_text(lists: Mapping[str, list[str]]) -> dict[str, list[float]]:
    return {name: [float.fromhex(text) for text in texts] for name, texts in lists.items()}


class _CompiledSteps:
    """Epochs inside the backend."""

    def __init__(self, session: _Session) -> None:
        self.session = session
        data, model = session.data, session.model
        plan = lower(
            data.layers,
            data.x.shape[1],
            data.batch_rows,
            model.dtype,
            loss=data.loss.use,
            training=Training(session.optimizer.formula, session.clip_norm, session.clip_value),
        )
        self.plan = plan
        self._start(data.x)

    def _start(self, x: np.ndarray) -> None:
        session, data = self.session, self.session.data
        arrays = session.model.arrays()
        slots = {name: session.optimizer.slots_of(name) for name in session.model.arena}
        binding = Binding(
            x,
            arrays,
            data.targets,
            data.weights,
            slots=slots,
            threads=backends.threads_for(self.plan),
            seed=session.order.seed,
        )
        self.run = session.backend.start(self.plan, binding)

    def replace_rows(self, x: np.ndarray) -> None:
        """Train on other rows from here on."""
        self.store()
        self._start(x)

    def begin(self, order: np.ndarray | None, rates: np.ndarray) -> None:
        """Get an epoch ready."""
        optimizer, data = self.session.optimizer, self.session.data
        scalars = optimizer.scalars(optimizer.updates, rates, data.dtype)
        self.run.begin(order, len(data.x), scalars, optimizer.epochs)
        self.rates = rates

    def finish(self, bar: _Progress) -> None:
        """Train the epoch; DivergedError and KeyboardInterrupt leave the last good step."""
        run, seen = self.run, 0
        outcome = "stopped"
        while outcome == "stopped":
            outcome = run.advance(_SLICE)
            bar.move(run.step - seen)
            seen = run.step
        if outcome == "diverged":
            rate = float(self.rates[run.step])
            raise _diverged(self.session, run.step, float(run.losses()[-1]), rate)

    @property
    def steps_done(self) -> int:
        return self.run.step

    @property
    def losses(self) -> np.ndarray:
        return self.run.losses()

    @property
    def hits(self) -> float:
        return float(self.run.hits().sum(dtype=np.float64))

    def store(self) -> None:
        """Bring the model up to date."""
        with interrupts_later():
            self.run.store()

    def load(self) -> None:
        """Go on with what the model has."""
        self.run.load()


class _EagerSteps:
    """Epochs step by step in Python, for networks with layers of the user's own."""

    def __init__(self, session: _Session) -> None:
        self.session, self.x = session, session.data.x

    def replace_rows(self, x: np.ndarray) -> None:
        self.x = x

    def begin(self, order: np.ndarray | None, rates: np.ndarray) -> None:
        self.rows, self.rates = np.arange(len(self.x)) if order is None else order, rates
        self.steps_done, self._losses, self._hits = 0, [], 0.0

    def finish(self, bar: _Progress) -> None:
        data, model = self.session.data, self.session.model
        training = model.training
        model.train()
        try:
            for number, rate in enumerate(self.rates):
                chosen = self.rows[number * data.batch_rows : (number + 1) * data.batch_rows]
                self._step(chosen, float(rate))
                bar.move(1)
        finally:
            model.train() if training else model.eval()

    def _step(self, chosen: np.ndarray, rate: float) -> None:
        session, data = self.session, self.session.data
        constants = session.model.constants.flat.copy()
        values = np.ascontiguousarray(self.x[chosen], data.dtype)
        for number, layer in enumerate(data.layers):
            if isinstance(layer, Dropout):
                layer.draw(session.order.seed, session.optimizer.epochs, self.steps_done, number)
            values = layer.forward(values)
        grad = np.empty_like(values)
        loss, hits = _measure_rows(data, chosen, values, grad)
        self._losses.append(loss)
        if not math.isfinite(loss):
            session.model.constants.flat[:] = constants
            raise _diverged(session, self.steps_done, loss, rate)
        for layer in reversed(data.layers):
            grad = layer.backward(grad)
        with interrupts_later():
            session.optimizer.step_model(
                session.model,
                rate,
                session.clip_norm,
                session.clip_value,
                session.optimizer.updates + self.steps_done,
            )
            self.steps_done += 1
        self._hits += hits

    @property
    def losses(self) -> np.ndarray:
        return np.array(self._losses)

    @property
    def hits(self) -> float:
        return self._hits

    def store(self) -> None:
        """The weights are where they belong."""

    load = store


def _diverged(session: _Session, step: int, loss: float, rate: float) -> DivergedError:
    return DivergedError(
        f"the loss was {loss} at update {session.optimizer.updates + step + 1} (learning rate "
        f"{rate:g}); the model has the weights from before it. A smaller learning rate, "
        "clip_norm=, or standardised data may help"
    )


class _Stopping:
    """Early stopping at work."""

    def __init__(self, early_stopping: EarlyStopping | int | None, validates: bool) -> None:
        if isinstance(early_stopping, bool) or not (
            early_stopping is None or isinstance(early_stopping, (int, EarlyStopping))
        ):
            raise TypeError(
                f"early_stopping is {early_stopping!r}; expected fastnn.EarlyStopping, a patience "
                "or None"
            )
        if isinstance(early_stopping, int):
            early_stopping = EarlyStopping(early_stopping)
        self.settings = early_stopping
        self.monitor = (early_stopping.monitor if early_stopping else None) or (
            "val_loss" if validates else "loss"
        )
        self._sign = 1.0
        if early_stopping is not None and metric_functions.larger_is_better(self.monitor):
            self._sign = -1.0
        self.best: dict[str, np.ndarray] = {}
        self.best_value, self.best_epoch, self.waited = math.nan, -1, 0

    @property
    def done(self) -> bool:
        return self.settings is not None and self.waited >= self.settings.patience

    def see(self, epoch: int, logs: Mapping[str, float], model: Sequential) -> None:
        """Take an epoch's value into account."""
        if self.settings is None:
            return
        value = logs[self.monitor]
        gain = self._sign * (self.best_value - value)
        if self.best_epoch < 0 or gain > self.settings.min_delta:
            self.best_value, self.best_epoch, self.waited = value, epoch, 0
            if self.settings.restore_best:
                self.best = {name: array.copy() for name, array in model.arrays().items()}
        else:
            self.waited += 1

    def restore(self, model: Sequential) -> None:
        """Give the model the best weights."""
        for name, array in model.arrays().items():
            if name in self.best:
                array[...] = self.best[name]

    def state(self) -> dict[str, Any]:
        return {"value": self.best_value.hex(), "epoch": self.best_epoch, "waited": self.waited}

    def load(self, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        self.best_value = float.fromhex(state["value"])
        self.best_epoch, self.waited = state["epoch"], state["waited"]
        self.best = {
            name.removeprefix("best "): array
            for name, array in tensors.items()
            if name.startswith("best ")
        }


class _Progress:
    """A progress bar over updates, or nothing; it appears with the first of them."""

    def __init__(self, wanted: bool | None, total: int, done: int) -> None:
        self._wanted = sys.stderr.isatty() if wanted is None else wanted
        self._total, self._done = total, done
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def move(self, steps: int) -> None:
        if self._wanted and self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, unit="update", leave=False)
        if self._bar is not None:
            self._bar.update(steps)

    def show(self, logs: Mapping[str, float]) -> None:
        if self._bar is not None:
            loss = logs.get("val_loss", logs["loss"])
            self._bar.set_postfix_str(f"loss {loss:.4g}")
