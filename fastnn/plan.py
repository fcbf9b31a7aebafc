"""Lowers a network, with a loss and an optimizer, to the rows of a plan.

Forward, a linear layer takes the activation and the dropout that follow it into its tail, which
stores the output and its slope together. Backward, the gradient of each linear layer's inputs is
multiplied by the slope below as it leaves the product. Weight gradients come last, after the check
of the loss, and are consumed by the update at once unless something else needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, NamedTuple

from .kernels.contract import CHUNK_ROWS, IDENTITY, Buffer, Dropout, Loss, Parameter, Plan, Row
from .kernels.formulas import UpdateFormula
from .layers import Activation, BatchNorm1d, Flatten, Layer, Linear, Softmax, Standardize
from .layers import Dropout as DropoutLayer


class Training(NamedTuple):
    """What a plan that trains needs besides the network and its loss.

    Parameters
    ----------
    update : UpdateFormula or None
        The optimizer's formula; None for a plan that keeps gradients and moves nothing.
    clip_norm, clip_value : float, optional
        The most that the norm of all gradients, or any element, may be; the norm first.
    keep_gradients : bool, default False
        Store the gradients of a step, so that they can be read.
    precision : str, default "float32"
        What products round their operands to; of ``contract.PRECISIONS``.
    record_squares : bool, default False
        Record the sum of the squares of all decayed parameters, as each step finds them.
    """

    update: UpdateFormula | None
    clip_norm: float | None = None
    clip_value: float | None = None
    keep_gradients: bool = False
    precision: str = "float32"
    record_squares: bool = False


def can_lower(layers: Sequence[Layer]) -> bool:
    """Whether every layer is one of fastnn's own."""
    own = _lower_layer.registry
    return all(type(layer) in own or isinstance(layer, Activation) for layer in layers)


def kind(layers: Sequence[Layer]) -> tuple[Hashable, ...]:
    """What a plan depends on of its layers: where that is the same, so is the plan.

    >>> kind([Linear(3, 2)]) == kind([Linear(3, 2)]), kind([Linear(3, 2)]) == kind([Linear(3, 4)])
    (True, False)
    """
    return tuple((type(layer), getattr(layer, "use", None), repr(layer)) for layer in layers)


