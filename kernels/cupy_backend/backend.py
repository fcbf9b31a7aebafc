"""The CUDA backend: every operation and every plan on an NVIDIA GPU, through CuPy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..augmentation import Program
from ..contract import (
    IDENTITY,
    Activation,
    Backend,
    Binding,
    Dropout,
    Loss,
    Plan,
    Predictor,
    Run,
    documented_by,
)
from ..formulas import UpdateFormula
from ..prediction import predictor_by_runs
from . import choice, operations
from .calls import PROGRESS, Code
from .device import Device, Work
from .program import place_of
from .run import CupyRun


@documented_by(Backend)
class CupyBackend:
    """The operations of :class:`fastnn.kernels.contract.Backend` on an NVIDIA GPU.

    Arrays of CuPy are worked on where they lie, on the caller's current stream. Arrays of NumPy are
    copied to the device, and outputs back.

    Parameters
    ----------
    cupy : module
    host : Backend
        Makes the orders of epochs.

    Raises
    ------
    RuntimeError
        Without a driver or a device; the message says which.
    """

    name = "cupy"
    chunk_rows = 65_536

    def __init__(self, cupy: Any, host: Backend) -> None:
        self.module = cupy
        self._host = host
        self._device = Device(cupy)

    def matmul(
        self,
        a: np.ndarray,
        b: np.ndarray,
        out: np.ndarray,
        transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> None:
        with self._moving() as move:
            operands = move.read(a), move.read(b), move.write(out)
            self._do(*choice.matmul(*operands, transpose_a, transpose_b))

    def linear(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
    ) -> None:
        with self._moving() as move:
            operands = move.read(x), move.read(weight), move.read(bias)
            results = move.write(y), move.write(slope)
            self._do(*choice.linear(np.int32(len(x)), *operands, *results, activation))

    def linear_grad_input(
        self, grad: np.ndarray, weight: np.ndarray, slope: np.ndarray | None, out: np.ndarray
    ) -> None:
        with self._moving() as move:
            arrays = move.read(grad), move.read(weight), move.read(slope), move.write(out)
            self._do(*choice.linear_grad_input(np.int32(len(grad)), *arrays))

    def linear_grad_weight(
        self,
        x: np.ndarray,
        grad: np.ndarray,
        grad_weight: np.ndarray,
        grad_bias: np.ndarray | None = None,
    ) -> None:
        with self._moving() as move:
            arrays = move.read(x), move.read(grad), move.write(grad_weight), move.write(grad_bias)
            empty = functools.partial(self._device.empty, dtype=grad.dtype)
            self._do(*choice.linear_grad_weight(np.int32(len(x)), *arrays, False, empty))

    def map(
        self,
        x: np.ndarray,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
        learned: Sequence[np.ndarray] = (),
        learned_slopes: Sequence[np.ndarray] = (),
        dropout: Dropout | None = None,
    ) -> None:
        with self._moving() as move:
            shape = x.shape
            source, value, by_x = map(_matrix, (move.read(x), move.write(y), move.write(slope)))
            numbers = [move.read(array) for array in learned]
            slopes = [_matrix(move.write(array)) for array in learned_slopes]
            rows = np.int32(shape[0] if len(shape) == 2 else 1)
            place = None if dropout is None else place_of(dropout, "0", value.dtype.name)
            arrays = source, value, by_x
            call = operations.map_(rows, *arrays, activation, numbers, slopes, place)
            if dropout is not None:
                call = call.naming({"progress": self._table(dropout)})
            self._do(call)

    def multiply(self, grad: np.ndarray, slope: np.ndarray) -> None:
        with self._moving() as move:
            arrays = _matrix(move.change(grad)), _matrix(move.read(slope))
            self._do(operations.multiply(np.int32(len(arrays[0])), *arrays))

    def softmax(self, x: np.ndarray, y: np.ndarray) -> None:
        with self._moving() as move:
            self._do(operations.softmax(np.int32(len(x)), move.read(x), move.write(y)))

    def softmax_grad(self, y: np.ndarray, grad: np.ndarray) -> None:
        with self._moving() as move:
            self._do(operations.softmax_grad(np.int32(len(y)), move.read(y), move.change(grad)))

    def loss(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
        scale: float,
        grad: np.ndarray | None,
        row_losses: np.ndarray,
        row_hits: np.ndarray,
        loss: Loss,
    ) -> None:
        with self._moving() as move:
            reads = move.read(outputs), move.read(targets), move.read(weights)
            writes = move.write(grad), move.write(row_losses), move.write(row_hits)
            number = reads[0].dtype.type(scale)
            self._do(operations.loss(np.int32(len(outputs)), *reads, number, *writes, loss))

    def moments(self, x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
        with self._moving() as move:
            arrays = move.read(x), move.write(mean), move.write(variance)
            scratch = self._scratch(operations.column_sums_scratch(*x.shape), arrays[0].dtype)
            self._do(*operations.moments(np.int32(len(x)), *arrays, scratch))

    def batch_norm(
        self,
        x: np.ndarray,
        mean: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray,
        beta: np.ndarray,
        eps: float,
        x_hat: np.ndarray | None,
        y: np.ndarray,
    ) -> None:
        with self._moving() as move:
            reads = move.read(x), move.read(mean), move.read(variance), move.read(gamma)
            writes = move.write(x_hat), move.write(y)
            rows = np.int32(len(x))
            self._do(operations.batch_norm(rows, *reads, move.read(beta), eps, *writes))

    def batch_norm_grad(
        self,
        grad: np.ndarray,
        x_hat: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray,
        eps: float,
        grad_beta: np.ndarray,
        grad_gamma: np.ndarray,
    ) -> None:
        with self._moving() as move:
            reads = move.change(grad), move.read(x_hat), move.read(variance), move.read(gamma)
            sums = move.read(grad_beta), move.read(grad_gamma)
            self._do(operations.batch_norm_grad(np.int32(len(grad)), *reads, eps, *sums))

    def column_sums(self, a: np.ndarray, b: np.ndarray | None, out: np.ndarray) -> None:
        with self._moving() as move:
            arrays = move.read(a), move.read(b), move.write(out)
            scratch = self._scratch(operations.column_sums_scratch(*a.shape), arrays[0].dtype)
            self._do(*operations.column_sums(np.int32(len(a)), *arrays, False, scratch))

    def running_average(
        self,
        mean: np.ndarray,
        variance: np.ndarray,
        running_mean: np.ndarray,
        running_variance: np.ndarray,
        momentum: float,
        rows: int,
    ) -> None:
        with self._moving() as move:
            reads = move.read(mean), move.read(variance)
            moved = move.change(running_mean), move.change(running_variance)
            self._do(operations.running_average(np.int32(rows), *reads, *moved, momentum))

    def update(
        self,
        weight: np.ndarray,
        grad: np.ndarray,
        slots: Sequence[np.ndarray],
        scalars: np.ndarray,
        formula: UpdateFormula,
        clip_value: float | None = None,
        scale: float = 1.0,
    ) -> None:
        with self._moving() as move:
            flat = [_flat(move.change(array)) for array in (weight, *slots)]
            grads, numbers = _flat(move.read(grad)), move.read(scalars.astype(weight.dtype))
            factor = weight.dtype.type(scale)
            self._do(
                operations.update(flat[0], grads, flat[1:], numbers, formula, clip_value, factor)
            )

    def norm(self, arrays: Sequence[np.ndarray]) -> float:
        with self._moving() as move:
            flat = [_flat(move.read(array)) for array in arrays]
            result = self._scratch(1, flat[0].dtype)
            sizes = [array.size for array in flat]
            scratch = self._scratch(operations.norm_scratch(sizes), flat[0].dtype)
            self._do(*operations.norm(flat, scratch, result))
            return float(result.get()[0])

    def all_finite(self, x: np.ndarray) -> bool:
        if not self._device.is_array(x):
            return self._host.all_finite(x)  # sooner done than moved
        with self._moving() as move:
            flag = self._device.zeros(1, np.int32)
            self._do(operations.find_not_finite(_matrix(move.read(x)), flag))
            return not flag.get()[0]

    def gather(self, x: np.ndarray, index: np.ndarray | None, out: np.ndarray) -> None:
        with self._moving() as move:
            source, result = move.read(x), move.write(out)
            rows = None if index is None else move.read(np.ascontiguousarray(index, np.int64))
            order = operations.AS_THEY_STAND if rows is None else Code("Order{rows, 0}")
            call = operations.gather(np.int32(len(out)), source, order, result)
            self._do(call if rows is None else call.naming({"rows": rows}))

    def augment(self, images: np.ndarray, program: Program, out: np.ndarray) -> None:
        self._host.augment(images, program, out)

    def permutation(self, seed: int, epoch: int, count: int, epochs: int = 1) -> np.ndarray:
        return self._host.permutation(seed, epoch, count, epochs)

    def draws(self, seed: int, epoch: int, population: int, count: int) -> np.ndarray:
        return self._host.draws(seed, epoch, population, count)

    def start(self, plan: Plan, binding: Binding, spare: Run | None = None) -> CupyRun:
        return CupyRun(plan, binding, self._device)

    def predictor(self, plan: Plan, arrays: Mapping[str, np.ndarray]) -> Predictor:
        return predictor_by_runs(self, plan, arrays)

    # -- parts --

    @contextlib.contextmanager
    def _moving(self) -> Iterator[_Moves]:
        """Arrays for one operation, on the device; outputs that the host has are copied back."""
        with self._device.current():
            moves = _Moves(self._device)
            yield moves
            moves.bring_back()

    def _do(self, *works: Work) -> None:
        self._device.prepare(works)
        for work in works:
            work.launch(self._device)

    def _table(self, dropout: Dropout) -> Any:
        """A run's table that has nothing but the place of a mask."""
        known = {"STEP": dropout.step, "EPOCH": dropout.epoch, "SEED": dropout.seed}
        words = [known.get(word, 0) for word in PROGRESS]
        return self._device.array(np.array(words, np.uint64).view(np.int64))

    def _scratch(self, count: int, dtype: Any) -> Any:
        return self._device.empty(max(1, count), dtype)


class _Moves:
    """The arrays of one operation, as the device has them."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._back: list[tuple[np.ndarray, Any]] = []

    def read(self, array: Any) -> Any:
        """An input; None stays None."""
        if array is None or self._device.is_array(array):
            return array
        return self._device.array(array)

    def write(self, array: Any) -> Any:
        """An output."""
        if array is None or self._device.is_array(array):
            return array
        there = self._device.empty(array.shape, array.dtype)
        self._back.append((array, there))
        return there

    def change(self, array: Any) -> Any:
        """Both."""
        there = self.read(array)
        if there is not array:
            self._back.append((array, there))
        return there

    def bring_back(self) -> None:
        for array, there in self._back:
            array[...] = there.get()


def _matrix(array: Any) -> Any:
    """The same elements with two axes, all in one row unless there are rows already."""
    return array if array is None or array.ndim == 2 else array.reshape(1, -1)


def _flat(array: Any) -> Any:
    return array.reshape(-1)
