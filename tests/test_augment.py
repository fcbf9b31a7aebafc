"""Augmentation of images against references written out here, in float64."""

from __future__ import annotations

import _thread
import colorsys
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn
from fastnn import augment
from fastnn.augment import Compose
from fastnn.kernels import augmentation as kernels

DTYPES = ("uint8", "float32", "float64")
MAXIMUM = {"uint8": 255.0, "float32": 1.0, "float64": 1.0}

pytestmark = pytest.mark.usefixtures("backend")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def images_of(shape, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    if dtype == "uint8":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.random(shape).astype(dtype)


def assert_near(result, expected, side=16):
    """The result is the float64 reference, rounded once, but for the rounding of coordinates."""
    dtype = result.dtype
    maximum = MAXIMUM[dtype.name]
    error = np.abs(result.astype(np.float64) - expected)
    # a place is rounded to 2^-33 a coefficient; the slope is at most the maximum a pixel
    bound = maximum * (4 * side * 2.0**-33 + 64 * np.finfo(np.float64).eps)
    bound += 0.5 if dtype == np.uint8 else 0.5 * np.finfo(dtype).eps * maximum
    assert error.max() <= bound


# ---- geometry: exact copies ----


@every_dtype
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3), (2, 1, 7, 1), (2, 6, 1, 4)])
def test_flips(dtype, shape):
    x = images_of(shape, dtype)
    for transform, axis in ((augment.HorizontalFlip(1.0), 2), (augment.VerticalFlip(1.0), 1)):
        np.testing.assert_array_equal(Compose([transform])(x), np.flip(x, axis))
    both = Compose([augment.VerticalFlip(1.0), augment.HorizontalFlip(1.0)])(x)
    np.testing.assert_array_equal(both, np.flip(x, (1, 2)))
    np.testing.assert_array_equal(Compose([augment.HorizontalFlip(0.0)])(x), x)
    np.testing.assert_array_equal(Compose([])(x), x)


def _windows(image, down, across):
    """Every part of the image's size out of the image with zeros around it, by its offset."""
    height, width = image.shape[:2]
    around = [(down, down), (across, across)] + [(0, 0)] * (image.ndim - 2)
    padded = np.pad(image, around)
    return {
        (r, c): padded[r : r + height, c : c + width]
        for r, c in itertools.product(range(2 * down + 1), range(2 * across + 1))
    }


@every_dtype
@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize(
    "transform, down, across",
    [
        (augment.RandomCrop(2), 2, 2),
        (augment.Shift(2), 2, 2),
        (augment.Shift((0, 3)), 0, 3),
        (augment.Shift(fraction=0.5), 2, 3),
        (augment.Shift(fraction=(0.25, 0.0)), 1, 0),
    ],
)
def test_crops_and_shifts_are_windows_of_the_padded_image(dtype, channels, transform, down, across):
    x = images_of((250, 4, 6) + (() if channels is None else (channels,)), dtype)
    x = np.maximum(x, x.dtype.type(1 if dtype == "uint8" else 1e-3))  # no 0 but that around
    seen = set()
    for image, result in zip(x, Compose([transform])(x), strict=True):
        windows = _windows(image, down, across)
        found = [place for place, window in windows.items() if np.array_equal(window, result)]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) == (2 * down + 1) * (2 * across + 1)


@every_dtype
def test_a_crop_of_a_flip_is_a_copy(dtype):
    x = images_of((60, 5, 5, 3), dtype)
    chain = Compose([augment.HorizontalFlip(1.0), augment.RandomCrop(1), augment.VerticalFlip(1.0)])
    for image, result in zip(x, chain(x), strict=True):
        windows = _windows(image[:, ::-1], 1, 1).values()
        assert any(np.array_equal(window[::-1], result) for window in windows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copies_keep_what_is_no_number(dtype):
    x = images_of((3, 4, 5), dtype)
    x[0, 1, 2], x[1, 0, :], x[2, 3, 4] = np.nan, np.inf, -np.inf
    flipped = Compose([augment.HorizontalFlip(1.0), augment.VerticalFlip(1.0)])(x)
    np.testing.assert_array_equal(flipped, x[:, ::-1, ::-1])
    for image, result in zip(x, Compose([augment.Shift(1)])(x), strict=True):
        windows = _windows(image, 1, 1).values()
        assert any(np.array_equal(window, result, equal_nan=True) for window in windows)


@every_dtype
def test_what_one_crop_hides_another_brings_back(dtype):
    x = images_of((40, 6, 6), dtype)
    twice = Compose([augment.Shift((5, 0)), augment.Shift((5, 0))])(x)
    for image, result in zip(x, twice, strict=True):
        assert any(np.array_equal(w, result) for w in _windows(image, 10, 0).values())


@every_dtype
@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2, 3])
def test_quarter_turns_are_exact(dtype, turns):
    x = images_of((2, 6, 6, 3), dtype)
    result = Compose([augment.Rotation((90.0 * turns, 90.0 * turns))])(x)
    np.testing.assert_array_equal(result, np.rot90(x, turns, axes=(1, 2)))


