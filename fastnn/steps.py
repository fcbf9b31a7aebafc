"""The steps of a training: inside the backend, or layer by layer for networks that need Python."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from . import arrays
from . import backend as backends
from .kernels.contract import Binding
from .kernels.interrupts import interrupts_later
from .layers import Dropout, Layer
from .plan import Training, can_lower
from .runs import Runs
from .training_data import TrainingData

if TYPE_CHECKING:
    from .kernels.contract import Backend, Run
    from .model import Sequential
    from .optim import Optimizer
    from .progress import Progress


class DivergedError(ArithmeticError):
    """The loss became NaN or infinite; the model has the weights of the last good step.

    Examples
    --------
    >>> import numpy as np
    >>> import fastnn
    >>> X, y = np.ones((4, 1)), np.array([1e30, 0.0, 0.0, 0.0])
    >>> model = fastnn.Sequential(fastnn.Linear(1, 1))
    >>> try:
    ...     model.fit(X, y, optimizer=fastnn.SGD(1.0), epochs=10)
    ... except DivergedError:
    ...     print(bool(np.isfinite(model[0].weight).all()))
    True
    """


class EagerWarning(UserWarning):
    """Training runs step by step in Python, because a layer is not one of fastnn's own."""


@dataclass(frozen=True)
class Setup:
    """What steps work with.

    Attributes
    ----------
    model : Sequential
    data : TrainingData
    optimizer : Optimizer
        Attached to the model.
    backend : Backend
    seed : int
        Of dropout.
    clip_norm, clip_value : float or None
    precision : str
        Such that the backend has it for the model's dtype.
    runs : Runs
        Where to take a run from.
    """

    model: Sequential
    data: TrainingData
    optimizer: Optimizer
    backend: Backend
    seed: int
    clip_norm: float | None
    clip_value: float | None
    precision: str
    runs: Runs

    def diverged(self, step: int, loss: float, rate: float) -> DivergedError:
        """The error, to be raised, for a loss that is not finite at a step since ``begin``."""
        return DivergedError(
            f"the loss was {loss} at update {self.optimizer.updates + step + 1} (learning rate "
            f"{rate:g}); the model has the weights from before it. A smaller learning rate, "
            "clip_norm=, or standardised data may help"
        )


class Steps(Protocol):
    """A training at work, an epoch at a time, or some.

    Attributes
    ----------
    takes_epochs : bool
        Whether :meth:`begin` takes several epochs at once.
    steps_done : int
        Updates made since :meth:`begin`.
    losses : ndarray
        The loss of each step since then, the one that diverged included.
    hits : ndarray
        The rows that each step had right.
    """

    @property
    def takes_epochs(self) -> bool: ...

    @property
    def steps_done(self) -> int: ...

    @property
    def losses(self) -> np.ndarray: ...

    @property
    def hits(self) -> np.ndarray: ...

    def replace_rows(self, x: np.ndarray, comes_again: bool) -> None:
        """Train on these rows (N, I) from here on, with the targets and weights as they were.

        ``comes_again`` says whether this very array, with other values, is to come once more.
        """

    def begin(self, places: np.ndarray | None, rates: np.ndarray, epochs: int) -> None:
        """Get epochs ready: the rows in this order, a learning rate for each step of them all."""

    def finish(self, bar: Progress) -> None:
        """Train them.

        Raises
        ------
        DivergedError, KeyboardInterrupt
            The weights are then those of the last good step.
        """

    def store(self) -> None:
        """Bring the model and the optimizer's state up to date."""

    def load(self) -> None:
        """Go on with what the model has."""


def choose_steps(setup: Setup) -> Steps:
    """Steps inside the backend where every layer is fastnn's own; others run in Python."""
    return CompiledSteps(setup) if can_lower(setup.data.layers) else EagerSteps(setup)


def warn_of_python(layers: Sequence[Layer]) -> None:
    """Say, where the caller's caller stands, that a layer makes training run in Python."""
    own = next((layer for layer in layers if not can_lower([layer])), None)
    if own is not None:
        warnings.warn(
            f"{type(own).__name__} is not one of fastnn's own layers: training runs step by step "
            "in Python",
            EagerWarning,
            stacklevel=3,
        )


