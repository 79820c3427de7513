"""The numbers in the pages are those of the committed tables, computed here from the rows and by nothing of the library."""

import csv
import math
import pathlib
import statistics

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {name: " ".join((ROOT / name).read_text("utf-8").split()) for name in ("README.md", "experiments/README.md")}
TARGET = 0.9


def rows(experiment):
    with (ROOT / "experiments" / "results" / experiment / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mean(experiment, value, **fixed):
    """The mean of a column over the rows in which other columns have these values."""
    chosen = [row for row in rows(experiment) if all(row[name] == str(wanted) for name, wanted in fixed.items())]
    return statistics.fmean(float(row[value]) for row in chosen)


def needed(network, places):
    """Geometric mean over seeds of the training images at which the accuracy crosses the target, on a logarithmic scale."""
    curves = {}
    for row in rows("ladder_full"):
        if row["network"] == network and row["places"] == str(places):
            curves.setdefault(row["seed"], {})[int(row["size"])] = float(row["accuracy"])
    logs = []
    for curve in curves.values():
        sizes = sorted(curve)
        last = next(number for number, size in enumerate(sizes) if curve[size] >= TARGET)
        one, two = sizes[max(last - 1, 0)], sizes[last]
        share = (TARGET - curve[one]) / (curve[two] - curve[one]) if last else 0.0
        logs.append(math.log(one) + share * math.log(two / one))
    return math.exp(statistics.fmean(logs))


def price(network, places):
    return needed(network, places) / needed("convolution", places)


def percent(share):
    return f"{100 * share:.0f} %"


def error_at(network, size=16_000, places=81):
    return mean("ladder_full", "error", network=network, size=size, places=places)


REORDERED = "convolution, reordered pixels"
HEADLINES = [
    ("README.md", "the convolution needs {} training images", lambda: f"{needed('convolution', 81):.0f}"),
    ("README.md", "is not told apart from it ({} times as many", lambda: f"{price('global convolution', 81):.1f}"),
    ("README.md", "tiles of period two need {} times", lambda: f"{price('tiled 2', 81):.1f}"),
    ("README.md", "a dense layer {} times", lambda: f"{price('dense', 81):.1f}"),
    ("README.md", "locally connected kernels {} times", lambda: f"{price('locally connected', 81):.1f}"),
    ("README.md", "needs {} times [1.5, 2.4] the convolution's images", lambda: f"{price('dense, shifted in training', 81):.1f}"),
    ("README.md", "the convolution errs on {} after 16,000 images", lambda: percent(error_at(REORDERED))),
    ("README.md", "the dense network on {}.", lambda: percent(error_at("dense"))),
]


@pytest.mark.parametrize(("page", "sentence", "number"), HEADLINES, ids=lambda case: case if isinstance(case, str) else "")
def test_a_headline_has_the_number_of_the_committed_rows(page, sentence, number):
    assert sentence.format(number()) in PAGES[page]


def test_the_quick_ladder_has_the_rates_that_the_full_one_chose():
    from experiments.ladder import QUICK

    chosen = {row["rung"]: float(row["rate"]) for row in rows("ladder_full") if row["places"] == "81"}
    assert dict(QUICK.rates) == chosen
