"""The libraries that are compared, each at its own best way to train and to predict.

A process is told, a line of JSON each, to prepare a task and to time it; see ``serve``. Every
contender starts from the same weights and takes the same rows in the same order.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

RATES = {"SGD": 1e-2, "Adam": 1e-3}
_WARMING_STEPS = 3
"""What PyTorch's guide to CUDA graphs runs before a capture."""


class Task(NamedTuple):
    """A network to train for an epoch of ``steps`` steps, or to predict with."""

    widths: tuple[int, ...]
    optimizer: str
    batch: int
    steps: int

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels of an epoch."""
        rng = np.random.default_rng(1)
        rows = self.batch * self.steps
        x = rng.random((rows, self.widths[0]), np.float32)
        return x, rng.integers(0, self.widths[-1], rows)

    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights (I, O) and biases (O,) to start from (He et al. 2015)."""
        rng = np.random.default_rng(2)
        return [
            (
                (rng.standard_normal((i, o)) * np.sqrt(2 / i)).astype(np.float32),
                np.zeros(o, np.float32),
            )
            for i, o in itertools.pairwise(self.widths)
        ]


class Prepared(NamedTuple):
    """A contender ready for a task.

    Parameters
    ----------
    epoch : callable
        Trains and gives the mean loss, lazily if it can.
    predict : callable
        The outputs of a row (1, I).
    gives_probabilities : bool, default False
        Whether those are probabilities rather than logits.
    """

    epoch: Callable[[], Callable[[], float]]
    predict: Callable[[np.ndarray], Any]
    gives_probabilities: bool = False


# ---- fastnn ----


def fastnn(
    task: Task, threads: int, backend: str = "numba", precision: str = "float32"
) -> Prepared:
    """The run that ``fit`` makes, epochs without anything in between; data where it works."""
    import fastnn as library
    from fastnn.kernels.contract import Binding
    from fastnn.plan import Training, lower

    layers: list[library.Layer] = []
    for inputs, outputs in itertools.pairwise(task.widths):
        layers += [library.Linear(inputs, outputs), library.ReLU()]
    model = library.Sequential(*layers[:-1])
    for layer, (weight, bias) in zip(model.layers[::2], task.weights(), strict=True):
        layer.weight, layer.bias = weight, bias
    x, labels = task.data()
    optimizer = getattr(library, task.optimizer)(RATES[task.optimizer])
    optimizer.attach(model)
    loss = library.CrossEntropyLoss().use
    engine = library.get_backend(backend)
    update = Training(optimizer.formula, precision=precision)
    plan = lower(
        model.layers, task.widths[0], task.batch, "float32",
        loss=loss, training=update, chunk_rows=engine.chunk_rows,
    )  # fmt: skip
    slots = {name: optimizer.slots_of(name) for name in model.arena}
    x_there, labels_there = map(engine.module.asarray, (x, labels))
    binding = Binding(x_there, model.arrays(), labels_there, slots=slots, threads=threads)
    run = engine.start(plan, binding)
    order, rates = np.arange(len(x)), np.full(task.steps, optimizer.lr)

    def epoch() -> Callable[[], float]:
        run.begin(order, len(x), optimizer.scalars(optimizer.updates, rates, "float32"))
        while run.advance(0.05) == "stopped":
            pass
        optimizer.updates += task.steps
        return lambda: float(run.losses().mean())

    return Prepared(epoch, model.predict)


# ---- JAX ----


