"""How many kernels does it take to undo a blur that varies over the picture?

A photograph is blurred by a lens whose kernel is round in the centre, and turns and widens towards the corners. It is known at
25 positions. `algebra.varying_blur` interpolates between them and writes the blur with r kernels that positions mix. Truncation
to r kernels changes the sums of the kernels, so the blur is also tried with every kernel scaled to a sum of 1. Pictures with
noise are restored in two ways:

- Conjugate gradients minimise the squared error of the blurred scene plus a weight times its squared gradient. The blur is that
  of rank r, or one shared kernel, the average of the known ones.
- Networks of two layers learn a correction of the picture, with shared kernels, mixtures of r kernels, or a kernel per pixel.

The scene goes on outside of the picture, so no border is made up. Test pictures are squares of one photograph. Networks learn
on a second photograph. The weight of the gradient and the learning rates are those that are best on a third. Null baselines:
the blurred picture itself, and conjugate gradients with the shared kernel. Errors are peak signal-to-noise ratios, in decibels.

The experiment also times one blur of a larger picture: by the low-rank layer, by a Fourier transform for every kernel, and by a
kernel per pixel.

    python -m experiments.deblur                                                     (5 minutes on 2 busy cores)

Reference: Nagy and O'Leary 1998, Restoring images degraded by spatially variant blur; Denis et al. 2015.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from convlab import algebra, report
from experiments.parts import restoration
from experiments.parts.photographs import TEST, VALIDATION, draw_picture, mosaic
from experiments.parts.restoration import Restorer, Training, best, conjugate_gradients, inside, pictures, psnr
from experiments.parts.timed_blur import FOURIER, LAYER, WINDOWS, timed_blurs
from experiments.shared.command import Result, Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import gain_of, styles

NOTHING, SHARED, VARYING = "no restoration", "one shared kernel", "varying kernels"
SCALED = "varying kernels of sum 1"
NETWORKS = {"conv": "network, shared kernels", "low_rank": "network, low rank", "locally_connected": "network, local kernels"}
TITLES = {NOTHING: "the picture", SHARED: "one shared kernel", SCALED: "varying kernels"}
COLUMNS = ["method", "rank", "setting", "kernel_error"]
LARGEST = 0.3  # the error that is drawn black
STYLES = styles({VARYING: "low_rank", SCALED: "conv", LAYER: "conv", FOURIER: "dense"})
FORMATS = {"psnr": ".2f", "gain": "+.2f", "p": ".1g", "kernel_error": ".1%", "setting": ".0e", "ms": ".2f"}


@dataclasses.dataclass(frozen=True)
class Config(Training):
    """The settings of the experiment.

    Args:
      ranks: The numbers of kernels of the varying blur.
      weights: The weights of the gradient, of which the best on the validation photograph is used.
      iterations: The number of steps of conjugate gradients.
      network_rank: The number of kernels of a layer of the low-rank network.
      restarts: The number of trained networks of each kind, whose results are averaged.
      seeds: The number of test pictures, each with its own noise.
      validation: The number of validation pictures.
      timed_side: The height and width of the picture of the timed blurs.
      timed_seconds: The time for each timed blur.
      root: The folder of the results.
    """

    ranks: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 13)
    weights: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    iterations: int = 60
    network_rank: int = 6
    restarts: int = 2
    seeds: int = 8
    validation: int = 4
    timed_side: int = 192
    timed_seconds: float = 0.5
    root: str = "runs"


SMOKE = Config(
    **{"field": 20, "taps": 5, "nodes": 2, "width": 1, "sizes": (3, 3), "rates": (1e-3,), "steps": 2, "batch_size": 2},
    **{"ranks": (1, 2), "weights": (1e-3, 1e-2), "iterations": 2, "network_rank": 2, "restarts": 1, "seeds": 2},
    **{"validation": 1, "timed_side": 24, "timed_seconds": 0.0},
)


def blurs(config: Config) -> dict[tuple[str, int], algebra.VaryingBlur]:
    """Return the models of the blur by method and rank: of one average kernel, and of every rank."""
    (psfs, positions), window = config.known(), config.window
    blur = functools.partial(algebra.varying_blur, space=(config.scene,) * 2, window=window)
    models = {(SHARED, 1): blur(psfs.mean(0, keepdims=True), positions[:1])}
    models |= {(VARYING, rank): blur(psfs, positions, rank=rank) for rank in config.ranks}
    return models | {(SCALED, rank): scaled(blur(psfs, positions, rank=rank)) for rank in config.ranks}


def scaled(blur: algebra.VaryingBlur) -> algebra.VaryingBlur:
    """Scale the kernel of every position to a sum of 1, as truncation changes the brightness."""
    weights, basis = blur.layer.weights, blur.layer.basis[...]
    sums = weights[...] @ basis.sum(range(1, basis.ndim))
    weights[...] = weights[...] / sums[..., None]
    return blur


def solver(config: Config, blur: algebra.VaryingBlur, weight: float) -> restoration.Restore:
    """Return conjugate gradients as a function of pictures."""
    return lambda y: inside(config, np.asarray(conjugate_gradients(blur, y, weight, config.iterations)))


def learner(config: Config, rung: str, rate: float, seed: int = 0) -> restoration.Restore:
    """Return a trained network as a function of pictures."""
    return restoration.train(Restorer(rung, config, config.network_rank, seed), config, rate, seed)


def run(config: Config) -> Result:
    """Return one row per method, rank and test picture, and one per timed blur. The arrays are pictures."""
    test, validation = pictures(config, TEST, config.seeds, 0), pictures(config, VALIDATION, config.validation, 1)
    rows, shown = scored(NOTHING, psnr(test.blurred, test.true)), {NOTHING: np.asarray(test.blurred)}
    for (method, rank), blur in track(blurs(config).items(), "blurs"):
        weight, restore = best(functools.partial(solver, config, blur), config.weights, validation)
        shown[method] = restore(test.blurred)
        columns = {"rank": rank, "setting": weight, "kernel_error": float(blur.error)}
        rows += scored(method, psnr(shown[method], test.true), **columns)
    for rung, method in track(NETWORKS.items(), "networks"):
        learn = functools.partial(learner, config, rung)
        rate, first = best(learn, config.rates, validation)
        networks = [first, *(learn(rate, seed) for seed in range(1, config.restarts))]
        scores = np.mean([psnr(network(test.blurred), test.true) for network in networks], 0)
        rows += scored(method, scores, rank={"conv": 1, "low_rank": config.network_rank}.get(rung), setting=rate)
    timed = timed_blurs(config, config.ranks, config.timed_side, config.timed_seconds)
    return Result([*rows, *timed], {"true": test.true, "psfs": np.asarray(config.known()[0])[..., 0, 0], **shown})


def scored(method: str, scores: np.ndarray, **columns: Any) -> Rows:
    """Return a row with the signal-to-noise ratio of every test picture."""
    return [{"method": method, **columns, "seed": n, "psnr": float(score)} for n, score in enumerate(scores)]


def table(rows: Rows, config: Config) -> Rows:
    """Average over the pictures, with the gain over one shared kernel picture by picture, and the times."""
    restored = [dict.fromkeys(COLUMNS) | row for row in rows if row.get("psnr") is not None]
    tests = report.paired_differences(restored, ["method", "rank"], {"method": SHARED, "rank": 1}, "psnr")
    gains = {(test["method"], test["rank"]): gain_of(test, "psnr") for test in tests}
    lines = [line | gains.get((line["method"], line["rank"]), {}) for line in report.summarise(restored, COLUMNS, "psnr")]
    return lines + [row for row in rows if row.get("ms") is not None]


def draw(rows: Rows, config: Config, arrays: dict[str, np.ndarray]) -> Any:
    """Draw one test picture before and after, and restoration and time against the rank."""
    figure, axes = report.new_figure(10, rows=2, size=(21.0, 8.4))
    gains = psnr(arrays[SCALED], arrays["true"]) - psnr(arrays[SHARED], arrays["true"])
    middle = int(np.argsort(gains)[len(gains) // 2])  # the picture of the median gain
    true = arrays["true"][middle, ..., 0]
    draw_picture(axes[0], true, "the scene")
    draw_picture(axes[5], mosaic(arrays["psfs"]), "the kernels of the blur")
    for number, method in enumerate((NOTHING, SHARED, SCALED), 1):
        image = np.clip(arrays[method][middle, ..., 0], 0, 1)
        score = psnr(image[None, ..., None], true[None, ..., None])[0]
        draw_picture(axes[number], image, f"{TITLES[method]}: {score:.1f} dB")
        draw_picture(axes[number + 5], 1 - abs(image - true) / LARGEST, f"its error (black: {LARGEST})")
    lines = table(rows, config)
    by_method = {line["method"]: line for line in lines}
    network = max(NETWORKS.values(), key=lambda name: by_method[name]["gain"])
    baselines = {name: by_method[name]["gain"] for name in (NOTHING, network)}
    curve = [line for line in lines if line["method"] in (SCALED, VARYING)]
    words: dict[str, Any] = {"x_label": "kernels that positions mix (rank)", "log_x": True, "styles": STYLES}
    label, baselines = "dB above one shared kernel", baselines | {SHARED: 0.0}
    report.curves(axes[4], curve, "rank", "gain", "method", y_label=label, baselines=baselines, **words)
    times = [line for line in lines if line["method"] in (LAYER, FOURIER)]
    label = f"ms for {config.timed_side} x {config.timed_side} pixels"
    windows = {WINDOWS: by_method[WINDOWS]["ms"]}
    report.curves(axes[9], times, "rank", "ms", "method", y_label=label, log_y=True, baselines=windows, **words)
    for axis in (axes[4], axes[9]):
        axis.set_xticks(config.ranks, [f"{rank}" for rank in config.ranks])
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
