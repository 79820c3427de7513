r"""Does each rung of the ladder need as many examples for its weights as theory predicts?

Teachers on every rung produce targets from Gaussian images, with noise. Least squares on four rungs, in closed form, fits them.
Pixels are independent with variance 1, so the risk beyond the noise is the squared distance of two dense matrices and needs no
test set. The predicted risk of one output, in the mean over all m outputs and with no fitted number, is

$$b^2 + \frac{1}{m} \sum_q \frac{\sum_t \operatorname{mean}_i (\sigma^2 + |d_i|^2) + c_t}{n - (p_q + 1) / m_q}, \qquad
c_t = \frac{1}{m_q} \sum_{ij} d_i[j, t] \, d_j[i, t]$$

where the m_q positions i, j of group q share p_q weights t. The matrix d is the teacher minus the nearest matrix of the rung.
d_i[j, t] is its weight to output i from the pixel that tap t of j reads, and b^2 is the mean of |d_i|^2.

In dense and local layers every output is a group, m_q = 1. The formula is then exact, and equals $\sigma^2 p / (n - p - 1)$ if
the rung contains the teacher. In that case a convolution, which is one group of m, has $\sigma^2 p / (n m - p - 1)$. That is,
overlapping windows cost nothing to second order in p / (n m). To a rung that does not contain the teacher, d x acts as noise.
If outputs share weights, their noise is not independent, which gives c. Null model: predicting zero.

Answer: yes; 153 of 165 means lie within 5 %, and none is further than 12 %. Tiles with barely enough examples have a risk
11.5 % above the prediction, which is not explained by chance.

    python -m experiments.linear_ladder                                                (1 minute)

Reference: Hastie, Montanari, Rosset and Tibshirani 2022, Surprises in high-dimensional ridgeless least squares
interpolation (dense); Isserlis 1918, On a formula for the product-moment coefficient (four Gaussians).
"""

import dataclasses
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from convlab import report
from convlab.report.drawing import slide_style
from experiments.parts.least_squares import RUNGS, TEACHERS, Problem, enough, learner, needed, predicted, truth
from experiments.shared.command import Rows, main
from experiments.shared.progress import track

IMAGES = "training images, n"
STYLES = {rung: report.RUNG_STYLE[rung]._replace(line="none") for rung in RUNGS}


@dataclasses.dataclass(frozen=True)
class Config(Problem):
    """The settings of the experiment.

    Args:
      teachers: The rungs of the teachers.
      target: The risk to reach, with a convolution as teacher.
      seeds: The number of draws of examples. The teachers stay the same.
      root: The folder of the results.
    """

    teachers: tuple[str, ...] = TEACHERS
    target: float = 0.1
    seeds: int = 25
    root: str = "runs"


SMOKE = Config(teachers=("conv",), space=(4, 4), channels=(1, 2), sizes=(8, 40), target=0.5, seeds=2)
FULL = Config(space=(12, 12), channels=(3, 8), sizes=(2, 4, 8, 16, 40, 80, 160, 320, 512, 1024, 2048, 4096, 8192), seeds=100)


def run(config: Config) -> Rows:
    """Return the rows of risks, and those of the examples needed.

    Risks have one row per teacher, estimator, size and seed. Examples needed have one row per estimator and seed, with a
    convolution as teacher.
    """
    rows, needs, seeds = [], [], np.arange(config.seeds)
    for name in config.teachers:
        learn, w = learner(name, config), truth(name, config)
        for n in track(config.sizes, f"sizes, teacher {name}"):
            risks = learn(np.full(config.seeds, n), seeds)
            for rung in (rung for rung in RUNGS if n >= enough(rung, config)):
                labels = {"teacher": name, "rung": rung, "n": n, "predicted": float(predicted(w, rung, n, config))}
                rows += [labels | {"seed": seed, "risk": float(risk)} for seed, risk in enumerate(risks[rung])]
        if name == "conv":
            needs = [row for rung in RUNGS for row in needed(learn, w, rung, config, config.target, config.seeds)]
    return rows + needs


def averaged(rows: Rows, value: str, by: list[str]) -> Rows:
    """Average one value over the seeds, of the rows that have it."""
    return report.summarise([row for row in rows if value in row], by, value, bounds={value: report.POSITIVE})


