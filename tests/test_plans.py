"""Plans written by hand, run on every backend, against whole trainings in the float64 reference."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
from checks import Bound, assert_close, sum_bound

from fastnn.backend import get_backend
from fastnn.kernels.contract import (
    Activation,
    Binding,
    Buffer,
    Dropout,
    Loss,
    Parameter,
    Plan,
    Row,
)
from fastnn.kernels.formulas import ACTIVATIONS, LOSSES, UPDATES

BACKENDS = ("numpy", "numba", "cupy")
DTYPES = ("float32", "float64")
RECORDS = ("row_losses", "row_hits")
WEIGHTS = ("0.weight", "1.weight", "2.weight")
LEARNING_RATE = 0.05

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


# Plans


def activation(name: str, **settings: float) -> Activation:
    return Activation(ACTIVATIONS[name], tuple(settings.items()))


def plan_of(
    dtype: str,
    batch: int,
    chunk: Sequence[Row],
    buffers: Mapping[str, int],
    parameters: Mapping[str, tuple[int, ...]],
    update: str | None = "sgd",
    **others: Any,
) -> Plan:
    """A plan whose first buffer is the data and whose last is the outputs, unless told."""
    names = list(buffers)
    return Plan(
        dtype=dtype,
        batch_rows=batch,
        chunk_rows=others.pop("chunk_rows", batch),
        inputs=buffers[names[0]],
        outputs=buffers[names[-1]],
        chunk=tuple(chunk),
        step=tuple(others.pop("step", ())),
        buffers=(
            *(Buffer(name, width) for name, width in buffers.items()),
            *others.pop("extra_buffers", ()),
        ),
        parameters=tuple(Parameter(n, shape, len(shape) == 2) for n, shape in parameters.items()),
        constants=tuple(others.pop("constants", ())),
        output=names[-1],
        loss=others.pop("loss", Loss()),
        update=UPDATES[update] if update else None,
        **others,
    )


def linear_parameters(widths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        shapes |= {f"{layer}.weight": (inputs, outputs), f"{layer}.bias": (outputs,)}
    return shapes


def dense_plan(
    widths: Sequence[int],
    *,
    batch: int,
    chunk: int | None = None,
    hidden: str = "sigmoid",
    dtype: str = "float32",
    update: str | None = "sgd",
    loss: Loss | None = None,
    dropout: float = 0.0,
    stored: bool = False,
    squares: Sequence[str] = (),
    **clipping: float,
) -> Plan:
    """Linear layers with one activation, and dropout behind it, between them.

    Gradients are ``stored`` before they are used where a step has several chunks, a norm is
    clipped, or that is asked for. The ``squares`` of some parameters are summed up.
    """
    loss, layers = loss or Loss(), len(widths) - 1
    stored = stored or "clip_norm" in clipping or chunk not in (None, batch)
    rows, buffers, x = [Row("weigh"), Row("gather", (), ("x",))], {"x": widths[0]}, "x"
    for layer, width in enumerate(widths[1:]):
        reads = (x, f"{layer}.weight", f"{layer}.bias")
        x = f"y{layer}"
        if layer == layers - 1:
            rows.append(Row("linear", reads, (x,)))
        else:
            settings: dict[str, Any] = {"activation": activation(hidden)}
            if dropout:
                settings["dropout"] = Dropout(dropout, layer)
            rows.append(Row("linear", reads, (x, f"slope{layer}"), settings))
            buffers[f"slope{layer}"] = width
        buffers |= {f"grad{layer}": width, x: width}
    rows.append(Row("loss", (x,), (f"grad{layers - 1}", *RECORDS), {"loss": loss}))
    for layer in range(layers - 1, 0, -1):
        reads = (f"grad{layer}", f"{layer}.weight", f"slope{layer - 1}")
        rows.append(Row("linear_grad_input", reads, (f"grad{layer - 1}",)))
    if squares:
        rows.append(Row("square_sum", tuple(squares)))
    rows.append(Row("check", RECORDS))
    for layer in range(layers - 1, -1, -1):
        reads = (f"y{layer - 1}" if layer else "x", f"grad{layer}")
        settings = {"weight": f"{layer}.weight", "update": not stored}
        rows.append(Row("linear_grad_weight", reads, (), settings))
    step = [Row("norm")] if "clip_norm" in clipping else []
    if stored and update:
        step += [Row("update", (), (f"{layer}.weight",)) for layer in range(layers)]
    return plan_of(
        dtype, batch, rows, buffers, linear_parameters(widths), update,
        chunk_rows=chunk or batch, step=step, loss=loss, **clipping,
    )  # fmt: skip


def predicting_plan(plan: Plan, batch: int) -> Plan:
    """The forward rows of a dense plan, giving outputs instead of a loss."""
    forward = [replace(row, writes=row.writes[:1]) for row in plan.chunk if row.op == "linear"]
    rows = (plan.chunk[1], *forward, Row("copy_out", (plan.output,)))
    return replace(
        plan, batch_rows=batch, chunk_rows=batch, chunk=rows, step=(), loss=None, update=None,
        clip_norm=None, clip_value=None,
    )  # fmt: skip


def evaluating_plan(plan: Plan) -> Plan:
    """The rows of a dense plan that give each batch's loss and hits."""
    loss = next(row for row in plan.chunk if row.op == "loss")
    rows = [row for row in plan.chunk if row.op in ("weigh", "gather", "linear", "check")]
    rows.insert(-1, replace(loss, writes=RECORDS))
    return replace(plan, chunk=tuple(rows), step=(), update=None, clip_norm=None, clip_value=None)


