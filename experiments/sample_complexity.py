"""How many examples does each rung need, and how does the need grow with the task?

Two tasks of theory, and the network that it speaks of at three rungs. A signal of d pixels in one of k patches, its sign the
class (DSD): one unit a patch, a soft threshold, and their sum. Which half of 2d Gaussian pixels has more energy: units of one
tap, squares, and two weights a unit, one for each half. At every size of the task the smallest training set is looked for at
which networks trained by Adam reach the target on new examples; exponents are fitted in log-log, their intervals by bootstrap
over seeds. Predicted for DSD, up to logarithms: convolution k + d, locally connected k d to k (k + d), dense k^2 d and more,
all times the variance of the noise; for the halves 1, d and d^2. Baseline: the largest set that was tried.

Answer: in the number of patches the need of local kernels grows by 0.9 of a power faster than a convolution's (exponents 1.45
and 0.57), and dense networks need 14 times theirs, with an exponent of 2.0; for the halves the exponents are 0.2, 1.05 and 2.1.
All of these are as theory has it. Not as predicted are the exponents in the pixels of a patch for a convolution, 0.98 and not
0.34, and in the noise for both rungs, 3.9 and 4.0 and not 2.

    python -m experiments.sample_complexity                                         (4 1/2 minutes on 2 cores)

Reference: Lahoti et al. 2024, Role of locality and weight sharing in image-based tasks; Li, Zhang and Arora 2021, Why are
convolutional nets more sample-efficient than fully-connected nets?
"""

import dataclasses
import functools
import inspect
import math
import pathlib
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from convlab import measure, report, tasks
from convlab.layers import connect
from convlab.tasks import signals
from convlab.train import learner
from experiments.command import parse
from experiments.settings import at_once