# ---- geometry: interpolation ----


def _sampled(image, rows, columns):
    """Bilinear interpolation, edges continued; 0 outside of the pixels' area. One place a pixel."""
    height, width = image.shape[:2]
    values = image.astype(np.float64)
    result = np.zeros((*rows.shape, *image.shape[2:]))
    for place in np.ndindex(rows.shape):
        y, x = rows[place], columns[place]
        if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
            continue
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        r, c = min(int(y), height - 2), min(int(x), width - 2)
        below, right = y - r, x - c
        result[place] = (
            values[r, c] * (1 - below) * (1 - right)
            + values[r, c + 1] * (1 - below) * right
            + values[r + 1, c] * below * (1 - right)
            + values[r + 1, c + 1] * below * right
        )
    return result


@every_dtype
@pytest.mark.parametrize("degrees", [-170.0, -33.0, 7.5, 61.0, 359.0])
@pytest.mark.parametrize("shape", [(7, 9), (6, 5, 3)])
def test_rotation(dtype, degrees, shape):
    x = images_of((2, *shape), dtype)
    height, width = shape[:2]
    r, c = np.mgrid[:height, :width].astype(np.float64)
    up, right = (height - 1) / 2 - r, c - (width - 1) / 2  # mathematicians' axes
    # what is at angle a came from angle a - degrees
    place = (right + 1j * up) * np.exp(-1j * np.radians(degrees))
    rows, columns = (height - 1) / 2 - place.imag, place.real + (width - 1) / 2
    for image, result in zip(x, Compose([augment.Rotation((degrees,) * 2)])(x), strict=True):
        assert_near(result, _sampled(image, rows, columns))


def _enlarged(image, top, left, rows, columns):
    """A box of the image at the image's size."""
    height, width = image.shape[:2]
    y = top + (np.arange(height) + 0.5) * rows / height - 0.5
    x = left + (np.arange(width) + 0.5) * columns / width - 0.5
    return _sampled(image, *np.meshgrid(y, x, indexing="ij"))


@every_dtype
def test_resized_crops(dtype):
    x = images_of((30, 6, 8, 3), dtype)
    # 12 pixels: 3 rows of 4, wherever they lie
    transform = augment.RandomResizedCrop((0.25, 0.25), (4 / 3, 4 / 3))
    seen = set()
    for image, result in zip(x, Compose([transform])(x), strict=True):
        errors = {
            (top, left): np.abs(_enlarged(image, top, left, 3, 4) - result).max()
            for top, left in itertools.product(range(4), range(5))
        }
        place = min(errors, key=errors.__getitem__)
        assert_near(result, _enlarged(image, *place, 3, 4))
        seen.add(place)
    assert len(seen) > 10


@pytest.mark.parametrize(
    "shape, ratio, box",
    [
        ((4, 9), (1.0, 1.0), (0, 2, 4, 4)),
        ((9, 4), (1.0, 1.0), (2, 0, 4, 4)),
        ((4, 2), (5.0, 5.0), (1, 0, 1, 2)),  # two fifths of a row
        ((2, 4), (0.2, 0.2), (0, 1, 2, 1)),
        ((4, 2), (1e300, 1e300), (1, 0, 1, 2)),
    ],
)
def test_a_resized_crop_that_cannot_fit_is_in_the_middle(shape, ratio, box):
    x = images_of((2, *shape), "float64")
    result = Compose([augment.RandomResizedCrop((1.0, 1.0), ratio)])(x)
    for image, changed in zip(x, result, strict=True):
        assert_near(changed, _enlarged(image, *box))


def test_a_crop_of_everything_is_the_image():
    x = images_of((2, 4, 4), "float32")
    result = Compose([augment.RandomResizedCrop((1.0, 1.0), (1.0, 1.0))])(x)
    np.testing.assert_array_equal(result, x)


# ---- colour ----


def _limits(values, maximum):
    return np.clip(values, 0.0, maximum)


def _grey(image):
    return image @ np.array([0.299, 0.587, 0.114]) if image.shape[-1] == 3 else image[..., 0]


@every_dtype
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_brightness_and_contrast(dtype, channels, factor):
    x = images_of((3, 4, 5, channels), dtype)
    maximum, values = MAXIMUM[dtype], x.astype(np.float64)
    result = Compose([augment.Brightness((factor, factor))])(x)
    assert_near(result, _limits(factor * values, maximum))
    result = Compose([augment.Contrast((factor, factor))])(x)
    means = np.stack([_grey(image).mean() for image in values])[:, None, None, None]
    assert_near(result, _limits(factor * values + (1 - factor) * means, maximum))