def jax_scan(task: Task, threads: int, device: str = "cpu") -> Prepared:
    """The whole epoch in one compiled scan, parameters and state donated."""
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_default_device", jax.devices(device)[0])
    jax.config.update("jax_default_matmul_precision", "highest")  # else a GPU rounds to tf32
    optimizer = {"SGD": optax.sgd, "Adam": optax.adam}[task.optimizer](RATES[task.optimizer])

    def logits(parameters: Any, x: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ parameters[-1][0] + parameters[-1][1]

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(parameters, x), y)
        return losses.mean()

    def step(carry: Any, rows: Any) -> tuple[Any, Any]:
        parameters, state = carry
        value, grads = jax.value_and_grad(loss)(parameters, *rows)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(parameters, updates), state), value

    scan = jax.jit(lambda carry, rows: jax.lax.scan(step, carry, rows), donate_argnums=0)
    x, labels = task.data()
    shape = (task.steps, task.batch)
    rows = jnp.asarray(x.reshape(*shape, -1)), jnp.asarray(labels.reshape(shape))
    parameters = [tuple(map(jnp.asarray, pair)) for pair in task.weights()]
    state = [(parameters, optimizer.init(parameters))]
    predict = jax.jit(logits)

    def epoch() -> Callable[[], float]:
        state[0], losses = scan(state[0], rows)
        losses.block_until_ready()
        return lambda: float(losses.mean())

    return Prepared(epoch, lambda one: np.asarray(predict(state[0][0], one)))


# ---- PyTorch ----


