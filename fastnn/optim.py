"""Optimizers: settings, state, and the step on arrays; the arithmetic is in ``kernels/formulas``.

Names, settings and defaults are PyTorch's, and so is the arithmetic: the velocity of momentum does
not contain the learning rate, and Adam's eps is added to the bias-corrected root.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, checks, formula_check
from .arena import Arena
from .kernels.formulas import UPDATES, UpdateFormula, norm_clip
from .kernels.tracing.numpy_math import NumpyMath
from .updates import checked_settings, scalars

if TYPE_CHECKING:
    from .model import Sequential


class Optimizer:
    """An optimizer from one formula.

    Parameters
    ----------
    formula : callable
        ``formula(m, weight, grad, slots, h)`` returns the new weight and a tuple of new slots, as
        plain arithmetic; ``m`` has ``fma``, ``sqrt``, ``where`` and their kin, ``h`` the settings
        and ``h.learning_rate`` as numbers.
    lr : float, default 1e-3
        Learning rate, above 0.
    slots : tuple of str
        Names of the state kept for each weight, begun at zero.
    name : str
        What the optimizer is called in files and messages.
    decay : tuple of str
        Settings that do not apply to biases and normalisation parameters.
    **settings : float
        Settings of the formula.

    Raises
    ------
    TypeError, ValueError
        For a formula that cannot be read, or the name of one of fastnn's own optimizers.

    Examples
    --------
    Sign descent, usable by ``fit`` as well as alone:

    >>> import numpy as np
    >>> def sign_descent(m, weight, grad, slots, h):
    ...     sign = m.where(grad > 0.0, 1.0, m.where(grad < 0.0, -1.0, grad))
    ...     return m.fma(-h.learning_rate, sign, weight), ()
    >>> optimizer = Optimizer(sign_descent, lr=0.25, name="sign descent")
    >>> weight = np.array([1.0, 2.0])
    >>> optimizer.step([weight], [np.array([3.0, -4.0])])
    >>> weight
    array([0.75, 2.25])
    """

    def __init__(
        self,
        formula: Callable[..., tuple[Any, tuple]],
        lr: float = 1e-3,
        *,
        slots: Sequence[str] = (),
        name: str = "custom",
        decay: Sequence[str] = (),
        **settings: float,
    ) -> None:
        if not callable(formula):
            raise TypeError(
                f"formula is {formula!r}; expected a function(m, weight, grad, slots, h)"
            )
        formula_check.check_name("optimizer", name, UPDATES)
        slots, decay = _names("slots", slots), _names("decay", decay)
        if "learning_rate" in settings:
            raise ValueError("learning_rate is no setting of its own; give it as lr")
        values = formula_check.checked_settings(settings)
        for setting in decay:
            checks.lookup("setting in decay", setting, values)
        scalars = ("learning_rate", *values)
        formula_check.check_update(f"optimizer {name!r}", formula, slots, scalars)
        self._use(UpdateFormula(name, formula, slots, scalars, _as_given, decay), lr, values)

    def _use(self, formula: UpdateFormula, lr: float, settings: Mapping[str, Any]) -> None:
        self.formula = formula
        self.lr = checks.number("lr", lr, above=0.0)
        self.settings = dict(settings)
        self.reset()

    @property
    def name(self) -> str:
        """What the optimizer is called in files and messages."""
        return self.formula.name

    def reset(self) -> None:
        """Forget the state: the next step is the first."""
        self.updates = 0
        self.epochs = 0
        self._slots: list[Arena] | None = None
        self._list_slots: list[list[np.ndarray]] | None = None
        self._model: weakref.ref | None = None

    def step(
        self,
        params: Sequential | Sequence[np.ndarray],
        grads: Sequence[np.ndarray] | None = None,
    ) -> None:
        """One update, in place.

        Parameters
        ----------
        params : Sequential, or sequence of ndarray
            A model whose gradients ``backward`` has filled, or a caller's own NumPy or CuPy arrays,
            float32 or float64, C-contiguous; CuPy arrays are updated on the GPU, on the caller's
            current stream. Weight decay touches those with two axes or more.
        grads : sequence of ndarray
            A gradient for each array, of its shape and dtype, beside it.

        Raises
        ------
        ValueError, TypeError
            Where arrays do not match one another or those of the step before; nothing has then
            changed.
        """
        from .model import Sequential

        if isinstance(params, Sequential):
            self.attach(params)
            self.step_model(params, self.lr, None, None, self.updates)
            self.updates += 1
        else:
            self._step_arrays(
                _listed("params", params), [] if grads is None else _listed("grads", grads)
            )

    def step_model(
        self,
        model: Sequential,
        rate: float,
        clip_norm: float | None,
        clip_value: float | None,
        updates: int,
    ) -> None:
        """One update of a model from its gradients, the ``updates + 1``-th, at a given rate."""
        from .backend import get_backend

        backend, decayed = get_backend(), model.arena.decayed
        scale = 1.0
        if clip_norm is not None:
            norm = NumpyMath("float64")
            scale = float(norm_clip(norm, np.float64(backend.norm([model.grads.flat])), clip_norm))
        plain, with_decay = self.scalars(updates, np.array([rate]), model.dtype)[0]
        for part, values in ((slice(decayed), with_decay), (slice(decayed, None), plain)):
            backend.update(
                model.arena.flat[part],
                model.grads.flat[part],
                [slot.flat[part] for slot in self.slots],
                values,
                self.formula,
                clip_value,
                scale,
            )

    def _step_arrays(self, params: list[np.ndarray], grads: list[np.ndarray]) -> None:
        _check_arrays(params, grads)
        if self._model is not None:
            raise ValueError("this optimizer has the state of a model; use another for arrays")
        if self._list_slots is None:
            starts = self.formula.initial_slots(**self.settings)
            self._list_slots = [
                [arrays.module_of(p).full(p.shape, start, p.dtype) for start in starts]
                for p in params
            ]
        known = [slots[0] if slots else None for slots in self._list_slots]
        if len(known) != len(params) or any(
            slot is not None and _kind(slot) != _kind(param)
            for slot, param in zip(known, params, strict=True)
        ):
            raise ValueError(f"params has {_kinds(params)}; the steps before had {_kinds(known)}")
        from .backend import for_array

        rates = np.array([self.lr])
        for param, grad, slots in zip(params, grads, self._list_slots, strict=True):
            scalars = self.scalars(self.updates, rates, param.dtype.name)[0]
            half = scalars[1] if param.ndim > 1 else scalars[0]
            for_array(param).update(param, grad, slots, half, self.formula)
        self.updates += 1

    def trains(self, model: Sequential) -> bool:
        """Whether the state is that of this model."""
        return self._model is not None and self._model() is model

    def check_free_for(self, model: Sequential) -> None:
        """Raise ValueError where the optimizer has been training something else than this model."""
        if self._list_slots is not None or not (self._model is None or self.trains(model)):
            raise ValueError(
                "this optimizer has the state of something else that it trained; make a new one, "
                "or call its reset()"
            )

    def attach(self, model: Sequential) -> None:
        """Give this optimizer state for a model, or keep what it has for the same one.

        Raises
        ------
        ValueError
            Where the optimizer has been training something else.
        """
        self.check_free_for(model)
        if self._model is None:
            self._model = weakref.ref(model)
            starts = self.formula.initial_slots(**self.settings)
            self._slots = [model.arena.like() for _ in starts]
            for slot, start in zip(self._slots, starts, strict=True):
                slot.flat[:] = start

    def slots_of(self, name: str) -> list[np.ndarray]:
        """The state of one parameter of the attached model, a view a slot."""
        return [slot[name] for slot in self.slots]

    @property
    def slots(self) -> list[Arena]:
        """The state of the attached model, an arena a slot."""
        return [] if self._slots is None else self._slots

    def scalars(self, updates: int, rates: np.ndarray, dtype: str) -> np.ndarray:
        """The scalars of steps to come, (steps, 2, S): without weight decay, then with it.

        Parameters
        ----------
        updates : int
            Updates made before.
        rates : ndarray of float64
            The learning rate of each step.
        dtype : str
            What to round to.
        """
        steps = updates + 1.0 + np.arange(rates.size)
        return scalars(self.formula, steps, rates, self.settings, dtype)

    def state(self) -> dict[str, Any]:
        """What a file keeps besides the slots: name, settings, counts."""
        return {
            "name": self.name,
            "lr": self.lr,
            "settings": self.settings,
            "updates": self.updates,
            "epochs": self.epochs,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Without the state that belongs to a model, which travels with the model."""
        state = self.__dict__.copy()
        if self._model is not None:
            state |= {"_model": None, "_slots": None, "updates": 0, "epochs": 0}
        return state

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}(lr={self.lr!r}{settings})"


