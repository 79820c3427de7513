"""Along which axis of a sound may kernels be shared?

A tone that rises or falls, at any pitch (`convlab.tasks.chirps`). In a spectrogram of log-frequency, windows as many cycles
long at every pitch, a tone that is higher is the same picture further along; on an axis of linear frequency its slope grows
with its pitch. First that is measured: what is left of the difference of two chirps after the best translation. Then networks
learn to tell rising from falling, or a quick rise from a slow one, from all pitches or from low ones only, and are tried on
high ones that they never heard: on the wave, on either axis with kernels shared along time and frequency, and with kernels
shared along time but of their own at each frequency. All end in the mean over all places, so that only kernels can know a
pitch. Predicted: all can learn what they heard; on pitches never heard only kernels shared along log-frequency are as good.
Nulls: a linear read-out, and one threshold on one number, the peak of the spectrum's mean over time, which a quick rise
spreads.

Answer: two octaves up, the best translation leaves 2 % of a rising tone along log-frequency and 73 % along linear frequency. On
pitches never heard the speed of the rise is told by kernels shared along log-frequency alone (95 %, all other networks 48 to
54 %; one threshold 78 % there, 53 % along linear frequency); its direction by kernels shared along either axis (98 and 100 %),
as higher pitch makes a slope steeper and does not turn it.

    python -m experiments.audio                                                              (4 minutes)

Reference: of the scale, Brown 1991, Calculation of a constant Q spectral transform; of the question, Zhang et al., Dive into
Deep Learning, section 7.1, exercises (convolutions for audio).
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import report, tasks
from convlab.data import Data, Split
from convlab.models import MLP
from experiments.command import parse

LOG, LINEAR, WAVE = "log-frequency", "linear frequency", "wave"
ALL, LOW, HIGH = "all", "low", "high"
TESTS = {(ALL, ALL): "all, all", (LOW, LOW): "low, low", (LOW, HIGH): "low, high"}
AXES = {LOG: "conv", LINEAR: "dense"}  # and the rungs of their colours
QUESTIONS: dict[str, Any] = {"falls or rises": 0.5, "rises 1/4 or 3/4 of an octave": (0.25, 0.75)}
TONES = {0.0: "a tone that stays", 0.75: "a tone that rises by 3/4 of an octave"}
HOP, CYCLES, WIDTH, PER_OCTAVE, MARGIN = 32, 4, 64, 8, 3  # samples; cycles of a window; samples of one; bins; bins at both ends
FINE = 8  # bins of the measured linear axis for one of that which networks see


class Listener(nnx.Module):
    """Two layers with ReLUs, the mean over all places, and a linear read-out."""

    def __init__(self, shape: Sequence[int], sizes: Any, strides: Any, own: bool, seed: int):
        rngs, space, channels = nnx.Rngs(seed), tuple(shape[:-1]), (shape[-1], 8, 16)
        self.layers = nnx.List([])
        for c, d, size, stride in zip(channels[:-1], channels[1:], sizes, strides, strict=True):
            window = cl.Window(size, stride, "VALID")
            out = window.output_shape(space)
            options: dict[str, Any] = {"strides": stride, "padding": "VALID", "rngs": rngs}
            if own:
                self.layers.append(cl.Tiled(c, d, size, period=(1, out[1]), **options))
            else:
                self.layers.append(cl.Conv(c, d, size, **options))
            space = out
        self.head = nnx.Linear(channels[-1], 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x.mean(tuple(range(1, x.ndim - 1))))


class Network(NamedTuple):
    """What a network hears, the rung whose colour it has, and how it is made of the shape of what it hears and a seed."""

    hears: str
    style: str
    build: Callable[[Sequence[int], int], nnx.Module]


def _picture(own: bool) -> Callable[[Sequence[int], int], nnx.Module]:
    return lambda shape, seed: Listener(shape, ((5, 5), (5, 5)), ((1, 1), (1, 1)), own, seed)


NULL = "linear read-out"
PEAKS = {"peak, log-frequency": LOG, "peak, linear frequency": LINEAR}  # one threshold on the peak of the mean spectrum
NETWORKS = {
    "shared, log-frequency": Network(LOG, "conv", _picture(False)),
    "shared, linear frequency": Network(LINEAR, "dense", _picture(False)),
    "own at each log-frequency": Network(LOG, "low_rank", _picture(True)),
    "own at each linear frequency": Network(LINEAR, "locally_connected", _picture(True)),
    "shared, on the wave": Network(WAVE, "shared", lambda shape, seed: Listener(shape, (64, 32), (8, 4), False, seed)),
    NULL: Network(LOG, "null", lambda shape, seed: MLP(shape, 2, (), rngs=nnx.Rngs(seed))),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      networks: Names in `NETWORKS`.
      questions: Names in `QUESTIONS`.
      samples: Of a wave.
      lowest: Lowest frequency, in cycles a sample.
      octaves: From there to the highest; the lower half of them is low.
      noise: Standard deviation, beside tones of amplitude 1.
      shifts: Bins of log-frequency by which a chirp is moved for the residuals.
      size: Training waves.
      test_size: Waves of each test.
      steps: Of training, 50 waves each.
      wave_steps: Those of the network on the wave, which is slower to learn, and quicker to run.
      learning_rate: Of Adam, falling along a cosine.
      wave_rate: That of the network on the wave, which some seeds do not learn by larger steps.
      seeds: Runs with other waves and initial weights; of the residuals, other phases.
      root: Folder that the results go to.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    questions: tuple[str, ...] = tuple(QUESTIONS)
    samples: int = 512
    lowest: float = 0.03
    octaves: float = 3.5
    noise: float = 0.5
    shifts: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    size: int = 500
    test_size: int = 500
    steps: int = 300
    wave_steps: int = 2000
    learning_rate: float = 1e-2
    wave_rate: float = 3e-3
    seeds: int = 5
    root: str = "runs"

    def recipe(self, seed: int, hears: str) -> cl.Config:
        """What `fit` is told."""
        steps, rate = (self.wave_steps, self.wave_rate) if hears == WAVE else (self.steps, self.learning_rate)
        return cl.Config(steps=steps, batch_size=50, learning_rate=rate, evaluations=1, progress=False, seed=seed)

    def axis(self, kind: str, finer: int = 1) -> tuple[np.ndarray, Any]:
        """Frequencies of an axis, and the widths of their windows."""
        bins = int(PER_OCTAVE * self.octaves) + 2 * MARGIN
        log = self.lowest * 2 ** ((np.arange(bins + 1) - MARGIN) / PER_OCTAVE)
        if kind == LOG:
            return log, np.round(CYCLES / log).astype(int)
        return np.linspace(log[0], log[-1], bins * finer + 1), WIDTH


SMOKE = Config(
    networks=("shared, log-frequency",),
    questions=("falls or rises",),
    shifts=(1, 4),
    size=20,
    test_size=20,
    steps=3,
    seeds=2,
)
FULL = Config(samples=2048, size=5000, test_size=5000, steps=3000, wave_steps=20_000, seeds=20)


@functools.cache  # a sampler is compiled once
def law(config: Config, pitches: str, question: str) -> tasks.Task:
    """Chirps of these pitches."""
    octaves = config.octaves if pitches == ALL else config.octaves / 2
    lowest = config.lowest * 2 ** (config.octaves / 2 if pitches == HIGH else 0)
    return tasks.chirps(config.samples, lowest=lowest, octaves=octaves, sweep=QUESTIONS[question], noise=config.noise)


@functools.cache
def transform(config: Config, kind: str, finer: int = 1) -> Callable[[jax.Array], jax.Array]:
    """What makes of waves the spectrogram of an axis."""
    return jax.jit(lambda x: tasks.spectrogram(x, *config.axis(kind, finer), HOP))


def heard(waves: np.ndarray, config: Config, kind: str) -> np.ndarray:
    """What a network hears of waves."""
    return waves if kind == WAVE else np.asarray(transform(config, kind)(jnp.asarray(waves)))


def residual(picture: np.ndarray, moved: np.ndarray) -> float:
    """What the best translation along the second axis leaves of the difference, of the norm; bins that come in are left out."""
    bins = picture.shape[1]
    left = [np.linalg.norm(moved[:, by:] - picture[:, : bins - by]) for by in range(bins - bins // 4)]
    return float(min(left) / np.linalg.norm(moved))


def tones(config: Config, rise: float, shifts: Sequence[int], seed: int) -> np.ndarray:
    """A tone that rises by so many octaves, or none, low, and as much higher as so many bins; without noise."""
    draw = np.random.default_rng(seed)
    middle, phase = draw.uniform(0, 0.5) + rise / 2, draw.uniform()
    t = (np.arange(config.samples) + 0.5) / config.samples - 0.5
    heights = middle + np.array(shifts)[:, None] / PER_OCTAVE + rise * t
    waves = np.sin(2 * np.pi * (np.cumsum(config.lowest * 2**heights, 1) + phase))
    return waves[..., None].astype(np.float32)


def residuals(config: Config) -> list[dict[str, Any]]:
    """One row per axis, kind of tone, shift and seed."""
    rows = []
    for rise, name in TONES.items():
        for seed in range(config.seeds):
            waves = jnp.asarray(tones(config, rise, (0, *config.shifts), seed))
            for kind in (LOG, LINEAR):
                first, *others = np.asarray(transform(config, kind, 1 if kind == LOG else FINE)(waves))[..., 0]
                for shift, moved in zip(config.shifts, others, strict=True):
                    told = {"tone": name, "axis": kind, "shift": shift, "seed": seed}
                    rows.append(told | {"residual": residual(first, moved)})
    return rows


def accuracies(config: Config, question: str) -> list[dict[str, Any]]:
    """One row per network, pitches trained on, pitches tried and seed."""
    rows = []
    for seed in range(config.seeds):
        data = {
            pitches: law(config, pitches, question).data(seed, config.size, config.test_size) for pitches in (ALL, LOW, HIGH)
        }
        for name in config.networks:
            network = NETWORKS[name]
            tests = {pitches: heard(np.asarray(each.test.images), config, network.hears) for pitches, each in data.items()}
            for learnt, tried in ((ALL, (ALL,)), (LOW, (LOW, HIGH))):
                waves, test, classes = data[learnt].train, data[learnt].test, data[learnt].classes
                split = Split(heard(np.asarray(waves.images), config, network.hears), waves.labels)
                model = network.build(split.images.shape[1:], seed)
                fitted = cl.fit(
                    model, Data("chirps", split, Split(tests[learnt], test.labels), classes), config.recipe(seed, network.hears)
                )
                for pitches in tried:
                    score = fitted.evaluate(tests[pitches], data[pitches].test.labels)["accuracy"]
                    told = {"question": question, "network": name, "trained_on": learnt, "tested_on": pitches}
                    rows.append(told | {"seed": seed, "accuracy": score})
            print(question, seed, name, *(f"{row['accuracy']:.1%}" for row in rows[-3:]), flush=True)
        for name, kind in PEAKS.items():
            for learnt, tried in TESTS:
                score = by_peak(data[learnt].train, data[tried].test, config, kind)
                told = {"question": question, "network": name, "trained_on": learnt, "tested_on": tried}
                rows.append(told | {"seed": seed, "accuracy": score})
    return rows


def by_peak(train: Split, test: Split, config: Config, kind: str) -> float:
    """Accuracy of one threshold on the peak of the mean spectrum, fitted to the training waves."""
    (x, y), (new, truth) = (
        (heard(np.asarray(split.images), config, kind)[..., 0].mean(1).max(1), np.asarray(split.labels))
        for split in (train, test)
    )
    right = {at: float(np.mean((x < at) == y)) for at in x}
    at = max(right, key=lambda at: abs(right[at] - 0.5))
    return float(np.mean(((new < at) == truth) == (right[at] > 0.5)))


def run(config: Config) -> list[dict[str, Any]]:
    """The residuals, and the accuracies on every question."""
    return residuals(config) + [row for question in config.questions for row in accuracies(config, question)]


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The means over seeds, of the residuals and of the accuracies."""
    left, scored = ([row for row in rows if name in row] for name in ("residual", "accuracy"))
    found = report.summarise(left, ["tone", "axis", "shift"], "residual", bounds={"residual": report.POSITIVE})
    if scored:
        by, bounds = ["question", "network", "trained_on", "tested_on"], {"accuracy": report.SHARE}
        found = report.summarise(scored, by, "accuracy", bounds=bounds) + found
    return found


