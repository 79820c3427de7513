"""How many examples does each rung need, and how does this number grow with the task?

Two tasks of theory are learnt by the networks of the theory, on three rungs.

- DSD: a signal of d pixels is in one of k patches, and its sign is the class. The network has one unit per patch, a soft
  threshold, and their sum.
- Halves: which half of 2d Gaussian pixels has more energy? The network has units of one tap, squares, and two weights per unit,
  one for each half.

At every size of the task the experiment searches for the smallest training set with which networks trained by Adam reach the
target on new examples. Exponents are fitted on logarithmic axes, with bootstrap intervals over seeds. Predictions for DSD, up
to logarithms: convolution k + d, locally connected k d to k (k + d), dense k^2 d and more, all times the variance of the noise.
Predictions for the halves: 1, d and d^2. Baseline: the largest set that was tried.

Answer: in the number of patches the need of local kernels grows by 0.9 of a power faster than a convolution's (exponents 1.45
and 0.57). Dense networks need 14 times as many examples as local ones, with an exponent of 2.0. For the halves the exponents
are 0.2, 1.05 and 2.1. All of these agree with theory. Two results do not. A convolution's exponent in the pixels of a patch is
0.98 instead of 0.34. The exponents in the noise are 3.9 and 4.0 instead of 2, for convolutions and local kernels.

    python -m experiments.sample_complexity                                         (4 1/2 minutes on 2 cores)

Reference: Lahoti et al. 2024, Role of locality and weight sharing in image-based tasks; Li, Zhang and Arora 2021, Why are
convolutional nets more sample-efficient than fully-connected nets?
"""

import dataclasses
import functools
import inspect
import math
import pathlib
import zlib
from typing import Any

import numpy as np
import optax

from convlab import report, tasks
from convlab.tasks import signals
from convlab.train import make_learner
from experiments.parts import theory_tasks
from experiments.parts.theory_tasks import HALF, SIZES, Setting, Tasks, best_threshold, laws, predicted
from experiments.shared.command import Rows, main
from experiments.shared.progress import at_once

MORE = "locally connected against convolution"
FORMATS = {"exponent": ".2f"}


@dataclasses.dataclass(frozen=True)
class Config(Tasks):
    """The settings of the experiment.

    Args:
      least: The size of the smallest training set.
      most: The size of the largest training set.
      steps: The largest number of training steps.
      learning_rate: The learning rate of Adam.
      seeds: The number of runs, each with its own examples and initial weights.
      root: The folder of the results.
    """

    least: int = 1
    most: int = 12_000
    steps: int = 8000
    learning_rate: float = 1e-2
    seeds: int = 12
    root: str = "runs"


SMOKE = Config(
    rungs=("conv",), patches=(16,), pixels=(), noise=(0.3,), half=(2, 3), target=(0.7, 0.7), most=128, steps=200, seeds=2
)
FULL = Config(
    patches=(16, 24, 32, 48, 64, 96),
    dense_patches=(16, 20, 24, 28, 32),
    pixels=(4, 8, 16, 32),
    noise=(0.18, 0.2, 0.22, 0.24, 0.26),
    half=(4, 8, 16, 32, 64),
    dense_half=(4, 8, 16, 32),
    most=32_768,
    steps=20_000,
    seeds=16,
)


# the source text of all code that determines scores; scores of other code are not reused
CODE = (pathlib.Path(__file__).read_text("utf-8"), *map(inspect.getsource, (theory_tasks, make_learner, signals)))
SOURCE = zlib.crc32("".join(CODE).encode())


def run(config: Config) -> Rows:
    """Return one row per setting and seed. Scores that an interrupted run measured are reused."""
    cases = list(theory_tasks.settings(config))
    different = {(case.name, case.rung): case for case in cases}
    needed = dict(zip(different, at_once(functools.partial(needs, config), different.values(), "tasks and rungs"), strict=True))
    return [
        {"varied": case.varied, "size": case.size, "rung": case.rung, "seed": seed, "examples_needed": examples}
        for case in cases
        for seed, examples in enumerate(needed[case.name, case.rung])
    ]


def needs(config: Config, case: Setting) -> tuple[float, ...]:
    """Return the number of examples that every seed needs."""
    optimizer = optax.adam(config.learning_rate)
    learn = make_learner(case.build, case.task.sample, config.most, max_steps=config.steps, optimizer=optimizer)
    identity = (case.name, case.rung, case.target, config.least, config.most, config.steps, config.learning_rate, SOURCE)
    complexity = tasks.examples_needed(
        learn,
        case.target,
        range(config.seeds),
        min_examples=config.least,
        max_examples=config.most,
        path=pathlib.Path(config.root, "sample_complexity_runs", f"{case.name} {case.rung}.jsonl"),
        learner_name=str(identity),
    )
    print(f"{case.name}, {case.rung}:", *(f"{examples:.0f}" for examples in complexity.examples), flush=True)
    return complexity.examples