# Runs


class Data(NamedTuple):
    """What a network is trained on."""

    x: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None
    order: np.ndarray | None = None

    def batch(self, begin: int, end: int) -> tuple[np.ndarray, ...]:
        """Some rows in the order of the epoch: x, targets and, where given, weights."""
        places = np.arange(len(self.x)) if self.order is None else self.order
        arrays = (self.x, self.targets, *(() if self.weights is None else (self.weights,)))
        return tuple(array[places[begin:end]] for array in arrays)


def labelled(rows: int, inputs: int, classes: int, dtype: str = "float32", seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)).astype(dtype)
    return Data(x, rng.integers(0, classes, rows), order=rng.permutation(rows))


def initial(plan: Plan) -> dict[str, np.ndarray]:
    """Parameters and constants to start from."""
    rng = np.random.default_rng(1)
    arrays = {
        p.name: rng.normal(0, 1 / np.sqrt(p.shape[0]), p.shape).astype(plan.dtype)
        for p in plan.parameters
    }
    return arrays | {p.name: np.ones(p.shape, plan.dtype) for p in plan.constants}


def scalars_of(plan: Plan, first: int, steps: int, settings: Mapping[str, Any]) -> np.ndarray:
    """The optimizer's scalars, (steps, 2, S), after ``first`` updates."""
    formula = plan.update
    numbers = np.arange(first + 1.0, first + steps + 1)
    prepared = formula.prepare(numbers, np.full(steps, LEARNING_RATE), **settings)
    columns = [np.broadcast_to(prepared[name], (steps,)) for name in formula.scalars]
    table = np.repeat(np.stack(columns, axis=1)[:, None], 2, axis=1)
    table[:, 0, [formula.scalars.index(name) for name in formula.decay]] = 0.0
    return table.astype(plan.dtype)


@dataclass
class Session:
    """A plan at work on arrays of its own."""

    backend: str
    plan: Plan
    data: Data
    threads: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: np.ndarray | None = None
    arrays: dict[str, np.ndarray] | None = None
    grads: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.plan
        self.arrays = self.arrays or initial(plan)
        starts = plan.update.initial_slots(**self.settings) if plan.update else ()
        self.slots = {
            p.name: [np.full(p.shape, start, plan.dtype) for start in starts]
            for p in plan.parameters
        }
        self.run = self._start()

    def _start(self) -> Any:
        binding = Binding(
            self.data.x, self.arrays, self.data.targets, self.data.weights, self.grads, self.slots,
            threads=self.threads, seed=self.seed, out=self.out,
        )  # fmt: skip
        return get_backend(self.backend).start(self.plan, binding)

    @property
    def steps(self) -> int:
        return -(-len(self.data.x) // self.plan.batch_rows)

    def begin(self, epoch: int = 0, first_step: int = 0) -> None:
        scalars = None
        if self.plan.update is not None:
            count = self.steps - first_step
            scalars = scalars_of(self.plan, epoch * self.steps + first_step, count, self.settings)
        self.run.begin(self.data.order, len(self.data.x), scalars, epoch, first_step)

    def finish(self, seconds: float = 60.0) -> str:
        while (outcome := self.run.advance(seconds)) == "stopped":
            pass
        self.run.store()
        return outcome


def trained(backend: str, plan: Plan, data: Data, **options: Any) -> Session:
    """A session after one epoch."""
    session = Session(backend, plan, data, **options)
    session.begin()
    assert session.finish() == "done"
    assert session.run.step == session.steps
    return session


def rounding(plan: Plan, steps: int, expected: Any) -> Bound:
    """What the roundings of so many steps explain: an update sums over a batch, and every layer
    over its inputs.
    """
    terms = sum(p.shape[0] for p in plan.parameters if len(p.shape) == 2) + plan.batch_rows
    unit = float(np.finfo(plan.dtype).eps)
    scale = steps * (1 + np.abs(expected))
    return Bound(terms * unit * scale, np.sqrt(terms) * unit * scale)


def assert_trained(session: Session, arrays: Mapping[str, np.ndarray], losses: Any) -> None:
    """Parameters and the loss of each step are these within rounding."""
    assert_close(session.run.losses(), losses, rounding(session.plan, session.steps, losses))
    assert arrays
    for name, expected in arrays.items():
        bound = rounding(session.plan, session.steps, expected)
        assert_close(session.arrays[name], expected, bound)


def assert_same_bits(one: Session, other: Session) -> None:
    np.testing.assert_array_equal(one.run.losses(), other.run.losses())
    np.testing.assert_array_equal(one.run.hits(), other.run.hits())
    np.testing.assert_array_equal(one.run.squares(), other.run.squares())
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name])
        pairs = zip(one.slots.get(name, ()), other.slots.get(name, ()), strict=True)
        for slot, expected in pairs:
            np.testing.assert_array_equal(slot, expected)


