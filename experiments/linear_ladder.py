r"""Does each rung of the ladder pay for its weights what theory says?

Teachers at every rung make targets of Gaussian images, with noise, and least squares at four rungs, in closed form, fits them.
Pixels are independent and of variance 1: the risk beyond the noise is the squared distance of two dense matrices, and needs no
test set. Predicted, of one output in the mean over all m, with no number fitted:

$$b^2 + \frac{1}{m} \sum_q \frac{\sum_t \operatorname{mean}_i (\sigma^2 + |d_i|^2) + c_t}{n - (p_q + 1) / m_q}, \qquad
c_t = \frac{1}{m_q} \sum_{ij} d_i[j, t] \, d_j[i, t]$$

where the m_q positions i, j of group q share p_q weights t; d is what separates the teacher from the nearest matrix of the
rung, d_i[j, t] its weight from the pixel that tap t of j reads to output i, and b^2 the mean of |d_i|^2. Dense and local
kernels stand alone, m_q = 1: the formula is exact, and $\sigma^2 p / (n - p - 1)$ where the rung holds the teacher. There
a convolution, one group of m, has $\sigma^2 p / (n m - p - 1)$: that windows overlap costs nothing to second order in
p / (n m). A rung that does not hold the teacher takes d x for noise; to outputs that share weights it is no noise of its own,
whence c. Null: predicting zero.

Answer: yes; 153 of 165 means lie within 5 %, and none is further than 12 %. Tiles that barely have the examples pay 11.5 % more
than predicted, which is no chance.

    python -m experiments.linear_ladder                                                (1 minute)

Reference: Hastie, Montanari, Rosset and Tibshirani 2022, Surprises in high-dimensional ridgeless least squares interpolation
(dense); Isserlis 1918, On a formula for the product-moment coefficient (four Gaussians).
"""

import dataclasses
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from convlab import report
from experiments.parts.least_squares import RUNGS, TEACHERS, Problem, enough, learner, needed, predicted, truth
from experiments.shared.command import Rows, main

IMAGES = "training images, n"
STYLES = {rung: report.RUNG_STYLE[rung]._replace(line="none") for rung in RUNGS}


@dataclasses.dataclass(frozen=True)
class Config(Problem):
    """What is run.

    Args:
      teachers: Rungs of the teachers.
      target: Risk to reach, of the last panel, with a convolution as teacher.
      seeds: Draws of examples; the teachers stay.
      root: Folder that the results go to.
    """

    teachers: tuple[str, ...] = TEACHERS
    target: float = 0.1
    seeds: int = 25
    root: str = "runs"


SMOKE = Config(teachers=("conv",), space=(4, 4), channels=(1, 2), sizes=(8, 40), target=0.5, seeds=2)
FULL = Config(space=(12, 12), channels=(3, 8), sizes=(2, 4, 8, 16, 40, 80, 160, 320, 512, 1024, 2048, 4096, 8192), seeds=100)


def run(config: Config) -> Rows:
    """Risks, one row per teacher, estimator, size and seed; examples needed of the convolution, one per estimator and seed."""
    rows, needs, seeds = [], [], np.arange(config.seeds)
    for name in config.teachers:
        learn, w = learner(name, config), truth(name, config)
        for n in config.sizes:
            risks = learn(np.full(config.seeds, n), seeds)
            for rung in (rung for rung in RUNGS if n >= enough(rung, config)):
                told = {"teacher": name, "rung": rung, "n": n, "predicted": float(predicted(w, rung, n, config))}
                rows += [told | {"seed": seed, "risk": float(risk)} for seed, risk in enumerate(risks[rung])]
        if name == "conv":
            needs = [row for rung in RUNGS for row in needed(learn, w, rung, config, config.target, config.seeds)]
    return rows + needs


def averaged(rows: Rows, value: str, by: list[str]) -> Rows:
    """Means over seeds of what some rows have."""
    return report.summarise([row for row in rows if value in row], by, value, bounds={value: report.POSITIVE})