@every_dtype
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.7])
def test_saturation(dtype, factor):
    x = images_of((3, 4, 5, 3), dtype)
    values = x.astype(np.float64)
    result = Compose([augment.ColorJitter(saturation=(factor, factor))])(x)
    expected = factor * values + (1 - factor) * _grey(values)[..., None]
    assert_near(result, _limits(expected, MAXIMUM[dtype]))


@every_dtype
@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.1, 1 / 3, 0.5])
def test_hue(dtype, turn):
    x = images_of((2, 4, 5, 3), dtype)
    x[0, 0, 0] = x[0, 0, 0, 0]  # grey
    x[0, 0, 1] = 0
    maximum = MAXIMUM[dtype]

    def turned(colour):
        hue, saturation, value = colorsys.rgb_to_hsv(*(colour / maximum))
        return np.array(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)) * maximum

    result = Compose([augment.ColorJitter(hue=(turn, turn))])(x)
    assert_near(result, np.apply_along_axis(turned, -1, x.astype(np.float64)))


def test_a_jitter_takes_its_steps_in_every_order():
    x = images_of((400, 2, 2, 3), "float64")
    low, high = 0.7, 1.3

    def bright(values):
        return _limits(high * values, 1.0)

    def flat(values):
        return _limits(low * values + (1 - low) * _grey(values).mean(), 1.0)

    result = Compose([augment.ColorJitter((high, high), (low, low))])(x)
    orders = []
    for image, changed in zip(x, result, strict=True):
        either = [flat(bright(image)), bright(flat(image))]
        errors = [np.abs(changed - expected).max() for expected in either]
        assert min(errors) <= 1e-12
        if max(errors) > 1e-9:
            orders.append(int(np.argmin(errors)))
    assert 0.4 <= np.mean(orders) <= 0.6


