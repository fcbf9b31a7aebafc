"""Losses: what targets they take, and their value and gradient; the arithmetic is in ``kernels``.

A loss is a mean over rows; with sample weights, the sum of weighted losses over the sum of weights.
Elementwise losses are means over the outputs of a row too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, formula_check, operands
from .kernels import contract
from .kernels.formulas import LOSSES as FORMULAS
from .kernels.formulas import LossFormula, batch_scale
from .kernels.tracing.numpy_math import NumpyMath


class Loss:
    """An elementwise loss from one formula.

    Parameters
    ----------
    formula : callable
        ``formula(m, output, target)`` as plain arithmetic; its derivative by ``output`` is found.
    name : str, default "custom"
        What the loss is called in files and messages.
    **settings : float
        Keyword arguments of the formula.

    Raises
    ------
    TypeError, ValueError
        For a formula that cannot be read, or the name of one of fastnn's own losses.

    Examples
    --------
    >>> import numpy as np
    >>> log_cosh = Loss(lambda m, output, target: m.softplus(2 * (output - target))
    ...                 - (output - target) - 0.6931471805599453, name="log_cosh")
    >>> loss, grad = log_cosh(np.array([[0.0]]), np.array([[0.0]]))
    >>> round(abs(loss), 12), grad
    (0.0, array([[0.]]))
    """

    classifies = False
    """Whether accuracy means something: targets are classes."""

    def __init__(
        self, formula: Callable[..., Any], name: str = "custom", **settings: float
    ) -> None:
        if not callable(formula):
            raise TypeError(f"formula is {formula!r}; expected a function(m, output, target)")
        formula_check.check_name("loss", name, LOSSES)
        values = formula_check.checked_settings(settings)
        formula_check.check_function(f"loss {name!r}", formula, ["output", "target"], values)
        self._use(LossFormula(name, formula, tuple(values)), values)

    def _use(
        self,
        formula: LossFormula | None,
        settings: Mapping[str, float] | None = None,
        **conventions: Any,
    ) -> None:
        """``conventions`` are the other parameters of ``contract.Loss``."""
        self.name = formula.name if formula else "cross_entropy"
        self.use = contract.Loss(formula, tuple((settings or {}).items()), **conventions)

    def with_settings(self, settings: Mapping[str, float]) -> Loss:
        """A loss of the same formula with other settings."""
        other = Loss.__new__(Loss)
        other._use(self.use.formula, settings)
        return other

    def __call__(
        self,
        outputs: ArrayLike,
        targets: ArrayLike,
        sample_weight: ArrayLike | None = None,
        out: np.ndarray | None = None,
    ) -> tuple[float, np.ndarray]:
        """The loss and its gradient by the outputs.

        Parameters
        ----------
        outputs : array (B, O)
            Outputs of a network; logits for the losses that say so. CuPy arrays stay on the GPU.
        targets : array
            As the loss takes them.
        sample_weight : array (B,), optional
        out : array (B, O), optional
            Where to write the gradient; may be the outputs.

        Returns
        -------
        loss : float
        grad : ndarray (B, O)
            A CuPy array where the outputs lie on a GPU.

        Raises
        ------
        ValueError, TypeError
            For shapes that do not fit, or targets that the loss cannot take.
        """
        return self._measure(outputs, targets, sample_weight, gradient=True, out=out)

    def value(
        self, outputs: ArrayLike, targets: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """The loss alone, a float; arguments and errors are those of a call."""
        return self._measure(outputs, targets, sample_weight, gradient=False)[0]

    def _measure(self, outputs, targets, sample_weight, gradient: bool, out=None):
        arrays.require_same_place(outputs=outputs, targets=targets, sample_weight=sample_weight)
        z = floating("outputs", outputs)
        if not len(z):
            raise ValueError("outputs has no rows")
        y = arrays.to_host("targets", targets)
        dtype = operands.NAMES[z.dtype]
        prepared = self.targets(y, z.shape[1], dtype, len(z))
        weights = weights_of(sample_weight, len(z), dtype)
        grad = operands.place(out, z.shape, z) if gradient else None
        (z,) = operands.apart([out], z, elementwise=True)
        (prepared,) = operands.apart([out], prepared)
        row_losses, _, scale = self._by_rows(z, prepared, weights, grad)
        return _total(row_losses) * scale, grad

    def measure(
        self,
        outputs: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
        grad: np.ndarray | None,
    ) -> tuple[float, float]:
        """Mean loss and number of hits, for targets and weights that are checked already.

        The gradient by the outputs goes into ``grad``, if that is given. Outputs and ``grad`` may
        be CuPy arrays; targets and weights are in host memory.
        """
        row_losses, row_hits, scale = self._by_rows(outputs, targets, weights, grad)
        return _total(row_losses) * scale, _total(row_hits)

    def _by_rows(self, outputs, targets, weights, grad) -> tuple[Any, Any, float]:
        """Each row's loss and hit, and what their sums are to be multiplied by; see `measure`."""
        from .backend import for_array

        rows = len(outputs)
        total = float(rows) if weights is None else float(weights.sum(dtype=np.float64))
        scale = _scale(total)
        empty = arrays.module_of(outputs).empty
        row_losses, row_hits = (empty(rows, outputs.dtype) for _ in range(2))
        for_array(outputs).loss(
            outputs,
            arrays.beside(outputs, targets),
            None if weights is None else arrays.beside(outputs, weights),
            scale,
            grad,
            row_losses,
            row_hits,
            self.use,
        )
        return row_losses, row_hits, scale

    def targets(self, y: ArrayLike, outputs: int, dtype: str, rows: int) -> np.ndarray:
        """Targets as the kernels take them, checked.

        Parameters
        ----------
        y : array
            (B, O), or (B,) where there is one output.
        outputs : int
            Outputs of the network.
        dtype : str
        rows : int
            Rows of the data.

        Raises
        ------
        ValueError
            For a wrong shape or values that the loss cannot take.
        """
        values = np.asarray(y)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"y has dtype {values.dtype}; expected numbers")
        if values.ndim == 1:
            values = values[:, None]
        if values.shape != (rows, outputs):
            raise ValueError(
                f"y has shape {np.shape(y)}; expected ({rows}, {outputs}) for {outputs} outputs"
                + (f" or ({rows},)" if outputs == 1 else "")
            )
        values = np.ascontiguousarray(values, dtype)
        if not np.isfinite(values).all():
            raise ValueError("y contains NaN or infinity; expected finite numbers")
        return values

    def configuration(self) -> dict[str, Any]:
        """What a file keeps."""
        return {"name": self.name, "settings": dict(self.use.settings)}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.use.settings)
        return f"{type(self).__name__}({settings})"


