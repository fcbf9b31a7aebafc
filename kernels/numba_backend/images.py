"""Augmentation of images, one after the other, translated by Numba (``compiled``).

What the arguments mean is in :mod:`fastnn.kernels.augmentation`, whose formulas these are.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from .. import augmentation as a
from ..augmentation import bilinear, blend, colour_of_hue, hue_sector, is_whole, limited, luma
from .engine import address, call, inline

for formula in (bilinear, blend, colour_of_hue, hue_sector, is_whole, limited, luma):
    register_jitable(nogil=True, error_model="numpy")(formula)

_SHARE = 1.0 / a.ONE


@inline
def augment(
    images,
    out,
    rounds,
    begin,
    end,
    count,
    height,
    width,
    channels,
    kinds,
    stages,
    integers,
    numbers,
    quantiles,
    philox,
    words,
    scratch,
):
    """out[n] = what the program makes of images[n], for n from ``begin`` to ``end`` of ``count``.

    ``rounds``: images are of whole numbers. ``scratch`` has room for two images, ``words`` for
    WORDS random words of 32 bits; ``philox`` is the address of the kernel that fills them.
    """
    size = height * width * channels
    for number in range(begin, end):
        first, at, copied = number * size, -1, False  # -1: the values are in the image still
        for stage in range(stages):
            kind, row = kinds[stage], stage * count + number
            own = row * a.INTEGERS
            if kind == a.GEOMETRY:
                if at >= 0:
                    goal = size - at
                    _move(scratch, at, scratch, goal, height, width, channels, integers, own)
                    at = goal
                elif stage == stages - 1 and is_whole(integers, own):
                    _copy(images, first, out, first, height, width, channels, integers, own)
                    copied = True
                else:
                    _move(images, first, scratch, 0, height, width, channels, integers, own)
                    at = 0
                continue
            if at < 0:
                for i in range(size):
                    scratch[i] = images[first + i]
                at = 0
            settings = row * a.NUMBERS
            if kind == a.COLOUR:
                _colour(scratch, at, size, channels, integers, own, numbers, settings)
            elif kind == a.ERASE:
                _erase(scratch, at, width, channels, integers, own, numbers[settings])
            else:
                _noise(
                    scratch, at, size, integers[own], numbers, settings, quantiles, philox, words
                )
        if at >= 0:
            _store(scratch, at, out, first, size, rounds)
        elif not copied:
            for i in range(first, first + size):
                out[i] = images[i]
    return 0


@inline
def _store(values, at, out, first, size, rounds):
    """The values in the dtype of the images."""
    if rounds:
        for i in range(size):
            out[first + i] = int(limited(values[at + i], 0.0, 255.0) + 0.5)
    else:
        for i in range(size):
            out[first + i] = values[at + i]


@inline
def _move(source, first, out, begin, height, width, channels, integers, own):
    """The pixels of a map."""
    if is_whole(integers, own):
        _copy(source, first, out, begin, height, width, channels, integers, own)
    else:
        _resample(source, first, out, begin, height, width, channels, integers, own)


@inline
def _copy(source, first, out, begin, height, width, channels, integers, own):
    """The pixels of a whole map, unchanged."""
    down, across = integers[own] >> a.POINT, integers[own + 4] >> a.POINT
    top, left = integers[own + 2] >> a.POINT, integers[own + 5] >> a.POINT
    # the columns that have a source: left + across c in [0, width)
    if across > 0:
        inside, outside = max(0, -left), min(width, width - left)
    else:
        inside, outside = max(0, left - width + 1), min(width, left + 1)
    inside = min(inside, width)
    outside = max(inside, outside)
    for r in range(height):
        row, source_row = begin + r * width * channels, top + down * r
        if source_row < 0 or source_row >= height:
            for i in range(width * channels):
                out[row + i] = 0
            continue
        place = first + (source_row * width + left) * channels
        for i in range(inside * channels):
            out[row + i] = 0
        if across > 0:
            for i in range(inside * channels, outside * channels):
                out[row + i] = source[place + i]
        elif channels == 1:
            for c in range(inside, outside):
                out[row + c] = source[place - c]
        else:
            for c in range(inside, outside):
                for k in range(channels):
                    out[row + c * channels + k] = source[place - c * channels + k]
        for i in range(outside * channels, width * channels):
            out[row + i] = 0


@inline
def _resample(source, first, out, begin, height, width, channels, integers, own):
    """Bilinear interpolation along a map; 0 where it leads outside of the image's area."""
    row_by_column, column_by_column = integers[own + 1], integers[own + 4]
    lowest, rightmost = ((height - 1) << a.POINT) + a.HALF, ((width - 1) << a.POINT) + a.HALF
    place = begin
    for r in range(height):
        y = integers[own] * r + integers[own + 2]
        x = integers[own + 3] * r + integers[own + 5]
        for _ in range(width):
            if -a.HALF <= y <= lowest and -a.HALF <= x <= rightmost:
                above, before = y >> a.POINT, x >> a.POINT
                down, across = (y - (above << a.POINT)) * _SHARE, (x - (before << a.POINT)) * _SHARE
                upper = first + max(above, 0) * width * channels
                lower = first + min(above + 1, height - 1) * width * channels
                left, right = max(before, 0) * channels, min(before + 1, width - 1) * channels
                for k in range(channels):
                    out[place + k] = bilinear(
                        np.float64(source[upper + left + k]),
                        np.float64(source[upper + right + k]),
                        np.float64(source[lower + left + k]),
                        np.float64(source[lower + right + k]),
                        down,
                        across,
                    )
            else:
                for k in range(channels):
                    out[place + k] = 0.0
            place += channels
            y += row_by_column
            x += column_by_column