@every_dtype
def test_values_past_the_maximum_stop_there(dtype):
    x = images_of((2, 3, 3, 3), dtype)
    assert Compose([augment.Brightness((50.0, 50.0))])(x).max() == MAXIMUM[dtype]
    half = (x // 2) if dtype == "uint8" else x / 2
    limit = MAXIMUM[dtype] // 2 if dtype == "uint8" else 0.5
    changed = Compose([augment.Brightness((50.0, 50.0))], maximum=limit)(half)
    assert changed.max() == limit


def test_whole_numbers_are_rounded_half_up():
    x = np.arange(6, dtype=np.uint8).reshape(1, 1, 6)
    halved = Compose([augment.Brightness((0.5, 0.5))])(x)
    np.testing.assert_array_equal(halved.ravel(), [0, 1, 1, 2, 2, 3])


# ---- erasing, noise ----


@every_dtype
def test_erasing(dtype):
    x = np.maximum(images_of((300, 8, 10, 3), dtype), 1 if dtype == "uint8" else 0.01).astype(dtype)
    value = 0.0
    transform = augment.RandomErasing(1.0, scale=(0.15, 0.15), ratio=(4 / 3, 4 / 3), value=value)
    corners = set()
    for image, result in zip(x, Compose([transform])(x), strict=True):
        changed = (image != result).all(axis=-1)
        rows, columns = np.nonzero(changed)
        top, left = rows.min(), columns.min()
        expected = image.copy()
        expected[top : top + 3, left : left + 4] = value  # 12 pixels, 4 to 3
        np.testing.assert_array_equal(result, expected)
        corners.add((int(top), int(left)))
    assert len(corners) == 6 * 7


def test_erasing_sometimes_and_to_a_value():
    x = images_of((2000, 4, 4), "float32") * 0.9
    result = Compose([augment.RandomErasing(0.3, value=1.0)])(x)
    erased = (result == 1.0).any(axis=(1, 2))
    assert abs(erased.mean() - 0.3) <= 5 * np.sqrt(0.3 * 0.7 / 2000)
    np.testing.assert_array_equal(result[~erased], x[~erased])


@pytest.mark.parametrize("ratio", [1.0, 1e300, 1e-300])
def test_a_box_that_never_fits_erases_nothing(ratio):
    x = images_of((20, 1, 9))
    transform = augment.RandomErasing(1.0, scale=(0.9, 0.9), ratio=(ratio, ratio))
    np.testing.assert_array_equal(Compose([transform])(x), x)


def test_noise_is_normal():
    x = np.full((40, 32, 32, 3), 0.5)
    noise = (Compose([augment.GaussianNoise(0.1, 0.2, clip=False)])(x) - 0.6) / 0.2
    count = noise.size
    assert abs(noise.mean()) <= 5 / np.sqrt(count)
    assert abs(noise.var() - 1.0) <= 5 * np.sqrt(2 / count)
    assert abs((noise**4).mean() - 3.0) <= 5 * np.sqrt(96 / count)
    inside = (np.abs(noise) <= 1.0).mean()
    assert abs(inside - 0.682689) <= 5 * np.sqrt(0.22 / count)
    flat = noise.reshape(40, -1)
    for shift in (1, 3, 2048):
        assert abs((flat[:, shift:] * flat[:, :-shift]).mean()) <= 5 / np.sqrt(count - 40 * shift)
    assert abs((flat[1:] * flat[:-1]).mean()) <= 5 / np.sqrt(count)


@every_dtype
def test_noise_is_limited_and_rounded(dtype):
    x = images_of((4, 16, 16), dtype)
    maximum = MAXIMUM[dtype]
    exact = Compose([augment.GaussianNoise(sigma=0.3, clip=False)], maximum=maximum)
    noisy = exact(x.astype(np.float64))
    result = Compose([augment.GaussianNoise(sigma=0.3)])(x)
    assert result.min() == 0 and result.max() == maximum
    assert_near(result, np.clip(noisy, 0.0, maximum))


# ---- what the result depends on ----

_CHAIN = (
    augment.HorizontalFlip(),
    augment.RandomCrop(2),
    augment.Rotation(20.0),
    augment.ColorJitter(0.3, 0.3, 0.3, 0.1),
    augment.RandomErasing(),
    augment.RandomResizedCrop((0.5, 1.0)),
    augment.GaussianNoise(sigma=0.05),
)


@every_dtype
def test_a_sample_depends_on_its_number_and_not_on_its_batch(dtype):
    x, chain = images_of((12, 6, 7, 3), dtype), Compose(_CHAIN)
    whole = chain(x, seed=5, epoch=3)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(chain(x[order], seed=5, epoch=3, samples=order), whole[order])
    one = chain(x[7:8], seed=5, epoch=3, samples=[7])
    np.testing.assert_array_equal(one, whole[7:8])
    for seed, epoch in ((6, 3), (5, 4), (5 + 2**32, 3)):
        assert (chain(x, seed=seed, epoch=epoch) != whole).any(axis=(1, 2, 3)).all()
    assert (chain(x, seed=5, epoch=3, samples=np.arange(12) + 1) != whole).any()


def test_transforms_in_a_list_draw_for_themselves():
    x = images_of((200, 2, 3), "uint8")
    result = Compose([augment.HorizontalFlip(), augment.VerticalFlip()])(x)
    kinds = {
        (left, up): (x[:, :: 1 - 2 * up, :: 1 - 2 * left] == result).all(axis=(1, 2)).sum()
        for left, up in itertools.product((0, 1), repeat=2)
    }
    assert min(kinds.values()) >= 25


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_probability(p):
    x = np.tile(np.array([[0, 1]], np.uint8), (4000, 1, 1))
    flipped = Compose([augment.HorizontalFlip(p)])(x)[:, 0, 0]
    assert abs(flipped.mean() - p) <= 5 * np.sqrt(p * (1 - p) / 4000)


def test_ranges_are_covered():
    x = np.full((4000, 1, 1), 0.5)
    factors = Compose([augment.Brightness((0.2, 1.8))])(x).ravel() / 0.5
    counts, _ = np.histogram(factors, 8, (0.2, 1.8))
    assert counts.sum() == 4000 and np.abs(counts - 500).max() <= 5 * np.sqrt(500)


@settings(max_examples=40)
@given(
    sides=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([None, 1, 2, 3, 4]),
    dtype=st.sampled_from(DTYPES),
    chosen=st.lists(st.sampled_from(range(7)), max_size=5),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_backend_gives_the_same_bits(sides, channels, dtype, chosen, seed):
    jitter = (0.3, 0.3, 0.3, 0.1) if channels == 3 else (0.3, 0.3)
    transforms = list(_CHAIN)
    transforms[1] = augment.RandomCrop(1)
    transforms[3] = augment.ColorJitter(*jitter)
    chain = Compose([transforms[number] for number in chosen])
    x = images_of(sides + (() if channels is None else (channels,)), dtype)
    results = []
    for name in ("numpy", "numba"):
        with fastnn.use_backend(name):
            results.append(chain(x, seed=seed))
    assert results[0].shape == x.shape and results[0].dtype == x.dtype
    np.testing.assert_array_equal(*results)


def test_threads_change_nothing():
    x, chain = images_of((300, 16, 16, 3), "uint8"), Compose(_CHAIN)
    before = fastnn.get_num_threads()
    results = []
    try:
        with fastnn.use_backend("numba"):
            for threads in (1, 2, 5):
                fastnn.set_num_threads(threads)
                results.append(chain(x))
    finally:
        fastnn.set_num_threads(before)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


# ---- arrays ----


def test_flattened_rows_and_out():
    x = images_of((5, 4, 6, 3), "float32")
    chain, flat = Compose(_CHAIN), Compose(_CHAIN, shape=(4, 6, 3))
    expected, rows = chain(x), x.reshape(5, -1)
    out = np.full_like(rows, np.nan)
    assert flat(rows, out=out) is out
    np.testing.assert_array_equal(out, expected.reshape(5, -1))
    np.testing.assert_array_equal(flat(x), expected)


def test_arrays_that_are_not_contiguous_or_read_only():
    x = images_of((4, 5, 6, 3), "uint8")
    turned = np.asfortranarray(x)
    turned.flags.writeable = False
    np.testing.assert_array_equal(Compose(_CHAIN)(turned), Compose(_CHAIN)(x))


X = np.zeros((2, 4, 4), np.float32)
REFUSED_TRANSFORMS = [
    (lambda: augment.HorizontalFlip(1.5), ValueError, r"p must be at most 1\.0, got 1\.5"),
    (lambda: augment.VerticalFlip("a"), TypeError, "p must be a number"),
    (lambda: augment.RandomCrop(-1), ValueError, "padding must be at least 0, got -1"),
    (lambda: augment.RandomCrop(1.5), TypeError, "padding must be an integer"),
    (lambda: augment.Shift(), ValueError, "pixels is None and fraction is None; expected one"),
    (lambda: augment.Shift(1, 0.5), ValueError, "pixels is 1 and fraction is 0.5"),
    (lambda: augment.Shift((1, 2, 3)), ValueError, "pixels is .* expected one number or two"),
    (lambda: augment.Shift(fraction=1.5), ValueError, "fraction must be at most"),
    (lambda: augment.Rotation(-3.0), ValueError, "degrees must be at least 0"),
    (lambda: augment.Rotation((3.0, 1.0)), ValueError, r"degrees is \(3.0, 1.0\); expected"),
    (lambda: augment.RandomResizedCrop(0.5), TypeError, r"scale is 0.5; expected \(least"),
    (lambda: augment.RandomResizedCrop((0.0, 1.0)), ValueError, "scale must be above 0"),
    (lambda: augment.RandomResizedCrop((0.5, 1.5)), ValueError, "scale must be at most 1"),
    (lambda: augment.RandomErasing(ratio=(0.0, 1.0)), ValueError, "ratio must be above 0"),
    (lambda: augment.RandomErasing(value=2.0), ValueError, "value must be at most 1"),
    (lambda: augment.Brightness(-0.1), ValueError, "brightness must be at least 0"),
    (lambda: augment.Contrast((-1.0, 1.0)), ValueError, r"contrast is \(-1.0, 1.0\)"),
    (lambda: augment.ColorJitter(hue=0.6), ValueError, "hue must be at least -0.5"),
    (lambda: augment.ColorJitter(saturation=np.nan), ValueError, "saturation must be"),
    (lambda: augment.GaussianNoise(sigma=-1.0), ValueError, "sigma must be at least 0"),
    (lambda: augment.GaussianNoise(clip=1), TypeError, "clip must be True or False"),
    (lambda: Compose([np.flip]), TypeError, r"transforms is .*; expected a list of fastnn"),
    (lambda: Compose(3), TypeError, "transforms is 3"),
    (lambda: Compose([augment.VerticalFlip()] * 65), ValueError, "65 of them; at most 64"),
    (lambda: Compose([], shape=(4,)), ValueError, r"shape is \(4,\); expected \(H, W\)"),
    (lambda: Compose([], shape=(4, 0)), ValueError, "shape must be at least 1"),
    (lambda: Compose([], maximum=0.0), ValueError, "maximum must be above 0"),
]  # fmt: skip
REFUSED_CALLS = [
    (lambda: Compose([])(X.reshape(2, 16)), ValueError, r"X has shape \(2, 16\); expected \(B"),
    (lambda: Compose([], shape=(5, 5))(X), ValueError, r"X has shape .* of shape \(5, 5, 1\)"),
    (lambda: Compose([])(X[:0]), ValueError, "X has shape"),
    (lambda: Compose([])(X.astype(int)), TypeError, "X has dtype int64; images are of uint8"),
    (lambda: Compose([augment.RandomCrop(5)])(X), ValueError, "padding is 5; expected at most"),
    (lambda: Compose([augment.Shift(5)])(X), ValueError, "pixels is 5"),
    (lambda: Compose([augment.ColorJitter(hue=0.1)])(X), ValueError, "X has 1 channels; sat"),
    (lambda: Compose([augment.Brightness(0.1)])(X + 2), ValueError, "X has values from 2 to 2; Br"),
    (lambda: Compose([augment.GaussianNoise()])(X - 1), ValueError, "X has values from -1"),
    (lambda: Compose([augment.GaussianNoise()])(X * np.nan), ValueError, "X has values from nan"),
    (lambda: Compose([])(X, seed=2**64), ValueError, "seed is 18446744073709551616"),
    (lambda: Compose([])(X, epoch=-1), ValueError, "epoch must be at least 0"),
    (lambda: Compose([])(X, samples=[0]), ValueError, r"samples has shape \(1,\)"),
    (lambda: Compose([])(X, samples=[0, -1]), ValueError, "samples has numbers from -1 to 0"),
    (lambda: Compose([])(X, out=X[:1]), ValueError, r"out has shape \(1, 4, 4\)"),
    (lambda: Compose([])(X, out=X.astype(np.float64)), TypeError, "out is float64; expected"),
    (lambda: Compose([])(X, out=X), ValueError, "out lies where X does"),
]


@pytest.mark.parametrize("make, error, message", REFUSED_TRANSFORMS + REFUSED_CALLS)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- what a kernel would believe ----


def _program(kind, settings, count=2):
    integers = np.zeros((1, count, kernels.INTEGERS), np.int64)
    integers[0, :, : len(settings)] = settings
    return kernels.Program(
        np.array([kind]), integers, np.zeros((1, count, kernels.NUMBERS))
    )  # fmt: skip


SAFE = _program(kernels.GEOMETRY, [kernels.ONE, 0, 0, 0, kernels.ONE, 0])
IMAGES = np.ones((2, 4, 5, 1), np.float32)


@pytest.mark.parametrize(
    "images, program, out, error, message",
    [
        (IMAGES, SAFE, IMAGES.copy().astype(float), TypeError, "dtypes float32 and float64"),
        (IMAGES[0], SAFE, IMAGES[0].copy(), ValueError, r"images have shape \(4, 5, 1\)"),
        (IMAGES, SAFE, IMAGES[:1].copy(), ValueError, r"out has shape \(1, 4, 5, 1\)"),
        (IMAGES[:, ::-1], SAFE, IMAGES.copy(), ValueError, "must be contiguous"),
        (IMAGES, SAFE, IMAGES, ValueError, "out lies where the images do"),
        (IMAGES, _program(0, [], 3), IMAGES.copy(), ValueError, "integers have shape"),
        (IMAGES, _program(9, []), IMAGES.copy(), ValueError, "a stage of kind 9"),
        (IMAGES, _program(2, [0, 1, 4, 5]), IMAGES.copy(), ValueError, "erases outside"),
        (IMAGES, _program(2, [-1, 0, 1, 1]), IMAGES.copy(), ValueError, "erases outside"),
        (IMAGES, _program(2, [2**62, 0, 2**62, 1]), IMAGES.copy(), ValueError, "erases outside"),
        (IMAGES, _program(1, [3]), IMAGES.copy(), ValueError, "need 3 channels; the images have 1"),
    ],
)
def test_backends_refuse(images, program, out, error, message):
    before = out.copy()
    with pytest.raises(error, match=message):
        fastnn.get_backend().augment(images, program, out)
    np.testing.assert_array_equal(out, before)


def test_any_map_stays_inside_of_the_images():
    generator = np.random.default_rng(0)
    x = images_of((500, 3, 4, 2), "float64")
    out = np.empty_like(x)
    for bits in (20, 32, 34, 58):
        numbers = generator.integers(-(2**bits), 2**bits, (500, kernels.INTEGERS))
        whole = generator.choice([-kernels.ONE, kernels.ONE], 500)
        for map_ in (numbers, _whole(whole, numbers)):
            program = _program(kernels.GEOMETRY, map_, 500)
            fastnn.get_backend().augment(x, program, out)
            assert out.min() >= 0.0 and out.max() <= x.max() * (1 + 1e-15)


def _whole(steps, numbers):
    """Maps by whole pixels that lead anywhere."""
    zeros = np.zeros(len(steps), np.int64)
    down, across = (number >> kernels.POINT << kernels.POINT for number in numbers.T[:2])
    return np.stack([steps, zeros, down, zeros, steps[::-1], across], axis=1)


# ---- in a training ----


def network(inputs=75):
    return fastnn.Sequential(
        fastnn.Linear(inputs, 8), fastnn.ReLU(), fastnn.Linear(8, 3), seed=1, dtype="float32"
    )


def targets(count):
    return np.arange(count) % 3


SMALL = Compose(
    [
        augment.HorizontalFlip(),
        augment.RandomCrop(1),
        augment.Rotation(20.0),
        augment.ColorJitter(0.3, hue=0.1),
    ]
)


def _by_hand(chain, x, seed):
    """The same augmentation as a function for ``fit``, which asks for an epoch at a time."""
    epochs = itertools.count()
    return lambda rows, generator: chain(x, seed=seed, epoch=next(epochs)).reshape(len(x), -1)


@every_dtype
def test_fit_trains_on_each_epochs_images(dtype):
    x = images_of((50, 5, 5, 3), dtype)
    model, other = network(), network()
    kept = x.copy()
    model.fit(x, targets(50), epochs=4, batch_size=8, augment=SMALL, seed=9)
    by_hand = _by_hand(SMALL, kept, 9)
    other.fit(x, targets(50), epochs=4, batch_size=8, augment=by_hand, seed=9)
    np.testing.assert_array_equal(model.arena.flat, other.arena.flat)
    assert model.history["loss"] == other.history["loss"]
    np.testing.assert_array_equal(x, kept)
    plain = network()
    plain.fit(x, targets(50), epochs=4, batch_size=8, seed=9)
    assert (plain.arena.flat != model.arena.flat).any()


def test_every_epoch_begins_with_what_a_callback_left():
    """Two epochs of a kind work in arrays of their own; each must take over from the other."""
    x = images_of((50, 5, 5, 3))

    def trained(chain):
        model = fastnn.Sequential(
            fastnn.Linear(75, 8), fastnn.BatchNorm1d(8), fastnn.PReLU(), fastnn.Dropout(0.2),
            fastnn.Linear(8, 3), seed=1,
        )  # fmt: skip

        def change(info):
            model[0].weight = 0.5 * model[0].weight
            model[1].running_mean = model[1].running_mean + info.epoch
            model.optimizer.slots[0].flat[:] *= 0.9

        terms = {"epochs": 6, "batch_size": 8, "seed": 9, "callbacks": [change]}
        model.fit(x, targets(50), augment=chain, sample_weight=targets(50), **terms)
        return model

    model, other = trained(SMALL), trained(_by_hand(SMALL, x, 9))
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])
    for slot, expected in zip(model.optimizer.slots, other.optimizer.slots, strict=True):
        np.testing.assert_array_equal(slot.flat, expected.flat)
    assert dict(model.history) == dict(other.history)