def table(rows: Rows, config: Config) -> Rows:
    """Fit an exponent for each varied number and rung, next to the prediction.

    Only sizes that all seeds learnt are used.
    """
    needed: dict[tuple[str, str], dict[float, list[float]]] = {}
    for row in rows:
        needed.setdefault((row["varied"], row["rung"]), {}).setdefault(row["size"], []).append(row["examples_needed"])
    lines = []
    for (varied, rung), sizes in needed.items():
        geometric = {f"at {size:g}": float(np.exp(np.mean(np.log(examples)))) for size, examples in sizes.items()}
        row = {"varied": varied, "rung": rung} | _exponent(sizes)
        row["predicted"] = " to ".join(dict.fromkeys(f"{power:.2f}" for power in predicted(varied, rung, config)))
        row["examples"] = ", ".join(f"{n:,.0f} {at}" for at, n in geometric.items())
        row["best_threshold"] = ", ".join(
            f"{best_threshold(law[0], law[2]):.1%}" for law in laws(config)[varied, rung].values() if law
        )
        lines.append(row)
    for varied in SIZES:
        conv, local = (needed.get((varied, rung), {}) for rung in ("conv", "locally_connected"))
        if both := {size: np.divide(local[size], conv[size]) for size in conv if size in local}:
            lines.append({"varied": varied, "rung": MORE} | _exponent(both))
    return lines


def _exponent(needed: dict[float, Any]) -> dict[str, float | None]:
    known = {size: examples for size, examples in needed.items() if np.isfinite(examples).all()}
    exponent = tasks.fit_power_law(known).exponent if len(known) > 1 else (None, None, None)
    return dict(zip(("exponent", "exponent_low", "exponent_high"), exponent, strict=True))


def draw(rows: Rows, config: Config) -> Any:
    """Draw examples needed against the size of the task, with a panel for each number that was varied."""
    unknown = {(row["varied"], row["size"], row["rung"]) for row in rows if not math.isfinite(row["examples_needed"])}
    logs = [
        row | {"log": math.log(row["examples_needed"])}
        for row in rows
        if (row["varied"], row["size"], row["rung"]) not in unknown
    ]
    panels = [varied for varied in SIZES if any(row["varied"] == varied for row in logs)]
    figure, axes = report.new_figure(len(panels), size=(max(12.0, 6.0 * len(panels)), 6.5))
    lines = table(rows, config)
    for axis, varied in zip(axes, panels, strict=True):
        means = report.summarise([row for row in logs if row["varied"] == varied], ["rung", "size"], "log")
        ends = {"log": "examples_needed", "log_low": "examples_needed_low", "log_high": "examples_needed_high"}
        means = [row | {new: math.exp(row[old]) for old, new in ends.items()} for row in means]
        for line in (line for line in lines if line["varied"] == varied and line["exponent"] is not None):
            draw_theory(axis, [row for row in means if row["rung"] == line["rung"]], line, config)
        axis.plot([], [], ":", color="0.4", label="as theory has it grow, from the first point")
        task, target = ("halves", 1) if varied == HALF else (f"DSD against {varied}", 0)
        words: dict[str, Any] = {"x_label": SIZES[varied], "title": f"{task}, {config.target[target]:.0%} right"}
        words |= {"y_label": "examples needed, 95 % interval", "baselines": {"largest set tried": config.most}}
        report.curves(axis, means, "size", "examples_needed", log_x=True, log_y=True, **words)
        axis.margins(x=0.2)
    return figure


def draw_theory(axis: Any, points: Rows, line: dict[str, Any], config: Config) -> None:
    """Draw the predicted growth of a rung's need from its first point.

    The measured exponent is written at the last point.
    """
    if len(points) > 1:
        colour, first, last = report.RUNG_STYLE[line["rung"]].colour, points[0], points[-1]
        for power in predicted(line["varied"], line["rung"], config):
            ends = [first["examples_needed"], first["examples_needed"] * (last["size"] / first["size"]) ** power]
            axis.plot([first["size"], last["size"]], ends, ":", color=colour, zorder=0)
        position = (last["size"], last["examples_needed"])
        axis.annotate(f"{line['exponent']:.2f}", position, (14, -6), textcoords="offset points", color=colour, size=15)


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