@inline
def _colour(values, at, size, channels, integers, own, numbers, settings):
    largest = numbers[settings + 4]
    for turn in range(4):
        operation = integers[own + turn]
        if operation == a.NOTHING:
            continue
        factor = numbers[settings + operation]
        if operation == a.BRIGHTNESS:
            for i in range(at, at + size):
                values[i] = blend(values[i], 0.0, factor, largest)
        elif operation == a.CONTRAST:
            grey = _mean_grey(values, at, size, channels)
            for i in range(at, at + size):
                values[i] = blend(values[i], grey, factor, largest)
        elif operation == a.SATURATION:
            for i in range(at, at + size, 3):
                red, green, blue = values[i], values[i + 1], values[i + 2]
                grey = luma(red, green, blue)
                values[i] = blend(red, grey, factor, largest)
                values[i + 1] = blend(green, grey, factor, largest)
                values[i + 2] = blend(blue, grey, factor, largest)
        else:
            for i in range(at, at + size, 3):
                red, green, blue = values[i], values[i + 1], values[i + 2]
                value = max(red, green, blue)
                chroma = value - min(red, green, blue)
                sector = hue_sector(red, green, blue, value, chroma) + 6.0 * factor
                values[i] = colour_of_hue(sector, value, chroma, 5.0)
                values[i + 1] = colour_of_hue(sector, value, chroma, 3.0)
                values[i + 2] = colour_of_hue(sector, value, chroma, 1.0)


@inline
def _mean_grey(values, at, size, channels):
    """The mean grey of an image, summed in the order of its pixels."""
    total = 0.0
    if channels == 3:
        for i in range(at, at + size, 3):
            total += luma(values[i], values[i + 1], values[i + 2])
        return total / (size // 3)
    for i in range(at, at + size):
        total += values[i]
    return total / size


@inline
def _erase(values, at, width, channels, integers, own, value):
    top, left = integers[own], integers[own + 1]
    for r in range(top, top + integers[own + 2]):
        begin = at + (r * width + left) * channels
        for i in range(begin, begin + integers[own + 3] * channels):
            values[i] = value


@inline
def _noise(values, at, size, key, numbers, settings, quantiles, philox, words):
    """Element i takes half i % 2 of word i // 2, the low one first."""
    mean, deviation = numbers[settings], numbers[settings + 1]
    low, high = numbers[settings + 2], numbers[settings + 3]
    for begin in range(0, size, 2 * a.WORDS):
        end = min(size, begin + 2 * a.WORDS)
        call(philox, address(words, 0), (end - begin + 7) // 8, begin // 8, key, 0, 0)
        for i in range(begin, end):
            half = i - begin
            value = quantiles[(words[half // 4] >> (16 * (half % 4))) & (a.QUANTILES - 1)]
            values[at + i] = limited(values[at + i] + (mean + deviation * value), low, high)
