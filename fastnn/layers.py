"""Layers: shapes, parameters and names; one by one they run on the backend's operations.

A layer inside a :class:`fastnn.Sequential` holds views into the network's arena. One that stands
alone has a small arena of its own, made on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import arrays, checks, formula_check
from . import init as initialisers
from .arena import Arena
from .kernels.contract import Activation as ActivationUse
from .kernels.contract import Dropout as DropoutUse
from .kernels.contract import Parameter
from .kernels.formulas import ACTIVATIONS as FORMULAS
from .kernels.formulas import ActivationFormula, normalise
from .losses import floating


class Layer:
    """A step of a network.

    A layer of one's own has ``forward(x)`` and ``backward(grad)``, and may name parameters in
    ``parameters()``; a network that contains one is trained step by step in Python, and says so.

    Examples
    --------
    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return 2 * x
    ...     def backward(self, grad):
    ...         return 2 * grad
    >>> Double()([[1.0, 2.0]])
    array([[2., 4.]])
    """

    training = True
    _views: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] | None = None
    _gave: tuple[tuple[int, ...], np.dtype] | None = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Outputs (B, O) for inputs (B, I); what ``backward`` needs is kept."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def backward(self, grad: np.ndarray) -> np.ndarray:
        """The gradient by the inputs; those by the parameters are left in ``grad_...``."""
        raise NotImplementedError(f"{type(self).__name__} has no backward()")

    def __call__(self, x: ArrayLike) -> np.ndarray:
        return self.forward(floating("x", arrays.on_host("x", x)))

    def parameters(self) -> tuple[Parameter, ...]:
        """Names and shapes of what is trained."""
        return ()

    def constants(self) -> tuple[Parameter, ...]:
        """Names and shapes of what is kept, but not trained."""
        return ()

    def outputs(self, inputs: int) -> int:
        """The width of the outputs for a width of the inputs.

        Raises
        ------
        ValueError
            Where the layer takes another width.
        """
        return inputs

    def initialise(self, generator: np.random.Generator, following: str) -> None:
        """Fill the parameters, by the name of the activation that follows."""

    def attach(self, arrays: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray]) -> None:
        """Use these views for parameters, constants and gradients."""
        self._views = arrays, grads

    def train(self) -> Layer:
        """Behave as in training; returns the layer."""
        self.training = True
        return self

    def eval(self) -> Layer:
        """Behave as in prediction; returns the layer."""
        self.training = False
        return self

    def array(self, name: str) -> np.ndarray:
        """A parameter or constant; made on first use where the layer stands alone."""
        return self._attached()[0][name]

    def grad(self, name: str) -> np.ndarray:
        """The gradient by a parameter."""
        return self._attached()[1][name]

    def assign(self, name: str, value: ArrayLike) -> None:
        """Copy a value into a parameter or constant.

        Raises
        ------
        ValueError, TypeError
            For another shape, or what is not numbers.
        """
        array, values = self.array(name), arrays.to_host(name, value)
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{name} has dtype {values.dtype}; expected numbers")
        if values.shape != array.shape:
            raise ValueError(f"{name} has shape {values.shape}; expected {array.shape}")
        array[...] = values

    def _give(self, y: np.ndarray) -> np.ndarray:
        """An output, whose shape and dtype ``backward`` will want."""
        self._gave = y.shape, y.dtype
        return y

    def _take(self, grad: ArrayLike) -> np.ndarray:
        """A gradient by the last output."""
        if self._gave is None:
            raise RuntimeError(f"{self!r}.backward() follows a forward()")
        (shape, dtype), matrix = self._gave, checks.as_matrix("grad", grad)
        if matrix.shape != shape:
            raise ValueError(f"grad has shape {matrix.shape}; expected {shape}")
        return np.ascontiguousarray(matrix, dtype)

    def _attached(self) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
        """Views of arrays and gradients, into an arena of its own where the layer has no other."""
        if self._views is None:
            trained, kept = (
                Arena(parameters, "float32") for parameters in (self.parameters(), self.constants())
            )
            self._views = {**trained, **kept}, trained.like()
            self.initialise(np.random.Generator(np.random.Philox(0)), "linear")
        return self._views

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, as a file keeps them."""
        return {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({shown})"


def _named(name: str) -> property:
    """A parameter as an attribute; assigning copies into the arena."""

    def get(self: Layer) -> np.ndarray:
        return self.array(name)

    def put(self: Layer, value: ArrayLike) -> None:
        self.assign(name, value)

    return property(get, put, doc=f"{name}, a view into the arena.")


def _grad_of(name: str) -> property:
    return property(lambda self: self.grad(name), doc=f"The gradient by {name}.")


class Linear(Layer):
    """y = x weight + bias.

    Parameters
    ----------
    inputs, outputs : int
        I and O.
    bias : bool, default True
    init : str or callable, optional
        An initialiser of ``fastnn.init``; by default He, LeCun or Glorot by what follows.
    decay_bias : bool, default False
        Whether weight decay touches the bias.

    Attributes
    ----------
    weight : ndarray (I, O)
    bias : ndarray (O,) or None
    grad_weight, grad_bias : ndarray
        Filled by ``backward``.

    Examples
    --------
    >>> layer = Linear(3, 2, init="zeros")
    >>> layer([[1.0, 2.0, 3.0]])
    array([[0., 0.]], dtype=float32)
    """

    weight = _named("weight")
    grad_weight = _grad_of("weight")

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = True,
        init: str | Callable[..., np.ndarray] | None = None,
        decay_bias: bool = False,
    ) -> None:
        self.width = checks.positive_int("outputs", outputs)
        self.inputs = checks.positive_int("inputs", inputs)
        self.has_bias = checks.boolean("bias", bias)
        self.decay_bias = checks.boolean("decay_bias", decay_bias)
        self.init = init
        if init is not None:
            initialisers.resolve(init)

    @property
    def bias(self) -> np.ndarray | None:
        """bias, a view into the arena; None where the layer has none."""
        return self.array("bias") if self.has_bias else None

    @bias.setter
    def bias(self, value: ArrayLike) -> None:
        if not self.has_bias:
            raise ValueError("this layer was made with bias=False")
        self.assign("bias", value)

    @property
    def grad_bias(self) -> np.ndarray | None:
        """The gradient by bias."""
        return self.grad("bias") if self.has_bias else None

    def parameters(self) -> tuple[Parameter, ...]:
        weight = Parameter("weight", (self.inputs, self.width), True)
        bias = Parameter("bias", (self.width,), self.decay_bias)
        return (weight, bias) if self.has_bias else (weight,)

    def outputs(self, inputs: int) -> int:
        if inputs != self.inputs:
            raise ValueError(f"{self!r} takes {self.inputs} inputs, got {inputs}")
        return self.width

    def initialise(self, generator: np.random.Generator, following: str) -> None:
        make = initialisers.resolve(self.init or initialisers.default_for(following))
        weight = self.array("weight")
        values = np.asarray(make(generator, weight.shape, weight.dtype.name))
        if values.dtype.kind not in "fiu" or values.shape != weight.shape:
            raise ValueError(
                f"init gave {values.dtype} of shape {values.shape}; expected {weight.dtype} of "
                f"shape {weight.shape}"
            )
        if not np.isfinite(values).all():
            raise ValueError("init gave NaN or infinity; expected finite numbers")
        weight[...] = values
        if self.has_bias:
            self.array("bias")[...] = 0.0

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.outputs(x.shape[1])
        weight = self.weight
        self._x = np.ascontiguousarray(x, weight.dtype)
        y = np.empty((len(x), self.width), weight.dtype)
        _backend().linear(self._x, weight, self.bias, y)
        return self._give(y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        grad = self._take(grad)
        _backend().linear_grad_weight(self._x, grad, self.grad_weight, self.grad_bias)
        out = np.empty_like(self._x)
        _backend().linear_grad_input(grad, self.weight, None, out)
        return out

    def arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"inputs": self.inputs, "outputs": self.width}
        if not self.has_bias:
            arguments["bias"] = False
        if isinstance(self.init, str):
            arguments["init"] = self.init
        if self.decay_bias:
            arguments["decay_bias"] = True
        return arguments


