"""Networks from PyTorch's modules, which are read by their attributes; PyTorch is not imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..kernels.contract import DTYPES
from ..layers import (
    ELU,
    GELU,
    SELU,
    BatchNorm1d,
    Dropout,
    Flatten,
    Identity,
    Layer,
    LeakyReLU,
    Linear,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from ..model import Sequential


def from_torch(module: Any) -> Sequential:
    """A network with the layers, settings and weights of a ``torch.nn.Sequential``.

    Parameters
    ----------
    module : torch.nn.Sequential
        Of Linear, BatchNorm1d, Dropout, Flatten, Identity, the activations that fastnn has, and
        Sequentials of those. Weights and running statistics are copied, from wherever they lie.

    Returns
    -------
    Sequential
        Of the dtype of the weights, in training or prediction as the module is.

    Raises
    ------
    ValueError, TypeError
        A layer is not covered; the message names it by its place, and says why.

    Examples
    --------
    ::

        net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        model = fastnn.from_torch(net)
        model.predict(x)  # as net(torch.from_numpy(x))
    """
    parts = list(_flat("", module))
    lifts = [_lifted(path, part) for path, part in parts]
    if not lifts:
        raise ValueError("module has no layers")
    places: dict[int, str] = {}
    for (path, part), lift in zip(parts, lifts, strict=True):
        first = places.setdefault(id(part), path)
        if lift.arrays and first != path:
            raise ValueError(
                f"from_torch does not cover layers {first} and {path}, which are one and share "
                f"their weights, {part!r}: each of fastnn's has its own"
            )
    dtypes = {array.dtype.name for lift in lifts for array in lift.arrays.values()}
    if len(dtypes) > 1:
        raise ValueError(
            f"module has weights of {' and '.join(sorted(dtypes))}; expected one dtype"
        )
    model = Sequential(*(lift.layer for lift in lifts), dtype=next(iter(dtypes), "float32"))
    for lift in lifts:
        for name, array in lift.arrays.items():
            lift.layer.assign(name, array)
    return model.train() if module.training else model.eval()


class _Lift(NamedTuple):
    """A layer, and what its arrays are to hold."""

    layer: Layer
    arrays: Mapping[str, np.ndarray] = MappingProxyType({})


def _flat(path: str, module: Any) -> Iterator[tuple[str, Any]]:
    """The modules inside Sequentials, each with its place, such as "2.0"."""
    if _kind(module) != "Sequential" or _has_hooks(module):
        yield path, module
        return
    for number, part in enumerate(module):
        yield from _flat(f"{path}.{number}" if path else str(number), part)


def _kind(module: Any) -> str:
    """The name of a module's class, in full where that is not PyTorch's own: it may do anything."""
    kind = type(module)
    is_own = kind.__module__.startswith("torch.nn.modules.")
    return kind.__name__ if is_own else f"{kind.__module__}.{kind.__qualname__}"


def _has_hooks(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _lifted(path: str, module: Any) -> _Lift:
    """What a module becomes."""
    try:
        if _kind(module) in (*_LIFTS, "Sequential") and _has_hooks(module):
            raise ValueError("it has forward hooks, which fastnn does not call")
        return checks.lookup("kind of layer", _kind(module), _LIFTS)(module)
    except (TypeError, ValueError) as error:
        place = f"layer {path}" if path else "module"
        raise type(error)(f"from_torch does not cover {place}, {module!r}: {error}") from None


def _array(name: str, tensor: Any) -> np.ndarray:
    """A tensor's numbers, in host memory."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise TypeError(f"its {name} is {dtype}; expected {' or '.join(DTYPES)}")
    return np.asarray(tensor.detach().cpu().numpy())


def _linear(module: Any) -> _Lift:
    arrays = {"weight": _array("weight", module.weight).T}
    if module.bias is not None:
        arrays["bias"] = _array("bias", module.bias)
    layer = Linear(module.in_features, module.out_features, bias=module.bias is not None)
    return _Lift(layer, arrays)


def _batch_norm(module: Any) -> _Lift:
    for setting in ("affine", "track_running_stats"):
        if not getattr(module, setting):
            raise ValueError(f"it has {setting}=False, and fastnn's always does")
    if module.momentum is None:
        raise ValueError("it has momentum=None, a cumulative average, which fastnn's has not")
    names = ("weight", "bias", "running_mean", "running_var")
    layer = BatchNorm1d(module.num_features, module.eps, module.momentum)
    return _Lift(layer, {name: _array(name, getattr(module, name)) for name in names})


def _prelu(module: Any) -> _Lift:
    return _Lift(PReLU(module.num_parameters), {"slope": _array("weight", module.weight)})


def _softmax(module: Any) -> _Lift:
    if module.dim not in (1, -1):
        raise ValueError(f"it has dim={module.dim}; fastnn's is over the columns, dim=1")
    return _Lift(Softmax())


def _flatten(module: Any) -> _Lift:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise ValueError(
            f"it has start_dim={module.start_dim}, end_dim={module.end_dim}; fastnn's flattens "
            "rows, start_dim=1, end_dim=-1"
        )
    return _Lift(Flatten())


def _with(make: Callable[..., Layer], *settings: str) -> Callable[[Any], _Lift]:
    """How a module becomes a layer with settings that both libraries give the same names."""
    return lambda module: _Lift(make(**{name: getattr(module, name) for name in settings}))


_LIFTS: dict[str, Callable[[Any], _Lift]] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "Dropout": _with(Dropout, "p"),
    "Flatten": _flatten,
    "Identity": _with(Identity),
    "ReLU": _with(ReLU),
    "LeakyReLU": _with(LeakyReLU, "negative_slope"),
    "PReLU": _prelu,
    "ELU": _with(ELU, "alpha"),
    "SELU": _with(SELU),
    "GELU": _with(GELU, "approximate"),
    "SiLU": _with(SiLU),
    "Sigmoid": _with(Sigmoid),
    "Tanh": _with(Tanh),
    "Softplus": _with(Softplus, "beta", "threshold"),
    "Softmax": _softmax,
}
"""What is covered, by the name of PyTorch's class."""
