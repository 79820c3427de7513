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
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import measure, report, tasks
from experiments.command import parse

Learn = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
RUNGS = ("dense", "locally_connected", "tiled", "conv")  # of the estimators


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      teachers: Rungs of the teachers.
      space: Pixels along each axis.
      size: Taps of the window along each axis; zeros around the image.
      channels: Of images and of targets.
      period: Of the tiles.
      noise: Standard deviation, of targets of about 1.
      sizes: Training sets; a rung begins at the first that is larger than its weights by 4.
      target: Risk to reach, of the last panel, with a convolution as teacher.
      seeds: Draws of examples; the teachers stay.
      root: Folder that the results go to.
    """

    teachers: tuple[str, ...] = tasks.RUNGS
    space: tuple[int, int] = (6, 6)
    size: int = 3
    channels: tuple[int, int] = (2, 3)
    period: int = 2
    noise: float = 1.0
    sizes: tuple[int, ...] = (2, 4, 8, 16, 24, 40, 80, 128, 256, 512, 1024)
    target: float = 0.1
    seeds: int = 25
    root: str = "runs"


SMOKE = Config(teachers=("conv",), space=(4, 4), channels=(1, 2), sizes=(8, 40), target=0.5, seeds=2)
FULL = Config(space=(12, 12), channels=(3, 8), sizes=(2, 4, 8, 16, 40, 80, 160, 320, 512, 1024, 2048, 4096, 8192), seeds=100)


def period(rung: str, config: Config) -> tuple[int, int]:
    """Positions along each side of a tile, after which kernels come again: all of them where each has its own."""
    return {"locally_connected": config.space, "tiled": (config.period,) * 2, "conv": (1, 1)}[rung]


def place(rung: str, config: Config) -> np.ndarray:
    """The group of every position, which share their weights."""
    (i, j), (high, wide) = np.indices(config.space), period(rung, config)
    return ((i % high) * wide + j % wide).reshape(-1)


def nearest(w: jax.Array, rung: str, config: Config) -> jax.Array:
    """The matrix of a rung nearest to a dense one, (i, j, k, l, c, d)."""
    if rung == "dense":
        return w
    window = cl.Window((config.size,) * 2)
    local = cl.project_dense_to_local(w, window, config.space)
    return matrix(cl.project_local_to_tiled(local, window, config.space, period(rung, config)), config)


def matrix(v: jax.Array, config: Config) -> jax.Array:
    """The dense matrix of a tiled kernel."""
    window = cl.Window((config.size,) * 2)
    return cl.lift_local_to_dense(cl.lift_tiled_to_local(v, window, config.space), window, config.space)


def teacher(rung: str, config: Config, noise: float) -> tasks.Task:
    """One and the same of each rung, with more or less noise."""
    key = jax.random.key(tasks.RUNGS.index(rung))
    window = cl.Window((config.size,) * 2)
    return tasks.linear_teacher(rung, config.space, window, config.channels, noise, key, period=config.period)


def truth(rung: str, config: Config) -> jax.Array:
    """The matrix of a teacher: without noise, least squares finds it but for rounding."""
    x, y = teacher(rung, config, 0.0).sample(jax.random.key(0), 2 * math.prod(config.space) * config.channels[0])
    w, *_ = np.linalg.lstsq(np.reshape(x, (len(x), -1)), np.reshape(y, (len(x), -1)), rcond=None)
    w = w.reshape(*config.space, config.channels[0], *config.space, config.channels[1])
    return jnp.asarray(np.moveaxis(w, (3, 4), (0, 1)))


def learner(rung: str, config: Config) -> Learn:
    """What takes sizes and seeds to the risks of all estimators; of sets too small for one it is not a number, or any."""
    task, w = teacher(rung, config, config.noise), truth(rung, config)
    (c, d), window = config.channels, cl.Window((config.size,) * 2)

    def solve(gram: jax.Array, products: jax.Array) -> jax.Array:
        dead = jnp.diagonal(gram, axis1=-2, axis2=-1) == 0  # taps on padding alone, which keep a weight of zero
        return jnp.linalg.solve(gram + dead[..., None] * jnp.eye(gram.shape[-1]), products)

    def one(run: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        n, seed = run
        x, y = task.sample(jax.random.key(seed), max(config.sizes))
        x, y = (jnp.where((jnp.arange(len(array)) < n)[:, None, None, None], array, 0) for array in (x, y))
        flat, p = x.reshape(len(x), -1), cl.unfold(x, window).reshape(len(x), y[0, :, :, 0].size, -1)
        found = solve(flat.T @ flat, flat.T @ y.reshape(len(x), -1)).reshape(*config.space, c, *config.space, d)
        learnt = {"dense": jnp.moveaxis(found, (3, 4), (0, 1))}
        grams, products = jnp.einsum("nit,niu->itu", p, p), jnp.einsum("nit,nid->itd", p, y.reshape(*p.shape[:2], d))
        for freer in RUNGS[1:]:
            groups = place(freer, config)
            pooled = (jax.ops.segment_sum(each, groups, groups.max() + 1) for each in (grams, products))
            learnt[freer] = matrix(solve(*pooled).reshape(*period(freer, config), config.size, config.size, c, d), config)
        return {name: jnp.sum((each - w) ** 2) / (w.shape[0] * w.shape[1] * d) for name, each in learnt.items()}

    every = jax.jit(lambda sizes, seeds: jax.lax.map(one, (sizes, seeds)))
    return lambda sizes, seeds: jax.tree.map(np.asarray, every(jnp.asarray(sizes), jnp.asarray(seeds)))


def predicted(w: jax.Array, rung: str, n: Any, config: Config) -> Any:
    """The risk of an estimator of a rung that learns the matrix w from n examples."""
    pixels = math.prod(w.shape[2:5])
    if rung == "dense":
        return config.noise**2 * pixels / (n - pixels - 1)
    apart = np.asarray(w - nearest(w, rung, config), float)
    reads = cl.Window((config.size,) * 2).reads(config.space)
    positions, c = reads.shape[0] * reads.shape[1], config.channels[0]
    apart, reads = apart.reshape(positions, -1, *config.channels), reads.reshape(positions, -1)
    noise = config.noise**2 + (apart**2).sum((1, 2))  # (position, d): what the rung cannot explain is noise to it
    groups, variance = place(rung, config), 0.0
    for group in range(groups.max() + 1):
        members, p, total = np.flatnonzero(groups == group), 0, 0.0
        for tap in reads.T:
            live = members[tap[members] >= 0]
            if len(live):
                across = apart[live][:, tap[live]]  # what output j misses of the pixel that i reads
                extra = np.einsum("jicd,ijcd->d", across, across)
                p, total = p + c, total + (c * noise[live].sum(0) + extra).mean() / len(live)
        variance = variance + total / (n - (p + 1) / len(members))
    return (apart**2).sum((1, 2)).mean() + variance / positions


def enough(rung: str, config: Config) -> int:
    """The smallest training set whose risk has a variance: larger than the weights by 4."""
    if rung == "dense":
        return math.prod(config.space) * config.channels[0] + 4
    return -(-(config.size**2 * config.channels[0] + 4) // int(np.bincount(place(rung, config)).min()))


def run(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
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
            needs = [row for rung in RUNGS for row in needed(learn, w, rung, config)]
    return rows, needs


def needed(learn: Learn, w: jax.Array, rung: str, config: Config) -> list[dict[str, Any]]:
    """Examples to the target, one row per seed, and where the predicted risk crosses it."""
    least, most = enough(rung, config), max(config.sizes)

    def score(sizes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return -learn(sizes, seeds)[rung]

    found = measure.examples_needed(score, -config.target, range(config.seeds), least=least, most=most)
    sizes = np.geomspace(least, most, 10_000)
    crossing = float(np.interp(-config.target, -predicted(w, rung, sizes, config), sizes, right=math.inf))
    told = {"teacher": "conv", "rung": rung, "needed_predicted": crossing}
    return [told | {"seed": seed, "needed": n} for seed, n in enumerate(found.examples)]


def averaged(needs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds of the examples needed, by rung."""
    return report.summarise(needs, ["rung", "needed_predicted"], "needed", bounds={"needed": report.POSITIVE})


