"""One training from its first epoch to its last: validation, callbacks, checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checkpoints, checks, optim
from .early_stopping import EarlyStopping, Watch
from .evaluation import Evaluation, measure_metrics, named_metrics
from .history import EpochInfo, History
from .kernels.interrupts import interrupts_later
from .metrics import Metric
from .progress import Progress
from .runs import Runs
from .schedules import Schedule, as_schedule
from .steps import DivergedError, Setup, Steps, choose_steps
from .training_data import Order, TrainingData

if TYPE_CHECKING:
    from .augment import Compose
    from .epoch_rows import Augment, EpochRows
    from .kernels.contract import Backend
    from .model import Sequential

_MOST_EPOCHS = 2**24
"""Dropout counters have 24 bits for the epoch."""
_ROWS_AT_ONCE = 1 << 16
"""Rows of epochs that are trained in one go, where nothing is looked at between them: their order
takes half a megabyte."""


@dataclass(frozen=True)
class Terms:
    """What the arguments of ``fit`` say, but for data, optimizer, seed and early stopping.

    Checked as far as they can be without a network; the names are those of
    :func:`fastnn.training.fit`.
    """

    epochs: int
    shuffle: bool
    sampling: str
    schedule: Schedule | str | Callable[[int], float] | None
    callbacks: Sequence[Callable[[EpochInfo], Any]]
    clip_norm: float | None
    clip_value: float | None
    augment: Augment | Compose | None
    metrics: Iterable[str | Metric] | None
    keeps_updates: bool
    checkpoint: Path | None
    resume: bool
    progress: bool | None
    precision: str


class Session:
    """One training: everything is checked as it is made, before anything changes.

    The backend must be the one in use, as it is made and as it runs.

    Parameters
    ----------
    model : Sequential
    data : TrainingData
    terms : Terms
    backend : Backend
    optimizer : Optimizer, str or None
    seed : int
    early_stopping : EarlyStopping, int or None
    validation : TrainingData or None

    Raises
    ------
    ValueError, TypeError, FileNotFoundError
        For arguments that do not fit.
    """

    def __init__(
        self,
        model: Sequential,
        data: TrainingData,
        terms: Terms,
        backend: Backend,
        *,
        optimizer: optim.Optimizer | str | None,
        seed: int,
        early_stopping: EarlyStopping | int | None,
        validation: TrainingData | None,
    ) -> None:
        data.check_normalisation()
        self.model, self.data, self.terms, self.backend = model, data, terms, backend
        self.order = Order(terms.shuffle, terms.sampling, checks.integer("seed", seed, at_least=0))
        self.optimizer = _choose_optimizer(model, optimizer)
        self.optimizer.check_free_for(model)
        self.schedule = as_schedule(terms.schedule, max(terms.epochs, 1))
        self.rows = self._epoch_rows()
        self.metrics = named_metrics(terms.metrics, data.loss)
        self.validation = (
            None if validation is None else Evaluation(model, validation, terms.metrics)
        )
        self.stopping = Watch(early_stopping, self.validation is not None)
        self.saved = self._read_checkpoint() if terms.resume else None
        if self.optimizer.epochs + terms.epochs > _MOST_EPOCHS:
            raise ValueError(
                f"epochs is {terms.epochs}; at most {_MOST_EPOCHS} in all are possible"
            )
        self.next_epoch = 0
        self.history = History()
        self._check_monitors()

    def _epoch_rows(self) -> EpochRows | None:
        augment = self.terms.augment
        if augment is None:
            return None
        from .epoch_rows import epoch_rows  # augmentation takes tens of milliseconds to import

        return epoch_rows(augment, self.model, self.data, self.order.seed, self.backend)

    def _read_checkpoint(self) -> tuple[Mapping, Mapping] | None:
        path = self.terms.checkpoint
        if path is None or not path.exists():
            return None
        return checkpoints.read(path, self.model, self.data.loss, self.optimizer)

    def _check_monitors(self) -> None:
        """What early stopping or the schedule watches must be in the history."""
        known = ["loss", *self.metrics]
        if self.validation is not None:
            known += [f"val_{name}" for name in ("loss", *self.validation.metrics)]
        for monitor in (self.schedule.monitor, self.stopping.monitor):
            if monitor is not None:
                checks.lookup("quantity to monitor", monitor, dict.fromkeys(known))

    # -- running --

    @property
    def updates(self) -> int:
        """How many updates all epochs have."""
        return self.terms.epochs * self.data.steps

    def run(self, bar: Progress, runs: Runs) -> History:
        """Train; the model's history, which grows by the epoch."""
        self.schedule.reset()
        if self.saved is not None:
            self._go_on(*self.saved)
            bar.skip(self.next_epoch * self.data.steps)
        self.history.stopped_early = self.stopping.done
        self._runs, ends = runs, False
        steps = self._begin(runs)
        try:
            while self.next_epoch < self.terms.epochs and not (ends or self.stopping.done):
                ends = self._train(steps, self._epochs_at_once(steps), bar)
        except DivergedError as error:
            self.history.diverged = str(error)
            raise
        finally:
            if self.rows is not None:
                self.rows.close()
            steps.store()
        self.stopping.restore(self.model)
        return self.history

    def _begin(self, runs: Runs) -> Steps:
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
                    self.terms.clip_norm,
                    self.terms.clip_value,
                    self.terms.precision,
                    runs,
                )
            )
        except BaseException:
            model.optimizer, model.loss, model.history = before
            if is_new:
                self.optimizer.reset()
            raise

    def _train(self, steps: Steps, epochs: int, bar: Progress) -> bool:
        """Train some epochs and do everything that follows each; whether training ends here."""
        data, optimizer = self.data, self.optimizer
        order = self.order.of(optimizer.epochs, epochs, data.count, self.backend)
        places = data.places(order, epochs)
        rates = self.schedule.rates(
            optimizer.lr, self.next_epoch * data.steps, epochs * data.steps, data.steps
        )
        if self.rows is not None:
            has_next = self.next_epoch + epochs < self.terms.epochs
            steps.replace_rows(self.rows.of(optimizer.epochs, has_next), self.rows.come_again)
        steps.begin(places, rates, epochs)
        try:
            steps.finish(bar)
        except BaseException:
            ended = 0 if self._looks else steps.steps_done // data.steps
            self._book(steps, places, rates, ended)
            raise
        means, accuracies = self._book(steps, places, rates, epochs)
        if self._looks:
            return self._look(steps, means[0], accuracies[0], float(rates[-1]), bar)
        bar.show({"loss": means[-1]})
        return False

    def _book(
        self, steps: Steps, places: np.ndarray | None, rates: np.ndarray, epochs: int
    ) -> tuple[list[float], list[float]]:
        """Count the steps done and these epochs, all or nothing; their losses and accuracies."""
        data, losses = self.data, steps.losses
        with interrupts_later():
            self.optimizer.updates += steps.steps_done
            self.optimizer.epochs += epochs
            if self.terms.keeps_updates:
                self.history.add_updates(losses.tolist(), rates[: len(losses)].tolist())
            hits = steps.hits[: epochs * data.steps].reshape(epochs, data.steps)
            accuracies = (hits.sum(axis=1, dtype=np.float64) / data.count).tolist()
            means = data.mean_losses(losses, places, epochs)
            if epochs and not self._looks:
                last_rates = rates[data.steps - 1 : epochs * data.steps : data.steps].tolist()
                logs = {"loss": means} | dict.fromkeys(self.metrics, accuracies)
                self.history.add_epochs(logs | {"lr": last_rates})
                self.next_epoch += epochs
        return means, accuracies

    def _look(self, steps: Steps, loss: float, accuracy: float, rate: float, bar: Progress) -> bool:
        """Do everything that follows an epoch; whether training ends here."""
        if self._observed:
            steps.store()
        logs = {"loss": loss} | measure_metrics(self.metrics, accuracy, self.model, self.data)
        if self.validation is not None:
            validated = self.validation.measure(self._runs)
            logs |= {f"val_{name}": value for name, value in validated.items()}
        ends = self._after(logs | {"lr": rate}, bar)
        if self.terms.callbacks:
            steps.load()
        return ends

    def _epochs_at_once(self, steps: Steps) -> int:
        """How many epochs to train before anything is looked at."""
        if self._looks or not steps.takes_epochs:
            return 1
        left = self.terms.epochs - self.next_epoch
        return min(left, max(1, _ROWS_AT_ONCE // self.data.count))

    @functools.cached_property
    def _looks(self) -> bool:
        """Whether anything happens between epochs."""
        return self._observed or self.schedule.monitor is not None or self.rows is not None

    @functools.cached_property
    def _observed(self) -> bool:
        """Whether anything looks at the weights between epochs."""
        return bool(
            self.validation
            or self.terms.callbacks
            or self.stopping.settings
            or self.terms.checkpoint
            or any(function is not None for function in self.metrics.values())
        )

    def _after(self, logs: dict[str, float], bar: Progress) -> bool:
        """Tell everyone what an epoch measured; whether a callback ends the training."""
        epoch = self.next_epoch
        self.history.add(logs)
        bar.show(logs)
        if self.schedule.monitor is not None:
            self.schedule.observe(logs[self.schedule.monitor])
        self.stopping.see(epoch, logs, self.model)
        self.next_epoch = epoch + 1
        info = EpochInfo(epoch + 1, logs, self.model)
        for callback in self.terms.callbacks:
            callback(info)
        self.optimizer.attach(self.model)  # a callback may have reset it
        self.history.stopped_early = self.stopping.done or info.stopped
        if self.terms.checkpoint is not None:
            self._save_checkpoint(self.terms.checkpoint)  # what the next epoch begins with
        return info.stopped

    # -- checkpoints --

    def _save_checkpoint(self, path: Path) -> None:
        best, stopping = self.stopping.state()
        training = {
            "epoch": self.next_epoch,
            "schedule": self.schedule.state_dict(),
            "stopping": stopping,
            **self.history.state(),
        }
        checkpoints.write(path, self.model, best, training)

    def _go_on(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Take everything from a checkpoint but what belongs to the model."""
        state = metadata["training"]
        with checkpoints.naming(self.terms.checkpoint):
            self.next_epoch = checks.integer("epoch", state["epoch"], at_least=0)
            self.schedule.load_state_dict(state["schedule"])
            self.stopping.load(tensors, state["stopping"])
            self.history.load(state)


def _choose_optimizer(
    model: Sequential, optimizer: optim.Optimizer | str | None
) -> optim.Optimizer:
    if optimizer is None:
        return model.optimizer or optim.Adam(1e-3)
    return optim.as_optimizer(optimizer)
