"""How fast is a training step next to PyTorch, and what does the loop around it add?

Four questions: how many images a second convlab's step trains, stock JAX's and PyTorch's, in turn; what `fit` adds to a loop
written by hand over the same batches; what eight seeds cost in units of one; and how far each part of a step stands above its
floor, the time that its arithmetic or its bytes need at the machine's measured ceilings. Every step is timed in two processes
in turn: in one freed memory is kept (`train.keep_freed_memory`), in the other the C library hands it back, as it does unasked.

    python -m experiments.speed_train                          (10 minutes on 2 cores)
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import report, train
from convlab.data import Data, Split, standardise
from convlab.data.feeding import order
from experiments import parts, rivals
from experiments.command import parse
from experiments.rivals import NETWORKS
from experiments.stopwatch import Contender, ceilings, compiled, interleave

PAUSE = 0.02  # seconds, in which the threads of the contender before fall asleep
COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      networks: Names in `rivals.NETWORKS`.
      loops: Those whose loop is timed.
      parts: Those whose step is taken apart.
      seconds: Spent on each contender of steps and of seeds.
      least: Calls of each at least.
      steps: Of one call.
      loop_steps: Of one run of a loop.
      repetitions: Runs of each loop.
      seeds: Trained at once, an epoch each.
      images: Of an epoch.
      part_seconds: Spent on each part of a step.
      torch: Time PyTorch too, where it is installed.
      compile_torch: Also with torch.compile.
      root: Folder that the results go to.
    """

    networks: tuple[str, ...] = ("LeNet", "Three", "Net")
    loops: tuple[str, ...] = ("LeNet", "Net")
    parts: tuple[str, ...] = ("LeNet", "Three", "Net")
    seconds: float = 4.0
    least: int = 7
    steps: int = 10
    loop_steps: int = 300
    repetitions: int = 7
    seeds: int = 8
    images: int = 10_000
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


def step_rows(name: str, config: Config, elsewhere: rivals.Elsewhere) -> list[dict]:
    """Images a second of every contender, and in units of the fastest form of PyTorch."""
    arguments = (name, config.steps, config.torch, config.compile_torch)
    kept, handed_back = rivals.contenders(*arguments), elsewhere.contenders(rivals.contenders, *arguments)
    for memory, contenders in (("kept", kept), ("handed back", handed_back)):
        for contender in contenders:
            contender.labels |= {"memory": memory}
    rows = interleave(kept + handed_back, config.seconds, config.least, PAUSE)
    fastest = min((row["ms"] for row in rows if row["contender"].startswith("PyTorch")), default=None)
    rate = 1e3 * NETWORKS[name].batch
    for row in rows:
        row |= {f"images_per_s{a}": rate / row[f"ms{b}"] for a, b in (("", ""), ("_low", "_high"), ("_high", "_low"))}
        row |= {"ratio": fastest and fastest / row["ms"], "ratio_is": "images/s to best PyTorch"}
    return rows


def random_data(name: str, images: int) -> Data:
    """Make images to train on, bytes as those of data sets are."""
    network = NETWORKS[name]
    x, y = rivals.noise(network, images)
    split = Split((40 * x + 128).clip(0, 255).astype(np.uint8), y)
    classes = tuple(map(str, range(network.head[-1])))
    return Data("random", split, split.take(np.arange(min(images, 1000))), classes)


