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
SHUFFLED, IN_ORDER = "shuffled", "in order"
PAGE, LADDER = "experiments/README.md", "README.md"
HEADLINES = [
    (LADDER, "the convolution needs {} training images", lambda: f"{needed('convolution', 81):.0f}"),
    (LADDER, "The dense network needs {} times as many", lambda: f"{price('dense', 81):.1f}"),
    (LADDER, "the locally connected one {} times", lambda: f"{price('locally connected', 81):.1f}"),
    (LADDER, "tiles of period two {} times", lambda: f"{price('tiled 2', 81):.1f}"),
    (LADDER, "shared but not local, needs {} times as many", lambda: f"{price('global convolution', 81):.1f}"),
    (LADDER, "the dense network errs on {}, as in the original order", lambda: percent(error_at("dense"))),
    (LADDER, "and has learnt {} of its training images", lambda: percent(mean("ladder_full", "train_accuracy", **LARGEST))),
    (LADDER, "The convolution errs on {} and has learnt", lambda: percent(error_at(REORDERED))),
    (LADDER, "1,000 images the convolution errs on {}", lambda: percent(quick_error("convolution"))),
    (LADDER, "the dense network on {}. At one place", lambda: percent(quick_error("dense"))),
    (PAGE, "| rank four | {} |", lambda: f"{needed('low rank 4', 81):,.0f}"),
    (PAGE, "| tiles of period four | {} |", lambda: f"{needed('tiled 4', 81):,.0f}"),
    (PAGE, "grows from {} at one place to", lambda: f"{needed('convolution', 1):.0f}"),
    (PAGE, "{} times as many [0.50, 0.58] at nine places", lambda: f"{price('global convolution', 9):.2f}"),
    (
        PAGE,
        "more than the dense network ({} times [1.07, 1.33])",
        lambda: f"{needed('locally connected', 81) / needed('dense', 81):.2f}",
    ),
    (PAGE, "convolution's need ({} times [1.8, 2.6])", lambda: f"{price('convolution, all pixels read', 81):.1f}"),
    (PAGE, "in training needs {} base digits", lambda: f"{needed('dense, shifted in training', 81):.0f}"),
    (
        PAGE,
        "logistic regression is right on {} % of the signals",
        lambda: number("mnist1d", network="logistic", order=IN_ORDER),
    ),
    (PAGE, "convolution has {} % [92.8, 94.6] in order", lambda: number("mnist1d", network="convolution", order=IN_ORDER)),
    (PAGE, "and {} % [54.2, 58.6] shuffled", lambda: number("mnist1d", network="convolution", order=SHUFFLED)),
    (PAGE, "perceptron has {} % [62.6, 65.7] in order", lambda: number("mnist1d", network="perceptron", order=IN_ORDER)),
    (PAGE, "locally connected layers reach {} %", lambda: number("mnist1d", network="locally connected", order=IN_ORDER)),
    (PAGE, "signals the convolution is right on {} %", lambda: number("ladder_mnist1d", network="convolution", size=4000)),
    (PAGE, "locally connected layers on {} %", lambda: number("ladder_mnist1d", network="locally connected", size=4000)),
    (PAGE, "samples in a random order the convolution falls to {} %", lambda: reordered_signals()),
    (PAGE, "and {} % [99.3, 99.6] of similar", lambda: f"{100 * mean('red_green', 'similar', padding='SAME'):.1f}"),
    (PAGE, "right on 0.0 % and {} % [5.6, 6.8]", lambda: f"{100 * mean('red_green', 'dissimilar', padding='SAME'):.1f}"),
    (PAGE, "right on {} % [64.5, 66.6]", lambda: f"{100 * mean('red_green', 'dissimilar', padding='CIRCULAR'):.1f}"),
    (PAGE, "With FULL it is {} % [85.1, 86.3]", lambda: f"{100 * mean('red_green', 'dissimilar', padding='FULL'):.1f}"),
]
LARGEST = {"network": REORDERED, "size": 16_000}


def quick_error(network):
    return mean("ladder", "error", network=network, size=1000, places=81)


def reordered_signals():
    return number("ladder_mnist1d", network=REORDERED, size=4000)


def number(experiment, **fixed):
    return f"{100 * mean(experiment, 'accuracy', **fixed):.1f}"


@pytest.mark.parametrize(("page", "sentence", "value"), HEADLINES, ids=lambda case: case if isinstance(case, str) else "")
def test_headline_number_matches_the_committed_rows(page, sentence, value):
    assert sentence.format(value()) in PAGES[page]


def test_quick_ladder_uses_the_rates_chosen_by_the_full_ladder():
    from experiments.ladder import QUICK

    chosen = {row["rung"]: float(row["rate"]) for row in rows("ladder_full") if row["places"] == "81"}
    assert dict(QUICK.rates) == chosen