def test_a_reset_of_the_optimizer_reaches_both_runs():
    x = images_of((50, 5, 5, 3))
    model, expected, optimizer = network(), network(), fastnn.Adam(0.01)

    def reset(info):
        if info.epoch == 3:
            optimizer.reset()

    terms = {"augment": SMALL, "seed": 9}
    model.fit(x, targets(50), epochs=6, optimizer=optimizer, callbacks=[reset], **terms)
    expected.fit(x, targets(50), epochs=3, optimizer=fastnn.Adam(0.01), **terms)
    expected.optimizer.reset()
    expected.fit(x, targets(50), epochs=3, **terms)
    np.testing.assert_array_equal(model.arena.flat, expected.arena.flat)


def test_fit_on_flattened_rows_by_small_parts(monkeypatch):
    x = images_of((50, 5, 5, 3))
    model, other = network(), network()
    model.fit(x, targets(50), epochs=3, augment=SMALL)
    monkeypatch.setattr(augment, "_BLOCK_ELEMENTS", 7 * 75)
    flat = Compose(SMALL.transforms, shape=(5, 5, 3))
    other.fit(x.reshape(50, 75), targets(50), epochs=3, augment=flat)
    np.testing.assert_array_equal(model.arena.flat, other.arena.flat)


def test_a_broken_training_goes_on_with_the_same_bits(tmp_path):
    x = images_of((40, 5, 5, 3))
    whole, first, second = network(), network(), network()
    terms = {"augment": SMALL, "seed": 2, "batch_size": 16}
    whole.fit(x, targets(40), epochs=5, **terms)

    def stop(info):
        if info.epoch == 3:
            raise KeyboardInterrupt

    file = tmp_path / "half.safetensors"
    with pytest.raises(KeyboardInterrupt):
        first.fit(x, targets(40), epochs=5, checkpoint=file, callbacks=[stop], **terms)
    assert not _augmenting()
    second.fit(x, targets(40), epochs=5, checkpoint=file, resume=True, **terms)
    np.testing.assert_array_equal(second.arena.flat, whole.arena.flat)
    continued = network()
    continued.fit(x, targets(40), epochs=2, **terms)
    continued.fit(x, targets(40), epochs=3, **terms)
    np.testing.assert_array_equal(continued.arena.flat, whole.arena.flat)


