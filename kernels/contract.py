"""What a backend is: the operations, their signatures and costs, and the format of a plan.

A backend has every operation of :class:`Backend`, under the same name with the same parameters, and
runs a :class:`Plan`. Outputs are written in place, into arrays that the caller gives. ``B`` is rows
of a batch, ``I`` inputs, ``O`` outputs; all arrays of one call have one dtype, float32 or float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from .augmentation import Program
from .formulas import ACTIVATIONS, ActivationFormula, LossFormula, UpdateFormula

Implementation = TypeVar("Implementation")
DTYPES = ("float32", "float64")
PRECISIONS = ("float32", "tf32", "bf16")
"""What products of a float32 plan may round their operands to; sums stay in float32."""
CHUNK_ROWS = 512
"""Rows of a batch that a CPU walks at once: what they need stays in the cache of a core."""
MOST_THREADS = 1024
"""More would cost a machine of today its memory rather than make it faster."""
FEW_ROWS = 8
"""Up to so many rows, preparations that pay for many do not: a gradient by inputs is made of dot
products with the weights as they lie, a weight gradient stays in registers until it is consumed,
and predictions read the weights in place."""


# ---- what operations are given besides arrays ----


@dataclass(frozen=True)
class Activation:
    """An activation formula with its settings."""

    formula: ActivationFormula
    settings: tuple[tuple[str, float], ...] = ()

    @property
    def keywords(self) -> dict[str, float]:
        """The settings as keyword arguments of the formula."""
        return dict(self.settings)

    @property
    def is_identity(self) -> bool:
        """Whether it does nothing."""
        return self.formula == ACTIVATIONS["identity"]


IDENTITY = Activation(ACTIVATIONS["identity"])


@dataclass(frozen=True)
class Loss:
    """A loss: softmax cross-entropy where ``formula`` is None, else an elementwise formula.

    Parameters
    ----------
    formula : LossFormula or None
    settings : tuple of (str, float)
        Those of the formula.
    smoothing : float
        Share of the uniform distribution in a cross-entropy's targets.
    sums : bool
        Whether an elementwise loss of a row is the sum over its outputs rather than the mean.
    limits : (float, float) or None
        What is recorded of each row of a cross-entropy, of each element of an elementwise loss, is
        moved into these, before it is weighted. The gradient is that of the loss as it was.
    """

    formula: LossFormula | None = None
    settings: tuple[tuple[str, float], ...] = ()
    smoothing: float = 0.0
    sums: bool = False
    limits: tuple[float, float] | None = None

    @property
    def keywords(self) -> dict[str, float]:
        """The settings as keyword arguments of the formula."""
        return dict(self.settings)

    def share(self, outputs: int) -> float:
        """What the sum of an elementwise loss over a row's outputs is multiplied by."""
        return 1.0 if self.sums else 1.0 / max(1, outputs)


class Dropout(NamedTuple):
    """A dropout mask: a Philox function of its place, kept where the word is at least a threshold.

    The word of element (r, c) is word ``c // 16 % 4`` of the block with counter
    ``(r, c // 64 * 16 + c % 16, step, 256 epoch + layer)`` and key ``seed``.
    """

    probability: float
    layer: int
    seed: int = 0
    epoch: int = 0
    step: int = 0

    @property
    def threshold(self) -> int:
        """Words below this are dropped."""
        return int(self.probability * 2**32)

    @property
    def scale(self) -> float:
        """What is kept is multiplied by this (inverted dropout)."""
        return 1.0 / (1.0 - self.probability)

    @property
    def stream(self) -> int:
        """The last word of the counter."""
        return 256 * self.epoch + self.layer


SHUFFLE_STREAM = 0xFFFFFFFF
"""Last counter word of the words that shuffle: word i is word i % 4 of (i // 4, 0, epoch, this)."""
DRAW_STREAM = 0xFFFFFFFE
"""The same for draws with replacement."""
AUGMENT_STREAM = 0xFFFFFFFD
"""Last counter word of what augments images, by the first transform; the next ones count down: word
i of a sample is word i % 4 of (i // 4, sample, epoch, this)."""


# ---- the plan ----


@dataclass(frozen=True)
class Row:
    """One operation of a plan: what it reads and writes, by name, and its settings."""

    op: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Buffer:
    """Working memory of a plan: ``width`` columns, and as many rows as a chunk, or one."""

    name: str
    width: int
    per_row: bool = True


@dataclass(frozen=True)
class Parameter:
    """A trained array, a view into the arena; ``decayed`` says whether weight decay touches it."""

    name: str
    shape: tuple[int, ...]
    decayed: bool


