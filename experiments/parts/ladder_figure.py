"""The figure of the ladder: errors and examples needed."""

import math
from typing import Any

from convlab import report
from convlab.report import RUNG_STYLE
from experiments.parts.ladder_table import CONV, inside, needs
from experiments.parts.sizes import REORDERED, Sizes, images
from experiments.shared.command import Rows

TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of errors
FINE_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
COUNTS = (30, 100, 300, 1000, 3000, 10_000, 30_000)
STYLES = {
    "linear": RUNG_STYLE["linear"]._replace(label="linear"),
    "dense": RUNG_STYLE["dense"],
    "global convolution": RUNG_STYLE["global_conv"]._replace(label="global convolution"),
    "locally connected": RUNG_STYLE["locally_connected"],
    "low rank 4": RUNG_STYLE["low_rank"]._replace(label="low rank 4"),
    "tiled 4": RUNG_STYLE["tiled"]._replace(label="tiled 4", colour="#7A5195", marker="<"),
    "tiled 2": RUNG_STYLE["tiled"]._replace(label="tiled 2"),
    CONV: RUNG_STYLE["conv"],
}
SHOWN = ("linear", "dense", "global convolution", "locally connected", "tiled 2", CONV)  # in the figure of all distances


def style(name: str) -> report.Style:
    """Return the style of a line: the rung's colour and marker, and dashes for reordered pixels.

    Lines of controls have no entry in the legend.
    """
    rung, _, control = name.partition(", ")
    return STYLES[rung]._replace(label=f"_{name}", line="--") if control else STYLES[rung]


def count_ticks(axis: Any, config: Sizes) -> None:
    """Mark round numbers of images on a logarithmic axis."""
    ticks = [count for count in COUNTS if 0.9 * min(config.sizes) <= count <= 1.2 * max(config.sizes)]
    axis.set_ticks(ticks, [f"{count:,}" for count in ticks])
    axis.set_ticks([], minor=True)


def place_title(subject: str, count: int, config: Sizes) -> str:
    """Return a title with the number of places, or the name of the data if images are not moved."""
    if not config.margin:
        return config.dataset
    return f"{subject} at {count} places" if count > 1 else f"{subject} at one place"


def target_error(config: Sizes) -> str:
    """Return the name of the error that counts as reached."""
    return f"{100 * (1 - config.target):g} % error"


def class_count(rows: Rows, config: Sizes) -> int:
    """Return the number of classes: that of the rows or, if they are older than this column, that of the images."""
    return rows[0].get("classes") or len(images(config).classes)


def draw_errors(axis: Any, rows: Rows, config: Sizes, count: int) -> None:
    """Draw test error against training images for one number of places."""
    shown = [row for row in rows if row["places"] == count and (row["control"] or REORDERED) == REORDERED]
    if any(row["control"] for row in shown):
        axis.plot([], [], "--", color="0.3", label=REORDERED)
    summary = report.summarise(shown, ["network", "size"], "error", bounds={"error": report.SHARE})
    lows = [max(line["error"] / 4, line["error_low"] or 0.0) for line in summary if line["error"] > 0]  # in this order for NaN
    bottom = 0.9 * min([0.5, *lows])
    lines = {"chance": 1 - 1 / class_count(rows, config), target_error(config): 1 - config.target}
    report.curves(
        axis,
        summary,
        "size",
        "error",
        "network",
        x_label="training images",
        y_label=f"test error, mean of {config.seeds} seeds, 95 % interval",
        title=place_title("images", count, config),
        log_x=True,
        log_y=True,
        bottom=bottom,
        baselines={label: height for label, height in lines.items() if height > bottom},
        baseline_labels="left" if count > 1 or not config.margin else "right",  # where no line is
        styles={name: style(name) for name in dict.fromkeys(row["network"] for row in summary)},
    )
    axis.set_ylim(bottom, 1.15)
    ticks = [tick for tick in (TICKS if bottom < 0.1 else FINE_TICKS) if tick >= bottom]
    axis.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axis.minorticks_off()
    if len(config.sizes) > 5:
        count_ticks(axis.xaxis, config)


def draw_growth(axis: Any, rows: Rows, config: Sizes) -> None:
    """Draw examples needed against the number of places."""
    logs = [
        {"network": name, "places": count, "log": math.log(need)}
        for (name, count), by_seed in needs(rows, config.target).items()
        if name in config.rungs and inside(by_seed, config)
        for need in by_seed.values()
    ]
    ends = {"log": "needed", "log_low": "needed_low", "log_high": "needed_high"}
    summary = [
        line | {new: math.exp(line[old]) for old, new in ends.items()}
        for line in report.summarise(logs, ["network", "places"], "log")
    ]
    styles = {name: style(name) for name in dict.fromkeys(str(line["network"]) for line in summary)}
    title = f"training images needed for {target_error(config)}"
    words: dict[str, Any] = {"x_label": "places", "y_label": "examples needed, 95 % interval", "title": title}
    report.curves(axis, summary, "places", "needed", "network", log_x=True, log_y=True, styles=styles, **words)
    count_ticks(axis.yaxis, config)
    axis.set_ylim(0.8 * min(line["needed"] for line in summary), 1.3 * max(line["needed"] for line in summary))


def draw(rows: Rows, config: Sizes) -> Any:
    """Draw errors at all distances, or errors at the first distance and growth if there are more than two.

    The second figure shows some of the rungs, and reordered pixels for the convolution only.
    """
    counts = list(dict.fromkeys(row["places"] for row in rows))
    if len(counts) > 2:
        figure, (errors, growth) = report.new_figure(2, size=(15.0, 7.5))
        shown = [row for row in rows if row["rung"] in SHOWN and (not row["control"] or row["rung"] == CONV)]
        draw_errors(errors, shown, config, counts[0])
        draw_growth(growth, shown, config)
    else:
        figure, axes = report.new_figure(len(counts), size=(8.0 * len(counts), 7.5))
        for axis, count in zip(axes, counts, strict=True):
            draw_errors(axis, rows, config, count)
    return figure
