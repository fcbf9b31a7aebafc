"""A plan at work on the device: an epoch is replays of a CUDA graph, with nothing between them.

Small networks have one kernel instead, which does many steps by itself.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from ..contract import Binding, Plan, Run, documented_by
from ..interrupts import interrupts_later
from .calls import PROGRESS
from .data import data_of
from .device import Device, Work
from .memory import Memory
from .persistent import Persistent, suits
from .program import Program

_STEPS_A_GRAPH = 16
"""Steps that one replay does where as many are left: a replay costs the host some microseconds."""
_STEPS_BEFORE_A_GRAPH = 2
"""Steps of one size that are launched call by call: what is done once needs no graph."""
_MOST_STEPS = 1 << 16
_ALL_BITS = 2**64 - 1


@documented_by(Run)
class CupyRun:
    """A plan at work on the device; see :class:`fastnn.kernels.contract.Run`.

    Everything that a step needs to know lies on the device: the order of the rows, the step's
    number, its learning rate. The host queues replays for as long as it was told, then waits.
    """

    threads = 1
    takes_epochs = False
    reads_in_place = False

    def __init__(self, plan: Plan, binding: Binding, device: Device) -> None:
        self.plan, self.binding, self._device = plan, binding, device
        self.step = self._steps = self._first_step = self._samples = 0
        self._diverged = False
        self._steps_of: dict[int, list[Work]] = {}
        self._launched: Counter[int] = Counter()
        self._graphs: dict[tuple[int, int], Any] = {}
        self._pace = 0.0  # seconds a step
        self._records: Any = None
        with device.current():
            self._stream = device.stream()
            with device.on(self._stream):
                self._memory = Memory(plan, binding, device)
                self._memory.load()
                self._data = data_of(binding, plan.batch_rows, device)
                self._out = self._output()
                self._program = Program(plan, binding, self._memory, device)
                self._persistent = (
                    Persistent(plan, binding, self._memory, device) if suits(plan) else None
                )
                self._stream.synchronize()

    def begin(
        self,
        order: np.ndarray | None,
        samples: int,
        scalars: np.ndarray | None,
        epoch: int = 0,
        first_step: int = 0,
        epochs: int = 1,
    ) -> None:
        plan = self.plan
        self.step = self._first_step = first_step
        self._samples, self._diverged = samples, False
        self._steps = -(-samples // plan.batch_rows)
        device = self._device
        with device.current(), device.on(self._stream):
            self._records = device.zeros((3, max(1, self._steps - first_step)), plan.dtype)
            self._scalars = None if scalars is None else device.array(scalars, plan.dtype)
            self._data.begin(order, samples, first_step * plan.batch_rows)
            losses, hits, squares = (row.data.ptr for row in self._records)
            self._words = dict.fromkeys(PROGRESS, 0) | {
                "OUT": 0 if self._out is None else self._out.data.ptr,
                "EPOCH": epoch,
                "SEED": self.binding.seed,
                "FIRST_STEP": first_step,
                "SCALARS": 0 if self._scalars is None else self._scalars.data.ptr,
                "LOSSES": losses,
                "HITS": hits,
                "SQUARES": squares,
            }
            self._stream.synchronize()

    def advance(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while self.step < self._steps:
            with interrupts_later(), self._device.current(), self._device.on(self._stream):
                self._work(deadline)
            if self._diverged:
                return "diverged"
            if time.monotonic() >= deadline and self.step < self._steps:
                return "stopped"
        self._copy_output()
        return "done"

    def losses(self) -> np.ndarray:
        return self._recorded(0)

    def hits(self) -> np.ndarray:
        return self._recorded(1)

    def squares(self) -> np.ndarray:
        return self._recorded(2)

    def store(self) -> None:
        with self._device.current(), self._device.on(self._stream):
            self._memory.store()

    def load(self) -> None:
        with self._device.current(), self._device.on(self._stream):
            self._memory.load()
            self._stream.synchronize()

    # -- steps --

    def _work(self, deadline: float) -> None:
        """Queue the steps that the time is enough for, at least one, and wait for them."""
        begun = time.monotonic()
        row = self.step * self.plan.batch_rows
        self._words |= self._data.words(row) | {"STEP": self.step}
        words = [self._words[word] & _ALL_BITS for word in PROGRESS]
        self._memory.progress.set(np.array(words, np.uint64).view(np.int64))
        ready = -(-self._data.ready(row) // self.plan.batch_rows)
        # a single step first, which shows how fast the device is
        affordable = (deadline - begun) / self._pace if self._pace else 1.0
        count = int(min(ready - self.step, max(1.0, affordable), _MOST_STEPS))
        self._queue(count)
        self._data.prefetch()
        progress = self._memory.progress.get()
        self._diverged = bool(progress[PROGRESS.index("DIVERGED")])
        self.step = int(progress[PROGRESS.index("STEP")])
        self._pace = (time.monotonic() - begun) / count

    def _queue(self, count: int) -> None:
        """Put so many steps on the stream."""
        batch_rows, step = self.plan.batch_rows, self.step
        end = step + count
        whole = min(end, self._samples // batch_rows)  # only the last step may be short
        if step < whole:
            self._repeat(batch_rows, whole - step)
        if whole < end:
            self._repeat(self._samples - whole * batch_rows, 1)

    def _repeat(self, rows: int, steps: int) -> None:
        """Put steps of so many rows on the stream."""
        if self._persistent is not None:
            self._persistent.launch(rows, steps)
            return
        works = self._works(rows)
        while steps > 0:
            many = _STEPS_A_GRAPH if steps >= _STEPS_A_GRAPH else 1
            if many == 1 and self._launched[rows] < _STEPS_BEFORE_A_GRAPH:
                self._launched[rows] += 1
                for work in works:
                    work.launch(self._device)
            else:
                self._graph(rows, many).launch(self._stream)
            steps -= many

    def _works(self, rows: int) -> list[Work]:
        """A step of so many rows, ready to be launched; its working memory stays."""
        if rows not in self._steps_of:
            works = [item.work for item in self._program.step(rows)]
            self._device.prepare(works)
            self._steps_of[rows] = works
        return self._steps_of[rows]

    def _graph(self, rows: int, steps: int) -> Any:
        """A graph of steps of so many rows."""
        key = rows, steps
        if key not in self._graphs:
            self._graphs[key] = self._device.capture(self._stream, self._works(rows) * steps)
        return self._graphs[key]

    def _recorded(self, which: int) -> np.ndarray:
        if self._records is None:
            return np.zeros(0, self.plan.dtype)
        with self._device.current(), self._device.on(self._stream):
            done = self.step - self._first_step + self._diverged
            return self._records[which].get()[:done].copy()

    # -- outputs --

    def _output(self) -> Any:
        """The array on the device that outputs are written to, if the plan gives any."""
        out = self.binding.out
        if out is None or self._device.is_array(out):
            return out
        return self._device.empty(out.shape, out.dtype)

    def _copy_output(self) -> None:
        out = self.binding.out
        if out is not None and out is not self._out:
            with self._device.current(), self._device.on(self._stream):
                out[...] = self._out.get()
