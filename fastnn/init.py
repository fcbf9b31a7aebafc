"""Initialisers of weights: how far the first numbers lie from 0, so that signals keep their size.

Every initialiser is a function ``(generator, (I, O), dtype) -> array (I, O)``. Numbers are drawn
in float64 and rounded, so that a seed starts a float32 and a float64 network at the same place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from . import checks

Initialiser = Callable[[np.random.Generator, tuple[int, int], DTypeLike], np.ndarray]


def glorot_uniform(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Uniform in ±sqrt(6 / (I + O)): variance 2 / (I + O).

    Source: Glorot and Bengio, 2010, "Understanding the difficulty of training deep feedforward
    neural networks", equation 16.

    Parameters
    ----------
    generator : numpy.random.Generator
        Where the numbers come from.
    shape : (int, int)
        Inputs I and outputs O.
    dtype : dtype, default float32
        Of the result.

    Returns
    -------
    ndarray, shape (I, O)

    >>> generator = np.random.Generator(np.random.Philox(0))
    >>> glorot_uniform(generator, (64, 128)).shape
    (64, 128)
    """
    inputs, outputs = _checked(shape)
    return _uniform(generator, shape, 2 / (inputs + outputs), dtype)


def glorot_normal(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Normal with variance 2 / (I + O); see :func:`glorot_uniform`.

    >>> glorot_normal(np.random.Generator(np.random.Philox(0)), (3, 2), "float64").dtype
    dtype('float64')
    """
    inputs, outputs = _checked(shape)
    return _normal(generator, shape, 2 / (inputs + outputs), dtype)


def he_uniform(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Uniform in ±sqrt(6 / I): variance 2 / I; see :func:`glorot_uniform`.

    Source: He, Zhang, Ren and Sun, 2015, "Delving deep into rectifiers", equation 10.

    >>> he_uniform(np.random.Generator(np.random.Philox(0)), (3, 2)).dtype
    dtype('float32')
    """
    inputs, _ = _checked(shape)
    return _uniform(generator, shape, 2 / inputs, dtype)


def he_normal(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Normal with variance 2 / I; see :func:`he_uniform`.

    >>> he_normal(np.random.Generator(np.random.Philox(0)), (3, 2)).dtype
    dtype('float32')
    """
    inputs, _ = _checked(shape)
    return _normal(generator, shape, 2 / inputs, dtype)


def lecun_uniform(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Uniform in ±sqrt(3 / I): variance 1 / I; see :func:`glorot_uniform`.

    Source: LeCun, Bottou, Orr and Müller, 1998, "Efficient BackProp", equation 16.

    >>> lecun_uniform(np.random.Generator(np.random.Philox(0)), (3, 2)).dtype
    dtype('float32')
    """
    inputs, _ = _checked(shape)
    return _uniform(generator, shape, 1 / inputs, dtype)


def lecun_normal(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Normal with variance 1 / I, as SELU wants it; see :func:`lecun_uniform`.

    >>> lecun_normal(np.random.Generator(np.random.Philox(0)), (3, 2)).dtype
    dtype('float32')
    """
    inputs, _ = _checked(shape)
    return _normal(generator, shape, 1 / inputs, dtype)


def zeros(
    generator: np.random.Generator, shape: tuple[int, int], dtype: DTypeLike = "float32"
) -> np.ndarray:
    """All zeros; draws nothing from the generator. See :func:`glorot_uniform`.

    >>> zeros(np.random.Generator(np.random.Philox(0)), (1, 2))
    array([[0., 0.]], dtype=float32)
    """
    return np.zeros(_checked(shape), dtype)


INITIALISERS: dict[str, Initialiser] = {
    function.__name__: function
    for function in (
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        lecun_uniform,
        lecun_normal,
        zeros,
    )
}

RECTIFIERS = ("relu", "leaky_relu", "prelu", "elu", "gelu", "gelu_tanh", "silu", "softplus")


def resolve(initialiser: str | Initialiser) -> Initialiser:
    """The initialiser of that name; a function comes back as it is.

    Parameters
    ----------
    initialiser : str or callable

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        An unknown name; the message lists near matches.

    >>> resolve("zeros") is zeros
    True
    """
    return (
        initialiser
        if callable(initialiser)
        else checks.lookup("initialiser", initialiser, INITIALISERS)
    )


def default_for(activation: str) -> str:
    """The name of the initialiser for weights that the named activation follows.

    He for those that pass one side and damp the other, LeCun for SELU (Klambauer et al., 2017,
    "Self-normalizing neural networks"), Glorot for the others.

    Parameters
    ----------
    activation : str
        Such as "relu"; "identity" for none.

    Returns
    -------
    str

    >>> default_for("relu"), default_for("selu"), default_for("tanh")
    ('he_uniform', 'lecun_normal', 'glorot_uniform')
    """
    if activation in RECTIFIERS:
        return "he_uniform"
    return "lecun_normal" if activation == "selu" else "glorot_uniform"


def _checked(shape: tuple[int, int]) -> tuple[int, int]:
    inputs, outputs = shape
    return checks.positive_int("inputs", inputs), checks.positive_int("outputs", outputs)


def _uniform(
    generator: np.random.Generator, shape: tuple[int, int], variance: float, dtype: DTypeLike
) -> np.ndarray:
    limit = np.sqrt(3 * variance)
    return generator.uniform(-limit, limit, shape).astype(dtype)


def _normal(
    generator: np.random.Generator, shape: tuple[int, int], variance: float, dtype: DTypeLike
) -> np.ndarray:
    return generator.normal(0, np.sqrt(variance), shape).astype(dtype)