@dataclass(frozen=True)
class Plan:
    """A lowered network: operations in order, first those of each chunk, then those of each step.

    Parameters
    ----------
    dtype : str
    batch_rows, chunk_rows : int
        Rows of a step, and rows walked at once; a step of several chunks stores its gradients.
    inputs, outputs : int
        Columns of the data and of the last buffer.
    chunk, step : tuple of Row
    buffers, parameters : tuple
        Buffers by what is named in rows; parameters that are trained.
    constants : tuple of Parameter
        Arrays that are read (and, for running statistics, moved), but not trained.
    loss : Loss or None
    update : UpdateFormula or None
        The optimizer's formula; None for a plan that predicts, evaluates or leaves gradients.
    clip_norm, clip_value : float or None
    precision : str
        Of :data:`PRECISIONS`; what is not "float32" passed :func:`check_precision`.
    threads : int or None
        How many a run would take; None where nobody has chosen yet.
    output : str
        The buffer that holds the network's outputs.
    """

    dtype: str
    batch_rows: int
    chunk_rows: int
    inputs: int
    outputs: int
    chunk: tuple[Row, ...]
    step: tuple[Row, ...]
    buffers: tuple[Buffer, ...]
    parameters: tuple[Parameter, ...]
    constants: tuple[Parameter, ...]
    output: str
    loss: Loss | None = None
    update: UpdateFormula | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    precision: str = "float32"
    threads: int | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a buffer (for one chunk), parameter or constant."""
        return self._shapes[name]

    @property
    def stores_gradients(self) -> bool:
        """Whether a step leaves gradients behind, which a binding may have arrays for."""
        return any(
            row.op == "column_sums"
            or (row.op == "linear_grad_weight" and not row.settings.get("update"))
            for row in self.chunk
        )

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {p.name: p.shape for p in (*self.parameters, *self.constants)}
        for buffer in self.buffers:
            rows = (self.chunk_rows,) if buffer.per_row else ()
            shapes[buffer.name] = (*rows, buffer.width)
        return shapes

    def cost(self, row: Row) -> Cost:
        """Flops and bytes of one pass of a row over a whole chunk."""
        shapes = self._shapes
        itemsize = np.dtype(self.dtype).itemsize
        touched = [name for name in (*row.reads, *row.writes) if name in shapes]
        touched += self._touched_besides(row)
        elements = [math.prod(shapes[name]) for name in touched]
        flops = COSTS.get(row.op, _elementwise)(
            [shapes.get(name, ()) for name in row.reads],
            [shapes.get(name, ()) for name in row.writes],
        )
        return Cost(flops, sum(elements) * itemsize)

    def _touched_besides(self, row: Row) -> list[str]:
        """A parameter's name, as often as a gradient or an update reads or writes as much."""
        moved = 2 * (1 + len(self.update.slots)) if self.update else 0
        if row.op == "linear_grad_weight":
            return [row.settings["weight"]] * (moved if row.settings.get("update") else 1)
        # what is written is named already; the gradient is read
        return [row.writes[0]] * moved if row.op == "update" else []

    def __str__(self) -> str:
        lines = [f"plan: {self.dtype}, batch {self.batch_rows}, chunk {self.chunk_rows}"]
        if self.precision != "float32":
            lines[0] += f", products in {self.precision}"
        if self.threads is not None:
            lines[0] += f", threads {self.threads}"
        for title, rows in (("each chunk", self.chunk), ("each step", self.step)):
            if rows:
                lines.append(f"{title}:")
            for row in rows:
                cost = self.cost(row)
                detail = ", ".join(_spell(k, v) for k, v in row.settings.items())
                lines.append(
                    f"  {row.op:<19} {', '.join(row.reads):<34} -> {', '.join(row.writes):<30}"
                    f" {cost.flops / 1e6:9.3f} Mflop {cost.bytes / 1e6:8.3f} MB  {detail}".rstrip()
                )
        return "\n".join(lines)


class Cost(NamedTuple):
    """What an operation does, at least: floating-point operations, bytes read and written."""

    flops: int
    bytes: int


def _spell(name: str, value: Any) -> str:
    if isinstance(value, Activation):
        return value.formula.name
    if isinstance(value, Dropout):
        return f"dropout {value.probability:g}"
    if isinstance(value, Loss):
        return value.formula.name if value.formula else "cross_entropy"
    return f"{name} {value}"


def _elementwise(reads: list[tuple[int, ...]], writes: list[tuple[int, ...]]) -> int:
    shapes = [shape for shape in (*reads, *writes) if shape]
    return max(map(math.prod, shapes), default=0)


def _product(reads: list[tuple[int, ...]], writes: list[tuple[int, ...]]) -> int:
    (rows, inner), columns = reads[0], math.prod(reads[1]) // reads[0][1]
    return 2 * rows * inner * columns


