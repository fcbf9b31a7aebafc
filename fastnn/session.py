"""One training from its first epoch to its last: validation, callbacks, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checkpoints, checks, optim
from .early_stopping import EarlyStopping, Watch
from .evaluation import Evaluation, measure_metrics, named_metrics
from .history import EpochInfo, History
from .metrics import Metric
from .progress import Progress
from .schedules import Schedule, as_schedule
from .steps import Setup, Steps, choose_steps
from .training_data import Order, TrainingData

if TYPE_CHECKING:
    from .kernels.contract import Backend
    from .model import Sequential

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
_MOST_EPOCHS = 2**24
"""Dropout counters have 24 bits for the epoch."""


class Session:
    """One call of ``fit``: everything is checked as it is made, before anything changes.

    The backend must be the one in use, as it is made and as it runs.

    Parameters
    ----------
    model : Sequential
    data : TrainingData
    order : Order
    backend : Backend
    **arguments
        Those of :func:`fastnn.training.fit` that are not in ``data`` or ``order``.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        For arguments that do not fit.
    """

    def __init__(
        self,
        model: Sequential,
        data: TrainingData,
        order: Order,
        *,
        optimizer: optim.Optimizer | str | None,
        epochs: int,
        validation_data: Sequence[ArrayLike] | None,
        schedule: Schedule | str | Callable[[int], float] | None,
        early_stopping: EarlyStopping | int | None,
        callbacks: Sequence[Callable[[EpochInfo], Any]],
        clip_norm: float | None,
        clip_value: float | None,
        augment: Augment | None,
        metrics: Iterable[str | Metric] | None,
        keeps_updates: bool,
        checkpoint: Path | None,
        resume: bool,
        progress: bool | None,
        backend: Backend,
        precision: str,
    ) -> None:
        data.check_normalisation()
        self.model, self.data, self.order = model, data, order
        self.backend, self.precision = backend, precision
        self.epochs, self.callbacks, self.augment = epochs, callbacks, augment
        self.optimizer = _choose_optimizer(model, optimizer)
        self.schedule = as_schedule(schedule, max(epochs, 1))
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.metrics = named_metrics(metrics, data.loss)
        self.validation = self._validation(validation_data, metrics)
        self.stopping = Watch(early_stopping, self.validation is not None)
        self.keeps_updates, self.progress = keeps_updates, progress
        self.checkpoint = checkpoint
        if resume and checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the file to go on from")
        if checkpoint is not None and not checkpoint.parent.is_dir():
            raise FileNotFoundError(f"checkpoint is {checkpoint}, in a folder that does not exist")
        if checkpoint is not None and checkpoint.is_dir():
            raise IsADirectoryError(f"checkpoint is {checkpoint}, a folder; expected a file")
        self.saved = None
        if resume and checkpoint is not None and checkpoint.exists():
            self.saved = checkpoints.read(checkpoint, model, data.loss, self.optimizer)
        if not (augment is None or callable(augment)):
            raise TypeError(f"augment is {augment!r}; expected a function(X, generator)")
        if self.optimizer.epochs + epochs > _MOST_EPOCHS:
            raise ValueError(f"epochs is {epochs}; at most {_MOST_EPOCHS} in all are possible")
        self.begun_at = self.optimizer.updates
        self.next_epoch = 0
        self.history = History()
        self._check_monitors()

    def _validation(
        self,
        validation_data: Sequence[ArrayLike] | None,
        metrics: Iterable[str | Metric] | None,
    ) -> Evaluation | None:
        if validation_data is None:
            return None
        expected = "expected (X, y) or (X, y, sample_weight)"
        if not isinstance(validation_data, (tuple, list)):
            raise TypeError(f"validation_data is a {type(validation_data).__name__}; {expected}")
        if not 2 <= len(validation_data) <= 3:
            raise ValueError(f"validation_data has {len(validation_data)} parts; {expected}")
        X, y, *rest = validation_data
        weight = rest[0] if rest else None
        try:
            return Evaluation(self.model, X, y, self.data.loss, weight, metrics)
        except (ValueError, TypeError) as error:
            raise type(error)(f"validation_data: {error}") from None

    def _check_monitors(self) -> None:
        """What early stopping or the schedule watches must be in the history."""
        known = ["loss", *self.metrics]
        if self.validation is not None:
            known += [f"val_{name}" for name in ("loss", *self.validation.metrics)]
        for monitor in (self.schedule.monitor, self.stopping.monitor):
            if monitor is not None:
                checks.lookup("quantity to monitor", monitor, dict.fromkeys(known))

    # -- running --

    def run(self) -> History:
        """Train; the model's history, which grows by the epoch."""
        model = self.model
        self.schedule.reset()
        if self.saved is not None:
            self._go_on(*self.saved)
        self.history.stopped_early = self.stopping.done
        steps = self._begin()
        total, done = (epochs * self.data.steps for epochs in (self.epochs, self.next_epoch))
        with Progress(self.progress, total, done) as bar:
            try:
                for epoch in range(self.next_epoch, self.epochs):
                    if self.stopping.done or self._epoch(steps, epoch, bar):
                        break
            finally:
                steps.store()
        self.stopping.restore(model)
        return self.history

    def _begin(self) -> Steps:
        """Steps that train the model; where there can be none, the model is as it was."""
        model = self.model
        before = model.optimizer, model.loss, model.history
        is_new = not self.optimizer.trains(model)
        self.optimizer.attach(model)
        model.optimizer, model.loss, model.history = self.optimizer, self.data.loss, self.history
        try:
            if self.saved is not None:
                model.restore(*self.saved)
            return choose_steps(
                Setup(
                    model,
                    self.data,
                    self.optimizer,
                    self.backend,
                    self.order.seed,
                    self.clip_norm,
                    self.clip_value,
                    self.precision,
                )
            )
        except BaseException:
            model.optimizer, model.loss, model.history = before
            if is_new:
                self.optimizer.reset()
            raise

    def _epoch(self, steps: Steps, epoch: int, bar: Progress) -> bool:
        """Train one epoch and do everything that follows it; whether training ends here."""
        data, optimizer = self.data, self.optimizer
        order = self.order.of(optimizer.epochs, len(data.x), self.backend)
        rates = self.schedule.rates(
            optimizer.lr, optimizer.updates - self.begun_at, data.steps, data.steps
        )
        if self.augment is not None:
            steps.replace_rows(self._augmented(self.augment))
        steps.begin(order, rates)
        try:
            steps.finish(bar)
        finally:
            losses = steps.losses
            optimizer.updates += steps.steps_done
            if self.keeps_updates:
                self.history.add_updates(losses.tolist(), rates[: len(losses)].tolist())
        optimizer.epochs += 1
        if self._observed:
            steps.store()
        accuracy = steps.hits / len(data.x)
        logs = {"loss": data.mean_loss(losses, order)}
        logs |= measure_metrics(self.metrics, accuracy, self.model, data)
        if self.validation is not None:
            logs |= {f"val_{name}": value for name, value in self.validation.measure().items()}
        logs["lr"] = float(rates[-1])
        ends = self._after(epoch, logs, bar)
        if self.callbacks:
            steps.load()
        return ends

    @property
    def _observed(self) -> bool:
        """Whether anything looks at the weights between epochs."""
        return bool(
            self.validation
            or self.callbacks
            or self.stopping.settings
            or self.checkpoint
            or any(function is not None for function in self.metrics.values())
        )

    def _after(self, epoch: int, logs: dict[str, float], bar: Progress) -> bool:
        """Tell everyone what an epoch measured; whether a callback ends the training."""
        self.history.add(logs)
        bar.show(logs)
        if self.schedule.monitor is not None:
            self.schedule.observe(logs[self.schedule.monitor])
        self.stopping.see(epoch, logs, self.model)
        self.next_epoch = epoch + 1
        if self.checkpoint is not None:
            self._save_checkpoint(self.checkpoint)
        info = EpochInfo(epoch + 1, logs, self.model)
        for callback in self.callbacks:
            callback(info)
        self.history.stopped_early = self.stopping.done or info.stopped
        return info.stopped

    def _augmented(self, augment: Augment) -> np.ndarray:
        """The rows of this epoch; the generator depends on the seed and the epoch alone."""
        generator = np.random.Generator(
            np.random.Philox(key=[self.order.seed, self.optimizer.epochs])
        )
        x = self.data.x  # it may be the caller's own
        if arrays.is_on_gpu(x):
            x = x.copy()
        else:
            x = x.view()
            x.flags.writeable = False
        rows = self.model.rows("augment(X)", augment(x, generator))
        if rows.shape != self.data.x.shape:
            raise ValueError(
                f"augment gave shape {rows.shape}; expected that of X, {self.data.x.shape}"
            )
        return rows

    # -- checkpoints --

    def _save_checkpoint(self, path: Path) -> None:
        best, stopping = self.stopping.state()
        training = {
            "epoch": self.next_epoch,
            "begun_at": self.begun_at,
            "schedule": self.schedule.state_dict(),
            "stopping": stopping,
            **self.history.state(),
        }
        checkpoints.write(path, self.model, best, training)

    def _go_on(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Take everything from a checkpoint but what belongs to the model."""
        state = metadata["training"]
        with checkpoints.naming(self.checkpoint):
            self.next_epoch = checks.integer("epoch", state["epoch"], at_least=0)
            self.begun_at = checks.integer("begun_at", state["begun_at"], at_least=0)
            self.schedule.load_state_dict(state["schedule"])
            self.stopping.load(tensors, state["stopping"])
            self.history.load(state)


def _choose_optimizer(
    model: Sequential, optimizer: optim.Optimizer | str | None
) -> optim.Optimizer:
    if optimizer is None:
        return model.optimizer or optim.Adam(1e-3)
    return optim.as_optimizer(optimizer)
