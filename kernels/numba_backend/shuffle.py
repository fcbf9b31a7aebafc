"""The order of an epoch, translated by Numba (``compiled``)."""

from __future__ import annotations

from .engine import address, call, inline


@inline
def permute(orders, count, epochs, words, philox, seed, epoch, stream):
    """Fisher-Yates, for one epoch after the other: 0 .. count - 1 in an order of its own.

    ``philox`` is the address of the kernel that fills ``words`` with random words below 2**32, one
    for each draw.

    Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm P.
    """
    for number in range(epochs):
        call(philox, address(words, 0), (count + 3) // 4, 0, seed, epoch + number, stream)
        begin = number * count
        for i in range(count):
            orders[begin + i] = i
        for k in range(count - 1):
            i = count - 1 - k
            word = (words[k // 2] >> (32 * (k % 2))) & 0xFFFFFFFF
            j = (word * (i + 1)) >> 32
            orders[begin + i], orders[begin + j] = orders[begin + j], orders[begin + i]
    return 0