def _augmenting():
    return [thread for thread in threading.enumerate() if thread.name == "fastnn augment"]


def test_no_thread_outlives_the_training():
    x = images_of((40, 5, 5, 3))
    model = network()
    model.fit(x, targets(40), epochs=4, augment=SMALL, callbacks=[lambda info: info.stop()])
    assert model.history.epochs == 1 and not _augmenting()
    with pytest.raises(fastnn.DivergedError):
        model.fit(x, targets(40), epochs=9, augment=SMALL, optimizer=fastnn.SGD(1e30))
    assert not _augmenting()


def test_what_fails_beside_the_training_is_raised_by_it(monkeypatch):
    x = images_of((40, 5, 5, 3))
    model = network()
    apply = Compose.apply

    def fail_later(self, images, out, samples, seed, epoch, backend):
        if epoch == 2:
            raise OSError("broken")
        apply(self, images, out, samples, seed, epoch, backend)

    monkeypatch.setattr(Compose, "apply", fail_later)
    with pytest.raises(OSError, match="broken"):
        model.fit(x, targets(40), epochs=5, augment=SMALL)
    assert model.history.epochs == 2 and not _augmenting()


def test_an_interrupt_waits_for_the_other_thread(monkeypatch):
    x = images_of((400, 5, 5, 3))
    monkeypatch.setattr(augment, "_BLOCK_ELEMENTS", 75)
    model = network()
    apply, begun = Compose.apply, []

    def interrupt_once(self, images, out, samples, seed, epoch, backend):
        if epoch == 2 and not begun:
            begun.append(epoch)
            _thread.interrupt_main()
        apply(self, images, out, samples, seed, epoch, backend)

    monkeypatch.setattr(Compose, "apply", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, targets(400), epochs=500, augment=SMALL)
    assert begun and not _augmenting()
    assert model.history.epochs < 500 and np.isfinite(model.arena.flat).all()


