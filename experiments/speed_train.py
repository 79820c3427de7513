"""How fast is a training step compared with PyTorch, and how much time does the training loop add?

There are four questions. How many images per second do the steps of convlab, stock JAX and PyTorch train, in turn? How much
time does `fit` add to a loop written by hand over the same batches? How long do eight seeds take in units of one? How far is
each part of a step from its floor, the time that its arithmetic or its bytes need at the machine's measured peak rates?

Every step is timed in two processes that alternate. One keeps freed memory (`train.keep_freed_memory`). In the other the C
library returns it to the system, which is its default.

    python -m experiments.speed_train                          (10 minutes on 2 cores)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from convlab import report
from experiments.parts import training_step as parts
from experiments.parts.loops import Loops, loop_rows, seed_rows
from experiments.parts.rivals import NETWORKS, convlab_contender
from experiments.parts.step_contenders import contenders
from experiments.shared.command import Rows, main
from experiments.shared.elsewhere import Elsewhere
from experiments.shared.progress import track
from experiments.shared.stopwatch import ceilings, compiled, floor, interleave

SHOWN = "question network contender memory ms ms_low ms_high images_per_s floor_ms ratio ratio_is compilations gflops gbs"
PAUSE = 0.02  # seconds in which the threads of the previous contender fall asleep


@dataclasses.dataclass(frozen=True)
class Config(Loops):
    """The settings of the experiment.

    Args:
      networks: The networks: names in `rivals.NETWORKS`.
      loops: The networks whose training loop is timed.
      parts: The networks whose step is timed part by part.
      steps: The number of steps in one call.
      part_seconds: The time spent on each part of a step, in seconds.
      torch: Whether PyTorch is timed if it is installed.
      compile_torch: Whether PyTorch is also timed with torch.compile.
      root: The folder of the results.
    """

    networks: tuple[str, ...] = ("LeNet", "Three", "Net")
    loops: tuple[str, ...] = ("LeNet", "Net")
    parts: tuple[str, ...] = ("LeNet", "Three", "Net")
    steps: int = 10
    part_seconds: float = 0.5
    torch: bool = True
    compile_torch: bool = True
    root: str = "runs"


SMOKE = Config(
    networks=("Net",),
    loops=("Net",),
    parts=("Three",),
    seconds=0.0,
    least=1,
    steps=1,
    loop_steps=2,
    repetitions=1,
    seeds=2,
    images=128,
    part_seconds=0.0,
    compile_torch=False,
)


def step_rows(name: str, config: Config, elsewhere: Elsewhere) -> Rows:
    """Measure the images per second of every contender, also in units of PyTorch's fastest form."""
    arguments = (name, config.steps, config.torch, config.compile_torch)
    kept, handed_back = contenders(*arguments), elsewhere.contenders(contenders, *arguments)
    for memory, made in (("kept", kept), ("handed back", handed_back)):
        for contender in made:
            contender.labels |= {"memory": memory}
    rows = interleave(kept + handed_back, config.seconds, config.least, PAUSE)
    fastest = min((row["ms"] for row in rows if row["contender"].startswith("PyTorch")), default=None)
    rate = 1e3 * NETWORKS[name].batch
    for row in rows:
        row |= {f"images_per_s{a}": rate / row[f"ms{b}"] for a, b in (("", ""), ("_low", "_high"), ("_high", "_low"))}
        row |= {"ratio": fastest and fastest / row["ms"], "ratio_is": "images/s to best PyTorch"}
    return rows


def part_rows(name: str, config: Config, roof: dict[str, float]) -> Rows:
    """Time every part of convlab's step, all parts together and the whole step, next to their floors."""
    made = list(parts.of(name))
    timed = [compiled({"contender": part.name}, part.call, jax.device_put(part.arguments)) for part in made]
    *rows, step = interleave([*timed, convlab_contender(name, config.steps)], config.part_seconds, config.least)
    floors = {part.name: floor(roof, part.flops, 4 * part.numbers)[0] for part in made}
    rows.sort(key=lambda row: -row["ms"])
    rows += [{"contender": "all parts", "ms": sum(row["ms"] for row in rows)}, step | {"contender": "the whole step"}]
    floor_times = [floors.get(row["contender"], sum(floors.values())) for row in rows]
    return [
        row | {"floor_ms": floor_ms, "ratio": row["ms"] / floor_ms, "ratio_is": "time to floor"}
        for row, floor_ms in zip(rows, floor_times, strict=True)
    ]


def run(config: Config) -> Rows:
    """Return one row per question, network and contender."""
    roof = ceilings("float32", config.least, large=config.least > 1)
    rows: Rows = [{"question": "ceilings", **roof}]
    with Elsewhere() as elsewhere:
        questions: list[tuple[str, tuple[str, ...], Callable]] = [
            ("step", config.networks, functools.partial(step_rows, elsewhere=elsewhere)),
            ("loop", config.loops, loop_rows),
            ("seeds", ("Net",), seed_rows),
            ("parts", config.parts, functools.partial(part_rows, roof=roof)),
        ]
        parts = [(question, name, answer) for question, names, answer in questions for name in names]
        for question, name, answer in track(parts, "comparisons"):
            rows += [{"question": question, "network": name, **row} for row in answer(name, config)]
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Select the columns of the table. The others are in table.csv."""
    return [{name: row.get(name) for name in SHOWN.split()} for row in rows]


def draw(rows: Rows, config: Config) -> Any:
    """Draw the images per second, with one panel per network. PyTorch is shown in its fastest form."""
    steps = [row for row in rows if row["question"] == "step"]
    names = list(dict.fromkeys(row["network"] for row in steps))
    figure, axes = report.new_figure(len(names), rows=len(names), size=(11.0, 3.2 * len(names)))
    for axis, name in zip(axes, names, strict=True):
        fastest: dict[str, dict] = {}
        for row in sorted((row for row in steps if row["network"] == name), key=lambda row: row["ms"]):
            who = f"{'PyTorch' if 'PyTorch' in row['contender'] else row['contender']}, memory {row['memory']}"
            fastest.setdefault(who, row | {"who": who})
        drawn = sorted(fastest.values(), key=lambda row: ("PyTorch" in row["who"], row["who"]))
        words: dict[str, Any] = {"label": "median and quartiles", "title": f"{name}, batches of {NETWORKS[name].batch}"}
        report.comparison(axis, drawn, "who", "images_per_s", x_label="images trained a second", **words)
        axis.set_xscale("log", subs=(2, 5))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_minor_formatter("{x:,.0f}")
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
