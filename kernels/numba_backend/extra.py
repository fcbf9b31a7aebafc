"""The words that maps and losses are given besides their arguments, in a block of their own."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..contract import Dropout, Loss

MAP_SEED, MAP_STREAM, MAP_THRESHOLD, MAP_SCALE, MAP_LEARNED = range(5)
"""Words of a map. From MAP_LEARNED on, MAP_PER_LEARNED words for each learned parameter: its
address, the address for the derivative by it, and that block's leading dimension."""
MAP_PER_LEARNED = 3

(
    LOSS_INDEX,
    LOSS_TARGETS,
    LOSS_TARGET_LD,
    LOSS_WEIGHTS,
    LOSS_ROWS,
    LOSS_HITS,
    LOSS_SETTING,
    LOSS_LOW,
    LOSS_HIGH,
) = range(9)
"""Words of a loss: addresses of the index (or null), the targets, their leading dimension, the
sample weights (or null), the outputs a row; then numbers: the label smoothing of a cross-entropy,
or the share that each output of an elementwise loss has in its row's; and the limits of what is
recorded, for kernels that know of any."""
_LOSS_WORDS = 9


class Learned(NamedTuple):
    """A learned parameter of a map: addresses of its values and of the derivatives by it."""

    values: int
    out: int = 0
    ld_out: int = 0


def map_words(dtype: str, dropout: Dropout | None, learned: Sequence[Learned] = ()) -> np.ndarray:
    """The words of a map with dropout or learned parameters."""
    words = np.zeros(MAP_LEARNED + MAP_PER_LEARNED * len(learned), np.int64)
    if dropout is not None:
        words[MAP_SEED], words[MAP_STREAM] = signed(dropout.seed), dropout.stream
        words[MAP_THRESHOLD] = dropout.threshold
        words[MAP_SCALE] = _word(dropout.scale, dtype)
    words[MAP_LEARNED:] = np.ravel(learned)
    return words


def loss_words(
    dtype: str,
    loss: Loss,
    columns: int,
    *,
    targets: int,
    target_ld: int,
    weights: int,
    row_losses: int,
    row_hits: int,
) -> np.ndarray:
    """The words of a loss over rows as they stand."""
    words = np.zeros(_LOSS_WORDS, np.int64)
    words[LOSS_TARGETS], words[LOSS_TARGET_LD] = targets, target_ld
    words[LOSS_WEIGHTS], words[LOSS_ROWS], words[LOSS_HITS] = weights, row_losses, row_hits
    setting = loss.smoothing if loss.formula is None else loss.share(columns)
    words[LOSS_SETTING] = _word(setting, dtype)
    if loss.limits is not None:
        words[LOSS_LOW], words[LOSS_HIGH] = (_word(limit, dtype) for limit in loss.limits)
    return words


def signed(seed: int) -> int:
    """The signed word with the bits of a seed below 2**64."""
    return ctypes.c_int64(seed).value


@functools.lru_cache(maxsize=256)
def _word(value: float, dtype: str) -> int:
    """The word that has a number of ``dtype`` in its first bytes."""
    word = np.zeros(1, np.int64)
    word.view(dtype)[0] = value
    return int(word[0])