def table(rows: Rows, config: Config) -> Rows:
    """One line per teacher and estimator: the most examples, the size at which the prediction is worst, and examples needed."""
    risks = averaged(rows, "risk", ["teacher", "rung", "n", "predicted"])
    needs = {line["rung"]: line for line in averaged(rows, "needed", ["rung", "needed_predicted"])}
    lines, pairs = [], {(line["teacher"], line["rung"]) for line in risks}
    for teacher, rung in (pair for pair in itertools.product(config.teachers, RUNGS) if pair in pairs):
        mine = [line for line in risks if (line["teacher"], line["rung"]) == (teacher, rung)]
        worst = max(mine, key=lambda line: abs(math.log(line["risk"] / line["predicted"])))
        told = {name: mine[-1][name] for name in ("teacher", "rung", "n", "risk", "risk_low", "risk_high", "predicted")}
        told |= {"worst_ratio" + end: worst["risk" + end] / worst["predicted"] for end in ("", "_low", "_high")}
        told |= {"at_n": worst["n"], "sizes": f"{mine[0]['n']} to {mine[-1]['n']}"}
        if teacher == "conv" and needs:
            told |= {name: needs[rung][name] for name in ("needed", "needed_low", "needed_high", "needed_predicted")}
        lines.append(told)
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Risk against examples, a panel per teacher, predictions as thin lines; and examples needed."""
    needs = averaged(rows, "needed", ["rung", "needed_predicted"])
    panels = len(config.teachers) + 1 + bool(needs)
    figure, axes = report.new_figure(panels, rows=1 if panels < 4 else 2, size=(24.0, 10.5))
    for axis, name in zip(axes, config.teachers, strict=False):
        draw_risks(axis, rows, name, config)
    draw_ratios(axes[len(config.teachers)], rows, config)
    axes[len(config.teachers)].set_title("all teachers; gray: within 5 %", size=axes[0].title.get_fontsize())
    if needs:
        needs = [line | {"rung": report.RUNG_STYLE[line["rung"]].label} for line in needs]
        words: dict[str, Any] = {"title": "examples needed", "references": {"predicted need": "needed_predicted"}}
        words |= {"x_label": f"images to a risk of {config.target:g}, teacher: convolution"}
        label = f"mean of {config.seeds} seeds, 95 % interval"
        report.comparison(axes[-1], needs, "rung", "needed", label=label, **words)
        axes[-1].set_xscale("log")
    return figure


def draw_risks(axis: Any, rows: Rows, teacher: str, config: Config) -> None:
    """The risk of every estimator against the training images, and the predicted one, of one teacher."""
    w = truth(teacher, config)
    lines = averaged([row for row in rows if row["teacher"] == teacher], "risk", ["rung", "n", "predicted"])
    lines = sorted(lines, key=lambda line: RUNGS.index(line["rung"]))
    zero = float(jnp.mean(jnp.sum(w**2, (2, 3, 4))))
    words = {"y_label": "risk beyond the noise, per output", "title": f"teacher: {report.RUNG_STYLE[teacher].label}"}
    shown: dict[str, Any] = {"log_x": True, "band": True, "styles": STYLES, "baselines": {"predicting zero": zero}, **words}
    report.curves(axis, lines, "n", "risk", x_label=IMAGES, **shown)
    for rung in RUNGS:
        sizes = np.geomspace(max(enough(rung, config), min(config.sizes)), max(config.sizes), 200)
        axis.plot(sizes, predicted(w, rung, sizes, config), color="black", linewidth=0.8, zorder=1, label="predicted")
    axis.set_yscale("log")
    axis.set_ylim(top=20)


def draw_ratios(axis: Any, rows: Rows, config: Config) -> None:
    """The risks of all teachers over the predicted ones."""
    ratios = [row | {"ratio": row["risk"] / row["predicted"]} for row in rows if "risk" in row]
    ratios = averaged(ratios, "ratio", ["teacher", "rung", "n"])
    axis.axhspan(0.95, 1.05, color="0.9", zorder=0)
    for place, rung in enumerate(RUNGS):
        line, style = [row for row in ratios if row["rung"] == rung], STYLES[rung]
        at = [row["n"] * 1.05 ** (place + config.teachers.index(row["teacher"]) / 8 - 2) for row in line]
        means, ends = [row["ratio"] for row in line], np.array([[row["ratio_low"], row["ratio_high"]] for row in line]).T
        axis.vlines(at, *ends, color=style.colour, linewidth=1, alpha=0.6)
        axis.plot(at, means, style.marker, color=style.colour, markersize=5)
    axis.set(xscale="log", xlabel=IMAGES, ylabel="risk measured / predicted, 95 % interval")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