class _Torch:
    """A task as modules, a fused optimizer and batches on a device."""

    def __init__(self, task: Task, threads: int, device: str, **settings: Any) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")  # no tf32
        layers: list[Any] = []
        for weight, bias in task.weights():
            linear = torch.nn.Linear(*weight.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(weight.T.copy()))
                linear.bias.copy_(torch.from_numpy(bias))
            layers += [linear, torch.nn.ReLU()]
        self.device = torch.device(device)
        self.model = torch.nn.Sequential(*layers[:-1]).to(self.device)
        make = getattr(torch.optim, task.optimizer)
        self.optimizer = make(
            self.model.parameters(), RATES[task.optimizer], fused=True, **settings
        )
        self.criterion = torch.nn.CrossEntropyLoss()
        x, labels = (torch.from_numpy(array).to(self.device) for array in task.data())
        self.batches = list(zip(x.split(task.batch), labels.split(task.batch), strict=True))

    def forward(self, x: Any, y: Any) -> Any:
        """The loss of a batch."""
        return self.criterion(self.model(x), y)

    def step(self, forward: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
        """The loss of a batch, after which the parameters have moved."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Until the device has done everything."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def predicts(self, outputs: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
        """A prediction from and to the host."""
        import torch

        def predict(one: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return outputs(torch.from_numpy(one).to(self.device)).cpu().numpy()

        return predict


def torch_eager(task: Task, threads: int, device: str = "cpu", mode: str | None = None) -> Prepared:
    """Modules, autograd and a fused optimizer, a step at a time.

    ``mode`` is one of ``torch.compile``, through which forward, backward and predictions go then.
    """
    import torch

    made = _Torch(task, threads, device)
    forward, outputs, keeps_loss = made.forward, made.model, True
    if mode is not None:
        torch.compiler.reset()  # else this shape shares code with earlier ones, or is not compiled
        forward = torch.compile(forward, dynamic=False, mode=mode)
        outputs = torch.compile(made.model, dynamic=False, mode=mode)
        keeps_loss = mode != "reduce-overhead"  # the next replay of its graph writes over it

    def epoch() -> Callable[[], float]:
        losses = []
        for rows, targets in made.batches:
            if not keeps_loss:
                torch.compiler.cudagraph_mark_step_begin()
            loss = made.step(forward, rows, targets)
            losses.append(loss if keeps_loss else loss.clone())
        made.wait()
        return lambda: float(torch.stack(losses).mean())

    return Prepared(epoch, made.predicts(outputs))


def torch_compiled(task: Task, threads: int) -> Prepared:
    """The same through ``torch.compile``."""
    return torch_eager(task, threads, mode="default")


def torch_graph(task: Task, threads: int) -> Prepared:
    """A whole step, the optimizer's too, captured as a CUDA graph and replayed batch after batch.

    ``torch.compile`` leaves the optimizer and the steps of autograd to Python; this leaves a copy
    of the batch and the replay.
    """
    import torch

    made = _Torch(task, threads, "cuda", capturable=True)
    rows, targets = (part.clone() for part in made.batches[0])
    total = torch.zeros((), device=made.device)

    def step() -> None:
        total.add_(made.step(made.forward, rows, targets))

    start = [parameter.detach().clone() for parameter in made.model.parameters()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARMING_STEPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    with torch.no_grad():
        for parameter, value in zip(made.model.parameters(), start, strict=True):
            parameter.copy_(value)
            for slot in made.optimizer.state[parameter].values():
                slot.zero_()

    def epoch() -> Callable[[], float]:
        total.zero_()
        for batch in made.batches:
            rows.copy_(batch[0])
            targets.copy_(batch[1])
            graph.replay()
        made.wait()
        return lambda: float(total) / task.steps

    return Prepared(epoch, made.predicts(made.model))


# ---- scikit-learn ----


def sklearn(task: Task, threads: int) -> Prepared:
    """``MLPClassifier.partial_fit`` over the rows, which takes them batch by batch."""
    from sklearn.neural_network import MLPClassifier

    x, labels = task.data()
    model = MLPClassifier(
        task.widths[1:-1],
        solver=task.optimizer.lower(),
        alpha=0.0,
        batch_size=task.batch,
        learning_rate_init=RATES[task.optimizer],
        momentum=0.0,
        nesterovs_momentum=False,
        shuffle=False,
    )
    classes = np.arange(task.widths[-1])
    model.partial_fit(x[: task.batch], labels[: task.batch], classes=classes)
    for place, (weight, bias) in enumerate(task.weights()):
        model.coefs_[place][...], model.intercepts_[place][...] = weight, bias
    del model._optimizer  # it has the moments of the step that made the arrays

    def epoch() -> Callable[[], float]:
        model.partial_fit(x, labels)
        return lambda: float(model.loss_)

    return Prepared(epoch, model.predict_proba, gives_probabilities=True)


# ---- NumPy ----


def numpy(task: Task, threads: int) -> Prepared:
    """What one writes by hand: one line of NumPy for each line of algebra."""
    parameters = [array for pair in task.weights() for array in pair]
    means = [np.zeros_like(array) for array in parameters]
    squares = [np.zeros_like(array) for array in parameters]
    x, labels = task.data()
    rate, count = np.float32(RATES[task.optimizer]), 0

    def forward(rows: np.ndarray) -> list[np.ndarray]:
        values = [rows]
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            values.append(np.maximum(values[-1] @ weight + bias, 0))
        return [*values, values[-1] @ parameters[-2] + parameters[-1]]

    def step(rows: np.ndarray, targets: np.ndarray) -> np.floating:
        nonlocal count
        *values, logits = forward(rows)
        grad = np.exp(logits - logits.max(axis=1, keepdims=True))
        grad /= grad.sum(axis=1, keepdims=True)
        each = np.arange(len(rows))
        loss = -np.log(grad[each, targets]).mean()
        grad[each, targets] -= 1
        grad /= np.float32(len(rows))
        grads: list[np.ndarray] = []
        for layer in range(len(parameters) - 2, -1, -2):
            value = values[layer // 2]
            grads[:0] = [value.T @ grad, grad.sum(axis=0)]
            if layer:
                grad = (grad @ parameters[layer].T) * (value > 0)
        count += 1
        update(grads)
        return loss

    def update(grads: list[np.ndarray]) -> None:
        if task.optimizer == "SGD":
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter -= rate * grad
            return
        step_size = np.float32(rate / (1 - 0.9**count))
        correction = np.float32(1 / np.sqrt(1 - 0.999**count))
        for parameter, grad, mean, square in zip(parameters, grads, means, squares, strict=True):
            mean += np.float32(0.1) * (grad - mean)
            square += np.float32(0.001) * (grad * grad - square)
            parameter -= step_size * mean / (np.sqrt(square) * correction + np.float32(1e-8))

    def epoch() -> Callable[[], float]:
        losses = [
            step(x[begin : begin + task.batch], labels[begin : begin + task.batch])
            for begin in range(0, len(x), task.batch)
        ]
        return lambda: float(np.mean(losses))

    return Prepared(epoch, lambda one: forward(one)[-1])


# ---- onnxruntime ----


def onnxruntime(task: Task, threads: int) -> Prepared:
    """A session over one row at a time; it predicts and cannot train."""
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = library.InferenceSession(onnx_model(task), options, ["CPUExecutionProvider"])

    def epoch() -> Callable[[], float]:
        raise NotImplementedError("onnxruntime does not train")

    return Prepared(epoch, lambda one: session.run(None, {"x": one})[0])


def onnx_model(task: Task) -> bytes:
    """The network as an ONNX file, for one row."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, value = [], [], "x"
    for layer, pair in enumerate(task.weights()):
        names = [f"weight{layer}", f"bias{layer}"]
        constants += map(numpy_helper.from_array, pair, names)
        if layer:
            nodes.append(helper.make_node("Relu", [value], [f"y{layer}"]))
            value = f"y{layer}"
        nodes.append(helper.make_node("Gemm", [value, *names], [f"sums{layer}"]))
        value = f"sums{layer}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
        for name, width in (("x", task.widths[0]), (value, task.widths[-1]))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    # versions that every release of onnxruntime since 1.14 reads
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


CONTENDERS: dict[str, Callable[[Task, int], Prepared]] = {
    "fastnn": fastnn,
    "jax": jax_scan,
    "torch": torch_eager,
    "torch compiled": torch_compiled,
    "sklearn": sklearn,
    "numpy": numpy,
    "onnxruntime": onnxruntime,
    "fastnn cuda": functools.partial(fastnn, backend="cupy"),
    "fastnn cuda tf32": functools.partial(fastnn, backend="cupy", precision="tf32"),
    "fastnn cuda bf16": functools.partial(fastnn, backend="cupy", precision="bf16"),
    "jax cuda": functools.partial(jax_scan, device="cuda"),
    "torch cuda": functools.partial(torch_eager, device="cuda"),
    "torch cuda compiled": functools.partial(torch_eager, device="cuda", mode="reduce-overhead"),
    "torch cuda graph": torch_graph,
}
PREDICTS_ONLY = ("onnxruntime",)


# ---- a process of its own ----


def serve(name: str, threads: int) -> None:
    """Answer requests on standard input, a line of JSON each, until it ends.

    ``["prepare", [widths, optimizer, batch, steps]]`` makes the contender anew; ``["learn"]`` then
    gives the mean loss of an epoch, ``["judge"]`` that of a prediction of one row, ``["train",
    least]`` the seconds of a step, ``["predict", least]`` those of a prediction of one row, of as
    many as take ``least`` seconds. An error is the last answer: ``{"error": what}``.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr
    try:
        for answer in _answers(name, threads):
            print(json.dumps(answer), file=answers, flush=True)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        print(json.dumps({"error": what}), file=answers, flush=True)
        raise


def _answers(name: str, threads: int) -> Iterator[float]:
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        answer = 0.0
        if request == "prepare":
            ((widths, *rest),) = arguments
            task = Task(tuple(widths), *rest)
            prepared = CONTENDERS[name](task, threads)
            x, labels = task.data()
        elif request == "learn":
            answer = prepared.epoch()()
        elif request == "judge":
            answer = prediction_loss(prepared, x[:1], labels[0])
        elif request == "train":
            answer = _seconds(prepared.epoch, *arguments) / task.steps
        elif request == "predict":
            answer = _seconds(functools.partial(prepared.predict, x[:1]), *arguments)
        else:
            raise ValueError(f"request is {request!r}; see serve")
        yield answer


def prediction_loss(prepared: Prepared, one: np.ndarray, label: int) -> float:
    """The cross-entropy of the prediction for a row (1, I)."""
    outputs = np.asarray(prepared.predict(one), np.float64)[0]
    logits = np.log(outputs) if prepared.gives_probabilities else outputs
    return float(np.logaddexp.reduce(logits) - logits[label])


def _seconds(work: Callable[[], Any], least: float) -> float:
    """Seconds of one piece of work, of as many as take ``least``, after as many untimed.

    A process that has been asleep has cold caches, and its threads not yet cores of their own.
    """
    _repeat(work, least)
    return _repeat(work, least)


def _repeat(work: Callable[[], Any], least: float) -> float:
    count, begun = 0, time.perf_counter()
    while True:
        work()
        count += 1
        taken = time.perf_counter() - begun
        if taken >= least:
            return taken / count


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