def lower(
    layers: Sequence[Layer],
    inputs: int,
    batch_rows: int,
    dtype: str,
    *,
    loss: Loss | None = None,
    training: Training | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Plan:
    """The plan of a network.

    Parameters
    ----------
    layers : sequence of Layer
        Such that :func:`can_lower`.
    inputs : int
        Columns of the data.
    batch_rows : int
        Rows of a step.
    dtype : "float32" or "float64"
    loss : Loss, optional
        With a loss the plan measures it; without one it gives the outputs.
    training : Training, optional
        With it the plan trains, or at least keeps gradients.
    chunk_rows : int, default that of the CPU backends
        The most rows to walk at once; that of the backend which will run the plan.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        Where there is nothing to train, or neither an update nor gradients to keep.
    TypeError
        For a layer that is not fastnn's own.

    Examples
    --------
    >>> [row.op for row in lower([Linear(3, 2), Softmax()], 3, 32, "float32").chunk]
    ['gather', 'linear', 'softmax', 'copy_out']
    """
    if training is not None and training.update is None:
        _check_gradients_alone(training)
    whole = training is not None and any(isinstance(layer, BatchNorm1d) for layer in layers)
    rows = batch_rows if whole else _equal_chunks(batch_rows, chunk_rows)
    stores = training is not None and (
        rows < batch_rows or training.clip_norm is not None or training.keep_gradients
    )
    lowering = _Lowering(inputs, training)
    lowering.forward(layers)
    lowering.backward(loss, stores)
    return lowering.plan(dtype, batch_rows, rows, loss)


def _check_gradients_alone(training: Training) -> None:
    """Raise ValueError unless training without an update asks for what it can have."""
    if not training.keep_gradients:
        raise ValueError("training has no update and keeps no gradients; expected one of them")
    if training.clip_norm is not None or training.clip_value is not None:
        raise ValueError("training clips gradients for an update; it has none")


def _equal_chunks(batch_rows: int, most: int) -> int:
    """Rows a chunk, from the batch alone: chunks of equal size, none above the most."""
    chunks = -(-batch_rows // most)
    return -(-batch_rows // chunks)


class _Value(NamedTuple):
    """What a layer hands on: a buffer, and how a gradient by it becomes one by what lies below.

    ``slope`` is the buffer that such a gradient is still to be multiplied by; ``trains`` says
    whether any parameter lies below.
    """

    name: str
    width: int
    slope: str | None = None
    trains: bool = False


class _Lowering:
    """The rows of a plan in the making."""

    def __init__(self, inputs: int, training: Training | None) -> None:
        self.asked, self.training = training, training is not None
        self.rows: list[Row] = []
        self.checked_rows: list[Row] = []
        self.weight_rows: list[Row] = []
        self.step_rows: list[Row] = []
        self.buffers: list[Buffer] = []
        self.parameters: list[Parameter] = []
        self.constants: list[Parameter] = []
        self.value = _Value(self.buffer("x", inputs), inputs)
        self._backward: list[Callable[[str], str | None]] = []

    # -- parts --

    def row(
        self, op: str, reads: tuple[str, ...], writes: tuple[str, ...], **settings: Any
    ) -> None:
        self.rows.append(Row(op, reads, writes, settings))

    def buffer(self, name: str, width: int, per_row: bool = True) -> str:
        self.buffers.append(Buffer(name, width, per_row))
        return name

    def own(self, layer: Layer, index: int) -> dict[str, str]:
        """Enter a layer's parameters and constants; their names in the plan by their own."""
        names = {}
        for group, known in (
            (layer.parameters(), self.parameters),
            (layer.constants(), self.constants),
        ):
            for parameter in group:
                name = names[parameter.name] = f"{index}.{parameter.name}"
                known.append(replace(parameter, name=name))
        return names

    def follow(self, value: _Value, backward: Callable[[str], str | None]) -> None:
        """Hand on a value; ``backward`` turns a gradient by it into one by the value below."""
        self.value = value
        if self.training:
            self._backward.append(backward)

    def down(self, grad: str, below: _Value) -> str | None:
        """The gradient by what made ``below``, from one by ``below`` itself, in place."""
        if not below.trains:
            return None
        if below.slope:
            self.row("multiply", (grad, below.slope), (grad,))
        return grad

    # -- the two directions --

    def forward(self, layers: Sequence[Layer]) -> None:
        self.row("gather", (), (self.value.name,))
        index = 0
        while index < len(layers):
            index += _lower_layer(layers[index], self, index, layers[index + 1 :])
        self.output = self.value.name

    def backward(self, loss: Loss | None, stores: bool) -> None:
        if loss is None:
            self.row("copy_out", (self.output,), ())
            return
        self.rows.insert(0, Row("weigh"))
        records = ("row_losses", "row_hits")
        if self.asked is None:
            self.row("loss", (self.output,), records, loss=loss)
            self.row("check", records, ())
            return
        if not self.value.trains:
            raise ValueError("the network has no parameters to train")
        loss_grad = self.buffer("grad", self.value.width)
        self.row("loss", (self.output,), (loss_grad, *records), loss=loss)
        grad = self.down(loss_grad, self.value)
        for backward in reversed(self._backward):
            if grad is None:
                break
            grad = backward(grad)
        if self.asked.record_squares:
            # beside the loss of a step, even of one that diverges, and before anything moves
            decayed = tuple(p.name for p in self.parameters if p.decayed)
            self.row("square_sum", decayed, ())
        self.row("check", records, ())
        self.rows += self.checked_rows
        for row in self.weight_rows:
            self.rows.append(Row(row.op, row.reads, (), {**row.settings, "update": not stores}))
        biases = {row.reads[2] for row in self.rows if row.op == "linear" and len(row.reads) > 2}
        for parameter in self.parameters if self.asked.update else ():
            moved = len(parameter.shape) == 2 and not stores
            if parameter.name not in biases and not moved:
                self.step_rows.append(Row("update", (), (parameter.name,)))

    def plan(
        self,
        dtype: str,
        batch_rows: int,
        chunk_rows: int,
        loss: Loss | None,
    ) -> Plan:
        training, step_rows = self.asked, list(self.step_rows)
        if training is not None and training.clip_norm is not None:
            step_rows.insert(0, Row("norm", (), ()))
        return Plan(
            dtype=dtype,
            batch_rows=batch_rows,
            chunk_rows=chunk_rows,
            inputs=self.buffers[0].width,
            outputs=self.value.width,
            chunk=tuple(self.rows),
            step=tuple(step_rows),
            buffers=tuple(self.buffers),
            parameters=tuple(self.parameters),
            constants=tuple(self.constants),
            output=self.output,
            loss=loss,
            update=training.update if training else None,
            clip_norm=training.clip_norm if training else None,
            clip_value=training.clip_value if training else None,
            precision=training.precision if training else "float32",
        )


@singledispatch
def _lower_layer(layer: Layer, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    """Lower the layer at ``index``, with those of the following that it takes into its tail.

    Returns how many layers that were.
    """
    raise TypeError(f"layer {index}, {layer!r}, is not one of fastnn's own; it has no plan")


@_lower_layer.register
def _(layer: Linear, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    below, names = lowering.value, lowering.own(layer, index)
    taken, settings = _tail(lowering, index, following)
    width = layer.outputs(below.width)
    y = lowering.buffer(f"y{index}", width)
    is_identity = settings.get("activation", IDENTITY).is_identity and "dropout" not in settings
    slope = None
    if lowering.training and not is_identity:
        slope = lowering.buffer(f"slope{index}", width)
    lowering.row("linear", (below.name, *names.values()), (y, slope) if slope else (y,), **settings)

    def backward(grad: str) -> str | None:
        lowering.weight_rows.append(
            Row("linear_grad_weight", (below.name, grad), (), {"weight": names["weight"]})
        )
        if not below.trains:
            return None
        out = lowering.buffer(f"grad{index}", below.width)
        reads = (grad, names["weight"], below.slope) if below.slope else (grad, names["weight"])
        lowering.row("linear_grad_input", reads, (out,))
        return out

    lowering.follow(_Value(y, width, slope, True), backward)
    return 1 + taken


def _tail(
    lowering: _Lowering, index: int, following: Sequence[Layer]
) -> tuple[int, dict[str, Any]]:
    """How many of the following layers a linear one takes into its tail, and their settings."""
    taken, settings = 0, dict[str, Any]()
    activation = following[0] if following else None
    if isinstance(activation, Activation) and not activation.use.formula.learned:
        settings["activation"] = activation.use
        taken += 1
    dropout = following[taken] if len(following) > taken else None
    if isinstance(dropout, DropoutLayer):
        taken += 1
        if lowering.training and dropout.p > 0.0:
            settings["dropout"] = Dropout(dropout.p, index + taken)
    return taken, settings


def _lower_map(
    lowering: _Lowering, layer: Layer, index: int, settings: dict[str, Any], trained: bool
) -> int:
    """An elementwise layer by itself; the numbers of its formula may be trained or constant."""
    below = lowering.value
    width = layer.outputs(below.width)
    names = tuple(lowering.own(layer, index).values())
    y = lowering.buffer(f"y{index}", width)
    trained = trained and lowering.training
    writes = [y]
    if lowering.training and (below.trains or trained):
        writes.append(lowering.buffer(f"slope{index}", width))
        if trained:
            writes += [lowering.buffer(f"slope of {name}", width) for name in names]
    lowering.row("map", (below.name, *names), tuple(writes), **settings)
    slopes = writes[1:]
    if not trained:
        # what lies above multiplies by this slope; what lies below must then do so by its own
        slope = slopes[0] if slopes else None
        lowering.follow(
            _Value(y, width, slope, below.trains), lambda grad: lowering.down(grad, below)
        )
        return 1

    def backward(grad: str) -> str | None:
        for name, slope in zip(names, slopes[1:], strict=True):
            lowering.row("column_sums", (grad, slope), (name,))
        if below.trains:
            lowering.row("multiply", (grad, slopes[0]), (grad,))
        return lowering.down(grad, below)

    lowering.follow(_Value(y, width, None, True), backward)
    return 1


@_lower_layer.register
def _(layer: Activation, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    return _lower_map(lowering, layer, index, {"activation": layer.use}, bool(layer.parameters()))


@_lower_layer.register
def _(layer: Standardize, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    return _lower_map(lowering, layer, index, {"activation": layer.use}, False)


@_lower_layer.register
def _(layer: DropoutLayer, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    if not lowering.training or layer.p == 0.0:
        return 1
    settings = {"activation": IDENTITY, "dropout": Dropout(layer.p, index)}
    return _lower_map(lowering, layer, index, settings, False)


@_lower_layer.register
def _(layer: Softmax, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    below = lowering.value
    y = lowering.buffer(f"y{index}", below.width)
    lowering.row("softmax", (below.name,), (y,))

    def backward(grad: str) -> str | None:
        if not below.trains:
            return None
        lowering.row("softmax_grad", (y, grad), (grad,))
        return lowering.down(grad, below)

    lowering.follow(_Value(y, below.width, None, below.trains), backward)
    return 1


@_lower_layer.register
def _(layer: BatchNorm1d, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    below = lowering.value
    width = layer.outputs(below.width)
    names = lowering.own(layer, index)
    y = lowering.buffer(f"y{index}", width)
    gamma, beta = names["weight"], names["bias"]
    running = (names["running_mean"], names["running_var"])
    if not lowering.training:
        reads = (below.name, *running, gamma, beta)
        lowering.row("batch_norm", reads, (y,), eps=layer.eps)
        lowering.follow(_Value(y, width), lambda grad: None)
        return 1
    moments = tuple(
        lowering.buffer(f"{name}{index}", width, per_row=False) for name in ("mean", "variance")
    )
    x_hat = lowering.buffer(f"x_hat{index}", width)
    lowering.row("moments", (below.name,), moments)
    # only once the loss is known to be finite: a bad batch must not spoil the statistics
    moved = Row("running_average", moments, running, {"momentum": layer.momentum})
    lowering.checked_rows.append(moved)
    lowering.row("batch_norm", (below.name, *moments, gamma, beta), (y, x_hat), eps=layer.eps)

    def backward(grad: str) -> str | None:
        lowering.row("column_sums", (grad,), (beta,))
        lowering.row("column_sums", (grad, x_hat), (gamma,))
        if below.trains:
            reads = (grad, x_hat, moments[1], gamma, beta)
            lowering.row("batch_norm_grad", reads, (grad,), eps=layer.eps)
        return lowering.down(grad, below)

    lowering.follow(_Value(y, width, None, True), backward)
    return 1


@_lower_layer.register
def _(layer: Flatten, lowering: _Lowering, index: int, following: Sequence[Layer]) -> int:
    return 1
