"""The optimizers that are compared, and what they are called."""

from __future__ import annotations

from ...optim import OPTIMIZERS

COMPARED = tuple(name for name in OPTIMIZERS if name != "adamw")
"""All but AdamW, which without its weight decay is Adam."""


def title(optimizer: str) -> str:
    """The name of an optimizer's class.

    >>> title("rmsprop")
    'RMSprop'
    """
    return getattr(OPTIMIZERS[optimizer], "__name__", optimizer)
