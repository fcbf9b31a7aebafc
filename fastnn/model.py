"""A network: layers in a row over one arena, run layer by layer or as a plan, saved and loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, losses, model_files, optim
from . import backend as backends
from .arena import Arena
from .evaluation import Evaluation, run_once
from .history import History
from .kernels.contract import DTYPES, FEW_ROWS, Backend, Binding, Parameter, Plan
from .layers import Activation, Flatten, Layer, Sigmoid, Softmax
from .losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss
from .plan import Training, can_lower, lower
from .runs import Runs
from .training import fit
from .training_data import TrainingData

_MOST_LAYERS = 256
"""Dropout counters have 8 bits for the layer."""


class Sequential:
    """Layers, one after the other.

    Parameters
    ----------
    *layers : Layer
        Widths must fit; the first layer with a known width sets that of the data.
    seed : int, default 0
        Of the initial weights.
    dtype : "float32" or "float64", default "float32"

    Attributes
    ----------
    layers : tuple of Layer
    arena : Arena
        All trained parameters, named ``"0.weight"`` and so on, in one flat buffer.
    grads : Arena
        Their gradients, filled by ``backward``.
    constants : Arena
        What is kept but not trained.
    history : History or None
        Of the last ``fit``.
    loss, optimizer
        Those of the last ``fit``.
    classes : list of str or None
        Names of the classes, where the caller sets them; saved with the model.

    Examples
    --------
    >>> import fastnn
    >>> model = Sequential(fastnn.Linear(4, 3), fastnn.ReLU(), fastnn.Linear(3, 2))
    >>> model.parameter_count
    23
    >>> model(np.zeros((1, 4)))
    array([[0., 0.]], dtype=float32)
    """

    def __init__(self, *layers: Layer, seed: int = 0, dtype: str = "float32") -> None:
        if not layers:
            raise ValueError("layers is empty; expected at least one layer")
        for number, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {number} is a {type(layer).__name__}; expected a Layer")
        if len(layers) > _MOST_LAYERS:
            raise ValueError(f"{len(layers)} layers came; at most {_MOST_LAYERS} are possible")
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("a layer stands in the network twice; expected a layer for each place")
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
        self.dtype = checks.lookup("dtype", name, {name: name for name in DTYPES})
        self.seed = checks.integer("seed", seed, at_least=0)
        self.layers = tuple(layers)
        self.inputs = self._check_widths()
        self.arena = Arena(self._named("parameters"), self.dtype)
        self.constants = Arena(self._named("constants"), self.dtype)
        self.grads = self.arena.like()
        self._attach()
        generator = np.random.Generator(np.random.Philox(self.seed))
        for number, layer in enumerate(self.layers):
            layer.initialise(generator, self._following(number))
        self._kept = threading.local()
        self.training = True
        self.loss: Loss | None = None
        self.optimizer: optim.Optimizer | None = None
        self.history: History | None = None
        self.classes: list[str] | None = None

    def _check_widths(self) -> int | None:
        """Let every layer check the width that reaches it; the inputs' width, if a layer tells."""
        first = None
        for layer in self.layers:
            first = getattr(layer, "inputs", None)
            shapes = [p.shape for p in (*layer.parameters(), *layer.constants())]
            if first is None and shapes and shapes != [(1,)]:  # one slope fits any width
                first = shapes[0][0]
            if first is not None:
                break
        width = first
        for number, layer in enumerate(self.layers):
            if width is not None:
                try:
                    width = layer.outputs(width)
                except ValueError as error:
                    raise ValueError(f"layer {number}: {error}") from None
        return first

    def _named(self, kind: str) -> list[Parameter]:
        return [
            Parameter(f"{number}.{parameter.name}", parameter.shape, parameter.decayed)
            for number, layer in enumerate(self.layers)
            for parameter in getattr(layer, kind)()
        ]

    def _attach(self) -> None:
        for number, layer in enumerate(self.layers):
            prefix = f"{number}."
            arrays, grads = (
                {
                    name.removeprefix(prefix): array
                    for arena in arenas
                    for name, array in arena.items()
                    if name.startswith(prefix)
                }
                for arenas in ((self.arena, self.constants), (self.grads,))
            )
            layer.attach(arrays, grads)

    def _following(self, number: int) -> str:
        """The name of the activation that follows a layer, for its initial weights."""
        for layer in self.layers[number + 1 :]:
            if isinstance(layer, Activation):
                return layer.name
            if layer.parameters() and layer.parameters()[0].decayed:
                break
        return "identity"

    # -- layer by layer --

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """The outputs, layer by layer; what :meth:`backward` needs is kept.

        Parameters
        ----------
        x : array (B, I)

        Returns
        -------
        ndarray (B, O)

        Raises
        ------
        ValueError, TypeError
            For another width, or what is not numbers.
        """
        array = arrays.on_host("x", x)
        if array.ndim > 2 and any(isinstance(layer, Flatten) for layer in self.layers):
            array = array.reshape(len(array), -1)
        values = checks.as_matrix("x", array)
        if self.inputs is not None and values.shape[1] != self.inputs:
            raise ValueError(f"x has {values.shape[1]} columns; the network takes {self.inputs}")
        values = np.ascontiguousarray(values, self.dtype)
        for layer in self.layers:
            values = layer.forward(values)
        return values

    def backward(self, grad: ArrayLike) -> np.ndarray:
        """The gradient by the inputs; fills ``grads`` for the rows of the last call.

        Parameters
        ----------
        grad : array (B, O)
            The gradient of the loss by the outputs, as a :class:`Loss` gives it.

        Returns
        -------
        ndarray (B, I)

        Examples
        --------
        >>> import fastnn
        >>> model = Sequential(fastnn.Linear(3, 2, init="zeros"))
        >>> loss, grad = fastnn.CrossEntropyLoss()(model([[1.0, 2.0, 3.0]]), np.array([0]))
        >>> grad_x = model.backward(grad)
        >>> model[0].grad_weight[:, 0]
        array([-0.5, -1. , -1.5], dtype=float32)
        """
        values = np.ascontiguousarray(checks.as_matrix("grad", grad), self.dtype)
        for layer in reversed(self.layers):
            values = layer.backward(values)
        return values

    def train(self) -> Sequential:
        """Let dropout and normalisation behave as in training; returns the model."""
        return self._set_training(True)

    def eval(self) -> Sequential:
        """Let them behave as in prediction; returns the model."""
        return self._set_training(False)

    def _set_training(self, training: bool) -> Sequential:
        self.training = training
        for layer in self.layers:
            layer.train() if training else layer.eval()
        return self

    # -- as a plan --

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return int(self.arena.flat.size)

    def plan(self, batch_size: int = 32, optimizer: optim.Optimizer | str = "adam") -> Plan:
        """The plan that ``fit`` would run; ``print`` shows operations, flops, bytes and threads.

        Parameters
        ----------
        batch_size : int, default 32
            Rows a step.
        optimizer : Optimizer or str, default "adam"

        Returns
        -------
        Plan

        Raises
        ------
        ValueError, TypeError
            For an unknown optimizer, or a network with a layer that is not one of fastnn's own.

        Examples
        --------
        >>> import fastnn
        >>> plan = Sequential(fastnn.Linear(3, 2), fastnn.ReLU()).plan(optimizer="sgd")
        >>> [row.op for row in plan.chunk]
        ['weigh', 'gather', 'linear', 'loss', 'multiply', 'check', 'linear_grad_weight']
        """
        batch_rows = checks.positive_int("batch_size", batch_size)
        update = optim.as_optimizer(optimizer).formula
        loss = self.loss or CrossEntropyLoss()
        plan = lower(
            self.logit_layers(loss),
            self._inputs(),
            batch_rows,
            self.dtype,
            loss=loss.use,
            training=Training(update),
            chunk_rows=backends.get_backend().chunk_rows,
        )
        return replace(plan, threads=backends.threads_for(plan))

    def logit_layers(self, loss: Loss | None) -> Sequence[Layer]:
        """The layers up to the logits: without a last Softmax or Sigmoid that the loss contains."""
        last = self.layers[-1]
        if isinstance(loss, CrossEntropyLoss) and isinstance(last, Softmax):
            return self.layers[:-1]
        if isinstance(loss, BCEWithLogitsLoss) and isinstance(last, Sigmoid):
            return self.layers[:-1]
        return self.layers

    def _inputs(self) -> int:
        if self.inputs is None:
            raise ValueError("no layer says how many inputs the network takes")
        return self.inputs

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters and constants by name, views into the arenas."""
        return {**self.arena, **self.constants}

    def rows(self, name: str, X: ArrayLike) -> np.ndarray:
        """Data as rows of numbers that the kernels read in place; checked, copied only if needed.

        What lies on a GPU stays there, as a CuPy array.

        Raises
        ------
        ValueError, TypeError
            For a wrong shape, an empty set, or NaN or infinity.
        """
        array, backend = arrays.as_array(name, X), backends.where_it_lies(name, X)
        if array.ndim > 2:
            array = array.reshape(len(array), -1)
        matrix = checks.matrix(name, array)
        if not len(matrix):
            raise ValueError(f"{name} has no rows")
        if self.inputs is not None and matrix.shape[1] != self.inputs:
            raise ValueError(
                f"{name} has {matrix.shape[1]} columns; the network takes {self.inputs}"
            )
        if matrix.dtype.kind == "f" and matrix.dtype.itemsize > 8:
            matrix = matrix.astype(np.float64)
        lies_well = matrix.strides[1] == matrix.itemsize and matrix.strides[0] >= 0
        if not (matrix.dtype.isnative and lies_well):
            matrix = arrays.contiguous(matrix, matrix.dtype.newbyteorder("="))
        if matrix.dtype.kind == "f" and not backend.all_finite(matrix):
            raise ValueError(f"{name} contains NaN or infinity; expected finite numbers")
        return matrix

    def predict(self, X: ArrayLike, *, device: str | None = None) -> np.ndarray:
        """Outputs of the last layer.

        Parameters
        ----------
        X : array (B, I), or (B, ...) with rows that flatten to I
            An array on a GPU (CuPy's, or a tensor of PyTorch or JAX) is read where it lies.
        device : "cpu", "cuda" or "auto", optional
            By default where X lies, or that of the backend in use; see :meth:`fit`.

        Returns
        -------
        ndarray (B, O), or CuPy array where X lies on a GPU
            Logits, where the network ends in a Linear. A row's result has the same bits in any
            batch.

        Raises
        ------
        ValueError, TypeError
            For a wrong shape, no rows, NaN or infinity, or an unknown device.

        Examples
        --------
        >>> import fastnn
        >>> Sequential(fastnn.Linear(3, 2, init="zeros")).predict([[1.0, 2.0, 3.0]])
        array([[0., 0.]], dtype=float32)
        """
        if device is None and type(X) is np.ndarray and X.ndim == 2 and len(X) <= FEW_ROWS:
            outputs = self._predictor()(X)
            if outputs is not None:
                return outputs
        x = self.rows("X", X)
        with self._backend_for(device, x) as backend:
            if not can_lower(self.layers):
                outputs = self.predict_by_layers(self.layers, x)
                return arrays.beside(x, outputs)
            rows = min(len(x), backend.chunk_rows)
            plan = self._lowered(rows, backend, x.shape[1])
            out = arrays.module_of(x).empty((len(x), plan.outputs), self.dtype)
            self._measure(plan, Binding(x, self.arrays(), out=out))
            return out

    def _backend_for(self, device: str | None, x: Any) -> AbstractContextManager[Backend]:
        """The backend for a pass over rows that are checked, in use inside a ``with`` block."""
        work = backends.pass_work(self.parameter_count, len(x))
        return backends.use_backend(backends.for_data(device, "X", x, work).name)

    def _lowered(self, rows: int, backend: Backend, inputs: int) -> Plan:
        """The plan that predicts."""
        return lower(self.layers, inputs, rows, self.dtype, chunk_rows=backend.chunk_rows)

    def _predictor(self) -> Callable[[np.ndarray], np.ndarray | None]:
        """The way for a few rows, made once for each thread and backend."""
        kept, backend = self._kept, backends.get_backend()
        if getattr(kept, "backend", None) is not backend:
            if self.inputs is not None and can_lower(self.layers):
                plan = self._lowered(FEW_ROWS, backend, self.inputs)
                kept.predictor = backend.predictor(plan, self.arrays())
            else:
                kept.predictor = _no_prediction
            kept.backend = backend
        return kept.predictor

    def predict_by_layers(self, layers: Sequence[Layer], x: np.ndarray) -> np.ndarray:
        """Outputs of some of the layers, one after the other, in host memory, as in prediction."""
        training, parts, step = self.training, [], backends.get_backend().chunk_rows
        self.eval()
        try:
            for begin in range(0, len(x), step):
                values = arrays.to_host("x", x[begin : begin + step])
                values = np.ascontiguousarray(values, self.dtype)
                for layer in layers:
                    values = layer.forward(values)
                parts.append(values)
        finally:
            self._set_training(training)
        return np.concatenate(parts)

    def predict_proba(self, X: ArrayLike, *, device: str | None = None) -> np.ndarray:
        """Probabilities of the classes.

        A network with one output, trained on a binary cross-entropy, gives two columns.

        Parameters
        ----------
        X, device
            As in :meth:`predict`.

        Returns
        -------
        ndarray (B, O), or CuPy array where X lies on a GPU
            Rows add up to 1 after a cross-entropy.

        Raises
        ------
        ValueError
            Where neither the last layer nor the loss of the last ``fit`` says what outputs mean.

        Examples
        --------
        >>> import fastnn
        >>> model = Sequential(fastnn.Linear(3, 2, init="zeros"), fastnn.Softmax())
        >>> model.predict_proba([[1.0, 2.0, 3.0]])
        array([[0.5, 0.5]], dtype=float32)
        """
        outputs, last = self.predict(X, device=device), self.layers[-1]
        backend = backends.for_array(outputs)
        if not isinstance(last, (Softmax, Sigmoid)):
            logits = outputs.copy()
            if isinstance(self.loss, CrossEntropyLoss):
                backend.softmax(logits, outputs)
            elif isinstance(self.loss, BCEWithLogitsLoss):
                backend.map(logits, outputs, None, Sigmoid().use)
            else:
                raise ValueError(
                    "predict_proba needs a network that ends in Softmax or Sigmoid, or that was "
                    "trained with a cross-entropy"
                )
        return outputs if outputs.shape[1] > 1 else _with_complement(outputs, backend)

    def evaluate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: Loss | str | None = None,
        sample_weight: ArrayLike | None = None,
        metrics: Iterable[Any] | None = None,
        device: str | None = None,
    ) -> dict[str, float]:
        """Loss and metrics on data.

        Parameters
        ----------
        X, y : array
            An X on a GPU is read where it lies.
        loss : Loss or str, optional
            That of the last ``fit`` by default, else by the kind of ``y``.
        sample_weight : array (B,), optional
        metrics : iterable of str or callable, optional
            Names of ``fastnn.metrics`` or functions of (outputs, targets), which are NumPy arrays;
            by default accuracy, where the loss has classes.
        device : "cpu", "cuda" or "auto", optional
            By default where X lies, or that of the backend in use; see :meth:`fit`.

        Returns
        -------
        dict
            ``{"loss": ..., "accuracy": ...}``

        Raises
        ------
        ValueError, TypeError
            For data that do not fit the network or the loss, or unknown names.

        Examples
        --------
        >>> import fastnn
        >>> model = Sequential(fastnn.Linear(1, 1, init="zeros"))
        >>> model.evaluate([[1.0], [2.0]], [1.0, 3.0])
        {'loss': 5.0}
        """
        chosen = losses.as_loss(loss or self.loss, y)
        evaluation = Evaluation(self, TrainingData(self, X, y, chosen, sample_weight), metrics)
        with self._backend_for(device, evaluation.data.x):
            return evaluation.measure(Runs())

    def _measure(self, plan: Plan, binding: Binding) -> Any:
        """Run a plan that does not train over all rows; the finished run."""
        binding.threads = backends.threads_for(plan)
        run = backends.get_backend().start(plan, binding)
        run_once(run, len(binding.x))
        return run

    fit = fit

    # -- as other libraries have it --

    def to_numpy(self) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], list[str]]:
        """Weights and names of activations; ``fastnn.from_numpy`` makes the network again of them.

        Returns
        -------
        weights : list of (W, b)
            For each Linear copies of ``W`` (I, O) and ``b`` (O,), or None.
        activations : list of str
            What follows each, "identity" for nothing. Dropout and Flatten change no prediction, and
            are left out.

        Raises
        ------
        ValueError
            Another layer, or an activation with settings of its own; the message names it.

        Examples
        --------
        >>> import fastnn
        >>> weights, activations = Sequential(fastnn.Linear(4, 3), fastnn.ReLU()).to_numpy()
        >>> weights[0][0].shape, activations
        ((4, 3), ['relu'])
        """
        from .lifts.arrays import to_numpy

        return to_numpy(self)

    def to_sklearn(self) -> Any:
        """A fitted MLPClassifier or MLPRegressor, scikit-learn's own, with the network's weights.

        Returns
        -------
        estimator
            A classifier where the network ends in Softmax or Sigmoid, or was trained on a
            cross-entropy, with the network's ``classes`` (as whole numbers, where all spell one
            and they ascend) or numbers from 0; else a regressor. Its predictions agree with the
            network's, and ``partial_fit`` trains it on.

        Raises
        ------
        ValueError
            scikit-learn has no such network: it has one activation, of identity, sigmoid, tanh and
            relu, between all layers.
        ImportError
            scikit-learn is not installed.

        Examples
        --------
        >>> import fastnn
        >>> model = Sequential(fastnn.Linear(4, 8), fastnn.Tanh(), fastnn.Linear(8, 1))
        >>> model.to_sklearn().activation
        'tanh'
        """
        from .lifts.scikit_learn import to_sklearn

        return to_sklearn(self)

    # -- files --

    def save(self, path: str | os.PathLike) -> None:
        """Write the network, its optimizer's state and its class names to a file.

        Parameters
        ----------
        path : path
            In the safetensors layout; written aside and renamed, so that a file that was there is
            whole until the new one is. :func:`fastnn.load` reads it.

        Raises
        ------
        OSError
            Where it cannot be written.

        Examples
        --------
        >>> import fastnn
        >>> Sequential(fastnn.Linear(2, 3)).save("model.safetensors")
        """
        tensors, metadata = self.state()
        model_files.save_tensors(path, tensors, metadata)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Tensors and metadata that a file keeps."""
        tensors = dict(self.arrays())
        metadata: dict[str, Any] = {
            "dtype": self.dtype,
            "seed": self.seed,
            "layers": [
                {"type": type(layer).__name__, "arguments": layer.arguments()}
                | ({"name": layer.name} if type(layer) is Activation else {})
                for layer in self.layers
            ],
            "loss": self.loss.configuration() if self.loss else None,
            "classes": self.classes,
            "optimizer": None,
        }
        if self.optimizer is not None and self.optimizer.trains(self):
            metadata["optimizer"] = self.optimizer.state()
            for number, slot in enumerate(self.optimizer.slots):
                tensors |= {f"slot {number} {name}": array for name, array in slot.items()}
        return tensors, metadata

    def check_tensors(self, tensors: Mapping[str, np.ndarray], slots: int) -> None:
        """Raise ValueError unless a file has this network's tensors and an optimizer's slots."""
        shapes = {name: array.shape for name, array in self.arrays().items()}
        for number in range(slots):
            shapes |= {f"slot {number} {name}": array.shape for name, array in self.arena.items()}
        model_files.check_tensors(tensors, shapes, self.dtype)

    def restore(self, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
        """Take parameters, constants and the optimizer's state from a file's contents."""
        saved = metadata.get("optimizer")
        optimizer = self.optimizer
        if saved is not None and (optimizer is None or optimizer.name != saved["name"]):
            optimizer = optim.from_state(saved)
        slots = 0 if saved is None or optimizer is None else len(optimizer.formula.slots)
        self.check_tensors(tensors, slots)
        for name, array in self.arrays().items():
            array[...] = tensors[name]
        if saved is None or optimizer is None:
            return
        self.optimizer = optimizer
        self.optimizer.reset()
        self.optimizer.attach(self)
        self.optimizer.updates, self.optimizer.epochs = saved["updates"], saved["epochs"]
        for number, slot in enumerate(self.optimizer.slots):
            for name, array in slot.items():
                array[...] = tensors[f"slot {number} {name}"]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, number: int) -> Layer:
        return self.layers[number]

    def __getstate__(self) -> dict[str, Any]:
        tensors, metadata = self.state()
        kept = {name: getattr(self, name) for name in ("loss", "history", "classes", "training")}
        return {
            "layers": self.layers,
            "seed": self.seed,
            "dtype": self.dtype,
            "tensors": {name: array.copy() for name, array in tensors.items()},
            "metadata": metadata,
            "optimizer": self.optimizer,
            "kept": kept,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        Sequential.__init__(self, *state["layers"], seed=state["seed"], dtype=state["dtype"])
        self.optimizer = state["optimizer"]
        self.restore(state["tensors"], state["metadata"])
        for name, value in state["kept"].items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        lines = [f"Sequential({self.parameter_count} parameters, {self.dtype}"]
        width = self.inputs
        for number, layer in enumerate(self.layers):
            after = layer.outputs(width) if width is not None else None
            count = sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())
            shape = "" if width is None else f"{width} -> {after}"
            detail = f"{count} parameters" if count else ""
            lines.append(f"  {number:>2}  {layer!r:<36} {shape:<14} {detail}".rstrip())
            width = after
        return "\n".join(lines) + "\n)"


def _with_complement(outputs: Any, backend: Backend) -> Any:
    """The columns 1 - p and p of probabilities p, (B, 1), where they lie."""
    module = arrays.module_of(outputs)
    weight, bias = (
        arrays.beside(outputs, np.array(values, outputs.dtype))
        for values in ([[-1.0, 1.0]], [1.0, 0.0])
    )
    both = module.empty((len(outputs), 2), outputs.dtype)
    backend.linear(outputs, weight, bias, both)
    return both


def _no_prediction(x: np.ndarray) -> None:
    """The way for a few rows, where there is none."""