class CrossEntropyLoss(Loss):
    """Softmax cross-entropy on logits.

    Targets are class numbers (B,), or one-hot or soft labels (B, O).

    Parameters
    ----------
    label_smoothing : float, default 0
        Share of the uniform distribution mixed into each target (Szegedy et al. 2016).

    Examples
    --------
    >>> import numpy as np
    >>> loss, grad = CrossEntropyLoss()(np.array([[0.0, 0.0]]), np.array([1]))
    >>> round(loss, 4), grad
    (0.6931, array([[ 0.5, -0.5]]))
    """

    classifies = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = checks.fraction("label_smoothing", label_smoothing)
        self._use(None, smoothing=self.label_smoothing)

    def targets(self, y: ArrayLike, outputs: int, dtype: str, rows: int) -> np.ndarray:
        values = np.asarray(y)
        if values.ndim == 2 and values.shape[1] == 1 and outputs > 1:
            values = values[:, 0]
        if values.ndim == 2:
            values = super().targets(values, outputs, dtype, rows)
            if values.size and values.min() < 0.0:
                raise ValueError(f"y has a negative probability, {values.min():g}")
            return values
        if values.shape != (rows,):
            raise ValueError(
                f"y has shape {values.shape}; expected ({rows},) or ({rows}, {outputs})"
            )
        return class_numbers(values, outputs)

    def configuration(self) -> dict[str, Any]:
        return {"name": self.name, "settings": {"label_smoothing": self.label_smoothing}}

    def __repr__(self) -> str:
        return f"CrossEntropyLoss(label_smoothing={self.label_smoothing!r})"


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy on logits, the mean over the outputs of a row.

    Targets lie in [0, 1], (B, O) or (B,) for one output.

    Examples
    --------
    >>> import numpy as np
    >>> loss, grad = BCEWithLogitsLoss()(np.array([[0.0]]), np.array([1.0]))
    >>> round(loss, 4), grad
    (0.6931, array([[-0.5]]))
    """

    classifies = True

    def __init__(self) -> None:
        self._use(FORMULAS["binary_cross_entropy"])

    def targets(self, y: ArrayLike, outputs: int, dtype: str, rows: int) -> np.ndarray:
        values = super().targets(y, outputs, dtype, rows)
        if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
            raise ValueError(
                f"y lies in [{values.min():g}, {values.max():g}]; expected values in [0, 1]"
            )
        return values


class MSELoss(Loss):
    """The mean of squared errors, over the outputs of a row too.

    Examples
    --------
    >>> MSELoss().value([[1.0, 3.0]], [[0.0, 0.0]])
    5.0
    """

    def __init__(self) -> None:
        self._use(FORMULAS["squared_error"])


class L1Loss(Loss):
    """The mean of absolute errors, over the outputs of a row too.

    Examples
    --------
    >>> L1Loss().value([[1.0, 3.0]], [[0.0, 0.0]])
    2.0
    """

    def __init__(self) -> None:
        self._use(FORMULAS["absolute_error"])


class HuberLoss(Loss):
    """Half the squared error up to ``delta``, linear beyond (Huber 1964).

    Parameters
    ----------
    delta : float, default 1
        Above 0, in the unit of the targets.

    Examples
    --------
    >>> HuberLoss().value([[1.0, 3.0]], [[0.0, 0.0]])
    1.5
    """

    def __init__(self, delta: float = 1.0) -> None:
        settings = {"delta": checks.number("delta", delta, above=0.0)}
        self._use(FORMULAS["huber"], settings)


class PoissonNLLLoss(Loss):
    """The negative log-likelihood of counts: exp(output) - target output, the mean over outputs.

    The network gives the logarithm of the expected count (Nelder and Wedderburn 1972); as in
    PyTorch, what no output moves, log(target!), is left out. Targets are at least 0, (B, O) or (B,)
    for one output.

    Examples
    --------
    >>> import numpy as np
    >>> loss, grad = PoissonNLLLoss()(np.array([[0.0]]), np.array([3.0]))
    >>> loss, grad
    (1.0, array([[-2.]]))
    """

    def __init__(self) -> None:
        self._use(FORMULAS["poisson"])

    def targets(self, y: ArrayLike, outputs: int, dtype: str, rows: int) -> np.ndarray:
        values = super().targets(y, outputs, dtype, rows)
        if values.size and not values.min() >= 0.0:
            raise ValueError(f"y has a negative count, {values.min():g}; expected 0 or more")
        return values


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": CrossEntropyLoss,
    "binary_cross_entropy": BCEWithLogitsLoss,
    "squared_error": MSELoss,
    "absolute_error": L1Loss,
    "huber": HuberLoss,
    "poisson": PoissonNLLLoss,
}
"""Losses by the name in files."""
_ALIASES = {"mse": MSELoss, "mae": L1Loss, "l1": L1Loss, "bce": BCEWithLogitsLoss}


def as_loss(loss: Loss | str | None, y: Any) -> Loss:
    """A loss from itself, from its name, or, for None, from the kind of the targets."""
    if isinstance(loss, Loss):
        return loss
    if loss is None:
        classes = arrays.as_array("y", y).dtype.kind in "iub"
        return CrossEntropyLoss() if classes else MSELoss()
    if not isinstance(loss, str):
        raise TypeError(f"loss is a {type(loss).__name__}; expected a fastnn.Loss, a name or None")
    return checks.lookup("loss", loss, {**LOSSES, **_ALIASES})()


def from_configuration(configuration: Mapping[str, Any]) -> Loss | None:
    """A built-in loss from what a file keeps; None for a custom one."""
    make = LOSSES.get(configuration["name"])
    return make(**configuration["settings"]) if make else None


@functools.lru_cache(maxsize=64)
def _scale(total: float) -> float:
    """One over the weight of a batch."""
    return float(NumpyMath("float64").evaluate(batch_scale, np.float64(total)))


def _total(records: Any) -> float:
    """The sum of what each row has, added in float64."""
    return float(arrays.to_host("records", records).sum(dtype=np.float64))


def class_numbers(values: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers as int64, checked to be whole and in range."""
    whole = values.dtype.kind == "f" and (np.mod(values, 1) == 0).all()
    if values.dtype.kind not in "iub" and not whole:
        raise ValueError(f"y has dtype {values.dtype}; expected whole class numbers")
    if values.size and not (values.min() >= 0 and values.max() < classes):
        hint = "; one output takes loss='binary_cross_entropy'" if classes == 1 else ""
        raise ValueError(
            f"y has class numbers from {values.min()} to {values.max()}; expected 0 to "
            f"{classes - 1} for {classes} outputs{hint}"
        )
    return np.ascontiguousarray(values, np.int64)


def weights_of(sample_weight: Any, rows: int, dtype: str) -> np.ndarray | None:
    """Sample weights as the kernels take them, checked."""
    if sample_weight is None:
        return None
    values = arrays.to_host("sample_weight", sample_weight)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"sample_weight has dtype {values.dtype}; expected numbers")
    if values.shape != (rows,):
        raise ValueError(f"sample_weight has shape {values.shape}; expected ({rows},)")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() > 0):
        raise ValueError("sample_weight must be finite, none negative, and not all zero")
    total, limits = float(values.sum(dtype=np.float64)), np.finfo(dtype)
    if not float(limits.tiny) <= total <= float(limits.max):
        raise ValueError(
            f"sample_weight has the sum {total:g}, beyond the numbers of {dtype}; scale it, which "
            "changes nothing"
        )
    return values.astype(dtype)


def floating(name: str, values: ArrayLike) -> np.ndarray:
    """A matrix of float32 or float64 where it lies; other numbers become float32."""
    matrix = checks.matrix(name, arrays.as_array(name, values))
    dtype = matrix.dtype if matrix.dtype in operands.DTYPES else np.dtype("float32")
    return arrays.contiguous(matrix, dtype)