def compared(rows: list[dict[str, Any]], needs: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """One line per teacher and estimator: the most examples, the size at which the prediction is worst, and examples needed."""
    summary = report.summarise(rows, ["teacher", "rung", "n", "predicted"], "risk", bounds={"risk": report.POSITIVE})
    wanted = {line["rung"]: line for line in averaged(needs)} if needs else {}
    lines, pairs = [], {(line["teacher"], line["rung"]) for line in summary}
    for pair in (pair for pair in itertools.product(config.teachers, RUNGS) if pair in pairs):
        mine = [line for line in summary if (line["teacher"], line["rung"]) == pair]
        worst = max(mine, key=lambda line: abs(math.log(line["risk"] / line["predicted"])))
        told = {name: mine[-1][name] for name in ("teacher", "rung", "n", "risk", "risk_low", "risk_high", "predicted")}
        told |= {"worst_ratio" + end: worst["risk" + end] / worst["predicted"] for end in ("", "_low", "_high")}
        told |= {"at_n": worst["n"], "sizes": f"{mine[0]['n']} to {mine[-1]['n']}"}
        if pair[0] == "conv" and wanted:
            told |= {name: wanted[pair[1]][name] for name in ("needed", "needed_low", "needed_high", "needed_predicted")}
        lines.append(told)
    return lines


def draw(rows: list[dict[str, Any]], needs: list[dict[str, Any]], config: Config) -> Any:
    """Risk against examples, a panel per teacher, predictions as thin lines; and examples needed."""
    panels = [*config.teachers, "ratio"] + (["needed"] if needs else [])
    figure, axes = report.new_figure(len(panels), rows=1 if len(panels) < 4 else 2, size=(24.0, 10.5))
    styles = {rung: report.RUNG_STYLE[rung]._replace(line="none") for rung in RUNGS}
    for axis, name in zip(axes, config.teachers, strict=False):
        w = truth(name, config)
        taught = [row for row in rows if row["teacher"] == name]
        summary = report.summarise(taught, ["rung", "n", "predicted"], "risk", bounds={"risk": report.POSITIVE})
        report.curves(
            axis,
            sorted(summary, key=lambda line: RUNGS.index(line["rung"])),
            "n",
            "risk",
            x_label="training images, n",
            y_label="risk beyond the noise, per output",
            title=f"teacher: {report.RUNG_STYLE[name].label}",
            log_x=True,
            band=True,
            styles=styles,
            baselines={"predicting zero": float(jnp.mean(jnp.sum(w**2, (2, 3, 4))))},
        )
        for rung in RUNGS:
            sizes = np.geomspace(max(enough(rung, config), min(config.sizes)), max(config.sizes), 200)
            axis.plot(sizes, predicted(w, rung, sizes, config), color="black", linewidth=0.8, zorder=1, label="predicted")
        axis.set_yscale("log")
        axis.set_ylim(top=20)
    ratios = [row | {"ratio": row["risk"] / row["predicted"]} for row in rows]
    ratios = report.summarise(ratios, ["teacher", "rung", "n"], "ratio", bounds={"ratio": report.POSITIVE})
    axis = axes[len(config.teachers)]
    axis.axhspan(0.95, 1.05, color="0.9", zorder=0)
    for place, rung in enumerate(RUNGS):
        line = [row for row in ratios if row["rung"] == rung]
        at = [row["n"] * 1.05 ** (place + config.teachers.index(row["teacher"]) / 8 - 2) for row in line]
        means, ends = [row["ratio"] for row in line], np.array([[row["ratio_low"], row["ratio_high"]] for row in line]).T
        axis.vlines(at, *ends, color=styles[rung].colour, linewidth=1, alpha=0.6)
        axis.plot(at, means, styles[rung].marker, color=styles[rung].colour, markersize=5)
    axis.set(xscale="log", xlabel="training images, n", ylabel="risk measured / predicted, 95 % interval")
    axis.set_title("all teachers; gray: within 5 %", size=axes[0].title.get_fontsize())
    if needs:
        lines = averaged(needs)
        report.comparison(
            axes[-1],
            [line | {"rung": report.RUNG_STYLE[line["rung"]].label} for line in lines],
            "rung",
            "needed",
            label=f"mean of {config.seeds} seeds, 95 % interval",
            x_label=f"images to a risk of {config.target:g}, teacher: convolution",
            title="examples needed",
            references={"predicted need": "needed_predicted"},
        )
        axes[-1].set_xscale("log")
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows, needs = run(config)
    report.save_report(
        "linear_ladder",
        rows + needs,
        config,
        figure=draw(rows, needs, config),
        summary=compared(rows, needs, config),
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, full=FULL))
