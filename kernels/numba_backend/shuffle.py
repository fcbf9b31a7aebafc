"""The order of an epoch, translated by Numba (``compiled``)."""

from __future__ import annotations

from .engine import inline


@inline
def permute(order, count, words):
    """Fisher-Yates: shuffle ``order`` in place, by a random word below 2**32 for each draw.

    Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm P.
    """
    for k in range(count - 1):
        i = count - 1 - k
        word = (words[k // 2] >> (32 * (k % 2))) & 0xFFFFFFFF
        j = (word * (i + 1)) >> 32
        order[i], order[j] = order[j], order[i]
    return 0
