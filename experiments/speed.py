"""How fast is every rung, in every implementation, next to what else there is?

Layers on eight shapes, forward and forward with backward, in a plain jitted step, inside `lax.scan`, and under `vmap` over
networks, timed in turn in one process. Next to them XLA's convolution of equal arithmetic (the unit of all ratios), Linen's
ConvLocal, the masked dense layer of Keras, and PyTorch where it is installed. Every row also has compile time, temporary
memory, and its distance from the roofline: the time that its arithmetic or its bytes need at the machine's measured ceilings.

Answer: a locally connected layer costs about 1.4 convolutions (Linen's 11 to 23, by the price of new memory), unless its
weights outgrow the cache; and a convolution costs no more in a loop and under `vmap` than in a plain step (XLA's own 16 and 4
to 9 times as much).

    python -m experiments.speed                                (7 minutes on 2 cores)
"""

import dataclasses
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import lax

import convlab as cl
from convlab import report
from experiments.command import parse
from experiments.stopwatch import Contender, ceilings, compiled, interleave

UNIT = "conv, lax"
STEPS = ("forward", "both")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      shapes: Batch x side x channels in x channels out x kernel side.
      pools: Batch x side x channels, pooled 2x2.
      dtypes: Of images and kernels; absent, float32, on accelerators also bfloat16.
      seconds: Spent on each contender.
      least: Calls of each contender at least.
      length: Steps of the scan.
      networks: Under vmap.
      dense_limit: Weights of the masked dense layer above which it is left out.
      torch: Time PyTorch too, where it is installed.
      compile_torch: Also with torch.compile.
      root: Folder that the results go to.
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
    seconds: float = 0.25
    least: int = 5
    length: int = 2
    networks: int = 8
    dense_limit: int = 2**24
    torch: bool = True
    compile_torch: bool = True
    root: str = "runs"


SMOKE = Config(shapes=("5x6x2x3x3",), pools=("2x4x2",), seconds=0.0, least=1, length=2, networks=2, compile_torch=False)


class Shape(NamedTuple):
    """One row of the question."""

    n: int
    side: int
    c: int
    d: int
    k: int

    @property
    def flops(self) -> int:
        """Of the forward pass, dead taps included; the backward pass has twice as many."""
        return 2 * self.n * self.side**2 * self.k**2 * self.c * self.d

    def bytes(self, weights: int, itemsize: int, both: bool) -> int:
        """That must be read or written once: images, weights and outputs; backward also the cotangents."""
        arrays = self.n * self.side**2 * (self.c + self.d) + weights
        return itemsize * arrays * (3 if both else 1)


class Layer(NamedTuple):
    """A contender before it is compiled: a function of images and weights, and the weights."""

    name: str
    apply: Callable[[jax.Array, Any], jax.Array]
    weights: Any
    unit: str = UNIT
    convolutions: int = 1  # its arithmetic, in that of one convolution


def layers(shape: Shape, dtype: str, config: Config) -> Iterator[Layer]:
    """All that run in JAX at one shape."""
    n, side, c, d, k = shape
    window, space = cl.Window((k, k)), (side, side)
    keys = iter(jax.random.split(jax.random.key(0), 20))

    def normal(*size: int) -> jax.Array:
        return jax.random.normal(next(keys), size, dtype) / (k * c**0.5)

    def convolve(x: jax.Array, v: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, v, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shared, local = normal(k, k, c, d), normal(*space, k, k, c, d)
    yield Layer(UNIT, convolve, shared)
    graph, weights = nnx.split(nnx.Conv(c, d, (k, k), use_bias=False, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0)))
    yield Layer("conv, nnx.Conv", lambda x, w: nnx.merge(graph, w)(x), weights)
    for name in ("auto", "canonical", "windows"):
        yield Layer(f"conv, {name}", lambda x, v, name=name: cl.conv(x, v, window, implementation=name), shared)
    for name in ("auto", "blocks", "windows"):
        call = lambda x, v, name=name: cl.locally_connected(x, v, window, implementation=name)  # noqa: E731
        yield Layer(f"local, {name}", call, local)
    module = linen.ConvLocal(d, (k, k), use_bias=False, dtype=dtype, param_dtype=dtype)
    fused = {"params": {"kernel": local.reshape(*space, k * k * c, d)}}
    yield Layer("local, ConvLocal", lambda x, w: module.apply(w, x), fused)  # pyright: ignore[reportArgumentType]
    if (side * side * c) * (side * side * d) <= config.dense_limit:
        dense = cl.lift_local_to_dense(local, window, space)
        mask = dense != 0
        call = lambda x, w: cl.dense(x, jnp.where(mask, w, 0))  # noqa: E731
        yield Layer("local, masked dense", call, dense)
    yield Layer("tiled, p=2", lambda x, v: cl.tiled(x, v, window), normal(2, 2, k, k, c, d))
    mixed = (normal(4, k, k, c, d), normal(*space, 4))
    wide = "conv, lax, 4 x channels"
    yield Layer(wide, convolve, normal(k, k, c, 4 * d), wide, 4)
    yield Layer("low rank, r=4", lambda x, w: cl.low_rank(x, *w, window), mixed, wide)  # pyright: ignore[reportCallIssue]


