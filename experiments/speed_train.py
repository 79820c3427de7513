"""How fast is a training step next to PyTorch, and what does the loop around it add?

Four questions: how many images a second convlab's step trains, stock JAX's and PyTorch's, in turn; what `fit` adds to a loop
written by hand over the same batches; what eight seeds cost in units of one; and how far each part of a step stands above its
floor, the time that its arithmetic or its bytes need at the machine's measured ceilings. Every step is timed in two processes
in turn: in one freed memory is kept (`train.keep_freed_memory`), in the other the C library hands it back, as it does unasked.

    python -m experiments.speed_train                          (10 minutes on 2 cores)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from convlab import report
from experiments.parts import training_step as parts
from experiments.parts.elsewhere import Elsewhere, contenders
from experiments.parts.loops import Loops, loop_rows, seed_rows
from experiments.parts.rivals import NETWORKS, convlab_contender
from experiments.shared.command import Rows, main
from experiments.shared.stopwatch import ceilings, compiled, floor, interleave

SHOWN = "question network contender memory ms ms_low ms_high images_per_s floor_ms ratio ratio_is compilations gflops gbs"
PAUSE = 0.02  # seconds, in which the threads of the contender before fall asleep


@dataclasses.dataclass(frozen=True)
class Config(Loops):
    """What is run.

    Args:
      networks: Names in `rivals.NETWORKS`.
      loops: Those whose loop is timed.
      parts: Those whose step is taken apart.
      steps: Of one call.
      part_seconds: Spent on each part of a step.
      torch: Time PyTorch too, where it is installed.
      compile_torch: Also with torch.compile.
      root: Folder that the results go to.
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
    """Images a second of every contender, and in units of the fastest form of PyTorch."""
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
    """Time of every part of convlab's step, of all together and of the whole step, next to their floors."""
    made = list(parts.of(name))
    timed = [compiled({"contender": part.name}, part.call, jax.device_put(part.arguments)) for part in made]
    *rows, step = interleave([*timed, convlab_contender(name, config.steps)], config.part_seconds, config.least)
    floors = {part.name: floor(roof, part.flops, 4 * part.numbers)[0] for part in made}
    rows.sort(key=lambda row: -row["ms"])
    rows += [{"contender": "all parts", "ms": sum(row["ms"] for row in rows)}, step | {"contender": "the whole step"}]
    least = [floors.get(row["contender"], sum(floors.values())) for row in rows]
    return [
        row | {"floor_ms": each, "ratio": row["ms"] / each, "ratio_is": "time to floor"}
        for row, each in zip(rows, least, strict=True)
    ]


def run(config: Config) -> Rows:
    """One row per question, network and contender."""
    roof = ceilings("float32", config.least, large=config.least > 1)
    rows: Rows = [{"question": "ceilings", **roof}]
    with Elsewhere() as elsewhere:
        questions: list[tuple[str, tuple[str, ...], Callable]] = [
            ("step", config.networks, functools.partial(step_rows, elsewhere=elsewhere)),
            ("loop", config.loops, loop_rows),
            ("seeds", ("Net",), seed_rows),
            ("parts", config.parts, functools.partial(part_rows, roof=roof)),
        ]
        for question, names, answer in questions:
            for name in names:
                print(f"{question} of {name}", flush=True)
                rows += [{"question": question, "network": name, **row} for row in answer(name, config)]
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Leave to the file what the table has no room for."""
    return [{name: row.get(name) for name in SHOWN.split()} for row in rows]


def draw(rows: Rows, config: Config) -> Any:
    """One panel per network: images a second, of PyTorch in its fastest form."""
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