PATCHES, PIXELS, NOISE, HALF = "patches", "pixels", "noise", "half"
SIZES = {PATCHES: "k, patches of 8 pixels", PIXELS: "d, pixels of each of 16 patches", NOISE: "standard deviation of the noise"}
SIZES[HALF] = "d, pixels of each half"
# what theory says of the need, up to a factor and logarithms; where it gives bounds, the lower and the upper one
THEORY: dict[str, tuple[Callable[[float, float, float], float], ...]] = {
    "conv": (lambda k, d, sigma: sigma**2 * (k + d),),
    "locally_connected": (lambda k, d, sigma: sigma**2 * k * d, lambda k, d, sigma: sigma**2 * k * (k + d)),
    "dense": (lambda k, d, sigma: sigma**2 * k**2 * d,),
}
HALVES = {"conv": 0.0, "locally_connected": 1.0, "dense": 2.0}  # exponents that theory gives
MORE = "locally connected against conv"
PACE = 0.3  # of a threshold's steps


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      rungs: Of the networks.
      patches: k of the first task, at 8 pixels.
      dense_patches: k for the dense network, which needs more examples than there are soon.
      pixels: d of the first task, at 16 patches.
      noise: Standard deviations, at 16 patches of 8 pixels; the first of them where another number varies. At none of these
        sizes does a linear rule, whose noise is that of all patches together, reach the target; a threshold on each patch does.
      half: d of the second task.
      dense_half: d for the dense network.
      target: Accuracy to reach, of each task.
      least: Smallest training set.
      most: Largest training set.
      steps: Of training, at most.
      learning_rate: Of Adam.
      seeds: Runs with other examples and initial weights.
      root: Folder that the results go to.
    """

    rungs: tuple[str, ...] = ("conv", "locally_connected", "dense")
    patches: tuple[int, ...] = (16, 32, 64)
    dense_patches: tuple[int, ...] = (16, 20, 24)
    pixels: tuple[int, ...] = (4, 8, 16)
    noise: tuple[float, ...] = (0.18, 0.22, 0.26)
    half: tuple[int, ...] = (4, 8, 16, 32)
    dense_half: tuple[int, ...] = (4, 8, 16)
    target: tuple[float, float] = (0.94, 0.85)
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


# of other code, other scores
SOURCE = zlib.crc32("".join([pathlib.Path(__file__).read_text(), *map(inspect.getsource, (learner, signals))]).encode())


class Thresholds(nnx.Module):
    """One unit for each patch at the rung, a soft threshold that is learnt, and their sum: the score of "plus".

    The threshold takes steps of a third: at the pace of the kernel it rises above all units before that has found anything,
    and what is below the threshold learns no more (of eight convolutions on 8 patches of 4 pixels, with all examples, three).
    """

    def __init__(self, patches: int, pixels: int, rung: str, rngs: nnx.Rngs):
        self.layer = _layer(rung, patches * pixels, 1, pixels, rngs)
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        h, b = self.layer(x), PACE * self.bias[...]
        score = (nnx.relu(h - b) - nnx.relu(-h - b)).sum((1, 2))
        return jnp.stack([-score, score], -1)


class Energies(nnx.Module):
    """Two units a pixel at the rung, squared, summed over each half, and weighed: the score of "first"."""

    def __init__(self, half: int, rung: str, rngs: nnx.Rngs):
        self.layer, self.half = _layer(rung, 2 * half, 2, 1, rngs), half
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (2, 2)) / math.sqrt(2))
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        energy = (self.layer(x) ** 2).reshape(len(x), 2, self.half, 2).sum(2) / math.sqrt(self.half)
        score = (energy * self.weight[...]).sum((1, 2)) + self.bias[...]
        return jnp.stack([-score, score], -1)


def _layer(rung: str, length: int, units: int, taps: int, rngs: nnx.Rngs) -> nnx.Module:
    return connect(rung, 1, units, taps, taps, padding="VALID", space=(length,), use_bias=False, rngs=rngs)


class Setting(NamedTuple):
    """A task of one size, at one rung; of the same name where other numbers varied to the same task."""

    name: str
    varied: str
    size: float
    rung: str
    task: tasks.Task
    build: Callable[[nnx.Rngs], nnx.Module]
    target: float
    law: tuple[int, int, float] | None = None


def settings(config: Config) -> Iterator[Setting]:
    """All that is measured."""
    key = jax.random.key(0)
    for rung in config.rungs:
        dense, base = rung == "dense", config.noise[0]
        cases = [(PATCHES, k, (k, 8, base)) for k in (config.dense_patches if dense else config.patches)]
        cases += [] if dense else [(PIXELS, d, (16, d, base)) for d in config.pixels]
        cases += [] if dense else [(NOISE, sigma, (16, 8, sigma)) for sigma in config.noise]
        for varied, size, (k, d, sigma) in cases:
            task = tasks.random_patch(k, d, sigma, key)
            name, build = f"{k} patches {d} pixels {sigma:g}", functools.partial(Thresholds, k, d, rung)
            yield Setting(name, varied, size, rung, task, build, config.target[0], (k, d, sigma))
        for half in config.dense_half if dense else config.half:
            task = tasks.halves(half)
            build = functools.partial(Energies, half, rung)
            yield Setting(f"half {half}", HALF, half, rung, task, build, config.target[1])


@functools.cache  # the table and the figure ask for it
def laws(config: Config) -> dict[tuple[str, str], dict[float, tuple[int, int, float] | None]]:
    """Patches, pixels and noise of every size of the first task, by what was varied and rung; None of the second."""
    found: dict[tuple[str, str], dict[float, tuple[int, int, float] | None]] = {}
    for case in settings(config):
        found.setdefault((case.varied, case.rung), {})[case.size] = case.law
    return found


@functools.cache
def best_threshold(k: int, sigma: float) -> float:
    """Accuracy of the best rule that adds up what a threshold leaves of each patch, along the true signal: a ceiling."""
    rng = np.random.default_rng(0)
    h = sigma * rng.standard_normal((20_000, k))
    h[:, 0] += 1
    scores = ((np.maximum(h - b, 0) - np.maximum(-h - b, 0)).sum(1) for b in np.arange(0, 1, 0.05))
    return max(float(np.mean(score > 0) + np.mean(score == 0) / 2) for score in scores)


def run(config: Config) -> list[dict[str, Any]]:
    """One row per setting and seed; what was measured before, by a run that stopped, is taken from its file."""
    cases = list(settings(config))
    different = {(case.name, case.rung): case for case in cases}
    needed = dict(zip(different, at_once(functools.partial(needs, config), different.values()), strict=True))
    return [
        {"varied": case.varied, "size": case.size, "rung": case.rung, "seed": seed, "needed": examples}
        for case in cases
        for seed, examples in enumerate(needed[case.name, case.rung])
    ]


def needs(config: Config, case: Setting) -> tuple[float, ...]:
    """Examples that every seed needs."""
    learn = learner(case.build, case.task.sample, config.most, steps=config.steps, optimizer=optax.adam(config.learning_rate))
    own = (case.name, case.rung, case.target, config.least, config.most, config.steps, config.learning_rate, SOURCE)
    found = measure.examples_needed(
        learn,
        case.target,
        range(config.seeds),
        least=config.least,
        most=config.most,
        path=pathlib.Path(config.root, "sample_complexity_runs", f"{case.name} {case.rung}.jsonl"),
        of=str(own),
    )
    print(f"{case.name}, {case.rung}:", *(f"{examples:.0f}" for examples in found.examples), flush=True)
    return found.examples


def slopes(rows: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """An exponent for each number that was varied and rung, of the sizes that all seeds learnt, beside what theory says."""
    needed: dict[tuple[str, str], dict[float, list[float]]] = {}
    for row in rows:
        needed.setdefault((row["varied"], row["rung"]), {}).setdefault(row["size"], []).append(row["needed"])
    found = []
    for (varied, rung), sizes in needed.items():
        geometric = {f"at {size:g}": float(np.exp(np.mean(np.log(each)))) for size, each in sizes.items()}
        row = {"varied": varied, "rung": rung} | _exponent(sizes)
        row["predicted"] = " to ".join(dict.fromkeys(f"{power:.2f}" for power in predicted(varied, rung, config)))
        row["examples"] = ", ".join(f"{n:,.0f} {at}" for at, n in geometric.items())
        row["best_threshold"] = ", ".join(
            f"{best_threshold(law[0], law[2]):.1%}" for law in laws(config)[varied, rung].values() if law
        )
        found.append(row)
    for varied in SIZES:
        conv, local = (needed.get((varied, rung), {}) for rung in ("conv", "locally_connected"))
        if both := {size: np.divide(local[size], conv[size]) for size in conv if size in local}:
            found.append({"varied": varied, "rung": MORE} | _exponent(both))
    return found


def _exponent(needed: dict[float, Any]) -> dict[str, float | None]:
    known = {size: each for size, each in needed.items() if np.isfinite(each).all()}
    exponent = measure.slope(known).exponent if len(known) > 1 else (None, None, None)
    return dict(zip(("exponent", "exponent_low", "exponent_high"), exponent, strict=True))


def predicted(varied: str, rung: str, config: Config) -> list[float]:
    """Exponents of what theory says at these sizes, fitted as those of what was measured are."""
    if varied == HALF:
        return [HALVES[rung]]
    sizes = {size: of for size, of in laws(config)[varied, rung].items() if of}
    if len(sizes) < 2:
        return []
    return sorted(measure.slope({size: [law(*of)] for size, of in sizes.items()}).exponent.mean for law in THEORY[rung])


def draw(rows: list[dict[str, Any]], table: list[dict[str, Any]], config: Config) -> Any:
    """Examples needed against the size of the task that all seeds learnt, a panel for each number that was varied."""
    unknown = {(row["varied"], row["size"], row["rung"]) for row in rows if not math.isfinite(row["needed"])}
    logs = [row | {"log": math.log(row["needed"])} for row in rows if (row["varied"], row["size"], row["rung"]) not in unknown]
    panels = [varied for varied in SIZES if any(row["varied"] == varied for row in logs)]
    figure, axes = report.new_figure(len(panels), size=(max(12.0, 6.0 * len(panels)), 6.5))
    for axis, varied in zip(axes, panels, strict=True):
        summary = report.summarise([row for row in logs if row["varied"] == varied], ["rung", "size"], "log")
        ends = {"log": "needed", "log_low": "needed_low", "log_high": "needed_high"}
        summary = [row | {new: math.exp(row[old]) for old, new in ends.items()} for row in summary]
        for line in table:
            points = [row for row in summary if row["rung"] == line["rung"]]
            if line["varied"] != varied or len(points) < 2 or line["exponent"] is None:
                continue
            style, first, last = report.RUNG_STYLE[line["rung"]], points[0], points[-1]
            for power in predicted(varied, line["rung"], config):
                ends = [first["needed"], first["needed"] * (last["size"] / first["size"]) ** power]
                axis.plot([first["size"], last["size"]], ends, ":", color=style.colour, zorder=0)
            told, at = f"{line['exponent']:.2f}", (last["size"], last["needed"])
            axis.annotate(told, at, (14, -6), textcoords="offset points", color=style.colour, size=15)
        axis.plot([], [], ":", color="0.4", label="as theory has it grow, from the first point")
        report.curves(
            axis,
            summary,
            "size",
            "needed",
            x_label=SIZES[varied],
            y_label="examples needed, 95 % interval",
            title=f"DSD against {varied}, {config.target[0]:.0%} right"
            if varied != HALF
            else f"halves, {config.target[1]:.0%} right",
            log_x=True,
            baselines={"largest set tried": config.most},
        )
        axis.set_yscale("log")
        axis.margins(x=0.2)
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    table = slopes(rows, config)
    report.save_report(
        "sample_complexity",
        rows,
        config,
        figure=draw(rows, table, config),
        summary=table,
        formats={"exponent": ".2f"},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, full=FULL))
