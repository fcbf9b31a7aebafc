"""A plan at work: its rows called one by one, in steps and chunks, until the end or a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import formulas
from ..contract import IDENTITY, Binding, Dropout, Plan, Row, Run, documented_by
from ..interrupts import interrupts_later
from ..tracing import NumpyMath
from .operations import apply_dropout, square_sum

if TYPE_CHECKING:
    from .operations import Operations


class _Chunk(NamedTuple):
    """Where in an epoch the rows lie that are being worked on."""

    step: int
    number: int
    """Of the step's chunks, from 0."""
    rows: int
    first_row: int
    """The place of the first row in its step's batch."""
    first: int
    """The place of the first row in the epoch's order."""
    rows_in_step: int

    @property
    def ends_step(self) -> bool:
        return self.first_row + self.rows == self.rows_in_step


@documented_by(Run)
class NumpyRun:
    """A plan at work on NumPy arrays; see :class:`fastnn.kernels.contract.Run`.

    Parameters are worked on where they lie, in the arrays of the binding.
    """

    threads = 1
    takes_epochs = False
    reads_in_place = True

    def __init__(self, plan: Plan, binding: Binding, operations: Operations) -> None:
        self.plan, self.binding = plan, binding
        self.step = self._first_step = self._steps = self._chunk = 0
        self._diverged = False
        self._order: np.ndarray | None = None
        self._operations, self._math = operations, NumpyMath(plan.dtype)
        self._number = self._math.dtype.type
        self._arrays, self._slots = dict(binding.arrays), binding.slots
        self._per_row = {buffer.name for buffer in plan.buffers if buffer.per_row}
        for buffer in plan.buffers:
            self._arrays[buffer.name] = np.zeros(plan.shape(buffer.name), plan.dtype)
        if plan.loss is not None:
            for name in ("row_losses", "row_hits"):
                self._per_row.add(name)
                self._arrays[name] = np.zeros(plan.chunk_rows, plan.dtype)
        self._grads = {p.name: self._grad_array(p.name) for p in plan.parameters}
        self._decayed = {p.name: p.decayed for p in plan.parameters}
        self._biases = {row.reads[1]: row.reads[2:] for row in plan.chunk if row.op == "linear"}
        self._scale = self._clip_scale = self._number(1.0)
        self._chunk_rows = self._bind(plan.chunk)
        self._step_rows = self._bind(plan.step)

    # -- the contract --

    def begin(
        self,
        order: np.ndarray | None,
        samples: int,
        scalars: np.ndarray | None,
        epoch: int = 0,
        first_step: int = 0,
        epochs: int = 1,
    ) -> None:
        self._order, self._samples, self._scalars, self._epoch = order, samples, scalars, epoch
        self.step = self._first_step = first_step
        self._chunk, self._diverged = 0, False
        self._steps = -(-samples // self.plan.batch_rows)
        records = np.zeros((3, self._steps - first_step), self.plan.dtype)
        self._losses, self._hits, self._squares = records

    def advance(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while self.step < self._steps:
            chunk = self._where()
            with interrupts_later():
                if not self._work(chunk):
                    self._diverged = True
                    return "diverged"
                self._chunk += 1
                if chunk.ends_step:
                    self.step, self._chunk = self.step + 1, 0
            if time.monotonic() >= deadline and self.step < self._steps:
                return "stopped"
        return "done"

    def losses(self) -> np.ndarray:
        return self._losses[: self._recorded()].copy()

    def hits(self) -> np.ndarray:
        return self._hits[: self._recorded()].copy()

    def squares(self) -> np.ndarray:
        return self._squares[: self._recorded()].copy()

    def store(self) -> None:
        """Nothing to do: the arrays bound are the ones worked on."""

    def load(self) -> None:
        """Nothing to do: the arrays bound are the ones worked on."""

    # -- steps and chunks --

    def _recorded(self) -> int:
        return self.step - self._first_step + self._diverged

    def _where(self) -> _Chunk:
        plan = self.plan
        begin, first_row = self.step * plan.batch_rows, self._chunk * plan.chunk_rows
        rows_in_step = min(plan.batch_rows, self._samples - begin)
        rows = min(plan.chunk_rows, rows_in_step - first_row)
        return _Chunk(self.step, self._chunk, rows, first_row, begin + first_row, rows_in_step)

    def _work(self, chunk: _Chunk) -> bool:
        """Do a chunk, and what follows the last one of a step; False where the loss diverged."""
        for operate, row in self._chunk_rows:
            if operate(row, chunk) is False:
                return False
        if chunk.ends_step:
            for operate, row in self._step_rows:
                operate(row, chunk)
        return True

    def _bind(self, rows: Sequence[Row]) -> list[tuple[Callable[[Row, _Chunk], bool | None], Row]]:
        return [(getattr(self, f"_{row.op}"), row) for row in rows]

    def _grad_array(self, name: str) -> np.ndarray:
        grad = self.binding.grads.get(name)
        return np.zeros(self.plan.shape(name), self.plan.dtype) if grad is None else grad

    def _array(self, name: str, chunk: _Chunk) -> np.ndarray:
        """What a name of the plan stands for: of a buffer, the rows of the chunk."""
        array = self._arrays[name]
        return array[: chunk.rows] if name in self._per_row else array

    def _all(self, names: Sequence[str], chunk: _Chunk) -> list[np.ndarray]:
        return [self._array(name, chunk) for name in names]

    def _data(self, values: np.ndarray, first: int, rows: int) -> np.ndarray:
        """Rows of the data, or of targets or weights, in the order of the epoch."""
        places = slice(first, first + rows)
        return values[places if self._order is None else self._order[places]]

    def _add_up(self, chunk: _Chunk, names: Sequence[str], fill: Callable[..., None]) -> None:
        """Let ``fill`` write these parameters' gradients, added to those of earlier chunks."""
        grads = [self._grads[name] for name in names]
        if chunk.number == 0:
            fill(*grads)
            return
        parts = [np.empty_like(grad) for grad in grads]
        fill(*parts)
        for grad, part in zip(grads, parts, strict=True):
            grad += part

    def _drop(self, row: Row, chunk: _Chunk) -> None:
        """Dropout of all that a row has written, where its settings say so."""
        dropout: Dropout | None = row.settings.get("dropout")
        if dropout is not None:
            dropout = dropout._replace(seed=self.binding.seed, epoch=self._epoch, step=chunk.step)
            apply_dropout(dropout, chunk.first_row, self._all(row.writes, chunk))

    def _move(self, name: str, chunk: _Chunk) -> None:
        """One optimizer step of one parameter."""
        plan, formula = self.plan, self.plan.update
        assert formula is not None and self._scalars is not None
        both = self._scalars[chunk.step - self._first_step]
        scalars = both[int(self._decayed[name]), : len(formula.scalars)]
        weight, grad, slots = self._arrays[name], self._grads[name], self._slots.get(name, ())
        clipping = plan.clip_value, self._clip_scale
        self._operations.update(weight, grad, slots, scalars, formula, *clipping)

    # -- the rows of a plan, by name --

    def _weigh(self, row: Row, chunk: _Chunk) -> None:
        if chunk.number == 0:
            weight, weights = self._number(chunk.rows_in_step), self.binding.weights
            if weights is not None:
                weight = self._data(weights, chunk.first, chunk.rows_in_step).sum()
            math = NumpyMath(self.plan.dtype)
            self._scale = math.evaluate(formulas.batch_scale, self._number(weight))

    def _gather(self, row: Row, chunk: _Chunk) -> None:
        (out,) = self._all(row.writes, chunk)
        places = slice(chunk.first, chunk.first + chunk.rows)
        if self._order is None:
            self._operations.gather(self.binding.x[places], None, out)
        else:
            self._operations.gather(self.binding.x, self._order[places], out)

    def _linear(self, row: Row, chunk: _Chunk) -> None:
        x, weight, *bias = self._all(row.reads, chunk)
        y, *slope = self._all(row.writes, chunk)
        activation = row.settings.get("activation", IDENTITY)
        self._operations.linear(
            x, weight, bias[0] if bias else None, y, slope[0] if slope else None, activation
        )
        self._drop(row, chunk)

    def _map(self, row: Row, chunk: _Chunk) -> None:
        x, *learned = self._all(row.reads, chunk)
        y, *slopes = self._all(row.writes, chunk)
        slope = slopes[0] if slopes else None
        self._operations.map(x, y, slope, row.settings["activation"], learned, slopes[1:])
        self._drop(row, chunk)

    def _multiply(self, row: Row, chunk: _Chunk) -> None:
        self._operations.multiply(*self._all(row.reads, chunk))

    def _softmax(self, row: Row, chunk: _Chunk) -> None:
        self._operations.softmax(self._array(row.reads[0], chunk), *self._all(row.writes, chunk))

    def _softmax_grad(self, row: Row, chunk: _Chunk) -> None:
        y, (grad,) = self._array(row.reads[0], chunk), self._all(row.writes, chunk)
        self._operations.softmax_grad(y, grad)

    def _loss(self, row: Row, chunk: _Chunk) -> None:
        (outputs,) = self._all(row.reads, chunk)
        *grad, row_losses, row_hits = self._all(row.writes, chunk)
        binding, rows = self.binding, (chunk.first, chunk.rows)
        assert binding.targets is not None
        targets = self._data(binding.targets, *rows)
        weights = None if binding.weights is None else self._data(binding.weights, *rows)
        by_outputs = grad[0] if grad else None
        record, loss = (row_losses, row_hits), row.settings["loss"]
        self._operations.loss(outputs, targets, weights, self._scale, by_outputs, *record, loss)

    def _square_sum(self, row: Row, chunk: _Chunk) -> None:
        if chunk.number == 0:
            place = chunk.step - self._first_step
            with np.errstate(over="ignore"):
                self._squares[place] = square_sum(self._all(row.reads, chunk))

    def _check(self, row: Row, chunk: _Chunk) -> bool:
        """Record the chunk's loss and hits; False where training must not go on."""
        place = chunk.step - self._first_step
        row_losses, row_hits = self._all(("row_losses", "row_hits"), chunk)
        with np.errstate(all="ignore"):
            self._losses[place] += row_losses.sum() * self._scale
            self._hits[place] += row_hits.sum()
        return self.plan.update is None or bool(np.isfinite(self._losses[place]))

    def _copy_out(self, row: Row, chunk: _Chunk) -> None:
        (outputs,) = self._all(row.reads, chunk)
        assert self.binding.out is not None
        self.binding.out[chunk.first : chunk.first + chunk.rows] = outputs

    def _linear_grad_input(self, row: Row, chunk: _Chunk) -> None:
        grad, weight, *slope = self._all(row.reads, chunk)
        (out,) = self._all(row.writes, chunk)
        self._operations.linear_grad_input(grad, weight, slope[0] if slope else None, out)

    def _linear_grad_weight(self, row: Row, chunk: _Chunk) -> None:
        x, grad = self._all(row.reads, chunk)
        weight = row.settings["weight"]
        names = (weight, *self._biases[weight])
        self._add_up(
            chunk, names, lambda *grads: self._operations.linear_grad_weight(x, grad, *grads)
        )
        if row.settings.get("update"):
            for name in names:
                self._move(name, chunk)

    def _column_sums(self, row: Row, chunk: _Chunk) -> None:
        a, *b = self._all(row.reads, chunk)

        def fill(out: np.ndarray) -> None:
            sums = np.empty(a.shape[1], a.dtype)
            self._operations.column_sums(a, b[0] if b else None, sums)
            out[...] = sums if out.size == sums.size else sums.sum()

        self._add_up(chunk, row.writes, fill)

    def _update(self, row: Row, chunk: _Chunk) -> None:
        (name,) = row.writes
        for moved in (name, *self._biases.get(name, ())):
            self._move(moved, chunk)

    def _norm(self, row: Row, chunk: _Chunk) -> None:
        norm = self._number(self._operations.norm(list(self._grads.values())))
        limit = self.plan.clip_norm
        self._clip_scale = self._math.evaluate(formulas.norm_clip, norm, limit)

    def _moments(self, row: Row, chunk: _Chunk) -> None:
        self._operations.moments(*self._all((*row.reads, *row.writes), chunk))

    def _running_average(self, row: Row, chunk: _Chunk) -> None:
        mean, variance = self._all(row.reads, chunk)
        running_mean, running_variance = self._all(row.writes, chunk)
        momentum = row.settings["momentum"]
        self._operations.running_average(
            mean, variance, running_mean, running_variance, momentum, chunk.rows
        )

    def _batch_norm(self, row: Row, chunk: _Chunk) -> None:
        x, mean, variance, gamma, beta = self._all(row.reads, chunk)
        y, *x_hat = self._all(row.writes, chunk)
        eps = row.settings["eps"]
        self._operations.batch_norm(
            x, mean, variance, gamma, beta, eps, x_hat[0] if x_hat else None, y
        )

    def _batch_norm_grad(self, row: Row, chunk: _Chunk) -> None:
        grad, x_hat, variance, gamma, _ = self._all(row.reads, chunk)
        eps = row.settings["eps"]
        grad_gamma, grad_beta = (self._grads[name] for name in row.reads[-2:])
        self._operations.batch_norm_grad(grad, x_hat, variance, gamma, eps, grad_beta, grad_gamma)
