"""The pictures of ``bench.peers`` and ``bench.gpu``."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from .cases import BATCHES
from .processes import best

_COLOURS = {
    "fastnn": "black",
    "jax": "tab:blue",
    "torch": "tab:red",
    "torch compiled": "tab:pink",
    "sklearn": "tab:orange",
    "numpy": "tab:olive",
    "numpy, AVX-512": "tab:green",
    "torch graph": "tab:purple",
    "fastnn, CPU": "tab:gray",
}


def draw(results: dict[str, Any], folder: Path) -> None:
    """Time a sample against batch size for all; percent of the roofline for ours."""
    from fastnn.optional import require

    pyplot = require("matplotlib.pyplot", extra="plot")
    pyplot.switch_backend("Agg")
    where = f"{results['machine']['CPU']}, {results['threads']} threads"
    figure = _times(pyplot, results["training"])
    figure.suptitle(f"One training step, microseconds a sample: {where}")
    figure.savefig(folder / "time_per_sample.png", dpi=120)
    pyplot.close(figure)
    figure = _percents(pyplot, results["percent of roofline"])
    figure.suptitle(f"fastnn, percent of the roofline: {where}")
    figure.savefig(folder / "percent_of_roofline.png", dpi=120)
    pyplot.close(figure)


def draw_device(results: dict[str, Any], folder: Path) -> None:
    """Time a sample against batch size, on a device and on the CPU, and where the first pays."""
    from fastnn.optional import require

    pyplot = require("matplotlib.pyplot", extra="plot")
    pyplot.switch_backend("Agg")
    figure = _times(pyplot, results["training"], results["pays from"])
    where = f"{results['device']['name']} and {results['host']['CPU']}"
    figure.suptitle(f"One training step, microseconds a sample: {where}")
    figure.savefig(folder / "gpu.png", dpi=120)
    pyplot.close(figure)


def _times(pyplot: Any, training: dict[str, Any], pays_from: dict[str, Any] | None = None) -> Any:
    """A panel a network, and the legend in the place behind the last."""
    across = math.ceil(math.sqrt(len(training) + 1))
    down = math.ceil((len(training) + 1) / across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(4.4 * across, 3.6 * down), layout="constrained", squeeze=False
    )
    panels = list(axes.flat)
    handles: dict[str, Any] = {}
    for axis, (title, by_batch) in zip(panels, training.items(), strict=False):
        for name in dict.fromkeys(name for found in by_batch.values() for name in found):
            samples = {
                int(batch): statistics.median(best(found[name])) / int(batch) * 1e6
                for batch, found in by_batch.items()
                if name in found
            }
            style = {"lw": 3, "zorder": 3} if name == "fastnn" else {"lw": 1.3, "ms": 4}
            (handles[name],) = axis.plot(
                list(samples), list(samples.values()), "o-", color=_COLOURS[name], **style
            )
        if pays_from and pays_from[title]:
            line = axis.axvline(pays_from[title], color="black", lw=1, ls=":")
            handles["from here on the GPU pays"] = line
        _batch_axis(axis)
        axis.set(yscale="log", title=title)
    for axis in panels[len(training) :]:
        axis.axis("off")
    panels[len(training)].legend(handles.values(), handles, loc="center", frameon=False)
    for axis in axes[:, 0]:
        axis.set_ylabel("µs a sample")
    return figure


def _percents(pyplot: Any, percents: dict[str, Any]) -> Any:
    figure, axis = pyplot.subplots(figsize=(7.5, 4.8), layout="constrained")
    for title, by_batch in percents.items():
        medians = [percent["median"] for percent in by_batch.values()]
        axis.plot([int(batch) for batch in by_batch], medians, "o-", label=title)
    _batch_axis(axis)
    axis.set(ylabel="percent of the roofline", ylim=(0, 105))
    axis.legend(fontsize="small")
    return figure


def _batch_axis(axis: Any) -> None:
    axis.set(xscale="log", xlabel="batch size")
    axis.set_xticks(BATCHES, [f"{batch}" for batch in BATCHES])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
