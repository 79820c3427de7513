"""How fast is every rung, in every implementation, compared with other libraries?

Layers on eight shapes are timed forward, and forward with backward, in a plain jitted step, inside `lax.scan`, and under `vmap`
over networks. All contenders take turns in one process. They are compared with XLA's convolution of equal arithmetic (the unit
of all ratios), Linen's ConvLocal, the masked dense layer of Keras, and PyTorch if it is installed. Every row also has the
compile time, the temporary memory, and the distance from the roofline. This is the time that the layer's arithmetic or its
bytes need at the machine's measured peak rates.

Locally connected layers are also compared with JAX's own op for them at random shapes.

Answer: a locally connected layer costs about 1.2 convolutions (Linen's costs 12 to 23, because of new memory), unless its
weights do not fit into the cache. A convolution costs no more in a loop and under `vmap` than in a plain step (XLA's own costs
17 and 4 to 9 times as much).

    python -m experiments.speed                                (17 minutes on 2 cores)
"""

import dataclasses
from typing import Any

import jax

from convlab import report
from experiments.parts import pytorch, sweep
from experiments.parts.implementations import UNIT, Implementations, contenders, pool_contenders
from experiments.parts.rooflines import Shape, means, placed, ratios
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import named_by_backend
from experiments.shared.stopwatch import ceilings, interleave

LOCAL = ("local, auto", "local, ConvLocal", "local, masked dense")
TORCH = "local, torch (fastest)"
STEPS = ("scan", "vmap")
LINES = {  # the style of every contender, the same in all panels; names with an underscore are written beside their points
    name: report.Style(label, colour, marker)
    for name, label, colour, marker in (
        ("local, auto", "local, auto", "#0072B2", "o"),
        ("local, ConvLocal", "local, ConvLocal", "#D55E00", "P"),
        ("local, masked dense", "local, masked dense", "#CC79A7", "D"),
        (TORCH, TORCH, "#009E73", "^"),
        (UNIT, UNIT, "#767676", "o"),
        ("conv, auto, scan", "_conv, auto, scan", "#0072B2", "v"),
        ("conv, auto, vmap", "_conv, auto, vmap", "#0072B2", "s"),
        ("conv, lax, scan", "_conv, lax, scan", "#767676", "v"),
        ("conv, lax, vmap", "_conv, lax, vmap", "#767676", "s"),
    )
}


@dataclasses.dataclass(frozen=True)
class Config(Implementations):
    """The settings of the experiment.

    Args:
      shapes: The shapes: batch x side x channels in x channels out x kernel side.
      pools: The shapes of 2x2 pooling: batch x side x channels.
      dtypes: The dtypes of images and kernels. If empty, float32, and on accelerators also bfloat16.
      sweep: The number of random shapes at which locally connected layers are compared with JAX's own op for them.
      seconds: The time spent on each contender, in seconds.
      least: The smallest number of calls of each contender.
      torch: Whether PyTorch is timed if it is installed.
      compile_torch: Whether PyTorch is also timed with torch.compile.
      root: The folder of the results.
    """

    shapes: tuple[str, ...] = (
        "64x28x16x16x3",
        "128x14x32x32x3",
        "64x14x16x32x5",
        "128x7x64x64x3",
        "128x32x3x32x3",
        "128x28x1x16x3",
        "8x56x32x32x3",
        "256x14x64x64x3",
    )
    pools: tuple[str, ...] = ("128x28x16", "64x32x64")
    dtypes: tuple[str, ...] = ()
    sweep: int = 60
    seconds: float = 0.25
    least: int = 5
    torch: bool = True
    compile_torch: bool = True
    root: str = "runs"

    @property
    def name(self) -> str:
        """The name of the report."""
        return named_by_backend("speed")


SMOKE = Config(
    shapes=("5x6x2x3x3",), pools=("2x4x2",), sweep=1, seconds=0.0, least=1, length=2, networks=2, compile_torch=False
)


def run(config: Config) -> Rows:
    """Return one row per shape, contender and step."""
    accelerator = jax.default_backend() != "cpu"
    rows: Rows = []
    for dtype in config.dtypes or ("float32", "bfloat16")[: 1 + accelerator]:
        roof = ceilings(dtype, config.least, large=config.least > 1)
        rows.append({"dtype": dtype, "name": "ceiling", **roof})
        for name in track(config.shapes, f"shapes, {dtype}"):
            shape = Shape(*map(int, name.split("x")))
            made = list(contenders(shape, dtype, config))
            if config.torch and dtype == "float32" and pytorch.installed():
                made += pytorch.layer_contenders(shape, config.compile_torch)
            timed = ratios(interleave(made, config.seconds, config.least), name, dtype)
            rows += [placed(row, shape, roof, dtype) for row in timed]
        for name in config.pools:
            rows += ratios(interleave(list(pool_contenders(name, dtype)), config.seconds, config.least), name, dtype)
    return rows + sweep.rows(config.sweep, config.seconds / 2, config.least)


def table(rows: Rows, config: Config) -> Rows:
    """Return one row per contender: geometric means over shapes."""
    return means(rows)


def draw(rows: Rows, config: Config) -> Any:
    """Draw the times of local layers and of convolutions, and the temporary memory."""
    rows = [row for row in rows if row["dtype"] == rows[0]["dtype"] and len(row.get("shape", "").split("x")) == 5]
    figure, (left, middle, right) = report.new_figure(3, size=(17.0, 7.0))
    words: dict[str, Any] = {"x_label": "batch x side x in x out x kernel", "by": "line", "x": "shape", "styles": LINES}
    unit, both = {"_" + UNIT: 1.0}, [row for row in rows if row["step"] == "both"]
    drawn = [row | {"line": row["name"]} for row in both if row["name"] in LOCAL]
    torch = [row for row in both if row["name"].startswith("local, torch")]
    for shape in dict.fromkeys(row["shape"] for row in torch):
        drawn.append({"shape": shape, "ratio": min(row["ratio"] for row in torch if row["shape"] == shape), "line": TORCH})
    y_label = f"time relative to {UNIT}"
    report.dot_plot(left, drawn, y="ratio", y_label=y_label, title="both (forward + backward)", baselines=unit, **words)
    left.text(0.99, 1, UNIT, transform=left.get_yaxis_transform(), size=13, ha="right", va="bottom")
    steps = [
        row | {"line": f"{row['name']}, {row['step']}"}
        for row in rows
        if row["name"] in ("conv, auto", UNIT) and row["step"] in STEPS
    ]
    title = "both, in scan and under vmap"
    report.dot_plot(middle, steps, y="ratio", y_label=f"{y_label}, plain step", title=title, baselines=unit, **words)
    for line in dict.fromkeys(row["line"] for row in steps):
        last = [row["ratio"] for row in steps if row["line"] == line][-1]
        side: dict[str, Any] = {"va": "top" if line.endswith("scan") else "bottom", "transform": middle.get_yaxis_transform()}
        middle.text(1.02, float(last), line, color=LINES[line].colour, size=13, **side)
    drawn = [row | {"line": row["name"]} for row in both if row["name"] in (*LOCAL, UNIT)]
    report.dot_plot(right, drawn, y="temp_mib", y_label="temporary memory, MiB", title="both, memory", **words)
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE, keep=False)