def table(rows: Rows, config: Config) -> Rows:
    """Return one line per teacher and estimator.

    It has the risk with the most examples, the size with the worst prediction, and the examples needed.
    """
    risks = averaged(rows, "risk", ["teacher", "rung", "n", "predicted"])
    needs = {line["rung"]: line for line in averaged(rows, "examples_needed", ["rung", "examples_needed_predicted"])}
    lines, pairs = [], {(line["teacher"], line["rung"]) for line in risks}
    for teacher, rung in (pair for pair in itertools.product(config.teachers, RUNGS) if pair in pairs):
        sizes = [line for line in risks if (line["teacher"], line["rung"]) == (teacher, rung)]
        worst = max(sizes, key=lambda line: abs(math.log(line["risk"] / line["predicted"])))
        columns = {name: sizes[-1][name] for name in ("teacher", "rung", "n", "risk", "risk_low", "risk_high", "predicted")}
        columns |= {"worst_ratio" + end: worst["risk" + end] / worst["predicted"] for end in ("", "_low", "_high")}
        columns |= {"at_n": worst["n"], "sizes": f"{sizes[0]['n']} to {sizes[-1]['n']}"}
        if teacher == "conv" and needs:
            columns |= {
                name: needs[rung][name]
                for name in ("examples_needed", "examples_needed_low", "examples_needed_high", "examples_needed_predicted")
            }
        lines.append(columns)
    return lines


def draw(rows: Rows, config: Config) -> Any:
    """Draw risk against examples for one teacher, and for all teachers the risks divided by the predicted ones."""
    figure, (risks, ratios) = report.new_figure(2, size=(13.0, 6.5))
    draw_ratios(ratios, rows, config)
    draw_risks(risks, rows, config.teachers[-1], config)
    return figure


def draw_risks(axis: Any, rows: Rows, teacher: str, config: Config) -> None:
    """Draw measured and predicted risks against the training images, for one teacher."""
    w = truth(teacher, config)
    lines = averaged([row for row in rows if row["teacher"] == teacher], "risk", ["rung", "n", "predicted"])
    lines = sorted(lines, key=lambda line: RUNGS.index(line["rung"]))
    zero = float(jnp.mean(jnp.sum(w**2, (2, 3, 4))))
    words: dict[str, Any] = {"title": f"risk, with a {report.RUNG_STYLE[teacher].label} as teacher", "band": True}
    words |= {"y_label": "risk beyond the noise, per output", "baseline_labels": "left"}
    words |= {"baselines": {"predicting zero": zero, f"risk of {config.target:g}": config.target}}
    for rung in RUNGS:
        sizes = np.geomspace(max(enough(rung, config), min(config.sizes)), max(config.sizes), 200)
        axis.plot(sizes, predicted(w, rung, sizes, config), color="black", linewidth=0.8, zorder=1, label="predicted")
    report.curves(axis, lines, "n", "risk", x_label=IMAGES, log_x=True, log_y=True, styles=STYLES, **words)
    axis.set(xlim=(min(config.sizes) / 6, None), ylim=(None, 20))


def draw_ratios(axis: Any, rows: Rows, config: Config) -> None:
    """Draw the risks of all teachers divided by the predicted ones."""
    ratios = [row | {"ratio": row["risk"] / row["predicted"]} for row in rows if "risk" in row]
    ratios = averaged(ratios, "ratio", ["teacher", "rung", "n"])
    axis.axhspan(0.95, 1.05, color="0.9", zorder=0, label="within 5 % of the prediction")
    for index, rung in enumerate(RUNGS):
        line, style = [row for row in ratios if row["rung"] == rung], STYLES[rung]
        x = [row["n"] * 1.05 ** (index + config.teachers.index(row["teacher"]) / 8 - 2) for row in line]
        means, ends = [row["ratio"] for row in line], np.array([[row["ratio_low"], row["ratio_high"]] for row in line]).T
        axis.vlines(x, *ends, color=style.colour, linewidth=1, alpha=0.6)
        axis.plot(x, means, style.marker, color=style.colour, markersize=5)
    with slide_style():
        axis.set(xscale="log", xlabel=IMAGES, ylabel="risk measured / predicted, 95 % interval")
        axis.set_title(f"ratio to the prediction, all {len(config.teachers)} teachers")


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
