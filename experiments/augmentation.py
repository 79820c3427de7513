"""Does augmentation by random shifts turn a locally connected network into a convolution?

Digits stand at random places on a canvas. The same network is trained with convolutions and with a kernel at every position.
Either every digit stays at one place, or it is shifted to a new random place whenever it is drawn.

The experiment follows two things during training: the accuracy on test images at all places, and the shared share of the local
kernels. That is the share of their squares which all positions have in common, averaged over the layers. At the end it measures
that share of what training has added to the kernels, and the shift consistency. The latter is the share of predictions that
stay when a centred image moves by three pixels.

A local network that starts as a convolution shows whether the share can stay large. The null model of the shares is independent
kernels, and of the accuracy a linear classifier. Every network has the learning rate that is best on validation images.

    python -m experiments.augmentation                                                 (3 minutes on 2 cores)
"""

import functools
from typing import Any

from convlab import report
from experiments.parts import canvas
from experiments.parts.shifting import CONV, LINEAR, LOCAL, NETWORKS, SHARED, SHIFTED, Shifting, trained
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once

Config = Shifting
REFERENCE = CONV + SHIFTED
SHARES = ("accuracy", "consistency", "shared", "added")
FORMATS = dict.fromkeys((*SHARES, "shared_*"), ".1%") | {"loss": ".2f"}
PRINTED = ("network", "step", *SHARES, "p")
STYLES = {
    start + shifted: report.RUNG_STYLE[rung]._replace(label=start + shifted, line="-" if shifted else "--")
    for rung, start in {"conv": CONV, "low_rank": SHARED, "locally_connected": LOCAL}.items()
    for shifted in (SHIFTED, "")
}
SMOKE = Config(
    networks=(REFERENCE, LOCAL + SHIFTED), size=50, copies=1, features=(3, 4), steps=4, evaluations=2, rates=(0.01,), seeds=2
)


def tuned(config: Config, name: str) -> Rows:
    """Train a network with all seeds and return one row for every evaluation."""
    return canvas.tuned(config, name, functools.partial(trained, config, NETWORKS[name]))


def run(config: Config) -> Rows:
    """Return one row per network, seed and evaluation."""
    parts = at_once(functools.partial(tuned, config), config.networks, "networks")
    return [{name: value for name, value in row.items() if name != "validation"} for rows in parts for row in rows]


def averaged(rows: Rows) -> Rows:
    """Average over the seeds at every evaluation."""
    layers = dict.fromkeys(name for row in rows for name in row if name.startswith("shared_"))
    bounds = dict.fromkeys((*SHARES, *layers), report.SHARE)
    return report.summarise(rows, ["network", "step", "rate"], [*SHARES, *layers, "loss"], bounds=bounds)


def table(rows: Rows, config: Config) -> Rows:
    """Average at the start, the first evaluation and the end, with p-values against the convolution."""
    last = [row for row in rows if row["step"] == config.steps]
    tests = report.paired_differences(last, "network", {"network": REFERENCE}, "accuracy")
    p_values = {(test["network"], config.steps): test["accuracy_p_holm"] for test in tests}
    stages = {0, config.steps // config.evaluations, config.steps}
    lines = [line for line in averaged(rows) if line["step"] in stages]
    return [line | {"p": p_values.get((line["network"], line["step"]))} for line in lines]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the accuracy and the shared share of the kernels during training."""
    lines = averaged(rows)
    by_step = {(line["network"], line["step"]): line for line in lines}
    linear = by_step.get((LINEAR, config.steps))
    classifier = {} if linear is None else {LINEAR: report.interval_of(linear, "accuracy")}
    independent = {"independent kernels": by_step[LOCAL + SHIFTED, 0]["shared"]}
    panels = {
        "accuracy": ("test images at all places, right", "what the network does", classifier),
        "shared": ("squares of kernels, equal at all positions", "what its kernels are", independent),
    }
    figure, axes = report.new_figure(2, size=(15.0, 6.5))
    for axis, (value, (label, title, baselines)) in zip(axes, panels.items(), strict=True):
        shown = [line for line in lines if line[value] is not None and line["network"] != LINEAR]
        words = {"x_label": "training steps", "y_label": label, "y_format": ".0%", "title": f"{title}, 95 % interval"}
        report.curves(axis, shown, "step", value, "network", **words, band=True, baselines=baselines, styles=STYLES)
        axis.set_ylim(0, 1.02)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
