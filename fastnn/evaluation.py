"""Loss and metrics of a network on data."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import arrays
from . import backend as backends
from . import metrics as metric_functions
from .kernels.contract import Binding
from .losses import Loss
from .metrics import Metric
from .plan import can_lower
from .runs import Runs
from .training_data import TrainingData

if TYPE_CHECKING:
    from .kernels.contract import Run
    from .model import Sequential


class Evaluation:
    """Loss and metrics on one set of data, prepared once and measured often.

    Parameters
    ----------
    model : Sequential
    data : TrainingData
    metrics : iterable of str or callable, optional
        By default accuracy, where the loss has classes.

    Raises
    ------
    ValueError, TypeError
        For an unknown metric.
    """

    def __init__(
        self,
        model: Sequential,
        data: TrainingData,
        metrics: Iterable[str | Metric] | None = None,
    ) -> None:
        self.model, self.data = model, data
        self.metrics = named_metrics(metrics, data.loss)
        self._run: Run | None = None

    def measure(self, runs: Runs) -> dict[str, float]:
        """The values now, "loss" first; the run for them is one of ``runs``."""
        by_plan = can_lower(self.data.layers)
        loss, accuracy = self._by_plan(runs) if by_plan else self._by_layers()
        return {"loss": loss} | measure_metrics(self.metrics, accuracy, self.model, self.data)

    def _by_plan(self, runs: Runs) -> tuple[float, float]:
        data, model = self.data, self.model
        rows = len(data.x)
        if self._run is None:
            backend = backends.get_backend()
            plan = runs.lower(
                data.layers,
                data.x.shape[1],
                rows,
                model.dtype,
                loss=data.loss.use,
                chunk_rows=backend.chunk_rows,
            )
            binding = Binding(
                data.x,
                model.arrays(),
                data.targets,
                data.weights,
                threads=backends.threads_for(plan),
            )
            self._run = runs.start(backend, plan, binding)
        else:
            self._run.load()
        run_once(self._run, rows)
        return float(self._run.losses()[0]), float(self._run.hits()[0]) / rows

    def _by_layers(self) -> tuple[float, float]:
        data = self.data
        outputs = self.model.predict_by_layers(data.layers, data.x)
        loss, hits = data.measure(slice(None), outputs)
        return loss, hits / len(data.x)


def named_metrics(metrics: Iterable[str | Metric] | None, loss: Loss) -> dict[str, Metric | None]:
    """Metrics by name; None for accuracy, which the loss counts as it goes.

    Raises
    ------
    ValueError, TypeError
        For an unknown metric.
    """
    if metrics is None:
        return {"accuracy": None} if loss.classifies else {}
    if isinstance(metrics, str):
        metrics = [metrics]
    if not isinstance(metrics, Iterable):
        raise TypeError(f"metrics is {metrics!r}; expected a list of names and functions")
    chosen: dict[str, Metric | None] = {}
    for metric in metrics:
        function = metric_functions.resolve(metric)
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
        if name in chosen:
            raise ValueError(f"metrics has two that are named {name!r}; expected each name once")
        chosen[name] = None if name == "accuracy" and loss.classifies else function
    return chosen


def measure_metrics(
    metrics: Mapping[str, Metric | None],
    accuracy: float,
    model: Sequential,
    data: TrainingData,
) -> dict[str, float]:
    """The values of :func:`named_metrics`; the model predicts once, and only if one needs it."""
    values: dict[str, float] = {}
    outputs = None
    for name, function in metrics.items():
        if function is None:
            values[name] = accuracy
            continue
        if outputs is None:
            x, y = data.meant()
            outputs = arrays.to_host("outputs", model.predict(x))
        value = function(outputs, y)
        if np.ndim(value) or not isinstance(value, (numbers.Real, np.ndarray)):
            raise TypeError(f"the metric {name!r} gave {value!r}; expected a number")
        values[name] = float(value)
    return values


def run_once(run: Run, rows: int) -> None:
    """Let a run of a plan that does not train walk over all its rows."""
    run.begin(None, rows, None)
    while run.advance(backends.SLICE_SECONDS) == "stopped":
        pass