class CompiledSteps:
    """Epochs inside the backend; see :class:`Steps`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        data, model = setup.data, setup.model
        self._plan = setup.runs.lower(
            data.layers,
            data.x.shape[1],
            data.batch_rows,
            model.dtype,
            loss=data.loss.use,
            training=Training(
                setup.optimizer.formula,
                setup.clip_norm,
                setup.clip_value,
                precision=setup.precision,
            ),
            chunk_rows=setup.backend.chunk_rows,
        )
        self._run = self._start(data.x)
        self._kept: list[tuple[np.ndarray, Run]] = []

    def _start(self, x: np.ndarray) -> Run:
        setup, data, model = self._setup, self._setup.data, self._setup.model
        self._x, self._slots = x, setup.optimizer.slots
        binding = Binding(
            x,
            model.arrays(),
            data.targets,
            data.weights,
            slots={name: setup.optimizer.slots_of(name) for name in model.arena},
            threads=backends.threads_for(self._plan),
            seed=setup.seed,
        )
        return setup.runs.start(setup.backend, self._plan, binding)

    def replace_rows(self, x: np.ndarray, comes_again: bool) -> None:
        self.store()
        for rows, run in self._kept:
            if rows is x:
                self._x, self._run = x, run
                self.load()
                return
        self._run = self._start(x)
        if comes_again and self._run.reads_in_place:
            self._kept.append((x, self._run))

    @property
    def takes_epochs(self) -> bool:
        return self._run.takes_epochs

    def begin(self, places: np.ndarray | None, rates: np.ndarray, epochs: int) -> None:
        optimizer, data = self._setup.optimizer, self._setup.data
        scalars = optimizer.scalars(optimizer.updates, rates, data.dtype)
        self._run.begin(places, data.count, scalars, optimizer.epochs, epochs=epochs)
        self._rates = rates

    def finish(self, bar: Progress) -> None:
        run, seen = self._run, 0
        outcome = "stopped"
        while outcome == "stopped":
            outcome = run.advance(backends.SLICE_SECONDS)
            bar.move(run.step - seen)
            seen = run.step
        if outcome == "diverged":
            loss, rate = float(run.losses()[-1]), float(self._rates[run.step])
            raise self._setup.diverged(run.step, loss, rate)

    @property
    def steps_done(self) -> int:
        return self._run.step

    @property
    def losses(self) -> np.ndarray:
        return self._run.losses()

    @property
    def hits(self) -> np.ndarray:
        return self._run.hits()

    def store(self) -> None:
        with interrupts_later():
            self._run.store()

    def load(self) -> None:
        if self._slots is not self._setup.optimizer.slots:  # the optimizer was reset
            self._kept.clear()
            self._run = self._start(self._x)
        self._run.load()


class EagerSteps:
    """Epochs step by step in Python, for layers of the user's own; see :class:`Steps`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.replace_rows(setup.data.x, comes_again=False)

    def replace_rows(self, x: np.ndarray, comes_again: bool) -> None:
        self._x = arrays.to_host("X", x)  # layers in Python work on NumPy arrays

    takes_epochs = False

    def begin(self, places: np.ndarray | None, rates: np.ndarray, epochs: int) -> None:
        self._rows = np.arange(len(self._x)) if places is None else places
        self._rates = rates
        self._losses: list[float] = []
        self._hits: list[float] = []
        self.steps_done = 0

    def finish(self, bar: Progress) -> None:
        batch_rows, model = self._setup.data.batch_rows, self._setup.model
        training = model.training
        model.train()
        try:
            for number, rate in enumerate(self._rates):
                chosen = self._rows[number * batch_rows : (number + 1) * batch_rows]
                self._step(chosen, float(rate))
                bar.move(1)
        finally:
            model.train() if training else model.eval()

    def _step(self, chosen: np.ndarray, rate: float) -> None:
        setup, data = self._setup, self._setup.data
        constants = setup.model.constants.flat.copy()
        outputs = self._forward(chosen)
        grad = np.empty_like(outputs)
        loss, hits = data.measure(chosen, outputs, grad)
        self._losses.append(loss)
        if not math.isfinite(loss):
            setup.model.constants.flat[:] = constants
            raise setup.diverged(self.steps_done, loss, rate)
        for layer in reversed(data.layers):
            grad = layer.backward(grad)
        with interrupts_later():
            setup.optimizer.step_model(
                setup.model,
                rate,
                setup.clip_norm,
                setup.clip_value,
                setup.optimizer.updates + self.steps_done,
            )
            self._hits.append(hits)
            self.steps_done += 1

    def _forward(self, chosen: np.ndarray) -> np.ndarray:
        setup, data = self._setup, self._setup.data
        values = np.ascontiguousarray(self._x[chosen], data.dtype)
        for number, layer in enumerate(data.layers):
            if isinstance(layer, Dropout):
                layer.draw(setup.seed, setup.optimizer.epochs, self.steps_done, number)
            values = layer.forward(values)
        return values

    @property
    def losses(self) -> np.ndarray:
        return np.array(self._losses)

    @property
    def hits(self) -> np.ndarray:
        return np.array(self._hits)

    def store(self) -> None:
        """The weights are where they belong."""

    load = store
