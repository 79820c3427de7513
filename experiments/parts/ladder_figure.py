"""The figure of the ladder: errors, examples needed, and prices."""

import math
from typing import Any

from convlab import report
from convlab.report import RUNG_STYLE
from experiments.parts.ladder_table import CONV, EXPONENTS, geometric_mean, inside, needs, table
from experiments.parts.sizes import REORDERED, Sizes, images
from experiments.shared.command import Rows

TICKS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of errors
PRICES = (0.5, 1, 2, 4, 8, 16, 32)
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


def draw_errors(axis: Any, rows: Rows, config: Sizes, count: int) -> None:
    """Draw test error against training images for one number of places."""
    shown = [row for row in rows if row["places"] == count and (row["control"] or REORDERED) == REORDERED]
    if any(row["control"] for row in shown):
        axis.plot([], [], "--", color="0.3", label=REORDERED)
    summary = report.summarise(shown, ["network", "size"], "error", bounds={"error": report.SHARE})
    lowest = min([0.01, *(0.9 * line["error_low"] for line in summary if line["error_low"])])
    report.curves(
        axis,
        [line | {"error": max(line["error"], lowest)} for line in summary],  # no error at all is drawn at the bottom
        "size",
        "error",
        "network",
        x_label="training images",
        y_label=f"test error, mean of {config.seeds} seeds, 95 % interval",
        title=place_title("images", count, config),
        log_x=True,
        baselines={"chance": 1 - 1 / len(images(config).classes), f"{100 * config.target:.0f} % right": 1 - config.target},
        styles={name: style(name) for name in dict.fromkeys(row["network"] for row in summary)},
    )
    axis.set_yscale("log")
    axis.set_ylim(lowest, 1)
    axis.set_yticks(TICKS, [f"{100 * tick:g} %" for tick in TICKS])
    axis.minorticks_off()
    if len(config.sizes) > 5:
        count_ticks(axis.xaxis, config)


def draw_growth(axis: Any, rows: Rows, config: Sizes) -> None:
    """Draw examples needed against the number of places, with the predicted growth.

    The prediction starts at each line's first point.
    """
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
    for name, exponent in EXPONENTS.items():
        points = sorted((line["places"], line["needed"]) for line in summary if line["network"] == name)
        if len(points) > 1:
            (first, need), last = points[0], points[-1][0]
            axis.plot([first, last], [need, need * (last / first) ** exponent], ":", color=styles[name].colour, zorder=0)
    axis.plot([], [], ":", color="0.4", label="growth as predicted")
    title = f"training images needed for {100 * config.target:.0f} % right"
    words: dict[str, Any] = {"x_label": "places", "y_label": "examples needed, 95 % interval", "title": title}
    words["baselines"] = {"smallest set tried": min(config.sizes), "largest set tried": max(config.sizes)}
    report.curves(axis, summary, "places", "needed", "network", log_x=True, styles=styles, **words)
    axis.set_yscale("log")
    count_ticks(axis.yaxis, config)


def draw_prices(axis: Any, lines: Rows, rows: Rows, config: Sizes, count: int) -> None:
    """Draw the examples that each network needs relative to the convolution.

    An arrow starts at the largest set tried if some seed did not reach the target with it.
    """
    needed, shown, short = needs(rows, config.target), [], {}
    reference = geometric_mean(needed[CONV, count])
    for line in lines:
        if line["places"] == count and line["network"] != CONV:
            if any(map(math.isinf, needed[line["network"], count].values())):
                tried = [row["size"] for row in rows if (row["network"], row["places"]) == (line["network"], count)]
                short[len(shown)] = max(tried) / reference
            shown.append({"price": None, **line})
    arrow = {"color": STYLES["dense"].colour, "markersize": 10, "label": "not reached by every seed with the largest set"}
    axis.plot(list(short.values()), list(short), ">", **arrow)
    report.comparison(
        axis,
        shown,
        "network",
        "price",
        label="examples needed over the convolution's, paired by seed",
        x_label="times the convolution's examples, 95 % interval",
        title=place_title("price", count, config),
        baselines={"the convolution's": 1.0},
    )
    axis.set_xscale("log")
    axis.set_xlim(0.4, 60)
    axis.set_xticks(PRICES, [f"{tick:g}" for tick in PRICES])
    axis.minorticks_off()


def draw(rows: Rows, config: Sizes) -> Any:
    """Draw errors at the first and the last distance, growth, and prices.

    Growth and prices need more than two distances.
    """
    counts = list(dict.fromkeys(row["places"] for row in rows))
    if len(counts) > 2:
        figure, axes = report.new_figure(4, rows=2, size=(17.0, 15.0))
        draw_errors(axes[0], rows, config, counts[0])
        draw_growth(axes[1], rows, config)
        lines = table(rows, config)
        draw_prices(axes[2], lines, rows, config, counts[0])
        draw_prices(axes[3], lines, rows, config, counts[-1])
    else:
        figure, axes = report.new_figure(len(counts), size=(8.0 * len(counts), 7.5))
        for axis, count in zip(axes, counts, strict=True):
            draw_errors(axis, rows, config, count)
    return figure