def _squares(reads: list[tuple[int, ...]], writes: list[tuple[int, ...]]) -> int:
    return 2 * sum(int(np.prod(shape)) for shape in reads)


def _outer_product(reads: list[tuple[int, ...]], writes: list[tuple[int, ...]]) -> int:
    return 2 * reads[0][0] * reads[0][1] * reads[1][1]


COSTS: dict[str, Callable[[list, list], int]] = {
    "linear": _product,
    "linear_grad_input": _product,
    "linear_grad_weight": _outer_product,
    "square_sum": _squares,
}
"""Flops by operation; every other operation counts one for each element."""


def check_precision(precision: str, dtype: str, backend: str) -> None:
    """Raise ValueError unless the backend can round the operands of products of this dtype so.

    >>> check_precision("bf16", "float32", "numba")
    Traceback (most recent call last):
        ...
    ValueError: precision is 'bf16', which only the cupy backend has; the numba backend runs this
    """
    if precision == "float32":
        return
    if backend != "cupy":
        raise ValueError(
            f"precision is {precision!r}, which only the cupy backend has; the {backend} backend "
            "runs this"
        )
    if dtype != "float32":
        raise ValueError(f"precision is {precision!r}, which is for float32; the dtype is {dtype}")


# ---- the operations ----


class Backend(Protocol):
    """The operations of a backend. Arrays are C-contiguous in their last axis.

    An output may be an input of the same shape in ``map``, ``softmax`` (y = x) and ``loss`` (grad =
    outputs); nowhere else may arrays overlap. Where no flops are given, they are one an element (a
    formula's count as one); bytes are those of the arrays, each touched once. ``Plan.cost`` counts
    both.

    Attributes
    ----------
    name : str
    module : module
        The array module that outputs are made with: numpy, or cupy.
    chunk_rows : int
        Rows of a batch that are walked at once.
    """

    name: str
    module: Any
    chunk_rows: int

    def matmul(
        self,
        a: np.ndarray,
        b: np.ndarray,
        out: np.ndarray,
        transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> None:
        """out = a b, either transposed first. 2 M N K flops; error at most K eps |a| |b|."""

    def linear(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        y: np.ndarray,
        slope: np.ndarray | None = None,
        activation: Activation = IDENTITY,
    ) -> None:
        """y = f(x weight + bias); slope = f'(...). 2 B I O flops; error I eps |x| |weight|."""

    def linear_grad_input(
        self, grad: np.ndarray, weight: np.ndarray, slope: np.ndarray | None, out: np.ndarray
    ) -> None:
        """out = (grad weight') * slope. 2 B I O flops; error O eps |grad| |weight|."""

    def linear_grad_weight(
        self,
        x: np.ndarray,
        grad: np.ndarray,
        grad_weight: np.ndarray,
        grad_bias: np.ndarray | None = None,
    ) -> None:
        """grad_weight = x' grad; grad_bias = column sums of grad. 2 B I O flops; error B eps."""

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
        """y = f(x), its slope, and its slopes by learned parameters; dropout on all of them.

        ``learned_slopes`` are given only with ``slope``. Error: the formula's, a few units in the
        last place (``tracing.vector.MAX_ULP``).
        """

    def multiply(self, grad: np.ndarray, slope: np.ndarray) -> None:
        """grad *= slope; one rounding."""

    def softmax(self, x: np.ndarray, y: np.ndarray) -> None:
        """Softmax of each row; error O eps."""

    def softmax_grad(self, y: np.ndarray, grad: np.ndarray) -> None:
        """grad = y (grad - sum(y grad)) in place; error O eps |grad|."""

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
        """Each row's weighted loss and hit; grad (if wanted) times the row's weight and scale.

        Targets are int64 class numbers (B,) or values (B, O). Error O eps.
        """

    def moments(self, x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
        """Mean and biased variance of each column, in two passes; error B eps."""

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
        """x_hat = (x - mean) / sqrt(variance + eps); y = gamma x_hat + beta."""

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
        """The gradient by x, in place of the gradient by y, from its column sums."""

    def column_sums(self, a: np.ndarray, b: np.ndarray | None, out: np.ndarray) -> None:
        """out = column sums of a, or of a b; error B eps."""

    def running_average(
        self,
        mean: np.ndarray,
        variance: np.ndarray,
        running_mean: np.ndarray,
        running_variance: np.ndarray,
        momentum: float,
        rows: int,
    ) -> None:
        """Move the running statistics towards a batch's; the variance is made unbiased first."""

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
        """One optimizer step in place; ``scalars`` in the formula's order; grad times scale."""

    def norm(self, arrays: Sequence[np.ndarray]) -> float:
        """The Euclidean norm of all the arrays together."""

    def all_finite(self, x: np.ndarray) -> bool:
        """Whether no element is NaN or infinite; no temporary."""

    def gather(self, x: np.ndarray, index: np.ndarray | None, out: np.ndarray) -> None:
        """out = x[index], converted to out's dtype."""

    def augment(self, images: np.ndarray, program: Program, out: np.ndarray) -> None:
        """out = what a program of augmentation makes of the images (B, H, W, C), in host memory.

        uint8, float32 or float64, contiguous; every backend gives the same bits.
        """

    def permutation(self, seed: int, epoch: int, count: int, epochs: int = 1) -> np.ndarray:
        """The orders of some epochs, one behind the other: 0 .. count - 1 shuffled (int64)."""

    def draws(self, seed: int, epoch: int, population: int, count: int) -> np.ndarray:
        """``count`` rows of ``population``, drawn with replacement (int64)."""

    def start(self, plan: Plan, binding: Binding, spare: Run | None = None) -> Run:
        """A run of a plan over data.

        ``spare`` is one of the same backend that nobody needs any more: where it has the same plan
        over the same data, it may be the one that is returned, bound anew.
        """

    def predictor(self, plan: Plan, arrays: Mapping[str, np.ndarray]) -> Predictor:
        """A function for predictions of a few rows, over arrays that stay where they are."""


class Predictor(Protocol):
    """Predicts by a plan of at most FEW_ROWS rows; for one thread at a time."""

    def __call__(self, x: np.ndarray) -> np.ndarray | None:
        """Outputs (B, O), or None for rows that cannot be read in place or are not finite."""


def documented_by(protocol: type) -> Callable[[type[Implementation]], type[Implementation]]:
    """Give each method of a class the docstring that the protocol has for it.

    A decorator; a docstring of the method's own stays.
    """

    def document(implementation: type[Implementation]) -> type[Implementation]:
        for name, method in vars(implementation).items():
            if callable(method) and method.__doc__ is None and not name.startswith("_"):
                method.__doc__ = getattr(protocol, name).__doc__
        return implementation

    return document


OPERATIONS = tuple(name for name in vars(Backend) if not name.startswith("_"))
"""The names that every backend has."""


# ---- running a plan ----


@dataclass
class Binding:
    """What a run works on: data, and the arrays behind the names of a plan.

    Parameters
    ----------
    x : ndarray, (N, I)
        Any numeric dtype; converted as rows are gathered.
    targets : ndarray or None
        int64 (N,) for class numbers, else the plan's dtype (N, O).
    weights : ndarray or None
        Sample weights (N,), of the plan's dtype.
    arrays : mapping
        Parameters and constants by name.
    grads, slots : mapping
        Gradients by parameter name (written by plans that store them); for each parameter, its
        optimizer slots in order.
    threads : int
    seed : int
    out : ndarray or None
        Receives the outputs, (N, O), of plans that predict.
    """

    x: np.ndarray
    arrays: Mapping[str, np.ndarray]
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    grads: Mapping[str, np.ndarray] = field(default_factory=dict)
    slots: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    threads: int = 1
    seed: int = 0
    out: np.ndarray | None = None


class Run(Protocol):
    """A plan at work. Parameters may live elsewhere until :meth:`store`.

    Attributes
    ----------
    threads : int
    takes_epochs : bool
        Whether :meth:`begin` takes several epochs at once.
    reads_in_place : bool
        Whether the binding's x is read where it lies, so that rows written into it later count.
    step : int
        Where in the epoch it stands; of several epochs, where in all of them.
    """

    threads: int
    takes_epochs: bool
    reads_in_place: bool
    step: int

    def begin(
        self,
        order: np.ndarray | None,
        samples: int,
        scalars: np.ndarray | None,
        epoch: int = 0,
        first_step: int = 0,
        epochs: int = 1,
    ) -> None:
        """Start an epoch over ``samples`` rows taken in ``order`` (None: as they stand).

        ``scalars`` (steps, 2, S) holds the optimizer's scalars of each step from ``first_step``,
        first without weight decay, then with; limits of clipping are the plan's. Several epochs,
        numbered from ``epoch``, have their orders and their scalars one behind the other.
        """

    def advance(self, seconds: float) -> str:
        """Work on for about ``seconds``; returns "done", "stopped" or "diverged"."""

    def losses(self) -> np.ndarray:
        """The loss of each step done since :meth:`begin`, and of the one that diverged."""

    def hits(self) -> np.ndarray:
        """The number of rows that each step had right."""

    def squares(self) -> np.ndarray:
        """The sum of squares that each step's ``square_sum`` found, if the plan has such a row.

        In the plan's dtype; of parameters as they were before the step moved them.
        """

    def store(self) -> None:
        """Write parameters, slots and running statistics back to the arrays bound."""

    def load(self) -> None:
        """Read them again from there."""
