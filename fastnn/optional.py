"""The one place that imports optional packages."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def require(module: str, *, extra: str, otherwise: str = "") -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Dotted name, such as ``"matplotlib.pyplot"``.
    extra : str
        The extra of fastnn-kernels that installs the package.
    otherwise : str, default ""
        Another extra, and when that is the one to take, for the message.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If the package is missing, with the command that installs it, or if it is there and does
        not load, with its own reason.

    Examples
    --------
    >>> require("json.decoder", extra="plot").__name__
    'json.decoder'
    >>> require("no_such_package", extra="plot")
    Traceback (most recent call last):
        ...
    ImportError: no_such_package is not installed: pip install 'fastnn-kernels[plot]'
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        also = f" ({otherwise})" if otherwise else ""
        raise ImportError(
            f"{package} is not installed: pip install 'fastnn-kernels[{extra}]'{also}",
            name=package,
        ) from None
