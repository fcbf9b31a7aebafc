"""Augmentation of images: ``fastnn.augment`` against plain NumPy code.

``python -m bench.augment`` changes 32 x 32 images of three channels, uint8 and float32, and times
for each transform, in turn and in this process, ours with one thread, ours with all, and NumPy code
as somebody would write it who knows NumPy: whole batches at a time, in float32. It checks first
that the two agree where nothing is random but how often or where. Last it times an epoch of
``fit`` with augmentation beside one without: what the thread that makes the next epoch's images
takes of the training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastnn
from fastnn import augment

from .files import write_json
from .peers import RESULTS, versions
from .quiet import Quiet

SIDE, CHANNELS, PADDING = 32, 3, 4
IMAGES, QUICK_IMAGES = 4000, 500
BATCH = 250
"""Images that the NumPy code takes at a time: they stay in a cache."""
ROUNDS, QUICK_ROUNDS = 9, 3
PATIENCE, QUICK_PATIENCE = 300.0, 10.0
"""Seconds to wait, in all, for a machine that has its cores to itself."""

Plain = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Outcome(NamedTuple):
    """Microseconds an image of ours with one thread, and how many times that the others take."""

    title: str
    dtype: str
    microseconds: float
    all_threads: float
    numpy: float


# ---- plain NumPy: a batch (B, H, W, C) at a time ----


def flip(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the images mirrored."""
    chosen = rng.random(len(x)) < 0.5
    out = x.copy()
    out[chosen] = x[chosen, :, ::-1]
    return out


def crop(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of the padded image."""
    padded = np.pad(x, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    out = np.empty_like(x)
    for number, (top, left) in enumerate(rng.integers(0, 2 * PADDING + 1, (len(x), 2))):
        out[number] = padded[number, top : top + SIDE, left : left + SIDE]
    return out


def rotate(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bilinear, about the centre, by up to 15 degrees; 0 outside."""
    angles = np.radians(rng.uniform(-15.0, 15.0, len(x))).astype(np.float32)[:, None, None]
    r, c = np.mgrid[:SIDE, :SIDE].astype(np.float32) - np.float32((SIDE - 1) / 2)
    sine, cosine = np.sin(angles), np.cos(angles)
    centre = np.float32((SIDE - 1) / 2)
    y, x_ = cosine * r + sine * c + centre, cosine * c - sine * r + centre
    return _sample(x, y, x_)


def resized_crop(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box of 8 to 100 % of the area, at the image's size."""
    area = rng.uniform(0.08, 1.0, len(x)) * SIDE**2
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), len(x)))
    rows = np.clip(np.rint(np.sqrt(area / ratio)), 1, SIDE)
    columns = np.clip(np.rint(np.sqrt(area * ratio)), 1, SIDE)
    top = np.floor(rng.random(len(x)) * (SIDE - rows + 1))
    left = np.floor(rng.random(len(x)) * (SIDE - columns + 1))
    grid = np.arange(SIDE, dtype=np.float32) + np.float32(0.5)
    y = top[:, None] + grid * (rows[:, None] / SIDE) - 0.5
    x_ = left[:, None] + grid * (columns[:, None] / SIDE) - 0.5
    shape = (len(x), SIDE, SIDE)
    y, x_ = np.broadcast_to(y[:, :, None], shape), np.broadcast_to(x_[:, None], shape)
    return _sample(x, y.astype(np.float32), x_.astype(np.float32))


def _sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper, lower = np.clip(top, 0, SIDE - 1), np.clip(top + 1, 0, SIDE - 1)
    before, behind = np.clip(left, 0, SIDE - 1), np.clip(left + 1, 0, SIDE - 1)
    number = np.arange(len(x))[:, None, None]
    values = x.astype(np.float32)
    above = values[number, upper, before] * (1 - across) + values[number, upper, behind] * across
    below = values[number, lower, before] * (1 - across) + values[number, lower, behind] * across
    out = above * (1 - down) + below * down
    inside = (rows >= -0.5) & (rows <= SIDE - 0.5) & (columns >= -0.5) & (columns <= SIDE - 0.5)
    out *= inside[..., None]
    return _stored(out, x)