# The truth: layers of the reference, one after another. A layer takes parameters, x and the step,
# and gives its output and a function from the gradient by that to (gradient by x, by parameters).

Backward = Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]
Layer = Callable[[dict[str, np.ndarray], np.ndarray, int], tuple[np.ndarray, Backward]]


def true_linear(layer: int) -> Layer:
    names = f"{layer}.weight", f"{layer}.bias"

    def apply(p, x, step):
        def backward(grad):
            grad_x, *grads = reference.linear_backward(x, p[names[0]], grad)
            return grad_x, dict(zip(names, grads, strict=True))

        return reference.linear(x, p[names[0]], p[names[1]]), backward

    return apply


def true_activation(name: str) -> Layer:
    def apply(p, x, step):
        slope = reference.activation_derivative(name, x)
        return reference.activation(name, x), lambda grad: (grad * slope, {})

    return apply


def true_dropout(probability: float, layer: int, seed: int, epoch: int) -> Layer:
    def apply(p, x, step):
        keep = reference.dropout_mask(seed, epoch, step, layer, *x.shape, probability)
        drop = functools.partial(reference.dropout, keep=keep, probability=probability)
        return drop(x), lambda grad: (drop(grad), {})

    return apply


def true_prelu(name: str) -> Layer:
    def apply(p, x, step):
        slope = p[name]

        def backward(grad):
            by_slope = (grad * reference.prelu_slope_derivative(x)).sum(axis=0)
            by_slope = by_slope if slope.size == by_slope.size else by_slope.sum(keepdims=True)
            by_x = reference.activation_derivative("prelu", x, slope=slope)
            return grad * by_x, {name: by_slope}

        return reference.activation("prelu", x, slope=slope), backward

    return apply


def true_batch_norm(p, x, step):
    p["running_mean"], p["running_variance"] = reference.batch_norm_running(
        p["running_mean"], p["running_variance"], x
    )

    def backward(grad):
        grad_x, by_gamma, by_beta = reference.batch_norm_backward(x, p["gamma"], grad)
        return grad_x, {"gamma": by_gamma, "beta": by_beta}

    return reference.batch_norm_train(x, p["gamma"], p["beta"])[0], backward


def true_softmax(p, x, step):
    y = reference.softmax(x)
    return y, lambda grad: (reference.softmax_backward(y, grad), {})


