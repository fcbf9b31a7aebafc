"""Random words and what is made of them: functions of seed, epoch, step, layer and place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import formulas
from ..contract import Dropout
from ..tracing import NumpyMath

_MATH = NumpyMath("float32")  # integers only: the dtype of its numbers plays no part
_WORDS = 4  # words of one counter
_GROUP = 16  # columns side by side that take the same word, each of a counter of its own


def stream_words(seed: int, epoch: int, stream: int, count: int) -> np.ndarray:
    """The first ``count`` words (uint32) of a stream: word i is word i % 4 of counter i // 4."""
    blocks = np.arange(-(-count // _WORDS), dtype=np.uint32)
    words = _philox((blocks, 0, epoch, stream), seed)
    return np.stack(words, axis=1).ravel()[:count]


def sample_words(
    seed: int, epoch: int, samples: np.ndarray, streams: Mapping[int, int]
) -> list[np.ndarray]:
    """Words of each sample (B, count), for each stream, which says how many are wanted.

    Word i is word i % 4 of counter (i // 4, sample, epoch, stream); ``samples`` are uint32.
    """
    if not streams:
        return []
    lengths = [-(-count // _WORDS) for count in streams.values()]
    blocks = np.concatenate([np.arange(length, dtype=np.uint32) for length in lengths])
    numbers = np.repeat(np.array(list(streams), np.uint32), lengths)
    words = np.stack(_philox((blocks, samples[:, None], epoch, numbers), seed), axis=-1)
    parts = np.split(words, np.cumsum(lengths)[:-1], axis=1)
    return [
        part.reshape(len(samples), -1)[:, :count]
        for part, count in zip(parts, streams.values(), strict=True)
    ]


def dropout_mask(dropout: Dropout, first_row: int, rows: int, columns: int) -> np.ndarray:
    """Which elements (rows, columns) are kept, where the first row is ``first_row`` of its batch.

    The words are those that :class:`fastnn.kernels.contract.Dropout` names.
    """
    blocks = -(-columns // (_WORDS * _GROUP))
    row = np.arange(first_row, first_row + rows, dtype=np.uint32)[:, None]
    group = np.arange(blocks * _GROUP, dtype=np.uint32)
    words = _philox((row, group, dropout.step, dropout.stream), dropout.seed)
    kept = formulas.keep(_MATH, np.stack(words, axis=1), dropout.threshold)
    blocked = kept.reshape(rows, _WORDS, blocks, _GROUP).swapaxes(1, 2)
    return blocked.reshape(rows, blocks * _WORDS * _GROUP)[:, :columns]


def _philox(counter: tuple, seed: int) -> tuple[np.ndarray, ...]:
    key = (seed & 0xFFFFFFFF, seed >> 32)
    numbers = [tuple(map(_MATH.integer, four)) for four in (counter, key)]
    return _MATH.evaluate(formulas.philox, *numbers)