class Activation(Layer):
    """An activation from one formula.

    Parameters
    ----------
    formula : callable
        ``formula(m, x)`` as plain arithmetic; ``m`` has exp, log, log1p, expm1, sqrt, tanh,
        sigmoid, erf, softplus, abs, where, maximum, minimum and fma. Its derivative is found.
    name : str
        What the activation is called in files: loading asks for it by this name.
    **settings : float
        Keyword arguments of the formula.

    Raises
    ------
    TypeError, ValueError
        For a formula that cannot be read: it branches, say, or calls what ``m`` has not.

    Examples
    --------
    >>> mish = Activation(lambda m, x: x * m.tanh(m.softplus(x)), name="mish")
    >>> mish([[0.0, 100.0]])
    array([[  0., 100.]])
    """

    def __init__(self, formula: Callable[..., Any], name: str, **settings: float) -> None:
        if not callable(formula):
            raise TypeError(f"formula is {formula!r}; expected a function(m, x)")
        formula_check.check_name("activation", name)
        values = formula_check.checked_settings(settings)
        formula_check.check_function(f"activation {name!r}", formula, ["x"], values)
        self._use(ActivationFormula(name, formula, tuple(values)), values)

    def _use(self, formula: ActivationFormula, settings: Mapping[str, float]) -> None:
        self.use = ActivationUse(formula, tuple(settings.items()))

    def with_settings(self, settings: Mapping[str, float]) -> Activation:
        """An activation of the same formula with other settings."""
        other = Activation.__new__(Activation)
        other._use(self.use.formula, settings)
        return other

    @property
    def name(self) -> str:
        """The formula's name."""
        return self.use.formula.name

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, self._slope = np.empty_like(x), np.empty_like(x)
        _backend().map(x, y, self._slope, self.use)
        return self._give(y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        out = self._take(grad).copy()
        _backend().multiply(out, self._slope)
        return out

    def arguments(self) -> dict[str, Any]:
        return dict(self.use.settings)

    def __repr__(self) -> str:
        if type(self) is Activation:
            return f"Activation({self.name!r})"
        return super().__repr__()


class _Fixed(Activation):
    """An activation without settings, named by its class."""

    formula = "identity"

    def __init__(self) -> None:
        self._use(FORMULAS[self.formula], {})


class Identity(_Fixed):
    """x itself.

    Examples
    --------
    >>> Identity()([[-1.0, 2.0]])
    array([[-1.,  2.]])
    """


class Sigmoid(_Fixed):
    """1 / (1 + exp(-x)).

    As the last layer with a binary cross-entropy it is folded into the loss, which then works on
    logits; ``predict`` gives probabilities.

    Examples
    --------
    >>> Sigmoid()([[0.0]])
    array([[0.5]])
    """

    formula = "sigmoid"


class Tanh(_Fixed):
    """The hyperbolic tangent.

    Examples
    --------
    >>> Tanh()([[0.0]])
    array([[0.]])
    """

    formula = "tanh"


class ReLU(_Fixed):
    """The positive part of x; its derivative at 0 is 0.

    Examples
    --------
    >>> ReLU()([[-1.0, 2.0]])
    array([[0., 2.]])
    """

    formula = "relu"


class SELU(_Fixed):
    """A scaled ELU that keeps mean 0 and variance 1 from layer to layer (Klambauer et al. 2017).

    Examples
    --------
    >>> SELU()([[0.0, 1.0]]).round(4)
    array([[0.    , 1.0507]])
    """

    formula = "selu"


class SiLU(_Fixed):
    """x sigmoid(x) (Elfwing et al. 2018).

    Examples
    --------
    >>> SiLU()([[0.0, 1.0]]).round(4)
    array([[0.    , 0.7311]])
    """

    formula = "silu"


class LeakyReLU(Activation):
    """x where positive, else ``negative_slope`` x (Maas et al. 2013).

    Parameters
    ----------
    negative_slope : float, default 0.01

    Examples
    --------
    >>> LeakyReLU(0.5)([[-1.0, 2.0]])
    array([[-0.5,  2. ]])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        slope = checks.number("negative_slope", negative_slope)
        self._use(FORMULAS["leaky_relu"], {"negative_slope": slope})


class ELU(Activation):
    """x where positive, else ``alpha`` (exp(x) - 1) (Clevert et al. 2016).

    Parameters
    ----------
    alpha : float, default 1
        The outputs lie above ``-alpha``.

    Examples
    --------
    >>> ELU()([[0.0, 2.0]])
    array([[0., 2.]])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self._use(FORMULAS["elu"], {"alpha": checks.number("alpha", alpha)})


class GELU(Activation):
    """x times the normal distribution function (Hendrycks & Gimpel 2016).

    Parameters
    ----------
    approximate : "none" or "tanh", default "none"
        The error function, or the paper's formula with tanh.

    Examples
    --------
    >>> GELU()([[0.0, 1.0]]).round(4)
    array([[0.    , 0.8413]])
    """

    def __init__(self, approximate: str = "none") -> None:
        names = {"none": "gelu", "tanh": "gelu_tanh"}
        self.approximate = approximate
        self._use(FORMULAS[checks.lookup("approximation", approximate, names)], {})

    def arguments(self) -> dict[str, Any]:
        return {"approximate": self.approximate}


class Softplus(Activation):
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above ``threshold``.

    Parameters
    ----------
    beta : float, default 1
        Above 0: how sharp the bend is.
    threshold : float, default 20

    Examples
    --------
    >>> Softplus()([[30.0]])
    array([[30.]])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        settings = {
            "beta": checks.number("beta", beta, above=0.0),
            "threshold": checks.number("threshold", threshold),
        }
        self._use(FORMULAS["softplus"], settings)


class PReLU(Activation):
    """x where positive, else a learned slope times x (He et al. 2015).

    Parameters
    ----------
    num_parameters : int, default 1
        One slope for all columns, or one a column.
    start : float, default 0.25
        The slopes to begin with.

    Attributes
    ----------
    slope, grad_slope : ndarray (num_parameters,)
        The second is filled by ``backward``.

    Examples
    --------
    >>> PReLU()(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.25,  2.  ]], dtype=float32)
    """

    slope = _named("slope")
    grad_slope = _grad_of("slope")

    def __init__(self, num_parameters: int = 1, start: float = 0.25) -> None:
        self.num_parameters = checks.positive_int("num_parameters", num_parameters)
        self.start = checks.number("start", start)
        self._use(FORMULAS["prelu"], {})

    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("slope", (self.num_parameters,), False),)

    def outputs(self, inputs: int) -> int:
        if self.num_parameters not in (1, inputs):
            raise ValueError(f"{self!r} takes {self.num_parameters} inputs, got {inputs}")
        return inputs

    def initialise(self, generator: np.random.Generator, following: str) -> None:
        self.array("slope")[...] = self.start

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.outputs(x.shape[1])
        x = np.ascontiguousarray(x, self.slope.dtype)
        y, self._slope, self._by_slope = (np.empty_like(x) for _ in range(3))
        _backend().map(x, y, self._slope, self.use, [self.slope], [self._by_slope])
        return self._give(y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        grad = self._take(grad)
        sums = np.empty(grad.shape[1], grad.dtype)
        _backend().column_sums(grad, self._by_slope, sums)
        self.grad_slope[...] = sums.sum() if self.num_parameters == 1 else sums
        return super().backward(grad)

    def arguments(self) -> dict[str, Any]:
        return {"num_parameters": self.num_parameters, "start": self.start}


class Softmax(Layer):
    """exp(x) over its sum, row by row.

    As the last layer with a cross-entropy it is folded into the loss, which then works on logits;
    ``predict`` gives probabilities.

    Examples
    --------
    >>> Softmax()([[1.0, 1.0]])
    array([[0.5, 0.5]])
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._y = np.empty_like(x)
        _backend().softmax(x, self._y)
        return self._give(self._y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        out = self._take(grad).copy()
        _backend().softmax_grad(self._y, out)
        return out


class Dropout(Layer):
    """Zeroes a share of the inputs in training and scales up the rest (Srivastava et al. 2014).

    Parameters
    ----------
    p : float, default 0.5
        The share that is dropped, from 0 to below 1.
    seed : int, default 0
        Of the masks of a layer that is called by itself; ``fit`` uses its own seed.

    Raises
    ------
    ValueError
        For a ``p`` outside of [0, 1).

    Examples
    --------
    >>> dropout = Dropout(0.5)
    >>> sorted(set(dropout(np.ones((8, 8))).ravel().tolist()))
    [0.0, 2.0]
    >>> bool((dropout.eval()(np.ones((8, 8))) == 1.0).all())
    True
    """

    def __init__(self, p: float = 0.5, seed: int = 0) -> None:
        self.p = checks.fraction("p", p)
        self.seed = checks.integer("seed", seed, at_least=0)
        self.draw(self.seed, epoch=0, step=0, layer=0)

    def draw(self, seed: int, epoch: int, step: int, layer: int) -> None:
        """Take the next mask from this place; each call moves it a step on.

        Parameters
        ----------
        seed, epoch, step, layer : int
            What a mask depends on, besides the element's place.
        """
        self._mask = DropoutUse(self.p, layer, seed, epoch, step)

    def forward(self, x: np.ndarray) -> np.ndarray:
        if not self.training or self.p == 0.0:
            self._slope = None
            return self._give(x)
        y, self._slope = np.empty_like(x), np.empty_like(x)
        _backend().map(x, y, self._slope, dropout=self._mask)
        self._mask = self._mask._replace(step=self._mask.step + 1)
        return self._give(y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        grad = self._take(grad)
        if self._slope is None:
            return grad
        out = grad.copy()
        _backend().multiply(out, self._slope)
        return out

    def arguments(self) -> dict[str, Any]:
        return {"p": self.p} | ({"seed": self.seed} if self.seed else {})


class BatchNorm1d(Layer):
    """Normalises each column over the batch, then scales and shifts (Ioffe & Szegedy 2015).

    Parameters
    ----------
    features : int
        Columns.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float, default 0.1
        Share of a batch in the running statistics, which prediction uses.

    Attributes
    ----------
    weight, bias : ndarray (features,)
        Scale and shift, learned.
    running_mean, running_var : ndarray (features,)

    Examples
    --------
    >>> BatchNorm1d(1, eps=1e-12)(np.array([[1.0], [3.0]], np.float32)).ravel()
    array([-1.,  1.], dtype=float32)
    """

    weight, bias = _named("weight"), _named("bias")
    grad_weight, grad_bias = _grad_of("weight"), _grad_of("bias")
    running_mean, running_var = _named("running_mean"), _named("running_var")

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.features = checks.positive_int("features", features)
        self.eps = checks.number("eps", eps, above=0.0)
        self.momentum = checks.number("momentum", momentum, at_least=0.0, at_most=1.0)

    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(Parameter(name, (self.features,), False) for name in ("weight", "bias"))

    def constants(self) -> tuple[Parameter, ...]:
        names = ("running_mean", "running_var")
        return tuple(Parameter(name, (self.features,), False) for name in names)

    def outputs(self, inputs: int) -> int:
        if inputs != self.features:
            raise ValueError(f"{self!r} takes {self.features} inputs, got {inputs}")
        return inputs

    def initialise(self, generator: np.random.Generator, following: str) -> None:
        for name, start in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.array(name)[...] = start

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.outputs(x.shape[1])
        x = np.ascontiguousarray(x, self.weight.dtype)
        y = np.empty_like(x)
        if not self.training:
            self._x_hat = None
            _backend().batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.eps, None, y
            )
            return self._give(y)
        if len(x) < 2:
            raise ValueError(f"{self!r} in training needs two rows at least, got {len(x)}")
        mean, self._variance = (np.empty(self.features, x.dtype) for _ in range(2))
        self._x_hat = np.empty_like(x)
        backend = _backend()
        backend.moments(x, mean, self._variance)
        backend.running_average(
            mean, self._variance, self.running_mean, self.running_var, self.momentum, len(x)
        )
        backend.batch_norm(
            x, mean, self._variance, self.weight, self.bias, self.eps, self._x_hat, y
        )
        return self._give(y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        out = self._take(grad).copy()
        if self._x_hat is None:
            raise RuntimeError(f"{self!r}.backward() follows a forward() in training only")
        backend = _backend()
        backend.column_sums(out, None, self.grad_bias)
        backend.column_sums(out, self._x_hat, self.grad_weight)
        backend.batch_norm_grad(
            out,
            self._x_hat,
            self._variance,
            self.weight,
            self.eps,
            self.grad_bias,
            self.grad_weight,
        )
        return out

    def arguments(self) -> dict[str, Any]:
        return {"features": self.features, "eps": self.eps, "momentum": self.momentum}


class Standardize(Layer):
    """Subtracts a mean from each column and divides by a scale; neither is trained.

    Parameters
    ----------
    mean, scale : array (I,)
        In the unit of the inputs; :meth:`fit` takes them from data.

    Raises
    ------
    ValueError, TypeError
        For shapes that differ, what is not finite, or a scale that is not above 0.

    Examples
    --------
    >>> Standardize([2.0], [0.5])([[3.0]])
    array([[2.]], dtype=float32)
    """

    mean, inverse_scale = _named("mean"), _named("inverse_scale")
    use = ActivationUse(
        ActivationFormula("standardize", normalise, learned=("mean", "inverse_scale"))
    )

    def __init__(self, mean: ArrayLike, scale: ArrayLike) -> None:
        given = [np.asarray(values) for values in (mean, scale)]
        if any(values.dtype.kind not in "fiub" for values in given):
            kinds = " and ".join(str(values.dtype) for values in given)
            raise TypeError(f"mean and scale have dtypes {kinds}; expected numbers")
        self._mean, self._scale = (values.astype(np.float64) for values in given)
        if self._mean.ndim != 1 or self._mean.shape != self._scale.shape or not self._mean.size:
            raise ValueError(
                f"mean has shape {self._mean.shape} and scale {self._scale.shape}; expected (I,)"
            )
        if not (
            np.isfinite(self._mean).all()
            and np.isfinite(self._scale).all()
            and (self._scale > 0.0).all()
        ):
            raise ValueError("mean must be finite and scale finite and above 0")

    @classmethod
    def fit(cls, X: ArrayLike) -> Standardize:
        """A layer that gives the columns of ``X`` mean 0 and deviation 1.

        A column that never changes is only shifted.

        Parameters
        ----------
        X : array (B, I)

        Returns
        -------
        Standardize

        Raises
        ------
        ValueError, TypeError
            For no rows, NaN or infinity, or what is not numbers.

        Examples
        --------
        >>> Standardize.fit([[1.0, 5.0], [3.0, 5.0]])([[2.0, 6.0]])
        array([[0., 1.]], dtype=float32)
        """
        matrix = checks.as_matrix("X", X)
        if not (len(matrix) and np.isfinite(matrix).all()):
            raise ValueError("X has no rows, or contains NaN or infinity; expected finite numbers")
        mean = matrix.mean(axis=0, dtype=np.float64)
        scale = matrix.std(axis=0, dtype=np.float64)
        return cls(mean, np.where(scale > 0.0, scale, 1.0))

    def constants(self) -> tuple[Parameter, ...]:
        names = ("mean", "inverse_scale")
        return tuple(Parameter(name, self._mean.shape, False) for name in names)

    def outputs(self, inputs: int) -> int:
        if inputs != self._mean.size:
            raise ValueError(f"{self!r} takes {self._mean.size} inputs, got {inputs}")
        return inputs

    def initialise(self, generator: np.random.Generator, following: str) -> None:
        self.array("mean")[...] = self._mean
        self.array("inverse_scale")[...] = 1.0 / self._scale

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.outputs(x.shape[1])
        x = np.ascontiguousarray(x, self.mean.dtype)
        y = np.empty_like(x)
        _backend().map(x, y, None, self.use, [self.mean, self.inverse_scale])
        return self._give(y)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return self._take(grad) * self.inverse_scale

    def arguments(self) -> dict[str, Any]:
        return {"mean": self._mean.tolist(), "scale": self._scale.tolist()}

    def __repr__(self) -> str:
        return f"Standardize({self._mean.size})"


class Flatten(Layer):
    """Makes each row one-dimensional.

    Examples
    --------
    >>> Flatten()(np.zeros((5, 8, 8))).shape
    (5, 64)
    """

    def __call__(self, x: ArrayLike) -> np.ndarray:
        array = arrays.on_host("x", x)
        if array.ndim < 2:
            raise ValueError(f"x has shape {array.shape}; expected rows of at least one axis")
        return super().__call__(array.reshape(len(array), -1))

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad


LAYERS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        Linear,
        Identity,
        Sigmoid,
        Tanh,
        ReLU,
        LeakyReLU,
        PReLU,
        ELU,
        SELU,
        GELU,
        SiLU,
        Softplus,
        Softmax,
        Dropout,
        BatchNorm1d,
        Standardize,
        Flatten,
    )
}
"""Layers by the name that a file keeps."""

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "identity": Identity,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "leaky_relu": LeakyReLU,
    "prelu": PReLU,
    "elu": ELU,
    "selu": SELU,
    "gelu": GELU,
    "gelu_tanh": lambda: GELU("tanh"),
    "silu": SiLU,
    "softplus": Softplus,
    "softmax": Softmax,
}
"""Activation layers by the name that the command line takes."""


def _backend():
    from .backend import get_backend

    return get_backend()