def _as_given(step: Any, learning_rate: Any, **settings: float) -> dict[str, Any]:
    """The scalars of a user's own formula: its settings as they are."""
    return {"learning_rate": learning_rate, **settings}


def _listed(name: str, arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
    if not isinstance(arrays, Iterable):
        raise TypeError(f"{name} is a {type(arrays).__name__}; expected a list of arrays")
    return list(arrays)


def _names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{argument} is {names!r}; expected a tuple of names")
    result = tuple(names)
    if not all(isinstance(name, str) and name.isidentifier() for name in result):
        raise TypeError(f"{argument} is {names!r}; expected names such as Python's")
    if len(set(result)) < len(result):
        raise ValueError(f"{argument} is {names!r}; expected each name once")
    return result


def _kind(array: Any) -> tuple[Any, ...]:
    """Dtype, shape and place of a NumPy or CuPy array."""
    return array.dtype, array.shape, arrays.is_on_gpu(array)


def _in_words(array: Any) -> str:
    return f"{array.dtype} {array.shape}" + " on the GPU" * arrays.is_on_gpu(array)


def _kinds(known: Iterable[Any]) -> list[str]:
    return ["anything" if array is None else _in_words(array) for array in known]


def _check_arrays(params: list[Any], grads: list[Any]) -> None:
    if len(params) != len(grads):
        raise ValueError(f"grads has {len(grads)} arrays; expected {len(params)}, one for each")
    for number, (param, grad) in enumerate(zip(params, grads, strict=True)):
        for name, array in (("params", param), ("grads", grad)):
            is_array = isinstance(array, np.ndarray) or arrays.is_cupy(array)
            if not is_array or array.dtype not in (np.float32, np.float64):
                kind = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"{name}[{number}] is {kind}; expected a float32 or float64 array")
        if not (param.flags.c_contiguous and arrays.is_writable(param) and grad.flags.c_contiguous):
            raise ValueError(
                f"params[{number}] and grads[{number}] must be C-contiguous, the first writable"
            )
        if _kind(grad) != _kind(param):
            raise ValueError(f"grads[{number}] is {_in_words(grad)}; expected {_in_words(param)}")


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum where that is above 0.

    Parameters
    ----------
    lr : float, default 1e-3
        Learning rate.
    momentum : float, default 0
        Share of the velocity that stays; 0 keeps no state.
    dampening : float, default 0
        What is taken off each gradient as it enters the velocity.
    weight_decay : float, default 0
        Coupled L2: ``weight_decay * weight`` is added to the gradient.
    nesterov : bool, default False
        Look one step ahead.

    Notes
    -----
    Robbins & Monro 1951; Polyak 1964; Sutskever et al. 2013.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.array([[1.0]])
    >>> SGD(lr=0.5).step([weight], [np.array([[1.0]])])
    >>> weight
    array([[0.5]])
    """

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        settings = checked_settings(
            momentum=momentum, dampening=dampening, weight_decay=weight_decay
        )
        if checks.boolean("nesterov", nesterov) and (momentum == 0.0 or dampening != 0.0):
            raise ValueError("nesterov needs momentum above 0 and no dampening")
        if momentum == 0.0:
            self._use(UPDATES["sgd"], lr, {"weight_decay": settings["weight_decay"]})
        else:
            self._use(UPDATES["nesterov" if nesterov else "momentum"], lr, settings)


class Momentum(SGD):
    """SGD with a velocity: v = momentum v + (1 - dampening) grad; weight -= lr v (Polyak 1964).

    Parameters
    ----------
    lr, dampening, weight_decay : float, default 1e-3, 0, 0
        As in :class:`SGD`.
    momentum : float, default 0.9
        Share of the velocity that stays, above 0; the first velocity is the first gradient.

    Examples
    --------
    >>> weight, momentum = np.array([1.0]), Momentum(lr=0.1)
    >>> for _ in range(2):
    ...     momentum.step([weight], [np.array([1.0])])
    >>> weight.round(4)
    array([0.71])
    """

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            lr, checks.number("momentum", momentum, above=0.0), dampening, weight_decay
        )


class Nesterov(SGD):
    """Momentum that looks a step ahead: weight -= lr (grad + momentum v) (Sutskever et al. 2013).

    Parameters
    ----------
    lr, weight_decay : float, default 1e-3, 0
        As in :class:`SGD`.
    momentum : float, default 0.9
        Share of the velocity v that stays, above 0.

    Examples
    --------
    >>> weight = np.array([1.0])
    >>> Nesterov(lr=0.1).step([weight], [np.array([1.0])])
    >>> weight.round(4)
    array([0.81])
    """

    def __init__(self, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(
            lr, checks.number("momentum", momentum, above=0.0), 0.0, weight_decay, nesterov=True
        )


class Adagrad(Optimizer):
    """Steps over the root of the sum of squared gradients (Duchi et al. 2011).

    Parameters
    ----------
    lr : float, default 1e-2
        Learning rate.
    lr_decay : float, default 0
        The rate of step t is ``lr / (1 + (t - 1) lr_decay)``.
    weight_decay : float, default 0
        Coupled L2.
    initial_accumulator_value : float, default 0
        What the sum of squares starts from.
    eps : float, default 1e-10
        Added to the root.

    Examples
    --------
    >>> weight = np.array([1.0])
    >>> Adagrad(lr=0.5).step([weight], [np.array([2.0])])
    >>> weight.round(4)
    array([0.5])
    """

    def __init__(
        self,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        self._use(
            UPDATES["adagrad"],
            lr,
            checked_settings(
                lr_decay=lr_decay,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                eps=eps,
            ),
        )


class RMSprop(Optimizer):
    """Steps over a running root mean square (Tieleman & Hinton 2012).

    Parameters
    ----------
    lr : float, default 1e-2
        Learning rate.
    alpha : float, default 0.99
        Share of the running average that stays.
    eps : float, default 1e-8
        Added to the root.
    weight_decay : float, default 0
        Coupled L2.
    momentum : float, default 0
        Share of the velocity that stays.
    centered : bool, default False
        Divide by the deviation instead of the root mean square (Graves 2013).

    Examples
    --------
    >>> weight = np.array([1.0])
    >>> RMSprop(lr=0.1, alpha=0.75).step([weight], [np.array([2.0])])
    >>> weight.round(4)
    array([0.8])
    """

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        settings = checked_settings(
            alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
        )
        has_momentum = settings["momentum"] > 0.0
        if not has_momentum:
            del settings["momentum"]
        is_centered = checks.boolean("centered", centered)
        name = "rmsprop" + "_centered" * is_centered + "_momentum" * has_momentum
        self._use(UPDATES[name], lr, settings)


class Adam(Optimizer):
    """Running mean over running root mean square (Kingma & Ba 2015, algorithm 1).

    Parameters
    ----------
    lr : float, default 1e-3
        Learning rate.
    betas : (float, float), default (0.9, 0.999)
        Shares of the two running averages that stay.
    eps : float, default 1e-8
        Added to the bias-corrected root.
    weight_decay : float, default 0
        Coupled L2.

    Examples
    --------
    >>> import numpy as np
    >>> weight, adam = np.array([1.0]), Adam(lr=0.1)
    >>> for _ in range(3):
    ...     adam.step([weight], [np.array([2.0])])
    >>> weight.round(4)
    array([0.7])
    """

    _formula = "adam"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._use(
            UPDATES[self._formula],
            lr,
            checked_settings(betas=betas, eps=eps, weight_decay=weight_decay),
        )


class AdamW(Adam):
    """Adam after weight -= lr weight_decay weight (Loshchilov & Hutter 2019).

    Parameters
    ----------
    lr, betas, eps
        As in :class:`Adam`.
    weight_decay : float, default 1e-2
        Decoupled: it does not pass through the running averages.

    Examples
    --------
    >>> weight = np.array([[1.0]])
    >>> AdamW(lr=0.1, weight_decay=0.5).step([weight], [np.array([[2.0]])])
    >>> weight.round(4)
    array([[0.85]])
    """

    _formula = "adamw"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}
"""Optimizers by the name that ``fit(optimizer=...)`` takes; the first argument is the rate."""


def as_optimizer(optimizer: Optimizer | str) -> Optimizer:
    """An optimizer from itself or from its name."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}; expected a fastnn.Optimizer or a name"
        )
    return checks.lookup("optimizer", optimizer, OPTIMIZERS)()


def from_state(state: Mapping[str, Any], known: Iterable[Optimizer] = ()) -> Optimizer:
    """A new optimizer from what :meth:`Optimizer.state` wrote.

    Parameters
    ----------
    state : mapping
    known : iterable of Optimizer
        The user's own, whose formulas are taken by name.

    Raises
    ------
    ValueError, TypeError
        For a custom one that is not among ``known``, or settings that are none of its.
    """
    own = {optimizer.name: optimizer.formula for optimizer in known}
    name = state["name"]
    if name not in own and name not in UPDATES:
        raise ValueError(f"the file uses the optimizer {name!r}: give it in custom=[...]")
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in state["settings"].items()
    }
    for count in ("updates", "epochs"):
        checks.integer(count, state[count], at_least=0)
    result: Optimizer = Optimizer.__new__(_CLASS_OF.get(name, Optimizer))
    result._use(UPDATES.get(name) or own[name], state["lr"], settings)
    result.scalars(0, np.array([result.lr]), "float64")  # takes only settings that fit
    return result


_CLASS_OF = {
    "sgd": SGD,
    "momentum": SGD,
    "nesterov": SGD,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
    **{name: RMSprop for name in UPDATES if name.startswith("rmsprop")},
}