def true_training(
    session: Session,
    layers: Sequence[Layer],
    loss: Callable[..., tuple[float, np.ndarray]] = reference.cross_entropy,
    optimizer: Callable[[], reference.SGD] = lambda: reference.SGD(LEARNING_RATE),
    clip: Callable[[list[np.ndarray]], list[np.ndarray]] = list,
    before_each: Callable[[dict[str, np.ndarray]], None] = lambda p: None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters and the loss of each step after an epoch of what a session does."""
    plan, data = session.plan, session.data
    p = {name: reference.float64(array) for name, array in initial(plan).items()}
    optimizers = {parameter.name: optimizer() for parameter in plan.parameters}
    losses = []
    for step in range(session.steps):
        batch = data.batch(step * plan.batch_rows, (step + 1) * plan.batch_rows)
        value, grads = true_gradients(p, layers, loss, batch, step)
        losses.append(value)
        before_each(p)
        clipped = clip(list(grads.values()))
        for name, by_parameter in zip(grads, clipped, strict=True):
            p[name] = optimizers[name].step(p[name], by_parameter)
    return p, np.array(losses)


def true_gradients(
    p: dict[str, np.ndarray],
    layers: Sequence[Layer],
    loss: Callable[..., tuple[float, np.ndarray]],
    batch: Sequence[np.ndarray],
    step: int = 0,
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss of a batch, and its gradients by the parameters."""
    x, *rest = batch
    y, backwards, grads = reference.float64(x), [], {}
    for layer in layers:
        y, backward = layer(p, y, step)
        backwards.append(backward)
    value, grad = loss(y, *rest)
    for backward in reversed(backwards):
        grad, own = backward(grad)
        grads |= own
    return value, grads


# Trainings


OPTIMIZERS = {  # eps large enough that gradients of the size of a rounding do not decide a step
    "sgd": (reference.SGD, {"weight_decay": 0.1}),
    "nesterov": (reference.Nesterov, {"momentum": 0.8}),
    "rmsprop_centered": (functools.partial(reference.RMSprop, centered=True), {"eps": 0.1}),
    "adam": (reference.Adam, {"eps": 0.1, "betas": (0.8, 0.9)}),
    "adamw": (reference.AdamW, {"eps": 0.1, "weight_decay": 0.1}),
}


def dense_truth(session: Session, hidden: str, update: str, loss: Any) -> tuple[dict, list[float]]:
    make, settings = OPTIMIZERS[update]
    plan, data, arrays = session.plan, session.data, initial(session.plan)
    weights, biases = (
        [array for name, array in arrays.items() if name.endswith(kind)]
        for kind in ("weight", "bias")
    )
    begins = range(0, len(data.x), plan.batch_rows)
    batches = [data.batch(begin, begin + plan.batch_rows) for begin in begins]
    optimizer = functools.partial(make, LEARNING_RATE, **settings)
    *results, losses = reference.train_dense(weights, biases, hidden, loss, optimizer, batches)
    named = {
        f"{layer}.{kind}": array
        for kind, each in zip(("weight", "bias"), results, strict=True)
        for layer, array in enumerate(each)
    }
    return named, losses


@pytest.mark.parametrize("update", OPTIMIZERS)
@pytest.mark.parametrize(("hidden", "batch"), [("relu", 1), ("sigmoid", 13), ("gelu", 64)])
@every_dtype
@every_backend
def test_training_is_the_references(backend, dtype, hidden, batch, update):
    plan = dense_plan((37, 70, 5), batch=batch, hidden=hidden, dtype=dtype, update=update)
    data = labelled(min(6 * batch, 160) + 3, 37, 5, dtype)
    session = trained(backend, plan, data, settings=OPTIMIZERS[update][1])
    assert_trained(session, *dense_truth(session, hidden, update, reference.cross_entropy))


LOSS_TRUTHS = {
    "squared_error": reference.mean_squared_error,
    "absolute_error": reference.mean_absolute_error,
    "huber": reference.huber,
    "binary_cross_entropy": reference.binary_cross_entropy,
    "poisson": reference.poisson,
    "cross_entropy": reference.cross_entropy,
}


@pytest.mark.parametrize("name", LOSS_TRUTHS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [20, 7])
@every_dtype
@every_backend
def test_every_loss(backend, dtype, name, weighted, chunk):
    loss = Loss(LOSSES.get(name), smoothing=0.0)
    plan = dense_plan((9, 33, 4), batch=20, chunk=chunk, dtype=dtype, loss=loss)
    rng = np.random.default_rng(2)
    data = labelled(50, 9, 4, dtype)._replace(
        targets=reference.softmax(rng.normal(size=(50, 4))).astype(dtype),
        weights=rng.uniform(0, 2, 50).astype(dtype) if weighted else None,
    )
    session = trained(backend, plan, data, settings=OPTIMIZERS["sgd"][1])
    assert_trained(session, *dense_truth(session, "sigmoid", "sgd", LOSS_TRUTHS[name]))


@every_dtype
@every_backend
def test_hits_are_counted(backend, dtype):
    plan = dense_plan((9, 33, 4), batch=20, chunk=7, dtype=dtype)
    data = labelled(50, 9, 4, dtype)
    session = Session(backend, evaluating_plan(plan), data)
    session.begin()
    assert session.finish() == "done"
    arrays = [session.arrays[f"{layer}.{kind}"] for kind in ("weight", "bias") for layer in (0, 1)]
    _, sums = reference.dense_forward(arrays[:2], arrays[2:], "sigmoid", data.x[data.order])
    right = sums[-1].argmax(axis=1) == data.targets[data.order]
    counts = [right[begin : begin + 20].sum() for begin in (0, 20, 40)]
    np.testing.assert_array_equal(session.run.hits(), counts)


@pytest.mark.parametrize("chunk", [12, 5])
@every_dtype
@every_backend
def test_dropout(backend, dtype, chunk):
    """The masks of an epoch are the reference's, whatever the chunks."""
    plan = dense_plan((6, 70, 3), batch=12, chunk=chunk, dtype=dtype, dropout=0.4)
    session = Session(backend, plan, labelled(30, 6, 3, dtype), seed=2**40 + 5)
    session.begin(epoch=3)
    assert session.finish() == "done"
    dropout = true_dropout(0.4, layer=0, seed=2**40 + 5, epoch=3)
    layers = true_linear(0), true_activation("sigmoid"), dropout, true_linear(1)
    assert_trained(session, *true_training(session, layers))


def test_masks_differ_from_step_to_step_and_epoch_to_epoch():
    plan = dense_plan((6, 70, 3), batch=12, dropout=0.4)
    sessions = [Session("numpy", plan, labelled(30, 6, 3)) for _ in range(2)]
    for epoch, session in enumerate(sessions):
        session.run.begin(None, 30, scalars_of(plan, 0, 3, {}), epoch)
        assert session.finish() == "done"
    assert not (sessions[0].run.losses() == sessions[1].run.losses()).any()


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.parametrize("clipping", [{"clip_norm": 0.2}, {"clip_value": 0.01},
                                      {"clip_norm": 0.3, "clip_value": 0.02}])  # fmt: skip
@every_dtype
@every_backend
def test_clipping(backend, dtype, clipping, chunk):
    plan = dense_plan((9, 33, 4), batch=20, chunk=chunk, dtype=dtype, **clipping)
    session = trained(backend, plan, labelled(50, 9, 4, dtype))

    def clip(grads):
        if "clip_norm" in clipping:
            grads = reference.clip_by_norm(grads, clipping["clip_norm"])
        if "clip_value" in clipping:
            grads = [reference.clip_by_value(grad, clipping["clip_value"]) for grad in grads]
        return grads

    layers = true_linear(0), true_activation("sigmoid"), true_linear(1)
    clipped = true_training(session, layers, clip=clip)
    assert_trained(session, *clipped)
    free, _ = true_training(session, layers)
    assert not np.allclose(clipped[0]["1.weight"], free["1.weight"])


def batch_norm_plan(dtype: str, batch: int) -> Plan:
    statistics, running = ("mean", "variance"), ("running_mean", "running_variance")
    rows = [
        Row("weigh"),
        Row("gather", (), ("x",)),
        Row("linear", ("x", "0.weight", "0.bias"), ("z",)),
        Row("moments", ("z",), statistics),
        Row("batch_norm", ("z", *statistics, "gamma", "beta"), ("n", "n_hat"), {"eps": 1e-5}),
        Row("map", ("n",), ("y", "slope"), {"activation": activation("tanh")}),
        Row("linear", ("y", "1.weight", "1.bias"), ("logits",)),
        Row("loss", ("logits",), ("grad", *RECORDS), {"loss": Loss()}),
        Row("linear_grad_input", ("grad", "1.weight", "slope"), ("grad_n",)),
        Row("column_sums", ("grad_n",), ("beta",)),
        Row("column_sums", ("grad_n", "n_hat"), ("gamma",)),
        Row("batch_norm_grad", ("grad_n", "n_hat", "variance", "gamma", "beta"), ("grad_n",),
            {"eps": 1e-5}),
        Row("check", RECORDS),
        Row("running_average", statistics, running, {"momentum": 0.1}),
        Row("linear_grad_weight", ("y", "grad"), (), {"weight": "1.weight", "update": True}),
        Row("linear_grad_weight", ("x", "grad_n"), (), {"weight": "0.weight", "update": True}),
    ]  # fmt: skip
    hidden = dict.fromkeys(("z", "n", "n_hat", "y", "slope", "grad_n"), 21)
    return plan_of(
        dtype, batch, rows, {"x": 9, **hidden, "grad": 4, "logits": 4},
        linear_parameters((9, 21, 4)) | {"gamma": (21,), "beta": (21,)}, "adam",
        step=[Row("update", (), (name,)) for name in ("gamma", "beta")],
        extra_buffers=[Buffer(name, 21, per_row=False) for name in statistics],
        constants=[Parameter(name, (21,), False) for name in running],
    )  # fmt: skip


@every_dtype
@every_backend
def test_batch_normalisation(backend, dtype):
    make, settings = OPTIMIZERS["adam"]
    session = trained(
        backend, batch_norm_plan(dtype, 24), labelled(60, 9, 4, dtype), settings=settings
    )
    layers = true_linear(0), true_batch_norm, true_activation("tanh"), true_linear(1)
    optimizer = functools.partial(make, LEARNING_RATE, **settings)
    assert_trained(session, *true_training(session, layers, optimizer=optimizer))


def prelu_plan(dtype: str, batch: int, chunk: int, slopes: int) -> Plan:
    prelu = {"activation": activation("prelu")}
    rows = [
        Row("weigh"),
        Row("gather", (), ("x",)),
        Row("linear", ("x", "0.weight", "0.bias"), ("z",)),
        Row("map", ("z", "slopes"), ("y", "slope", "by_slopes"), prelu),
        Row("linear", ("y", "1.weight", "1.bias"), ("logits",)),
        Row("loss", ("logits",), ("grad", *RECORDS), {"loss": Loss()}),
        Row("linear_grad_input", ("grad", "1.weight"), ("grad_z",)),
        Row("column_sums", ("grad_z", "by_slopes"), ("slopes",)),
        Row("multiply", ("grad_z", "slope"), ("grad_z",)),
        Row("check", RECORDS),
        Row("linear_grad_weight", ("y", "grad"), (), {"weight": "1.weight"}),
        Row("linear_grad_weight", ("x", "grad_z"), (), {"weight": "0.weight"}),
    ]
    hidden = dict.fromkeys(("z", "y", "slope", "by_slopes", "grad_z"), 21)
    return plan_of(
        dtype, batch, rows, {"x": 9, **hidden, "grad": 4, "logits": 4},
        linear_parameters((9, 21, 4)) | {"slopes": (slopes,)}, chunk_rows=chunk,
        step=[Row("update", (), (name,)) for name in ("0.weight", "1.weight", "slopes")],
    )  # fmt: skip


@pytest.mark.parametrize("chunk", [24, 7])
@pytest.mark.parametrize("slopes", [1, 21])
@every_dtype
@every_backend
def test_learned_slopes(backend, dtype, slopes, chunk):
    session = trained(backend, prelu_plan(dtype, 24, chunk, slopes), labelled(60, 9, 4, dtype))
    layers = true_linear(0), true_prelu("slopes"), true_linear(1)
    assert_trained(session, *true_training(session, layers))


SQUARED = {
    "single rows": {"batch": 1},
    "few rows": {"batch": 5},
    "a batch": {"batch": 32},
    "stored": {"batch": 32, "stored": True},
    "chunks": {"batch": 32, "chunk": 13},
    "clipped": {"batch": 32, "clip_norm": 0.5},
    "a small network": {"widths": (9, 33, 5), "batch": 20},
    "many blocks": {"widths": (9, 120, 5), "batch": 40},
    "biases too": {"batch": 32, "squares": ("0.weight", "0.bias", "1.weight", "1.bias")},
}


@pytest.mark.parametrize("case", SQUARED)
@pytest.mark.parametrize("threads", [1, 2])
@every_dtype
@every_backend
def test_squares_are_those_of_the_weights_before_a_step(backend, dtype, threads, case):
    """At first of weights that are known to the bit; later of those that training makes."""
    usual = {"widths": (53, 130, 5), "squares": WEIGHTS[:2], "dtype": dtype}
    plan = dense_plan(**usual | SQUARED[case])
    (names,) = (row.reads for row in plan.chunk if row.op == "square_sum")
    data = labelled(3 * plan.batch_rows + 1, plan.inputs, plan.outputs, dtype)
    session = trained(backend, plan, data, threads=threads)
    weights = []

    def clip(grads):
        return reference.clip_by_norm(grads, 0.5) if plan.clip_norm else grads

    def note(p):
        weights.append(np.concatenate([p[name].ravel() for name in names]))

    layers = true_linear(0), true_activation("sigmoid"), true_linear(1)
    true_training(session, layers, clip=clip, before_each=note)
    exact = sum_bound(dtype, weights[0] ** 2)
    expected = np.array([(each**2).sum() for each in weights])
    assert_close(session.run.squares()[:1], expected[:1], exact)
    drift = rounding(plan, session.steps, weights[0])  # of each weight, and so of its square
    by_drift = [2 * (np.abs(weights[0]) * error).sum() for error in drift]
    assert_close(session.run.squares(), expected, Bound(*map(np.add, exact, by_drift)))
    assert len({*session.run.squares()}) == session.steps == len(expected)


@every_backend
def test_recording_squares_changes_nothing_else(backend):
    data = labelled(70, 37, 5)
    for batch in (1, 5, 32):
        plain, recorded = (
            trained(backend, dense_plan((37, 130, 5), batch=batch, squares=names), data)
            for names in ((), WEIGHTS[:2])
        )
        np.testing.assert_array_equal(plain.run.losses(), recorded.run.losses())
        for name, array in plain.arrays.items():
            np.testing.assert_array_equal(recorded.arrays[name], array)


@pytest.mark.parametrize("chunk", [None, 13])
@every_backend
def test_squares_of_a_step_that_diverges(backend, chunk):
    """They stand beside its loss; a second epoch begins anew."""
    plan, data = (
        dense_plan((9, 33, 4), batch=20, chunk=chunk, squares=WEIGHTS[:2]),
        labelled(60, 9, 4),
    )
    x = data.x.copy()
    x[data.order[35]] = np.inf
    session = Session(backend, plan, data._replace(x=x))
    session.begin()
    assert session.finish() == "diverged"
    squares = session.run.squares()
    assert len(squares) == len(session.run.losses()) == 2
    assert np.isfinite(squares).all() and squares[0] != squares[1]
    session.begin()
    assert session.finish() == "diverged"
    assert session.run.squares()[0] == squares[1]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("batch", "chunk"), [(150, None), (150, 64), (5, None)], ids=["whole", "chunks", "few"]
)
@every_dtype
@every_backend
def test_gradients_alone_again_and_again(backend, dtype, batch, chunk, threads):
    """A function of the weights, as a line search wants it: nothing moves, whatever is asked."""
    plan = dense_plan((9, 70, 4), batch=batch, chunk=chunk, dtype=dtype, update=None, stored=True)
    rng = np.random.default_rng(2)
    data = labelled(batch, 9, 4, dtype)
    data = data._replace(weights=rng.uniform(0, 2, batch).astype(dtype), order=None)
    grads = {p.name: np.full(p.shape, np.nan, dtype) for p in plan.parameters}
    session = Session(backend, plan, data, threads, grads=grads)
    layers = true_linear(0), true_activation("sigmoid"), true_linear(1)
    seen = []
    for scale in (1.0, 0.5, 1.0):
        given = {name: (scale * array).astype(dtype) for name, array in initial(plan).items()}
        for name, array in given.items():
            session.arrays[name][...] = array
        session.run.load()
        session.begin()
        assert session.finish() == "done"
        p = {name: reference.float64(array) for name, array in given.items()}
        value, expected = true_gradients(p, layers, reference.cross_entropy, data.batch(0, batch))
        assert_close(session.run.losses(), [value], rounding(plan, 1, [value]))
        for name, by_parameter in expected.items():
            assert_close(grads[name], by_parameter, rounding(plan, 1, by_parameter))
            np.testing.assert_array_equal(session.arrays[name], given[name])
        seen.append({name: grad.copy() for name, grad in grads.items()})
    for name in grads:
        np.testing.assert_array_equal(seen[0][name], seen[2][name])
        assert not np.array_equal(seen[0][name], seen[1][name])