def stepped(apply: Callable, step: str) -> Callable:
    """Forward, or forward and backward by images and weights, as one function of images, weights and cotangent."""
    if step == "forward":
        return lambda x, w, g: apply(x, w)

    def both(x: jax.Array, w: Any, g: jax.Array) -> Any:
        h, pull = jax.vjp(apply, x, w)
        return h, pull(g)

    return both


def scanned(apply: Callable, length: int) -> Callable:
    """Forward and backward, `length` times, each from the last one's gradients."""

    def run(x: jax.Array, w: Any, g: jax.Array) -> Any:
        def body(carry: Any, _: None) -> Any:
            h, gradients = stepped(apply, "both")(*carry, g)
            return jax.tree.map(lambda a, b: a + jnp.asarray(1e-3, a.dtype) * b, carry, tuple(gradients)), h.ravel()[0]

        return lax.scan(body, (x, w), None, length=length)

    return run


def contenders(shape: Shape, dtype: str, config: Config) -> Iterator[Contender]:
    """Everything to time at one shape."""
    x = jax.random.normal(jax.random.key(1), (shape.n, shape.side, shape.side, shape.c), dtype)
    for layer in layers(shape, dtype, config):
        g = jax.random.normal(jax.random.key(2), jax.eval_shape(layer.apply, x, layer.weights).shape, dtype)
        weights = sum(w.size for w in jax.tree.leaves(layer.weights))
        labels = {"name": layer.name, "unit": layer.unit, "weights": weights, "convolutions": layer.convolutions}
        for step in STEPS:
            yield compiled({**labels, "step": step}, stepped(layer.apply, step), (x, layer.weights, g))
        if layer.name in (UNIT, "conv, auto", "local, auto"):
            scan = scanned(layer.apply, config.length)
            yield compiled({**labels, "step": "scan"}, scan, (x, layer.weights, g), config.length)
            stacked = jax.tree.map(lambda a: jnp.stack([a] * config.networks), (x, layer.weights, g))
            yield compiled({**labels, "step": "vmap"}, jax.vmap(stepped(layer.apply, "both")), stacked, config.networks)
    if config.torch and dtype == "float32" and importlib.util.find_spec("torch"):
        yield from torch_contenders(shape, config)


