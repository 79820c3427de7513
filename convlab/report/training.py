"""How training went: loss and accuracy as it goes on, of one run or of many."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convlab.report.drawing import RUNG_STYLE, Baseline, Style, curves, draw_legend, slide_style, styles_of
from convlab.report.rows import Row, columns
from convlab.report.seeds import SHARE, summarise

if TYPE_CHECKING:
    import matplotlib.axes

History = Sequence[Row]
PANELS = {  # quantity -> what a row calls it on each set of images
    "loss": {"training": "loss", "validation": "validation_loss", "test": "test_loss"},
    "accuracy": {"training": "accuracy", "validation": "validation_accuracy", "test": "test_accuracy"},
}
SPLIT_STYLE = {  # of a single run; of several, every one has its colour and marker, and the sets of images these lines
    "training": Style("training", RUNG_STYLE["dense"].colour, "o", "--"),
    "validation": Style("validation", RUNG_STYLE["tiled"].colour, "^", "-."),
    "test": Style("test", RUNG_STYLE["conv"].colour, "v", "-"),
}
FEW = 30  # points that a line may have and still show a marker for each


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
) -> None:
    """Draw loss and accuracy against the step, of one run or several, and of runs that differ in their seed only as one line.

    Seeds are averaged, with their 95 % interval as a band: at every step, those that have come that far. What no row tells,
    such as a validation loss, is not drawn.

    Args:
      axes: Two panels: for the loss, and for the accuracy.
      histories: The history of a run (as `Fitted.history`, or the lines of a history.jsonl), or a list of histories, one for
        each seed; or either of these by name, for several kinds of runs.
      x: Column to draw against: "step" or "epoch".
      x_label: Says what x is, with its unit; absent, its name.
      loss_label: Says what the loss is, with its unit.
      accuracy_label: Says what the accuracy is of.
      baselines: Heights of gray horizontal lines in the panel of the accuracy by label, e.g. {"largest class": 0.11}.
      log_loss: Space the loss logarithmically.

    Raises:
      ValueError: There are not two axes, a history is empty, or its rows have no `x` or nothing to draw.
      ImportError: matplotlib is not installed.

    Example:
      >>> from convlab.report import new_figure
      >>> figure, axes = new_figure(2)
      >>> history = [{"step": n, "loss": 2 / n, "test_loss": 3 / n, "test_accuracy": 1 - 1 / n} for n in (10, 20, 30)]
      >>> training_curves(axes, history, baselines={"largest class": 0.1})
      >>> training_curves(axes, {"dense": [history, history], "conv": history}, x_label="batches")
    """
    if len(axes) != 2:
        raise ValueError(f"got {len(axes)} axes, needs two: one for the loss and one for the accuracy")
    named: Mapping[str, Any] = histories if isinstance(histories, Mapping) else {"": histories}
    runs = {name: _seeds(name, given, x) for name, given in named.items()}
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
                shown = {"x_label": x_label or x, "y_label": y_label, "baselines": heights, "styles": styles}
                curves(axis, summary, x, quantity, "line", **shown, band=True)
        axes[0].set_yscale("log" if log_loss else "linear")
        axes[1].yaxis.set_major_formatter(PercentFormatter(1))
        draw_legend(axes[0])


def _seeds(name: str, given: Any, x: str) -> list[History]:
    """Take one history as a list of one, and see that there is something in each."""
    seeds = [given] if given and isinstance(given[0], Mapping) else list(given)
    if not seeds or not all(seeds):
        raise ValueError(f"the history{f' of {name!r}' * bool(name)} is empty: needs at least one row of every run")
    told = {column for names in PANELS.values() for column in names.values()}
    for there in map(columns, seeds):
        if x not in there or not told & {*there}:
            raise ValueError(f"a history has columns {there}: needs {x!r} and one of {sorted(told)}")
    return seeds


def _lines(runs: Mapping[str, list[History]], quantity: str, x: str) -> tuple[list[Row], dict[str, Style]]:
    """The points of one panel, as rows of line, x and quantity; and the style of every line."""
    rows, styles, colours = [], {}, styles_of(list(runs))
    for (run, seeds), (split, column) in itertools.product(runs.items(), PANELS[quantity].items()):
        line = f"{run}, {split}" if run else split
        told = [row for history in seeds for row in history if row.get(column) is not None and row.get(x) is not None]
        rows += [{"line": line, x: row[x], quantity: row[column]} for row in told]
        style = SPLIT_STYLE[split]
        if run:
            style = colours[run]._replace(label=f"{colours[run].label}, {split}", line=style.line)
        styles[line] = style if len({row[x] for row in told}) <= FEW else style._replace(marker="")
    return rows, styles
