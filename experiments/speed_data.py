"""How fast do images reach a training step from memory, decoded files or compressed records?

A data set is prepared in a new directory, loaded again, and fed to the same compiled step by every route, alternating in one
process. The baseline is that step on one batch that is already on the device. Preparing and loading are timed in a process
each. Their times include opening the data set, but not importing the libraries.

Answer: if the step takes a few milliseconds, images in memory and decoded images on disk feed it without delay. Decoding
records during training costs the time of decoding, which two cores cannot hide.

    python -m experiments.speed_data --data fashion_mnist --manual-dir DIR      (3 minutes on 2 cores)
"""

import dataclasses
import statistics
import tempfile
from typing import Any

import jax

import convlab as cl
from convlab import report, train
from convlab.data import list_prepared, load
from experiments.parts.feeds import forever, load_alone, loop, reading
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.stopwatch import Contender, interleave

ROUTES = ("memory", "disk", "records")
BASELINE = "on the device"


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      data: The name of the data set.
      manual_dir: The folder of files that were downloaded by hand.
      size: The number of pixels along each side that images are resized to. If None, they are not resized.
      batch_size: The number of images per step.
      steps: The number of steps in one turn of the loop.
      seconds: The time spent on every contender, in seconds.
      reads: The number of loads of the prepared set. Their median is reported.
      root: The folder of the results.
    """

    data: str = "digits"
    manual_dir: str | None = None
    size: int | None = None
    batch_size: int = 128
    steps: int = 20
    seconds: float = 15.0
    reads: int = 5
    root: str = "runs"


SMOKE = Config(steps=2, seconds=0.0, reads=1)


def run(config: Config) -> Rows:
    """Return one row per route and one for the baseline."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"name": config.data, "manual_dir": config.manual_dir, "image_size": config.size, "data_dir": folder}
        rows: dict[str, dict[str, Any]] = {BASELINE: {"data": config.data, "route": BASELINE}}
        first, _ = load_alone({**options, "storage": "disk"})
        for route in track(ROUTES, "routes"):
            times, memory = zip(*(load_alone({**options, "storage": route}) for _ in range(config.reads)), strict=True)
            rows[route] = {"data": config.data, "route": route, "load_s": statistics.median(times)}
            rows[route]["resident_mb"] = statistics.median(memory)
        sets = {route: load(**{**options, "storage": route}) for route in ROUTES}
        rows["memory"]["prepare_s"] = first
        (prepared_set,) = list_prepared(folder)
        for route, data in sets.items():
            decoded = sum(path.stat().st_size for path in prepared_set.path.glob("decoded*/*")) / 1e6
            rows[route]["disk_mb"] = prepared_set.megabytes - (decoded if route == "records" else 0)
            rows[route]["images_per_s"] = reading(data, config.batch_size, config.seconds)
        training = cl.Config(steps=10**6, batch_size=config.batch_size)
        feeds = {route: train.training_batches(data, training, 10**6) for route, data in sets.items()}
        feeds[BASELINE] = forever(jax.device_put(next(train.training_batches(sets["memory"], training, 1))))
        contenders = [
            Contender({"route": route}, loop(config.steps, sets["memory"], feed), config.steps) for route, feed in feeds.items()
        ]
        for row in interleave(contenders, config.seconds, 3 if config.seconds else 1):
            rows[row["route"]] |= {f"step_{name}": row[name] for name in ("ms", "ms_low", "ms_high")}
    for row in rows.values():
        row["speed"] = rows[BASELINE]["step_ms"] / row["step_ms"]
    return list(rows.values())


def draw(rows: Rows, config: Config) -> Any:
    """Draw the time of a step by the route of its images, and the time before the first step."""
    figure, (left, right) = report.new_figure(2, size=(13.0, 5.0))
    baseline, *routes = rows
    report.comparison(
        left,
        routes,
        "route",
        "step_ms",
        label="images from here, median and quartiles",
        x_label="milliseconds per step",
        title=f"time of a training step, {rows[0]['data']}",
        baselines={f"one batch {BASELINE}": report.interval_of(baseline, "step_ms")},
    )
    left.set_xlim(left=0)
    report.comparison(
        right,
        routes,
        "route",
        "load_s",
        label="data set prepared before, median",
        x_label="seconds",
        title="before the first step",
        references={"prepared now": "prepare_s"},
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