def torch_contenders(shape: Shape, config: Config) -> Iterator[Contender]:
    """PyTorch's convolution, and a locally connected layer in the two forms that its users write."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    n, side, c, d, k = shape
    x = torch.randn(n, c, side, side, requires_grad=True)
    shared = torch.randn(d, c, k, k, requires_grad=True)
    local = torch.randn(side * side, c * k * k, d, requires_grad=True)

    def einsum(x: Any, v: Any) -> Any:
        return torch.einsum("nap,pad->npd", functional.unfold(x, k, padding=k // 2), v)

    def product(x: Any, v: Any) -> Any:
        return torch.bmm(functional.unfold(x, k, padding=k // 2).permute(2, 0, 1), v)

    forms = {
        "conv, torch": (lambda x, v: functional.conv2d(x, v, padding=k // 2), shared),
        "local, torch einsum": (einsum, local),
        "local, torch bmm": (product, local),
    }
    if config.compile_torch:
        forms |= {f"{name}, compiled": (call, v) for name, (call, v) in forms.items() if "local" in name}
    for name, (call, v) in forms.items():
        try:
            call = torch.compile(call) if "compiled" in name else call
            g = torch.randn_like(call(x, v))
        except Exception as error:  # torch.compile needs a C++ compiler
            print(f"{name} is left out: {str(error).splitlines()[0]}")
            continue
        labels = {"name": name, "unit": UNIT, "weights": v.numel(), "convolutions": 1}

        def forward(call: Any = call, v: Any = v) -> None:
            with torch.no_grad():
                call(x, v)

        def both(call: Any = call, v: Any = v, g: Any = g) -> None:
            x.grad = v.grad = None
            call(x, v).backward(g)

        yield Contender({**labels, "step": "forward"}, forward)
        yield Contender({**labels, "step": "both"}, both)


def pool_contenders(pool: str, dtype: str) -> Iterator[Contender]:
    """Max and mean over 2x2 windows, ours and the known forms."""
    n, side, c = map(int, pool.split("x"))
    x = jax.random.normal(jax.random.key(1), (n, side, side, c), dtype)
    window = cl.Window((2, 2), strides=2)

    def blocks(x: jax.Array) -> jax.Array:
        return x.reshape(n, side // 2, 2, side // 2, 2, c)

    forms = {
        "max pool, ours": lambda x, _: cl.max_pool(x, window),
        "max pool, reduce_window": lambda x, _: nnx.max_pool(x, (2, 2), (2, 2)),
        "max pool, reshape": lambda x, _: blocks(x).max((2, 4)),
        "mean pool, ours": lambda x, _: cl.mean_pool(x, window),
        "mean pool, reduce_window": lambda x, _: nnx.avg_pool(x, (2, 2), (2, 2)),
        "mean pool, reshape": lambda x, _: blocks(x).mean((2, 4)),
    }
    for name, apply in forms.items():
        g = jax.random.normal(jax.random.key(2), (n, side // 2, side // 2, c), dtype)
        labels = {"name": name, "unit": f"{name.split(',')[0]}, reduce_window", "weights": 0}
        for step in STEPS:
            yield compiled({**labels, "step": step}, stepped(apply, step), (x, jnp.zeros((0,), dtype), g))


def run(config: Config) -> list[dict]:
    """One row per shape, contender and step."""
    accelerator = jax.default_backend() != "cpu"
    rows = []
    for dtype in config.dtypes or ("float32", "bfloat16")[: 1 + accelerator]:
        roof = ceilings(dtype, config.least, large=config.least > 1)
        rows.append({"dtype": dtype, "name": "ceiling", **roof})
        for shape in config.shapes:
            print(f"{dtype} {shape}", flush=True)
            timed = interleave(
                list(contenders(Shape(*map(int, shape.split("x"))), dtype, config)), config.seconds, config.least
            )
            rows += [_placed(row, Shape(*map(int, shape.split("x"))), roof, dtype) for row in _ratios(timed, shape, dtype)]
        for pool in config.pools:
            rows += _ratios(interleave(list(pool_contenders(pool, dtype)), config.seconds, config.least), pool, dtype)
    return rows


def _ratios(rows: list[dict], shape: str, dtype: str) -> list[dict]:
    """Divide every time by that of the row's unit: of the same step, or forward and backward in a plain step."""
    times = {(row["name"], row["step"]): row["ms"] for row in rows}
    return [
        {
            "dtype": dtype,
            "shape": shape,
            **row,
            "ratio": row["ms"] / times[row["unit"], row["step"] if row["step"] in STEPS else "both"],
        }
        for row in rows
    ]


def _placed(row: dict, shape: Shape, roof: dict[str, float], dtype: str) -> dict:
    """Add the arithmetic rate and the roofline of a row."""
    both = row["step"] != "forward"
    flops = shape.flops * (3 if both else 1) * row["convolutions"]
    arithmetic = flops / 1e6 / roof["gflops"]
    traffic = shape.bytes(row["weights"], jnp.dtype(dtype).itemsize, both) / 1e6 / roof["gbs"]
    floor = max(arithmetic, traffic)
    return row | {
        "gflops": flops / 1e6 / row["ms"],
        "bound": "arithmetic" if arithmetic > traffic else "bytes",
        "floor_ms": floor,
        "of_floor": row["ms"] / floor,
    }