def draw(rows: list[dict[str, Any]], config: Config) -> Any:
    """One tone at two pitches on both axes; what translation leaves; and accuracies, on pitches heard and never heard."""
    figure, axes = report.new_figure(4 + len(TONES) + len(config.questions), rows=2, size=(22.0, 12.0))
    shift = config.shifts[-1]
    for place, kind in enumerate((LINEAR, LOG)):
        low, *_, high = config.axis(kind)[0]
        pictures = np.asarray(transform(config, kind)(jnp.asarray(tones(config, 0.75, (0, shift), 0))))[..., 0]
        for panel, (picture, pitch) in enumerate(zip(pictures, ("low", f"{shift / PER_OCTAVE:g} octaves higher"), strict=True)):
            axis, up = axes[2 * place + panel], picture.T[::-1]
            report.heat(axis, np.ones_like(up), up, f"{kind}, {pitch}", label="magnitude", strongest=0.5)
            axis.set(xlabel=f"time, {up.shape[1]} steps of {HOP} samples", ylabel=f"{kind}, cycles a sample")
            axis.set_yticks([-0.5, len(up) - 0.5], [f"{high:.2g}", f"{low:.2g}"])
            axis.set_aspect("auto")
    table = summaries(rows)
    axis_styles = {kind: report.RUNG_STYLE[rung]._replace(label=f"axis: {kind}") for kind, rung in AXES.items()}
    for axis, tone in zip(axes[4:], TONES.values(), strict=False):
        report.curves(
            axis,
            [line for line in table if line.get("tone") == tone],
            "shift",
            "residual",
            "axis",
            x_label=f"pitch shifted, in bins of 1/{PER_OCTAVE} octave",
            y_label="left by the best translation, 95 % interval",
            y_format=".0%",
            title=tone,
            styles=axis_styles,
            baselines={"exact": 0.0},
        )
        axis.set_ylim(-0.02, 1.1 * max(line.get("residual_high") or 0 for line in table))
    styles = {name: report.RUNG_STYLE[network.style]._replace(label=name) for name, network in NETWORKS.items()}
    for (name, kind), line in zip(PEAKS.items(), ("--", ":"), strict=True):
        styles[name] = report.RUNG_STYLE[AXES[kind]]._replace(label=f"one threshold on the {name}", line=line, marker="x")
    places = {tests: place for place, tests in enumerate(TESTS)}
    for axis, question in zip(axes[4 + len(TONES) :], config.questions, strict=True):
        lines = [line for line in table if line.get("question") == question]
        report.curves(
            axis,
            [line | {"place": places[line["trained_on"], line["tested_on"]]} for line in lines],
            "place",
            "accuracy",
            "network",
            x_label="pitches trained on, and tested on",
            y_label="accuracy on new waves, 95 % interval",
            y_format=".0%",
            title=question,
            styles=styles,
            baselines={"chance": 0.5},
        )
        axis.set_xticks(range(len(TESTS)), list(TESTS.values()))
        axis.set_ylim(0.2, 1.03)
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    summary = summaries(rows)
    report.save_report(
        "audio",
        rows,
        config,
        figure=draw(rows, config),
        summary=summary,
        formats={name: ".1%" for name in ("accuracy", "residual") if name in summary[0] or name in summary[-1]},
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, full=FULL))
