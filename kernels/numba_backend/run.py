"""A program at work: epochs begun, advanced by deadlines, parameters stored back when asked."""

from __future__ import annotations

import time

import numpy as np

from ..alignment import aligned
from ..contract import Binding, Plan, Run, documented_by
from . import table as t
from .compiled import control
from .program import Program
from .workers import BELL, together

_OUTCOMES = {t.RUNNING_ON: "done", t.STOPPED: "stopped", t.DIVERGED: "diverged"}


@documented_by(Run)
class NumbaRun:
    """A plan at work on compiled kernels; see :class:`fastnn.kernels.contract.Run`."""

    reads_in_place = True

    def __init__(self, plan: Plan, binding: Binding) -> None:
        self._run = control("engine", "run", "ppii")
        self.plan, self.threads = plan, binding.threads
        self._program = Program(plan, binding)
        self.takes_epochs = self.threads == 1
        self._tables = [table.ctypes.data for table in self._program.tables]
        self._control = aligned(t.CONTROL + 2 * self._program.counters, "int64")
        self._first_step = 0
        self.load()

    def takes(self, plan: Plan, binding: Binding) -> bool:
        """Whether :meth:`bind` will do for a run of a plan over these data."""
        return self._program.takes(plan, binding)

    def bind(self, binding: Binding) -> None:
        """Work for other parameters, slots and seed, over the same data."""
        self._program.bind(binding)
        self.load()

    @property
    def step(self) -> int:
        """Where the run stands."""
        return self._first_step + self._since_begin()

    def begin(
        self,
        order: np.ndarray | None,
        samples: int,
        scalars: np.ndarray | None,
        epoch: int = 0,
        first_step: int = 0,
        epochs: int = 1,
    ) -> None:
        steps = -(-samples // self.plan.batch_rows)
        words = self._control
        self._program.begin(order, samples, scalars, epoch, epochs * steps - first_step)
        self._first_step = first_step
        words[t.EPOCHS] = epochs - 1
        words[t.STEP] = words[t.FIRST_STEP] = first_step
        words[t.CHUNK], words[t.LAST_STEP], words[t.STATUS] = 0, steps, t.RUNNING_ON
        words[t.PRIMED] = words[t.NEXT_OPERATION] = 0

    def advance(self, seconds: float) -> str:
        words = self._control
        words[t.STOP] = words[t.STOP_ODD] = words[t.PAUSE] = words[t.PAUSE_ODD] = 0
        words[t.CONTROL :] = 0
        words[t.DEADLINE] = time.monotonic_ns() + int(seconds * 1e9)
        words[t.BELL] = BELL.ctypes.data
        together(self.threads, self._work, rings=True)
        return _OUTCOMES[int(words[t.STATUS])]

    def _work(self, me: int) -> None:
        """A thread's part; bound to this run, which lives on while any thread is at it."""
        self._run(self._tables[me], self._control.ctypes.data, me, self.threads)

    def losses(self) -> np.ndarray:
        return self._program.losses[: self._done()].copy()

    def hits(self) -> np.ndarray:
        return self._program.hits[: self._done()].copy()

    def squares(self) -> np.ndarray:
        return self._program.squares[: self._done()].copy()

    def _done(self) -> int:
        return self._since_begin() + int(self._control[t.STATUS] == t.DIVERGED)

    def _since_begin(self) -> int:
        """Steps done; with each epoch, the first step lies further back."""
        return int(self._control[t.STEP] - self._control[t.FIRST_STEP])

    def store(self) -> None:
        self._program.store()

    def load(self) -> None:
        self._program.load()
        self._control[t.PRIMED] = 0