@every_backend
def test_gradients_alone_of_a_loss_that_is_not_finite(backend):
    """Whoever asked sees it, and may ask again elsewhere."""
    plan = dense_plan((9, 33, 4), batch=20, chunk=7, update=None, stored=True)
    grads = {p.name: np.zeros(p.shape, plan.dtype) for p in plan.parameters}
    session = Session(backend, plan, labelled(20, 9, 4), grads=grads)
    session.arrays["1.bias"][2] = np.nan
    session.run.load()
    session.begin()
    assert session.finish() == "done"
    assert np.isnan(session.run.losses()).all() and np.isnan(grads["0.weight"]).all()
    session.arrays["1.bias"][2] = 0
    session.run.load()
    session.begin()
    assert session.finish() == "done"
    assert np.isfinite(session.run.losses()).all() and np.isfinite(grads["0.weight"]).all()


@every_dtype
@every_backend
def test_softmax_in_the_middle(backend, dtype):
    """Softmax under a squared error: rows that no fused loss covers."""
    loss = Loss(LOSSES["squared_error"])
    rows = [
        Row("weigh"),
        Row("gather", (), ("x",)),
        Row("linear", ("x", "0.weight", "0.bias"), ("z",)),
        Row("softmax", ("z",), ("y",)),
        Row("loss", ("y",), ("grad", *RECORDS), {"loss": loss}),
        Row("softmax_grad", ("y", "grad"), ("grad",)),
        Row("check", RECORDS),
        Row("linear_grad_weight", ("x", "grad"), (), {"weight": "0.weight", "update": True}),
    ]
    buffers = {"x": 9, "z": 21, "grad": 21, "y": 21}
    plan = plan_of(dtype, 8, rows, buffers, linear_parameters((9, 21)), loss=loss)
    rng = np.random.default_rng(2)
    targets = reference.softmax(rng.normal(size=(20, 21))).astype(dtype)
    data = labelled(20, 9, 1, dtype)._replace(targets=targets)
    session = trained(backend, plan, data)
    layers = true_linear(0), true_softmax
    truth = true_training(session, layers, loss=reference.mean_squared_error)
    assert_trained(session, *truth)