def test_validation_is_on_the_images_as_they_are():
    x = images_of((40, 5, 5, 3))
    model = network()
    model.fit(x, targets(40), epochs=2, augment=SMALL, validation_data=(x, targets(40)))
    assert model.history["val_loss"][-1] == model.evaluate(x, targets(40))["loss"]


@pytest.mark.parametrize(
    "x, chain, error, message",
    [
        (X.reshape(2, 16), Compose([]), ValueError, r"X has shape \(2, 16\).*shape="),
        (X, Compose([], shape=(3, 3)), ValueError, r"expected images of shape \(3, 3, 1\)"),
        (X.astype(int), Compose([]), TypeError, "X has dtype int64"),
        (X + 2, Compose([augment.Contrast(0.1)]), ValueError, "X has values from 2 to 2"),
    ],
)
def test_fit_refuses_before_anything_changes(x, chain, error, message):
    model = network(16)
    before = model.arena.flat.copy()
    with pytest.raises(error, match=message):
        model.fit(x, [0, 1], augment=chain)
    np.testing.assert_array_equal(model.arena.flat, before)
    assert model.optimizer is None


# ---- the contact sheet ----


def test_preview(tmp_path):
    x = images_of((3, 8, 6, 3), "uint8")
    figure = augment.preview(x, SMALL, images=2, epochs=4, path=tmp_path / "sheet.png")
    assert len(figure.axes) == 2 * 5
    drawn = figure.axes[5 + 2].images[0].get_array()  # the second image in epoch 1
    np.testing.assert_array_equal(drawn, SMALL(x, epoch=1)[1] / 255.0)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_preview_speaks(language):
    figure = augment.preview(images_of((3, 8, 6, 3)), SMALL, epochs=2, language=language)
    words = figure.axes[2].get_title(), figure.axes[0].get_ylabel()
    assert words == {"en": ("epoch 1", "image 0"), "ko": ("에포크 1", "이미지 0")}[language]
    with pytest.raises(ValueError, match="unknown language 'kr'"):
        augment.preview(images_of((3, 8, 6, 3)), language="kr")