def jitter(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, in this order."""
    maximum = np.float32(_maximum(x))
    values = x.astype(np.float32)
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    factors = rng.uniform(0.7, 1.3, (3, len(x), 1, 1, 1)).astype(np.float32)
    values = np.clip(values * factors[0], 0, maximum)
    mean = (values @ weights).mean(axis=(1, 2))[:, None, None, None]
    values = np.clip(values * factors[1] + (1 - factors[1]) * mean, 0, maximum)
    grey = (values @ weights)[..., None]
    values = np.clip(values * factors[2] + (1 - factors[2]) * grey, 0, maximum)
    return _stored(values, x)


def erase(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box in half of the images."""
    out = x.copy()
    for number in np.flatnonzero(rng.random(len(x)) < 0.5):
        area = rng.uniform(0.02, 0.33) * SIDE**2
        ratio = np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
        rows, columns = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if 0 < rows < SIDE and 0 < columns < SIDE:
            top, left = rng.integers(0, SIDE - rows + 1), rng.integers(0, SIDE - columns + 1)
            out[number, top : top + rows, left : left + columns] = 0
    return out


def noise(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal noise of a tenth of the maximum."""
    maximum = np.float32(_maximum(x))
    values = rng.standard_normal(x.shape, np.float32)
    values *= np.float32(0.1) * maximum
    values += x
    return _stored(np.clip(values, 0, maximum, out=values), x)


def usual(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A flip, a crop and colours."""
    return jitter(crop(flip(x, rng), rng), rng)


def _maximum(x: np.ndarray) -> float:
    return 255.0 if x.dtype == np.uint8 else 1.0


def _stored(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (values + np.float32(0.5)).astype(np.uint8) if x.dtype == np.uint8 else values


_FLIP, _CROP = augment.HorizontalFlip(), augment.RandomCrop(PADDING)
_JITTER = augment.ColorJitter(0.3, 0.3, 0.3)
CASES: dict[str, tuple[list[augment.Transform], Plain]] = {
    "flip": ([_FLIP], flip),
    "crop": ([_CROP], crop),
    "rotation": ([augment.Rotation(15.0)], rotate),
    "resized crop": ([augment.RandomResizedCrop()], resized_crop),
    "colours": ([_JITTER], jitter),
    "erasing": ([augment.RandomErasing()], erase),
    "noise": ([augment.GaussianNoise()], noise),
    "flip, crop, colours": ([_FLIP, _CROP, _JITTER], usual),
}


# ---- timing ----


def images(count: int, dtype: str) -> np.ndarray:
    """Random pixels."""
    x = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, CHANNELS), dtype=np.uint8)
    return x if dtype == "uint8" else (x / np.float32(255)).astype(dtype)


def by_numpy(plain: Plain, x: np.ndarray) -> np.ndarray:
    """All the images, a batch at a time."""
    rng, out = np.random.default_rng(0), np.empty_like(x)
    for begin in range(0, len(x), BATCH):
        out[begin : begin + BATCH] = plain(x[begin : begin + BATCH], rng)
    return out


def check(x: np.ndarray) -> None:
    """Raise where the two do something else: their means over all images must agree."""
    for title, (transforms, plain) in CASES.items():
        ours, theirs = augment.Compose(transforms)(x), by_numpy(plain, x)
        difference = abs(ours.mean(dtype=np.float64) - theirs.mean(dtype=np.float64))
        if not difference <= 0.02 * _maximum(x):
            raise AssertionError(
                f"{title}: the mean of NumPy's images is {difference:.3g} from ours"
            )


def measure(quick: bool) -> list[Outcome]:
    """Check, then time in turn; a line each is printed."""
    count, rounds = (QUICK_IMAGES, QUICK_ROUNDS) if quick else (IMAGES, ROUNDS)
    quiet = Quiet(fastnn.get_num_threads(), QUICK_PATIENCE if quick else PATIENCE)
    print(f"{'':<22}{'':<9}  us an image  {fastnn.get_num_threads()} threads   NumPy")
    outcomes = []
    for dtype in ("uint8", "float32"):
        x = images(count, dtype)
        check(x)
        for title in CASES:
            quiet()
            outcomes.append(_outcome(title, x, rounds))
            print(line(outcomes[-1]))
    return outcomes


def _outcome(title: str, x: np.ndarray, rounds: int) -> Outcome:
    transforms, plain = CASES[title]
    chain, out = augment.Compose(transforms), np.empty_like(x)
    threads = fastnn.get_num_threads()
    seconds: dict[str, list[float]] = {"one": [], "all": [], "numpy": []}
    try:
        for epoch in range(rounds):
            for name, number in (("one", 1), ("all", threads)):
                fastnn.set_num_threads(number)
                seconds[name].append(_seconds(lambda epoch=epoch: chain(x, epoch=epoch, out=out)))
            seconds["numpy"].append(_seconds(lambda: by_numpy(plain, x)))
    finally:
        fastnn.set_num_threads(threads)
    ratios = [
        statistics.median(a / b for a, b in zip(seconds[name], seconds["one"], strict=True))
        for name in ("all", "numpy")
    ]
    ours = statistics.median(seconds["one"]) * 1e6 / len(x)
    return Outcome(title, x.dtype.name, ours, *ratios)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def line(outcome: Outcome) -> str:
    """An outcome in words."""
    return (
        f"{outcome.title:<22}{outcome.dtype:<9}{outcome.microseconds:13.2f}"
        f"{outcome.all_threads:11.2f}{outcome.numpy:8.1f}"
    )


def measure_fit(quick: bool) -> dict[str, float]:
    """Seconds of an epoch without and with augmentation, medians of rounds in turn."""
    count, rounds = (QUICK_IMAGES, QUICK_ROUNDS) if quick else (IMAGES, ROUNDS)
    x, y = images(count, "uint8"), np.arange(count) % 10
    chain = augment.Compose(CASES["flip, crop, colours"][0])
    seconds: dict[str, list[float]] = {"alone": [], "augmented": []}
    epochs = 4
    for _ in range(rounds):
        for name, chosen in (("alone", None), ("augmented", chain)):
            model = fastnn.Sequential(
                fastnn.Linear(SIDE * SIDE * CHANNELS, 128), fastnn.ReLU(), fastnn.Linear(128, 10)
            )
            begun = time.perf_counter()
            model.fit(x, y, epochs=epochs, batch_size=64, augment=chosen)
            seconds[name].append((time.perf_counter() - begun) / epochs)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    alone, augmented = medians.values()
    print(f"an epoch of fit: {alone * 1e3:.1f} ms alone, {augmented * 1e3:.1f} ms augmented")
    return medians


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.augment", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "augment.json", help="file (%(default)s)"
    )
    options = parser.parse_args(arguments)
    outcomes, epochs = measure(options.quick), measure_fit(options.quick)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "threads": fastnn.get_num_threads(),
        "versions": versions(("numpy", "numba")),
        "outcomes": [outcome._asdict() for outcome in outcomes],
        "epoch_seconds": epochs,
    }
    write_json(options.out, results)


if __name__ == "__main__":
    main()
