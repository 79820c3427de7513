"""The training of networks by learning rates that are chosen for each on validation images."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

import convlab as cl
from convlab import report
from convlab.data import Data
from experiments.parts.networks import linear
from experiments.shared.settings import Finished, Rows, Training, code_of

CHOICE_SEED = 1000  # the seed of the runs that choose learning rates; no other run has it
HELD_OUT = 0.2  # the fraction of the training images that the rates are chosen on
LINEAR, LINEAR_RATES = "linear classifier", (0.001, 0.003, 0.01)
SHARES = {"accuracy": report.SHARE, "train_accuracy": report.SHARE}
FORMATS = {"accuracy": ".1%", "train_accuracy": ".1%", "gain": "+.1%"}


@dataclasses.dataclass(frozen=True)
class Tuned(Training):
    """The training by SGD with momentum 0.9 and a learning rate that is chosen for each network.

    Args:
      rates: The learning rates to choose from.
      learning_rate: Not used: the rate is chosen.
    """

    rates: tuple[float, ...] = (0.03, 0.1, 0.3)


class Runs:
    """The trained networks of an experiment. Finished ones are read from a file below `config.root`.

    Args:
      config: The training.
      name: The name of the experiment.
      *files: The source files that define the networks. Networks that other code has made are trained again.
    """

    def __init__(self, config: Tuned, name: str, *files: str):
        self.config, self.data = config, config.load()
        path = pathlib.Path(config.root, f"{name}_runs", f"{config.dataset}.jsonl")
        self.finished = Finished(path, code_of(__file__, *files))

    @functools.cached_property
    def validation(self) -> Data:
        """The images that rates are chosen on: a training set of the same size, and others to test on."""
        held_out = self.data.hold_out(HELD_OUT, seed=0)
        assert held_out.validation is not None
        return dataclasses.replace(held_out, test=held_out.validation, validation=None)

    def rows(self, part: Any, build: Callable[[int], nnx.Module], rates: Sequence[float] | None = None) -> Rows:
        """Train a network with all seeds and return a row with its accuracies for each.

        Args:
          part: The network's name among the finished ones: any value with a repr.
          build: A function that builds the network from a seed.
          rates: The learning rates to choose from. If None, the configuration's.
        """
        recipe = self.config.size, self.config.epochs, self.config.batch_size, self.config.seeds
        rates = tuple(rates or self.config.rates)
        return self.finished.rows((part, recipe, rates), lambda: self._train(build, rates))

    def linear(self) -> Rows:
        """Train the linear classifier, by its own learning rates."""
        return self.rows(LINEAR, functools.partial(linear, self.data), LINEAR_RATES)

    def _train(self, build: Callable[[int], nnx.Module], rates: tuple[float, ...]) -> Rows:
        def train(data: Data, rate: float, seed: int) -> cl.Fitted:
            return dataclasses.replace(self.config, learning_rate=rate).fit(build(seed), data, seed)

        rate = max(rates, key=lambda rate: train(self.validation, rate, CHOICE_SEED).history[-1]["test_accuracy"])
        rows = []
        for seed in range(self.config.seeds):
            fitted, images = train(self.data, rate, seed), self.data.subset(self.config.size, seed).train
            learnt = fitted.evaluate(images.images, images.labels)["accuracy"]
            accuracy = fitted.history[-1]["test_accuracy"]
            rows.append({"seed": seed, "rate": rate, "train_accuracy": learnt, "accuracy": accuracy})
        return rows


def with_gains(rows: Rows) -> Rows:
    """Add the `gain` over the run of the network `against` with the same seed to every row that names one."""
    scores = {(row["network"], row["seed"]): row["accuracy"] for row in rows}
    return [
        row | ({} if row["against"] is None else {"gain": row["accuracy"] - scores[row["against"], row["seed"]]})
        for row in rows
    ]


def compared(rows: Rows, *constant: str) -> Rows:
    """Average over the seeds, with p-values corrected for all networks that are compared to the same one.

    Args:
      rows: One row per network and seed, with the columns `network`, `against`, `accuracy`, `train_accuracy` and `gain`.
      *constant: Other columns to keep, which are constant for each network.
    """
    p_values: dict[str, float] = {}
    for reference in dict.fromkeys(row["against"] for row in rows if row["against"] is not None):
        group = [row for row in rows if row["against"] == reference]
        tests = report.paired_differences(group, "network", {"network": reference}, "accuracy")
        p_values |= {test["network"]: test["accuracy_p_holm"] for test in tests}
    lines = report.summarise(rows, ["network", *constant], [*SHARES, "gain"], bounds=SHARES)
    return [line | {"p": p_values.get(line["network"])} for line in lines]
