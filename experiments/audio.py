"""Along which axes of a spectrogram may kernels be shared?

The signals are tones that rise or fall, at any pitch (`convlab.tasks.chirps`). A spectrogram of log-frequency uses windows that
hold the same number of cycles at every pitch, so a higher tone is the same picture, shifted. On an axis of linear frequency the
slope of the tone grows with its pitch. The experiment first measures this: what the best translation leaves of the difference
of two chirps. Then networks learn to tell rising from falling tones, or quick rises from slow ones. They train on all pitches
or on low ones only, and are tested on high pitches that they never heard. They read the wave, or a spectrogram on either axis.
Their kernels are shared along time and frequency, or shared along time with a different kernel at each frequency. Every network
ends in the mean over all positions, so that only its kernels can encode a pitch.

Prediction: all networks learn the pitches that they train on. On pitches never heard, only kernels shared along log-frequency
are as accurate as before. Null models: a linear read-out, and one threshold on the peak of the mean spectrum over time, which a
quick rise spreads.

Answer: two octaves up, the best translation leaves 2 % of a rising tone along log-frequency and 73 % along linear frequency. On
pitches never heard, only kernels shared along log-frequency tell quick rises from slow ones (95 %). All other networks reach 48
to 54 %, and one threshold 78 % along log-frequency and 53 % along linear frequency. Kernels shared along either axis tell
rising from falling (98 and 100 %), because a higher pitch makes a slope steeper but keeps its sign.

    python -m experiments.audio                                                              (4 minutes)

References: Brown 1991, Calculation of a constant Q spectral transform (the frequency scale); Zhang et al., Dive into Deep
Learning, section 7.1, exercises (convolutions for audio: the question).
"""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

import convlab as cl
from convlab import report, tasks
from convlab.data import Data, Split
from experiments.parts import translations
from experiments.parts.listeners import NETWORKS, PEAKS, by_peak
from experiments.parts.spectrograms import WAVE, heard
from experiments.parts.translations import RISE, Shifts
from experiments.shared.command import Rows, main
from experiments.shared.progress import track