@pytest.mark.parametrize("shape, rows", [((5, 8, 6, 3), 12), ((5, 8, 6), 10)])
def test_preview_of_every_transform(shape, rows):
    x = images_of(shape)
    figure = augment.preview(x.reshape(5, -1), shape=shape[1:], epochs=2)
    assert len(figure.axes) == rows * 3


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"images": 0}, ValueError, "images must be at least 1"),
        ({"augment": np.flip}, TypeError, "expected an augment.Compose"),
        ({"X": X.reshape(2, 16)}, ValueError, r"X has shape \(2, 16\)"),
        ({"X": X.reshape(2, 2, 4, 2)}, ValueError, "X has 2 channels; 1 or 3"),
        ({"X": X + 2, "augment": Compose([])}, ValueError, "X has values from 2 to 2; .* 0 to 1"),
        ({"X": X * np.nan, "augment": Compose([])}, ValueError, "X has values from nan to nan"),
    ],
)
def test_preview_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        augment.preview(**({"X": X} | arguments))


@pytest.mark.parametrize("name", ["cupy"])
def test_a_gpu_trains_on_what_the_host_augments(name, cupy_module):
    x = images_of((24, 5, 5, 3))
    model, other = network(), network()

    def fit(trained, images):
        optimizer = fastnn.SGD(0.1)
        trained.fit(images, targets(24), optimizer=optimizer, epochs=2, batch_size=8, augment=SMALL)

    with fastnn.use_backend(name):
        fit(model, cupy_module.asarray(x))
        changed = SMALL(x)
    with fastnn.use_backend("numba"):
        fit(other, x)
        np.testing.assert_array_equal(SMALL(x), changed)
    steps, inner = 6, 75
    bound = steps * inner * np.finfo(np.float32).eps * np.abs(other.arena.flat).max()
    assert np.abs(model.arena.flat - other.arena.flat).max() <= bound
