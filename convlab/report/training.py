"""Figures of the loss and accuracy during training, for one run or several."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convlab import check
from convlab.report.arguments import check_arguments, check_numbers
from convlab.report.drawing import RUNG_STYLE, Baseline, Style, curves, draw_legend, figure_of, slide_style, styles_of
from convlab.report.rows import Row, columns
from convlab.report.seeds import SHARE, summarise

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

History = Sequence[Row]
PANELS = {  # quantity -> its column for each split
    "loss": {"training": "loss", "validation": "validation_loss", "test": "test_loss"},
    "accuracy": {"training": "accuracy", "validation": "validation_accuracy", "test": "test_accuracy"},
}
SPLIT_STYLE = {  # the styles of a single run; several runs have their own colours and markers, and these line styles
    "training": Style("training", RUNG_STYLE["dense"].colour, "o", "--"),
    "validation": Style("validation", RUNG_STYLE["tiled"].colour, "^", "-."),
    "test": Style("test", RUNG_STYLE["conv"].colour, "v", "-"),
}
MAXIMUM_MARKERS = 30  # a line of more points has no markers


def training_curves(
    axes: "Sequence[matplotlib.axes.Axes]",
    histories: History | Sequence[History] | Mapping[str, History | Sequence[History]],
    *,
    x: str = "step",
    x_label: str | None = None,
    loss_label: str = "loss (nats)",
    accuracy_label: str = "accuracy",
    baselines: Mapping[str, Baseline] | None = None,
    log_loss: bool = False,
) -> "matplotlib.figure.Figure":
    """Draw the loss and accuracy of one or several runs against the training step.

    Runs that differ in their seed only are averaged to one line, with a 95 % interval as a band. At each step the average is
    over the runs that have reached it. Quantities that no row has, such as a validation loss, are not drawn.

    Args:
      axes: The two axes to draw on, for the loss and for the accuracy.
      histories: The history of a run (`Fitted.history`, or the lines of a history.jsonl), or a list of histories, one per
        seed. Or a mapping from names to either of these, for several kinds of runs.
      x: The column of the horizontal quantity, "step" or "epoch".
      x_label: The label of x, with its unit. If None, the name of the column.
      loss_label: The label of the loss, with its unit.
      accuracy_label: The label of the accuracy.
      baselines: The heights of gray horizontal lines in the panel of the accuracy, by label, e.g. {"largest class": 0.11}.
      log_loss: Whether the axis of the loss is logarithmic.

    Returns:
      The figure that holds the axes.

    Raises:
      ValueError: There are not two axes, a history is empty, or its rows lack `x` or all quantities.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, axes = new_figure(2)
      >>> history = [{"step": n, "loss": 2 / n, "test_loss": 3 / n, "test_accuracy": 1 - 1 / n} for n in (10, 20, 30)]
      >>> training_curves(axes, history, baselines={"largest class": 0.1})
      <Figure size 1200x500 with 2 Axes>
      >>> training_curves(axes, {"dense": [history, history], "conv": history}, x_label="batches")
      <Figure size 1200x500 with 2 Axes>
    """
    check_arguments(axes=axes, x_label=x if x_label is None else x_label, loss_label=loss_label)
    check_arguments(accuracy_label=accuracy_label, baselines=baselines, log_loss=log_loss)
    check.text("x", x)
    if len(axes) != 2:
        raise ValueError(
            f"axes holds {len(axes)} panel{'s' * (len(axes) != 1)}; needs two, one for the loss and one for the accuracy"
        )
    named: Mapping[str, Any] = histories if isinstance(histories, Mapping) else {"": histories}
    runs = {name: _seeds(name, history, x) for name, history in named.items()}
    several = any(len(seeds) > 1 for seeds in runs.values())
    labels = {"loss": loss_label, "accuracy": accuracy_label}
    with slide_style():
        from matplotlib.ticker import PercentFormatter

        for axis, quantity in zip(axes, PANELS, strict=True):
            rows, styles = _lines(runs, quantity, x)
            heights = (baselines or {}) if quantity == "accuracy" else {}
            y_label = labels[quantity] + ", 95 % interval" * several
            if rows:
                bounds = {"accuracy": SHARE} if quantity == "accuracy" else None
                summary = summarise(rows, ["line", x], quantity, bounds=bounds)
                options = {"x_label": x_label or x, "y_label": y_label, "baselines": heights, "styles": styles}
                curves(axis, summary, x, quantity, "line", **options, band=True, log_y=log_loss and quantity == "loss")
        axes[1].yaxis.set_major_formatter(PercentFormatter(1))
        draw_legend(axes[0])
    return figure_of(axes[0])


def _seeds(name: str, history: Any, x: str) -> list[History]:
    """Return the histories of all seeds, from one history or a list, and check their columns."""
    seeds: list[Any] = check.sequence("histories", history, "rows, or a sequence of such histories")
    seeds = [seeds] if seeds and isinstance(seeds[0], Mapping) else seeds
    seeds = [check.sequence("histories", rows, "rows, or a sequence of such histories") for rows in seeds]
    if not seeds or not all(seeds):
        raise ValueError(f"histories: the history{f' of {name!r}' * bool(name)} is empty; needs at least one row of every run")
    quantities = {column for splits in PANELS.values() for column in splits.values()}
    for rows in seeds:
        for row in rows:
            check.instance("histories", row, Mapping, "a history of rows, which are mappings from columns to values")
        present = columns(rows)
        if x not in present or not quantities & {*present}:
            raise ValueError(f"histories: a history has columns {present}; needs {x!r} and one of {sorted(quantities)}")
        check_numbers("histories", rows, (x, *quantities))
    return seeds


def _lines(runs: Mapping[str, list[History]], quantity: str, x: str) -> tuple[list[Row], dict[str, Style]]:
    """Return the points of one panel and the style of each line.

    The points are rows with the columns "line", `x` and `quantity`.
    """
    rows, styles, colours = [], {}, styles_of(list(runs))
    for (run, seeds), (split, column) in itertools.product(runs.items(), PANELS[quantity].items()):
        line = f"{run}, {split}" if run else split
        points = [row for history in seeds for row in history if row.get(column) is not None and row.get(x) is not None]
        rows += [{"line": line, x: row[x], quantity: row[column]} for row in points]
        style = SPLIT_STYLE[split]
        if run:
            style = colours[run]._replace(label=f"{colours[run].label}, {split}", line=style.line)
        styles[line] = style if len({row[x] for row in points}) <= MAXIMUM_MARKERS else style._replace(marker="")
    return rows, styles