@pytest.mark.parametrize("chunk", [100, 50, 17])
@every_dtype
@every_backend
def test_chunks_change_nothing_but_rounding(backend, dtype, chunk):
    data = labelled(230, 9, 4, dtype)
    whole, parts = (
        trained(backend, dense_plan((9, 33, 4), batch=100, chunk=rows, dtype=dtype), data)
        for rows in (100, chunk)
    )
    assert_trained(parts, whole.arrays, whole.run.losses())


@pytest.mark.parametrize("source", ["uint8", "float64", "int32"])
@every_backend
def test_data_is_converted_as_it_is_gathered(backend, source):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (30, 9))
    plan = dense_plan((9, 33, 4), batch=20)
    data = labelled(30, 9, 4)
    one, other = (
        trained(backend, plan, data._replace(x=x.astype(dtype))) for dtype in (source, "float32")
    )
    assert_same_bits(one, other)


# The same bits


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize(
    "plan",
    [
        dense_plan((37, 150, 70, 7), batch=13, update="adam"),
        dense_plan((37, 150, 7), batch=200, chunk=64, dtype="float64", clip_norm=0.1),
        dense_plan((20, 90, 7), batch=1, dropout=0.3),
        dense_plan((37, 150, 70, 7), batch=13, squares=WEIGHTS[:3]),
        dense_plan((37, 150, 7), batch=200, chunk=64, dtype="float64", squares=WEIGHTS[:2]),
        dense_plan((20, 256, 7), batch=1, squares=WEIGHTS[:2]),
        batch_norm_plan("float32", 50),
        prelu_plan("float32", 50, 20, 1),
    ],
    ids=[
        "three layers",
        "chunks",
        "single rows",
        "squares",
        "squares in chunks",
        "squares of single rows",
        "batch norm",
        "prelu",
    ],
)
def test_threads_decide_no_bit(plan, threads):
    data = labelled(230, plan.inputs, plan.outputs, plan.dtype)
    assert_same_bits(*(trained("numba", plan, data, threads=count) for count in (1, threads)))