def summary(rows: list[dict]) -> list[dict]:
    """One row per contender: geometric means over shapes of the ratios, of memory against ConvLocal, and the worst shape."""
    lines: dict[tuple[str, str], dict] = {}
    memory = {(row["dtype"], row["shape"]): row["temp_mib"] for row in rows if _is(row, "local, ConvLocal", "both")}
    for dtype, name in dict.fromkeys((row["dtype"], row["name"]) for row in rows if "shape" in row):
        line = lines.setdefault((dtype, name), {"dtype": dtype, "contender": name})
        mine = [row for row in rows if row["name"] == name and row["dtype"] == dtype]
        for step in (*STEPS, "scan", "vmap"):
            line[step] = _mean([row["ratio"] for row in mine if row["step"] == step])
        both = [row for row in mine if row["step"] == "both"]
        line["worst_both"] = max(row["ratio"] for row in both)
        line["times_floor"] = _mean([row["of_floor"] for row in both if "of_floor" in row])
        line["memory_of_ConvLocal"] = _mean(
            [max(row["temp_mib"], 1e-3) / memory[dtype, row["shape"]] for row in both if _has_memory(row, memory)]
        )
        line["compile_s"] = _mean([row["compile_s"] for row in both if row["compile_s"]])
        line["shapes"] = len(both)
    return list(lines.values())


def _is(row: dict, name: str, step: str) -> bool:
    return row["name"] == name and row.get("step") == step


def _has_memory(row: dict, memory: dict) -> bool:
    return row["temp_mib"] is not None and (memory.get((row["dtype"], row["shape"])) or 0) > 0


def _mean(values: list[float]) -> float | None:
    return math.exp(float(np.mean(np.log(values)))) if values else None


LINES = {  # one look for every contender in all panels
    name: report.Style(name, colour, marker)
    for name, colour, marker in (
        ("ours", "#0072B2", "o"),
        ("ours, in scan", "#0072B2", "v"),
        ("ours, vmap over networks", "#0072B2", "s"),
        ("Linen ConvLocal", "#D55E00", "P"),
        ("masked dense (Keras)", "#CC79A7", "D"),
        ("PyTorch, best form", "#009E73", "^"),
        ("lax convolution", "#767676", "o"),
        ("lax convolution, in scan", "#E69F00", "v"),
        ("lax convolution, vmap over networks", "#E69F00", "s"),
    )
}


def draw(rows: list[dict]) -> Any:
    """Three panels: locally connected layers, convolutions where research code uses them, temporary memory."""
    rows = [row for row in rows if row.get("dtype") == rows[0]["dtype"] and len(row.get("shape", "").split("x")) == 5]
    figure, (left, middle, right) = report.new_figure(3, size=(17.0, 7.0))
    torch = [row for row in rows if row["name"].startswith("local, torch")]
    best = {s: min(r["ratio"] for r in torch if _is_step(r, s)) for s in dict.fromkeys(r["shape"] for r in torch)}
    local = {"local, auto": "ours", "local, ConvLocal": "Linen ConvLocal", "local, masked dense": "masked dense (Keras)"}
    drawn = [row | {"line": local[row["name"]]} for row in rows if row["name"] in local and row["step"] == "both"]
    drawn += [{"shape": s, "ratio": ratio, "line": "PyTorch, best form"} for s, ratio in best.items()]
    style = {"x_label": "batch x side x in x out x kernel", "by": "line", "x": "shape", "styles": LINES}
    unit = {"lax convolution, plain step": 1.0}
    report.points(
        left,
        drawn,
        y="ratio",
        y_label="time of forward + backward / lax convolution",
        title="locally connected",
        baselines=unit,
        **style,
    )
    drawn = [
        row | {"line": f"{'ours' if 'auto' in row['name'] else 'lax convolution'}, {where}"}
        for row in rows
        for step, where in (("scan", "in scan"), ("vmap", "vmap over networks"))
        if row["name"] in ("conv, auto", UNIT) and row["step"] == step
    ]
    report.points(
        middle,
        drawn,
        y="ratio",
        y_label="time a step and network / lax, plain step",
        title="convolution, forward + backward",
        baselines=unit,
        **style,
    )
    memory = {**local, UNIT: "lax convolution"}
    drawn = [row | {"line": memory[row["name"]]} for row in rows if row["name"] in memory and row["step"] == "both"]
    report.points(right, drawn, y="temp_mib", y_label="temporary memory, MiB", title="memory of forward + backward", **style)
    return figure


def _is_step(row: dict, shape: str) -> bool:
    return row["shape"] == shape and row["step"] == "both"


def main(config: Config) -> None:
    """Run, draw and save; without matplotlib, only the tables."""
    begin = time.perf_counter()
    rows = run(config)
    try:
        figure = draw(rows)
    except ImportError as error:
        print(error)
        figure = None
    backend = jax.default_backend()
    report.save_report(
        "speed" if backend == "cpu" else f"speed_{backend}",
        rows,
        config,
        figure=figure,
        summary=summary(rows),
        seconds=time.perf_counter() - begin,
        root=config.root,
    )


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__, keep=False))