def loop_rows(name: str, config: Config) -> list[dict]:
    """Time of a step in `fit` and in a loop written by hand, on the same batches."""
    network, data = NETWORKS[name], random_data(name, config.images)
    trainable = train.trainable(rivals.convlab_model(name, nnx.Rngs(0)), network.image_shape)
    options = {"batch_size": network.batch, "optimizer": "momentum", "schedule": "constant", "learning_rate": rivals.RATE}
    training = cl.Config(steps=config.loop_steps, evaluations=1, progress=False, **options)
    optimizer = optax.sgd(rivals.RATE, momentum=rivals.MOMENTUM)

    def apply(parameters: Any, rest: Any, x: jax.Array, key: jax.Array, training: bool) -> Any:
        return trainable.apply(parameters, rest, standardise(x, data.mean, data.std), key, training)

    step = rivals.plain_step(apply, optimizer)

    def by_hand() -> float:
        state = rivals.plain_state(trainable, optimizer)
        images, labels, begin = data.train.images, data.train.labels, 0.0
        for number in range(config.loop_steps):
            places = order(range(number * network.batch, (number + 1) * network.batch), len(labels), training.seed)
            state, loss = step(state, images[places], labels[places])
            if number == 0:  # as in `fit`, the first step does not count: it may compile
                jax.block_until_ready(state)
                begin = time.perf_counter()
        jax.block_until_ready((state, loss))
        return (time.perf_counter() - begin) / (config.loop_steps - 1)

    loops = {"raw JAX loop": by_hand, "fit": lambda: cl.fit(trainable, data, training).step_seconds}
    runs = [{who: loop() for who, loop in loops.items()} for _ in range(1 + config.repetitions)][1:]  # the first warms up
    rows = []
    for who in loops:
        low, median, high = 1e3 * np.quantile([run[who] for run in runs], (0.25, 0.5, 0.75))
        ratio = np.median([run[who] / run["raw JAX loop"] for run in runs])
        row = {"contender": who, "ms": median, "ms_low": low, "ms_high": high, "calls": len(runs)}
        rows.append(row | {"ratio": ratio, "ratio_is": "time to raw JAX loop, in pairs"})
    return rows


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Note the seconds of all that XLA compiles inside."""
    seconds: list[float] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def seed_rows(name: str, config: Config) -> list[dict]:
    """Time of an epoch from one seed and from several; what is compiled, compiles before."""
    data = random_data(name, config.images)
    training = cl.Config(epochs=1, batch_size=NETWORKS[name].batch, evaluations=1, progress=False)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return rivals.convlab_model(name, rngs)

    calls = {
        "fit, 1 seed": lambda: cl.fit(build(nnx.Rngs(0)), data, training),
        f"fit_seeds, {config.seeds} seeds": lambda: cl.fit_seeds(build, data, training, seeds=range(config.seeds)),
    }
    contenders = []
    for who, call in calls.items():
        with compilations() as seconds:
            call()
        contenders.append(Contender({"contender": who, "compilations": len(seconds)}, call, compile_seconds=sum(seconds)))
    with compilations() as again:
        rows = interleave(contenders, config.seconds, config.least)
    return [
        row | {"ratio": row["ms"] / rows[0]["ms"], "ratio_is": "time to one seed", "compilations_again": len(again)}
        for row in rows
    ]


def part_rows(name: str, config: Config, roof: dict[str, float]) -> list[dict]:
    """Time of every part of convlab's step, of all together and of the whole step, next to their floors."""
    made = list(parts.of(name))
    contenders = [compiled({"contender": part.name}, part.call, jax.device_put(part.arguments)) for part in made]
    whole = rivals.convlab_contender(name, config.steps)
    *rows, step = interleave([*contenders, whole], config.part_seconds, config.least)
    floors = [max(part.flops / 1e6 / roof["gflops"], 4 * part.numbers / 1e6 / roof["gbs"]) for part in made]
    rows.sort(key=lambda row: -row["ms"])
    together = {"contender": "all parts", "ms": sum(row["ms"] for row in rows)}
    by_name = {part.name: floor for part, floor in zip(made, floors, strict=True)}
    rows += [together, step | {"contender": "the whole step"}]
    return [
        row | {"floor_ms": floor, "ratio": row["ms"] / floor, "ratio_is": "time to floor"}
        for row in rows
        for floor in [by_name.get(row["contender"], sum(floors))]
    ]


def run(config: Config) -> list[dict]:
    """One row per question, network and contender."""
    roof = ceilings("float32", config.least, large=config.least > 1)
    rows: list[dict] = [{"question": "ceilings", **roof}]
    with rivals.Elsewhere() as elsewhere:
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


SHOWN = "question network contender memory ms ms_low ms_high images_per_s floor_ms ratio ratio_is compilations gflops gbs"


def summary(rows: list[dict]) -> list[dict]:
    """Leave to the file what the table has no room for."""
    return [{name: row.get(name) for name in SHOWN.split()} for row in rows]


def draw(rows: list[dict]) -> Any:
    """One panel per network: images a second, of PyTorch in its fastest form."""
    steps = [row for row in rows if row["question"] == "step"]
    names = list(dict.fromkeys(row["network"] for row in steps))
    figure, axes = report.new_figure(len(names), rows=len(names), size=(11.0, 3.2 * len(names)))
    for axis, name in zip(axes, names, strict=True):
        fastest: dict[str, dict] = {}
        for row in sorted((row for row in steps if row["network"] == name), key=lambda row: row["ms"]):
            who = f"{'PyTorch' if 'PyTorch' in row['contender'] else row['contender']}, memory {row['memory']}"
            fastest.setdefault(who, row | {"who": who})
        report.comparison(
            axis,
            sorted(fastest.values(), key=lambda row: ("PyTorch" in row["who"], row["who"])),
            "who",
            "images_per_s",
            label="median and quartiles",
            x_label="images trained a second",
            title=f"{name}, batches of {NETWORKS[name].batch}",
        )
        axis.set_xscale("log", subs=(2, 5))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_minor_formatter("{x:,.0f}")
    return figure


def main(config: Config) -> None:
    """Run, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    seconds = time.perf_counter() - begin
    report.save_report("speed_train", rows, config, figure=draw(rows), summary=summary(rows), seconds=seconds, root=config.root)


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, keep=False))