@pytest.mark.parametrize("update", ["sgd", "momentum", "adam", "rmsprop_centered_momentum"])
@pytest.mark.parametrize("batch", [1, 64])
@every_dtype
@every_backend
def test_stored_gradients_are_the_same_bits(backend, dtype, batch, update):
    data = labelled(batch * 3 + 1, 37, 5, dtype)
    sessions = [
        trained(backend, dense_plan((37, 70, 5), batch=batch, dtype=dtype, update=update,
                                    stored=stored), data)
        for stored in (False, True)
    ]  # fmt: skip
    assert_same_bits(*sessions)


@every_dtype
def test_a_rows_prediction_is_the_same_bits_in_any_batch(dtype):
    """The promise of the Numba backend; a BLAS makes none."""
    plan, data = dense_plan((37, 70, 5), batch=1, dtype=dtype), labelled(150, 37, 5, dtype)
    outs = []
    for batch in (1, 2, 13, 64, 150):
        out = np.full((150, 5), np.nan, dtype)
        session = Session("numba", predicting_plan(plan, batch), data, out=out)
        session.run.begin(None, 150, None)
        assert session.finish() == "done"
        outs.append(out)
    assert np.isfinite(outs[0]).all()
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


@every_dtype
@every_backend
def test_prediction_is_the_references(backend, dtype):
    plan, data = dense_plan((37, 70, 5), batch=1, dtype=dtype), labelled(50, 37, 5, dtype)
    out = np.full((50, 5), np.nan, dtype)
    session = Session(backend, predicting_plan(plan, 16), data, out=out)
    session.begin()
    assert session.finish() == "done"
    p = session.arrays
    _, sums = reference.dense_forward(
        [p["0.weight"], p["1.weight"]], [p["0.bias"], p["1.bias"]], "sigmoid", data.x[data.order]
    )
    assert_close(out, sums[-1], rounding(plan, 1, sums[-1]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "plan",
    [
        dense_plan((9, 33, 4), batch=20, update="adam"),
        dense_plan((9, 33, 4), batch=20, chunk=7, update="adam", dropout=0.2, clip_norm=0.1),
    ],
    ids=["one chunk", "chunks"],
)
@every_backend
def test_interrupted_and_resumed_is_the_same_bits(backend, plan, threads):
    data = labelled(2000, 9, 4)
    unbroken = trained(backend, plan, data, threads=threads)
    broken = Session(backend, plan, data, threads=threads)
    broken.begin()
    stops = 0
    while broken.run.advance(0.0) == "stopped":
        stops += 1
        assert len(broken.run.losses()) == broken.run.step
    broken.run.store()
    assert stops
    assert_same_bits(broken, unbroken)


@every_backend
def test_a_later_start_is_the_same_bits(backend):
    """A new run from step 4, as after a checkpoint, ends where an unbroken one does."""
    plan, data = dense_plan((9, 33, 4), batch=20, update="adam", dropout=0.2), labelled(190, 9, 4)
    unbroken = trained(backend, plan, data)
    early = Session(backend, plan, data)
    early.run.begin(data.order, 4 * 20, scalars_of(plan, 0, 4, {}))
    assert early.finish() == "done"
    late = Session(backend, plan, data, arrays=early.arrays)
    late.slots.update(early.slots)
    late.run.load()
    late.begin(first_step=4)
    assert late.finish() == "done"
    np.testing.assert_array_equal(
        np.concatenate([early.run.losses(), late.run.losses()]), unbroken.run.losses()
    )
    for name, array in unbroken.arrays.items():
        np.testing.assert_array_equal(late.arrays[name], array)


@every_backend
def test_load_reads_what_was_changed(backend):
    plan, data = dense_plan((9, 33, 4), batch=20), labelled(50, 9, 4)
    session = trained(backend, plan, data)
    for name, array in initial(plan).items():
        session.arrays[name][...] = array
    session.run.load()
    session.begin()
    assert session.finish() == "done"
    assert_same_bits(session, trained(backend, plan, data))


# What goes wrong


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("chunk", [20, 7])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@every_backend
def test_divergence_keeps_the_last_good_step(backend, bad, stored, chunk, threads):
    plan = dense_plan((9, 33, 4), batch=20, chunk=chunk, stored=stored, update="adam",
                      hidden="leaky_relu")  # fmt: skip
    data = labelled(100, 9, 4)
    data.x[data.order[3 * 20 + 11], 5] = bad
    session = Session(backend, plan, data, threads=threads)
    session.begin()
    assert session.finish() == "diverged"
    losses = session.run.losses()
    assert losses.shape == (4,)
    np.testing.assert_array_equal(np.isfinite(losses), [True, True, True, False])
    good = Session(backend, plan, data, threads=threads)
    good.run.begin(data.order, 3 * 20, scalars_of(plan, 0, 3, {}))
    assert good.finish() == "done"
    np.testing.assert_array_equal(losses[:3], good.run.losses())
    for name, array in good.arrays.items():
        np.testing.assert_array_equal(session.arrays[name], array)


@every_backend
def test_running_statistics_survive_divergence(backend):
    plan, data = batch_norm_plan("float32", 24), labelled(60, 9, 4)
    data.x[data.order[3], 5] = np.nan
    session = Session(backend, plan, data)
    session.begin()
    assert session.finish() == "diverged"
    for name, array in initial(plan).items():
        np.testing.assert_array_equal(session.arrays[name], array)


@pytest.mark.parametrize("bad_row", [0, 9])
@every_backend
def test_a_run_begins_anew_after_divergence(backend, bad_row):
    plan, data = dense_plan((9, 33, 4), batch=20, chunk=7), labelled(50, 9, 4)
    data.x[7] = np.nan
    good = np.where(data.order == 7, 8, data.order)
    bad = good.copy()
    bad[bad_row] = 7
    session = Session(backend, plan, data._replace(order=bad))
    session.begin()
    assert session.finish() == "diverged"
    session.data = data._replace(order=good)
    session.begin()
    assert session.run.losses().size == 0
    assert session.finish() == "done"
    assert_same_bits(session, trained(backend, plan, session.data))


@every_backend
def test_an_evaluation_goes_on_over_nan(backend):
    plan, data = dense_plan((9, 33, 4), batch=20), labelled(50, 9, 4)
    data.x[data.order[0]] = np.nan
    session = Session(backend, evaluating_plan(plan), data)
    session.begin()
    assert session.finish() == "done"
    np.testing.assert_array_equal(np.isnan(session.run.losses()), [True, False, False])