ALL, LOW, HIGH = "all", "low", "high"
TESTS = (ALL, ALL), (LOW, LOW), (LOW, HIGH)  # the pitches trained on, and tested on
QUESTIONS: dict[str, Any] = {"falls or rises": 0.5, "rises 1/4 or 3/4 of an octave": (0.25, 0.75)}
FORMATS = {"accuracy": ".1%", "residual": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config(Shifts):
    """The settings of the experiment.

    Args:
      networks: The networks: names in `NETWORKS`.
      questions: The tasks: names in `QUESTIONS`.
      size: The number of training waves.
      test_size: The number of waves in each test.
      steps: The number of training steps, each with 50 waves.
      wave_steps: The number of steps of the network on the wave, which learns more slowly and runs faster.
      learning_rate: The learning rate of Adam, which decays along a cosine.
      wave_rate: The learning rate of the network on the wave. With larger steps some seeds do not learn.
      root: The folder of the results.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    questions: tuple[str, ...] = tuple(QUESTIONS)
    size: int = 500
    test_size: int = 500
    steps: int = 300
    wave_steps: int = 2000
    learning_rate: float = 1e-2
    wave_rate: float = 3e-3
    root: str = "runs"

    def recipe(self, seed: int, hears: str) -> cl.Config:
        """Return the configuration of `fit`."""
        steps, rate = (self.wave_steps, self.wave_rate) if hears == WAVE else (self.steps, self.learning_rate)
        return cl.Config(steps=steps, batch_size=50, learning_rate=rate, evaluations=1, progress=False, seed=seed)


SMOKE = Config(
    networks=("shared, log-frequency",), questions=("falls or rises",), shifts=(1, 4), size=20, test_size=20, steps=3, seeds=2
)
FULL = Config(samples=2048, size=5000, test_size=5000, steps=3000, wave_steps=20_000, seeds=20)


@functools.cache  # a sampler is compiled once
def law(config: Config, pitches: str, question: str) -> tasks.Task:
    """Return the distribution of chirps in a range of pitches."""
    octaves = config.octaves if pitches == ALL else config.octaves / 2
    lowest = config.lowest * 2 ** (config.octaves / 2 if pitches == HIGH else 0)
    return tasks.chirps(config.samples, lowest_frequency=lowest, octaves=octaves, sweep=QUESTIONS[question], noise=config.noise)


def accuracies(config: Config, question: str, seed: int) -> Rows:
    """Train and test all networks for one seed, on all ranges of pitches."""
    sizes, labels = (seed, config.size, config.test_size), {"question": question}
    data = {pitches: law(config, pitches, question).data(*sizes) for pitches in (ALL, LOW, HIGH)}
    scores: dict[tuple[str, str, str], float] = {}
    for name in config.networks:
        network = NETWORKS[name]
        test = {pitches: heard(np.asarray(part.test.images), config, network.hears) for pitches, part in data.items()}
        for learnt in (ALL, LOW):
            train = Split(heard(np.asarray(data[learnt].train.images), config, network.hears), data[learnt].train.labels)
            model = network.build(train.images.shape[1:], seed)
            chirps = Data("chirps", train, Split(test[learnt], data[learnt].test.labels), data[learnt].classes)
            fitted = cl.fit(model, chirps, config.recipe(seed, network.hears))
            for tried in (tried for on, tried in TESTS if on == learnt):
                scores[name, learnt, tried] = fitted.evaluate(test[tried], data[tried].test.labels)["accuracy"]
        print(question, seed, name, *(f"{scores[name, *tests]:.1%}" for tests in TESTS), flush=True)
    for name, kind in PEAKS.items():
        scores |= {(name, on, tried): by_peak(data[on].train, data[tried].test, config, kind) for on, tried in TESTS}
    return [
        labels | {"network": name, "trained_on": learnt, "tested_on": tried, "seed": seed, "accuracy": score}
        for (name, learnt, tried), score in scores.items()
    ]


def run(config: Config) -> Rows:
    """Return the rows of the residuals and of the accuracies on every question."""
    parts = itertools.product(config.questions, range(config.seeds))
    runs = [accuracies(config, question, seed) for question, seed in track(parts, "questions and seeds")]
    return translations.residuals(config) + [row for rows in runs for row in rows]


def table(rows: Rows, config: Config) -> Rows:
    """Average accuracies and residuals over the seeds."""
    scored, residuals = ([row for row in rows if name in row] for name in ("accuracy", "residual"))
    by, bounds = ["question", "network", "trained_on", "tested_on"], {"accuracy": report.SHARE}
    return (report.summarise(scored, by, "accuracy", bounds=bounds) if scored else []) + translations.table(residuals)


def draw(rows: Rows, config: Config) -> Any:
    """Draw what the best translation leaves of a rise, and the accuracies on the last question."""
    lines, question = table(rows, config), config.questions[-1]
    figure, (left, right) = report.new_figure(2, size=(13.0, 6.5))
    translations.draw(left, [line for line in lines if line.get("tone") == RISE])
    scores = {
        (line["network"], line["trained_on"], line["tested_on"]): line for line in lines if line.get("question") == question
    }
    ends = {f"accuracy{end}": f"known{end}" for end in ("", "_low", "_high")}
    points = [
        line | {new: scores[name, LOW, LOW][old] for old, new in ends.items()}
        for (name, _, tested_on), line in scores.items()
        if tested_on == HIGH
    ]
    report.comparison(
        right,
        points,
        "network",
        "accuracy",
        label="tested on higher pitches, never heard",
        x_label="accuracy on new waves, 95 % interval",
        x_format=".0%",
        title=question,
        references={"tested on the low pitches of training": "known"},
        baselines={"chance": 0.5},
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, full=FULL)
