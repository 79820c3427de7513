"""Does a trained local network gain if its kernels are moved a part of the way to shared ones?

A network with a kernel w at every position is trained. Then its kernels become w + s (P w - w), where P w is the kernel of the
nearest convolution. With s = 0 they stay, with s = 1 the network is a convolution, and in between it is equivariant in part.
The batch statistics are taken again, and the network is trained on without any constraint. The experiment measures accuracy,
shift consistency and the equivariance error of every layer against s, before and after that fine-tuning.

Digits stand in the centre of a canvas, where sharing is not needed, or at random places, where it is. Local networks start as a
convolution or with independent kernels. The best s is chosen on validation images. Every network has the learning rate that is
best on them. Null models: s = 0, the convolution of equal training, and a linear classifier.

    python -m experiments.soft_equivariance                                            (8 minutes on 2 busy cores)
"""

import functools
from typing import Any

from convlab import report
from experiments.parts import canvas
from experiments.parts.softened import CENTRED, CONV, LOCAL, MOVED, Softened, layers_of, trained
from experiments.parts.tuned import LINEAR, LINEAR_RATES
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once
from experiments.shared.settings import gain_of, styles

Config = Softened
BY = ("network", "digits", "strength", "stage")
PROJECTED, TUNED, CHOSEN = "projected", "fine-tuned", "best on validation"
SHARES = {"accuracy": report.SHARE, "consistency": report.SHARE}
FORMATS = {"accuracy": ".1%", "consistency": ".1%", "gain": "+.1%", "over_shared": "+.1%", "error_*": ".2f", "chosen": ".2f"}
PRINTED = (*BY, "accuracy", "gain", "p", "over_shared", "p_over_shared", "consistency", "error_*")
STYLES = styles({PROJECTED: "locally_connected", TUNED: "tiled"})
SMOKE = Config(
    networks=(LINEAR, LOCAL),
    strengths=(0.5,),
    size=50,
    copies=1,
    features=(3, 3, 3),
    steps=2,
    tuning_steps=2,
    rates=(0.01,),
    seeds=2,
)


def tuned(config: Config, part: tuple[str, str]) -> Rows:
    """Return the rows of a network with all seeds, on digits in the centre or at random places."""
    network, digits = part
    rates = LINEAR_RATES if network == LINEAR else None
    rows = canvas.tuned(config, network, functools.partial(trained, config, *part), rates)
    return [{"digits": digits} | row for row in rows]


def with_chosen(rows: Rows) -> Rows:
    """Add rows of the strength with the best validation accuracy of every network and seed."""
    best: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if row["strength"] is not None:
            key = row["network"], row["digits"], row["stage"], row["seed"]
            best[key] = max(best.get(key, row), row, key=lambda row: row["validation"])
    return rows + [row | {"strength": CHOSEN, "chosen": row["strength"]} for row in best.values()]


def run(config: Config) -> Rows:
    """Return one row per network, place of the digits, strength, stage and seed."""
    networks = [(network, digits) for digits in (CENTRED, MOVED) for network in config.networks]
    rows = [row for rows in at_once(functools.partial(tuned, config), networks, "networks") for row in rows]
    rows = with_chosen([{"strength": None, **row} for row in rows])
    return [{name: value for name, value in row.items() if name != "validation"} for row in rows]


def table(rows: Rows, config: Config) -> Rows:
    """Average over the seeds, with gains over strength 0, leads over strength 1 and corrected p-values."""
    tests: dict[Any, dict[str, Any]] = {}
    for group in dict.fromkeys((row["network"], row["digits"], row["stage"]) for row in rows if row["strength"] is not None):
        same = [row for row in rows if (row["network"], row["digits"], row["stage"]) == group]
        for test in report.paired_differences(same, "strength", {"strength": 0.0}, "accuracy"):
            tests[*group, test["strength"]] = gain_of(test)
        for test in report.paired_differences(same, "strength", {"strength": 1.0}, "accuracy"):
            over = gain_of(test, name="over_shared", p="p_over_shared")
            tests.setdefault((*group, test["strength"]), {}).update(over)
    errors = [f"error_{depth}" for depth in layers_of(config)]
    bounds = SHARES | dict.fromkeys(errors, report.POSITIVE) | {"chosen": report.SHARE}
    lines = report.summarise(rows, [*BY, "rate"], [*SHARES, *errors, "chosen"], bounds=bounds)
    return [line | tests.get((line["network"], line["digits"], line["stage"], line["strength"]), {}) for line in lines]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy against the strength, for digits in the centre and at random places."""
    lines = table(rows, config)
    figure, axes = report.new_figure(2, size=(15.0, 6.5))
    for axis, digits in zip(axes, (CENTRED, MOVED), strict=True):
        here = [line for line in lines if line["digits"] == digits]
        baselines = {
            line["network"]: report.interval_of(line, "accuracy")
            for line in here
            if line["network"] == LINEAR or (line["network"] == CONV and line["stage"] == TUNED)
        }
        report.curves(
            axis,
            [line for line in here if line["network"] == LOCAL and line["strength"] != CHOSEN],
            "strength",
            "accuracy",
            "stage",
            x_label="strength: 0 is local, 1 is a convolution",
            y_label="test images classified right, 95 % interval",
            y_format=".0%",
            title=f"digits {digits}",
            baselines=baselines,
            styles=STYLES,
        )
        axis.set_ylim(0, 1.02)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
