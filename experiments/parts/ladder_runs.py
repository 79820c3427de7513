"""The runs behind the ladder's figures: learning rates, growing sets, and finished runs."""

import functools
import math
import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from experiments.parts import ladder_training, sizes
from experiments.parts.ladder_training import trained
from experiments.parts.sizes import Curve, Sizes, check, curves_of, sizes_of
from experiments.shared.command import Result, Rows
from experiments.shared.progress import at_once, progress_of
from experiments.shared.settings import Finished, code_of

CANDIDATES = (1e-3, 3e-3, 1e-2, 3e-2)  # learning rates of Adam
LEARNT = 0.01  # training loss below which a set counts as learnt
MOVED = 0.005  # the largest change of accuracy from doubling the steps that is ignored


class Runs:
    """All runs of a configuration. Finished runs are read from a file."""

    def __init__(self, config: Sizes):
        self.config, self.rates = config, dict.fromkeys(((c.rung, c.distance) for c in curves_of(config)), math.nan)
        code = code_of(__file__, *(str(module.__file__) for module in (ladder_training, sizes)))
        self.finished = Finished(pathlib.Path(config.root, "ladder_runs", f"{config.dataset}.jsonl"), code)
        fixed = ("seeds", "margin", "held_out", "copies", "features", "batch_size")
        train = sizes.images(config).train
        content = [zlib.crc32(np.ascontiguousarray(part).data) for part in (train.images, train.labels)]
        self.fixed = (*(getattr(config, name) for name in fixed), *content)

    def trained(self, curve: Curve, size: int, steps: int, rate: float, choosing: bool = False) -> Rows:
        """Train all seeds, or read their rows if they are finished."""
        call = curve, size, steps, rate, choosing
        return self.finished.rows((self.fixed, tuple(curve), *call[1:]), lambda: trained(self.config, *call))

    def learnt(self, curve: Curve, size: int) -> Rows:
        """Train with the planned steps, and double them while the set is not learnt and the accuracy changes."""
        steps, rate = self.steps(size), self.rates[curve.rung, curve.distance]
        rows = self.trained(curve, size, steps, rate)
        for _ in range(self.config.doublings):
            if mean_of(rows, "train_loss") <= LEARNT:
                break
            steps, before = 2 * steps, mean_of(rows, "accuracy")
            rows = self.trained(curve, size, steps, rate)
            if abs(mean_of(rows, "accuracy") - before) <= MOVED:
                break
        return rows

    def steps(self, size: int) -> int:
        """Return the planned number of steps."""
        return self.config.steps[self.config.sizes.index(size)]

    def choose(self, rung: str, distance: int) -> float:
        """Choose the learning rate that is best on validation images, averaged over two seeds and some sizes."""
        first = distance == self.config.distances[0]
        near = [
            min(sizes_of(self.config, Curve(rung, distance)), key=lambda size: abs(math.log(size / n)))
            for n in self.config.choice
        ]
        sizes = sorted({*near} if first else {near[0]})
        scores = {}
        for rate in CANDIDATES:
            rows = [row for n in sizes for row in self.trained(Curve(rung, distance), n, self.steps(n), rate, choosing=True)]
            scores[rate] = mean_of(rows, "validation")
        return max(scores, key=lambda rate: scores[rate])

    def line(self, curve: Curve, show: Callable[[int], None]) -> Rows:
        """Train one network on sets of growing size."""
        rows, sizes = [], sizes_of(self.config, curve)
        for number, size in enumerate(sizes, 1):
            new = self.learnt(curve, size)
            rows, reached = rows + new, min(row["accuracy"] for row in new) >= self.config.target
            is_last = self.config.stop and reached and curve.distance != self.config.distances[0]
            show(len(sizes) - number + 1 if is_last else 1)
            if is_last:
                break
        return rows


def run(config: Sizes) -> Result:
    """Train every network on sets of every size and return one row for each and seed."""
    check(config)
    runs, curves = Runs(config), list(curves_of(config))
    for rung_and_distance in runs.rates:
        runs.rates[rung_and_distance] = dict(config.rates).get(rung_and_distance[0], math.nan)
    if missing := [rung_and_distance for rung_and_distance, rate in runs.rates.items() if math.isnan(rate)]:
        chosen = at_once(lambda rung_and_distance: runs.choose(*rung_and_distance), missing, "choosing learning rates")
        runs.rates.update(zip(missing, chosen, strict=True))
    total = sum(len(sizes_of(config, curve)) for curve in curves)
    with progress_of("training networks", total) as show:
        lines = at_once(functools.partial(runs.line, show=show), curves, description=None)
    return Result([row for rows in lines for row in rows], reused=runs.finished.reused)


def mean_of(rows: Rows, name: str) -> float:
    """Average one number over rows."""
    return float(np.mean([row[name] for row in rows]))
