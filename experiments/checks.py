"""What decides the claims: each function tries one claim in cases, says in which it holds, and gives the number it turns on.

Weights and images are Gaussian, drawn anew for every check from one seed; whatever is compared is compared to rounding.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import algebra, data, measure, models

PADDINGS = ("VALID", "CIRCULAR", "SAME")


class Finding(NamedTuple):
    """In which cases a claim holds, and the number it turns on."""

    holds: dict[str, bool]
    number: float

    @property
    def verdict(self) -> str:
        """Whether it holds in all cases, in none, or in those named."""
        where = [case for case, holds in self.holds.items() if holds]
        return "true" if len(where) == len(self.holds) else f"true if {' or '.join(where)}" if where else "false"


def one(holds: bool, number: float) -> Finding:
    """A claim with a single case."""
    return Finding({"": bool(holds)}, number)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Gaussian numbers."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)


def matrix(v: jax.Array, window: cl.Window, space: Sequence[int]) -> np.ndarray:
    """The dense matrix of a convolution, outputs by pixels."""
    w = cl.lift_conv_to_dense(v, window, tuple(space))
    rank = len(space)
    w = jnp.moveaxis(w, -1, rank)
    return np.asarray(w, float).reshape(math.prod(w.shape[: rank + 1]), -1)


def equal(a: jax.Array, b: jax.Array) -> bool:
    """Whether two results are the same but for rounding."""
    return a.shape == b.shape and bool(jnp.abs(a - b).max() < 1e-4 * (1 + jnp.abs(b).max()))


def weights(build: Callable[[nnx.Rngs], nnx.Module]) -> int:
    """Count a network's parameters without making them."""
    model = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


# From dense layers to convolutions


def megapixel_to_a_thousand(pixels: int = 10**6, claimed: int = 10**9) -> Finding:
    """Weights of a dense layer from every pixel to a thousand units."""
    number = weights(lambda rngs: nnx.Linear(pixels, 1000, use_bias=False, rngs=rngs))
    return one(number == claimed, number)


def reindexing() -> Finding:
    """Re-index a dense weight by offsets, and back."""
    space = (5, 7)
    window, w = cl.Window.full(space), normal(*space, *space, 2, 3)
    v = cl.project_dense_to_local(w, window, space)
    back = cl.lift_local_to_dense(v, window, space)
    live = int(window.live(space).sum())
    slots = math.prod(v.shape[:-2])
    return Finding(
        {"offsets stay inside the image": equal(back, w) and live == math.prod(space) ** 2, "all offsets": slots == live},
        slots / live,
    )


def offsets_of_a_megapixel() -> Finding:
    """Offsets that lead from some pixel of a 1000 x 1000 image to another."""
    number = math.prod(cl.Window.full((1000, 1000)).taps(2))
    return one(number <= 10**6, number)


def saving_by_translation() -> Finding:
    """Weights of the dense layer over those of one kernel of all offsets."""
    number = 10**12 / math.prod(cl.Window.full((1000, 1000)).taps(2))
    return one(number >= 10**6, number)


def shared_weights_are_what_commutes() -> Finding:
    """A map that commutes with all shifts is a convolution: average a dense weight over shifts, against its projection."""
    space = (5, 7)
    window = cl.Window(space, padding="CIRCULAR")
    w = normal(*space, *space, 1, 1)
    shifts = itertools.product(*map(range, space))
    average = jnp.mean(jnp.stack([jnp.roll(w, (*shift, *shift), (0, 1, 2, 3)) for shift in shifts]), 0)
    v = cl.project_dense_to_conv(w, window, space)
    nearest = cl.lift_conv_to_dense(v, window, space)
    return one(equal(average, nearest), float(jnp.abs(average - nearest).max()))


def shifted_input_shifts_the_output() -> Finding:
    """Convolve a shifted image, and shift the convolved image, pixels moved in at the border being those moved out."""
    x, v = normal(11, 13, 2), normal(3, 3, 2, 3, seed=1)
    holds, share = {}, 0.0
    for padding in ("CIRCULAR", "SAME"):
        h = cl.conv(x, v, window := cl.Window(3, padding=padding))
        moved = cl.conv(jnp.roll(x, 1, 0), v, window)
        wrong = jnp.abs(moved - jnp.roll(h, 1, 0)).max(-1) > 1e-4
        holds[f"padding is {padding}"], share = not bool(wrong.any()), float(wrong.mean())
    return Finding(holds, share)


def one_pixel_windows_are_an_mlp() -> Finding:
    """A convolution of one tap, against the dense layer applied to every pixel's channels."""
    x, v = normal(5, 7, 3), normal(1, 1, 3, 4, seed=1)
    h, mlp = cl.conv(x, v, cl.Window(1)), x @ v[0, 0]
    return one(equal(h, mlp), float(jnp.abs(h - mlp).max()))


def commutation() -> Finding:
    """f * g against g * f: by how much they differ, as layers of two channels."""

    def apart(c: int) -> float:
        f, g = normal(3, 2, c, c), normal(2, 5, c, c, seed=1)
        return float(jnp.abs(kernel_of_two(f, g) - kernel_of_two(g, f)).max())

    return Finding({"there is one channel": apart(1) < 1e-4, "there are several": apart(2) < 1e-4}, apart(2))


# Kernels, padding, strides, channels


def edges() -> tuple[jax.Array, jax.Array]:
    """The chapter's image of a dark bar, and its kernel."""
    x = jnp.ones((6, 8, 1)).at[:, 2:6].set(0)
    return x, jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1)


def only_vertical_edges() -> Finding:
    """The kernel [1, -1] on a horizontal edge and on a diagonal one: the largest output."""
    x, v = edges()
    window = cl.Window((1, 2), padding="VALID")
    diagonal = jnp.triu(jnp.ones((6, 8)))[..., None]
    across, along = (float(jnp.abs(cl.conv(image, v, window)).max()) for image in (diagonal, x.swapaxes(0, 1)))
    return Finding({"the others are horizontal": along == 0, "the others are diagonal": across == 0}, across)


def kernel_learnt_in_ten_steps(seeds: int = 5) -> Finding:
    """Learn the edge kernel by gradient descent as the chapter does: the largest error of a weight, over seeds."""
    x, v = edges()
    window = cl.Window((1, 2), padding="VALID")
    wanted = cl.conv(x, v, window)

    def step(v: jax.Array, _: None) -> tuple[jax.Array, None]:
        return v - 3e-2 * jax.grad(lambda v: jnp.sum((cl.conv(x, v, window) - wanted) ** 2))(v), None

    draw = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's
    starts = [draw(jax.random.key(seed), v.shape, jnp.float32) for seed in range(seeds)]
    learnt = [jax.lax.scan(step, start, None, 10)[0] for start in starts]
    number = max(float(jnp.abs(each - v).max()) for each in learnt)
    return one(number < 0.1, number)


def smallest_derivative(degree: int = 3) -> Finding:
    """Kernels that annihilate polynomials below a degree and not that one: of `degree` taps none, of one more one."""

    def null(taps: int) -> int:
        powers = np.vander(np.arange(taps) - (taps - 1) / 2, degree, increasing=True).T  # a row per lower power
        return taps - int(np.linalg.matrix_rank(powers))

    return one(null(degree) == 0 and null(degree + 1) == 1, degree + 1)


def output_sizes() -> Finding:
    """floor((n - k + p + s) / s) against the places where a window of k lies on n + p pixels, s apart, over small sizes."""
    x, cases = jnp.zeros((12, 1)), itertools.product(range(3, 12), range(1, 4), range(4), range(1, 4))

    def outputs(n: int, k: int, p: int, s: int) -> int:
        window = cl.Window((k,), s, ((p // 2, p - p // 2),))
        return jax.eval_shape(functools.partial(cl.conv, window=window), x[:n], x[:k, :, None]).shape[0]

    right = [
        sum(first + k <= n + p for first in range(0, n + p, s)) == outputs(n, k, p, s) == (n - k + p + s) // s
        for n, k, p, s in cases
    ]
    return one(all(right), len(right))


def ten_layers_slice_off() -> Finding:
    """Share of a 240 x 240 image that ten layers of 5 x 5 without padding lose."""
    space = (240, 240)
    for _ in range(10):
        space = cl.Window(5, padding="VALID").of_rank(2).output_shape(space)
    number = 1 - math.prod(space) / 240**2
    return one(space == (200, 200) and round(number, 1) == 0.3, number)


def every_pixel_is_used_equally() -> Finding:
    """How often pixels are read: the most often, over the least often."""
    ratios = {padding: cl.Window((3, 3), padding=padding).coverage((7, 7)) for padding in ("CIRCULAR", "FULL", "SAME")}
    number = ratios["SAME"].max() / ratios["SAME"].min()
    return Finding({f"padding is {padding}": bool(np.ptp(uses) == 0) for padding, uses in ratios.items()}, float(number))


def strided_windows_read_every_pixel() -> Finding:
    """Share of pixels that a window with stride 2, padded by (k - 1) // 2, reads of images of even and odd sides."""

    def share(k: int, n: int) -> float:
        return float((cl.Window((k, k), 2, padding=(k - 1) // 2).coverage((n, n)) > 0).mean())

    cases = {
        "the window is 1x1": (1, 7, 8),
        "the window is 2x2 and sides are even": (2, 8),
        "the window is 2x2 and sides are odd": (2, 7),
        "the window is 3x3": (3, 7, 8),
    }
    return Finding({name: all(share(k, n) == 1 for n in sides) for name, (k, *sides) in cases.items()}, share(1, 8))


def doubled_channels() -> Finding:
    """Multiply-adds with twice the channels in and out, over those without."""

    def products(width: int) -> int:
        layer = nnx.eval_shape(lambda: cl.Conv(width, width, (3, 3), rngs=nnx.Rngs(0)))
        return cl.count(layer, (7, 7, width)).total.multiply_adds

    number = products(10) / products(5)
    return one(number == 4, number)


def parameters_know_no_image() -> Finding:
    """Weights of a layer made for images of 8 x 8 and of 16 x 16 pixels."""

    def made(kind: type, n: int) -> int:
        return weights(lambda rngs: kind(2, 3, (3, 3), space=(n, n), rngs=rngs))

    counts = {
        name: (made(kind, 8), made(kind, 16))
        for name, kind in (("the layer is a convolution", cl.Conv), ("the layer is its local twin", cl.LocallyConnected))
    }
    small, large = counts["the layer is its local twin"]
    return Finding({name: a == b for name, (a, b) in counts.items()}, large / small)


# Composition


def composed(x: jax.Array, first: jax.Array, second: jax.Array, padding: str) -> jax.Array:
    """Two convolutions in a row."""
    for v in (first, second):
        x = cl.conv(x, v, cl.Window(v.shape[:2], padding=padding))
    return x


def kernel_of_two(first: jax.Array, second: jax.Array) -> jax.Array:
    """The one kernel of two convolutions in a row."""
    return algebra.compose(first, second, *(cl.Window(v.shape[:2], padding="VALID") for v in (first, second)))[0]


def two_kernels_are_one() -> Finding:
    """Two 3 x 3 layers against one 5 x 5 layer: pixels of a 12 x 12 image that differ, under zero padding."""
    x, first, second = normal(12, 12, 2), normal(3, 3, 2, 3, seed=1), normal(3, 3, 3, 2, seed=2)
    v = kernel_of_two(first, second)
    holds, number = {}, 0
    for padding in PADDINGS:
        twice = composed(x, first, second, padding)
        once = cl.conv(x, v, cl.Window(v.shape[:2], padding=padding))
        number = int((jnp.abs(twice - once).max(-1) > 1e-3).sum())
        holds[f"padding is {padding}"] = number == 0
    return Finding(holds, number)


def one_kernel_is_two() -> Finding:
    """Free numbers of two 2 x 2 kernels of one channel, less the scale between them, against nine of a 3 x 3 kernel."""
    first, second = normal(2, 2, 1, 1), normal(2, 2, 1, 1, seed=1)
    derivative = jax.jacobian(lambda pair: kernel_of_two(*pair).ravel())((first, second))
    number = int(np.linalg.matrix_rank(np.concatenate([part.reshape(9, -1) for part in derivative], 1)))
    return one(number == 9, number)


def reached_by_two(size: int, c: int, width: int) -> int:
    """Dimensions of all c -> c kernels that two smaller ones through `width` channels reach: the rank of the derivative."""
    half = size // 2 + 1
    pair = normal(half, half, c, width), normal(half, half, width, c, seed=1)
    derivative = jax.jacobian(lambda pair: kernel_of_two(*pair).ravel())(pair)
    parts = [np.asarray(part).reshape(size * size * c * c, -1) for part in derivative]
    return int(np.linalg.matrix_rank(np.concatenate(parts, 1)))


def two_small_are_one_large(size: int, c: int = 2) -> Finding:
    """Whether two small kernels make any c -> c kernel of `size` x `size`, by the width between; how far one less reaches."""
    law = math.ceil(algebra.middle_width(size, size // 2 + 1, size // 2 + 1, c))
    reached = {"narrower than the law": reached_by_two(size, c, law - 1), "as wide as the law": reached_by_two(size, c, law)}
    every = size * size * c * c
    holds = {f"what lies between is {name}": many == every for name, many in reached.items()}
    return Finding(holds, reached["narrower than the law"])


def fewer_weights(large: int, small: int) -> Finding:
    """Weights that two small kernels save, at equal width, and whether together they see what the large one sees."""
    nets = [
        nnx.Sequential(*(cl.Conv(7, 7, (size, size), use_bias=False, rngs=nnx.Rngs(0)) for size in sizes))
        for sizes in ((large,), (small, small))
    ]
    alone, twice = (cl.count(net, (2 * large, 2 * large, 7)).total for net in nets)
    number = 1 - twice.weights / alone.weights
    return one(number > 0 and twice.field == alone.field, number)


def layers_without_relu() -> Finding:
    """Three layers without anything between, and the one layer they are: the share of pixels that differ with zeros around."""
    kernels = [normal(3, 3, 2, 2, seed=seed) for seed in range(3)]
    x, fused = normal(13, 11, 2, seed=3), kernels[0]
    for v in kernels[1:]:
        fused = kernel_of_two(fused, v)
    holds, number = {}, 0.0
    for padding in PADDINGS:
        h = x
        for v in kernels:
            h = cl.conv(h, v, cl.Window(3, padding=padding))
        once = cl.conv(x, fused, cl.Window(fused.shape[:2], padding=padding))
        number = float((jnp.abs(h - once).max(-1) > 1e-2).mean())
        holds[f"padding is {padding}"] = number == 0
    return Finding(holds, number)


def even_kernels_drift(layers: int = 6) -> Finding:
    """How far the mean of an impulse moves through layers of two equal taps that pad on one side, and on sides in turn."""

    def drift(paddings: Sequence[str]) -> float:
        x = jnp.zeros((41, 1)).at[20].set(1.0)
        for padding in paddings:
            x = cl.conv(x, jnp.full((2, 1, 1), 0.5), cl.Window((2,), padding=padding))
        return float((jnp.arange(41) * x[:, 0]).sum()) - 20

    same, turns = drift(["SAME"] * layers), drift(["SAME", "SAME_LOWER"] * (layers // 2))
    return Finding({"all pad on one side": abs(same) == layers / 2, "they pad on sides in turn": turns != 0}, abs(same))


# Pooling


def mean_pooling_is_a_convolution() -> Finding:
    """Mean pooling, against a convolution of each channel with equal weights."""
    x = normal(8, 6, 3)
    h = cl.mean_pool(x, window := cl.Window((2, 2), 2))
    conv = cl.conv(x, jnp.full((2, 2, 1, 3), 1 / 4), window, groups=3)
    return one(equal(h, conv), float(jnp.abs(h - conv).max()))


def max_pooling_is_a_convolution() -> Finding:
    """Whether max pooling adds up, as every convolution does: the largest difference."""
    x, y, window = normal(8, 6, 1), normal(8, 6, 1, seed=1), cl.Window((2, 2), 2)
    number = float(jnp.abs(cl.max_pool(x + y, window) - cl.max_pool(x, window) - cl.max_pool(y, window)).max())
    return one(number < 1e-4, number)


def max_from_relus() -> Finding:
    """max(a, b) = relu(a - b) + b, a convolution and a ReLU: the largest difference."""
    a, b = normal(101), normal(101, seed=1)
    number = float(jnp.abs(algebra.maximum(a, b) - jnp.maximum(a, b)).max())
    return one(number < 1e-5, number)


def minimum_needs_no_layer() -> Finding:
    """min(x) = -max(-x): the largest difference."""
    x, window = normal(8, 6, 2), cl.Window((2, 2), 2)
    least = x.reshape(4, 2, 3, 2, 2).min((1, 3))
    number = float(jnp.abs(least + cl.max_pool(-x, window)).max())
    return one(number == 0, number)


def pooling_forgives_one_pixel(n: int = 16) -> Finding:
    """Move an edge by one pixel: how often a 2-wide pooled response that saw it still sees it, for pooling of stride 2."""
    edge = jnp.eye(n)[:, :, None]  # the response of the kernel to an edge at every place

    def still(stride: int) -> float:
        h = cl.max_pool(edge, cl.Window((2,), stride, padding="VALID"))[..., 0]
        return float((h[:-1] * h[1:]).any(1).mean())

    return Finding({f"the stride is {stride}": still(stride) == 1 for stride in (1, 2)}, still(2))


def max_pooling_aliases() -> Finding:
    """Share of the energy above what every second sample can tell, of [0, 0, 1, 1, ...] max pooled; blurred, it has none."""
    x = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), 4)[None, :, None]
    window = cl.Window((2,), 1, "CIRCULAR")
    pooled, blurred, raw = (float(measure.aliased_energy(h, 2)) for h in (cl.max_pool(x, window), cl.blur_pool(x, window), x))
    return one(pooled > 0.01 and max(blurred, raw) < 1e-6, pooled)


def crosses_light_up() -> Finding:
    """Two small crosses as kernels, max pooled, on a large one: whether its own kernel at its centre answers most, alone."""
    crosses = algebra.upright_cross(), algebra.diagonal_cross()
    v = jnp.concatenate([kernel - kernel.mean() for kernel in crosses], -1)
    holds = {}
    for name, size in (("an even place", 16), ("an odd place", 18)):
        n, centre = size + 1, size // 2
        r = jnp.arange(n) - centre
        pictures = {"+": (r[:, None] == 0) | (r[None] == 0), "x": jnp.abs(r[:, None]) == jnp.abs(r[None])}
        for number, (shape, picture) in enumerate(pictures.items()):
            h = cl.conv(picture[..., None].astype(float), v, cl.Window(3, padding="VALID"))
            pooled = cl.max_pool(h, cl.Window((2, 2), 2, padding=((0, 1), (0, 1))))
            middle = (centre - 1) // 2
            holds[f"{shape} at {name}"] = jnp.argwhere(pooled == pooled.max()).tolist() == [[middle, middle, number]]
    return Finding(holds, sum(holds.values()))


# What a layer keeps


def rank_of(v: jax.Array, x: jax.Array, activation: Callable[[jax.Array], jax.Array] = lambda h: h) -> int:
    """Dimensions that the responses to many patches span."""
    h = activation(x @ v.reshape(-1, v.shape[-1]))
    return int(np.linalg.matrix_rank(np.asarray(h, float), tol=1e-3))


def outputs_beyond_the_patch() -> Finding:
    """Dimensions that 32 filters span on 3x3x3 patches, before a ReLU and after."""
    v, x = normal(3, 3, 3, 32), normal(999, 27, seed=1)
    linear, rectified = rank_of(v, x), rank_of(v, x, jax.nn.relu)
    return Finding({"nothing follows": linear <= 27, "a ReLU follows": rectified <= 27}, rectified)


def nine_to_eight_reshuffles() -> Finding:
    """Eight 3 x 3 filters on one channel: dimensions that they lose, of a patch and of the whole image without padding."""
    v = normal(3, 3, 1, 8)
    patch = 9 - int(np.linalg.matrix_rank(v.reshape(9, 8)))
    image = 64 - int(np.linalg.matrix_rank(matrix(v, cl.Window(3, padding="VALID").of_rank(2), (8, 8))))
    return Finding({"it is about the whole image": image == 0, "it is about a patch": patch == 0}, patch)


def filters_keep_the_image(k: int = 3, n: int = 8) -> Finding:
    """Dimensions of an image that generic filters lose without padding, by their number: two lose 2 (k - 1)^2."""

    def lost(d: int) -> int:
        return n * n - int(np.linalg.matrix_rank(matrix(normal(k, k, 1, d), cl.Window((k, k), padding="VALID"), (n, n))))

    return Finding({"there are two": lost(2) == 0, "there are three": lost(3) == 0}, lost(2))


def one_filter_keeps_the_image(n: int = 8) -> Finding:
    """Dimensions of an image that one generic 3 x 3 filter loses, by what lies outside; without padding, 4 (n - 1)."""
    v = normal(3, 3, 1, 1)
    matrices = {padding: matrix(v, cl.Window((3, 3), padding=padding), (n, n)) for padding in PADDINGS}
    lost = {padding: n * n - int(np.linalg.matrix_rank(w)) for padding, w in matrices.items()}
    return Finding({f"padding is {padding}": many == 0 for padding, many in lost.items()}, lost["VALID"])


def only_one_stem_dilutes() -> Finding:
    """Whether 147 to 64 condenses and 27 to 32 dilutes, by two ratios: outputs over what they read, and over what is new."""
    stems = (cl.Window(7, 2), 64), (cl.Window(3, 2), 32)
    large, small = (measure.stem_report([stem], normal(2, 16, 16, 3), jax.random.key(0))[0] for stem in stems)
    holds = {
        "outputs are set against the pixels they read": large.window_ratio < 1 < small.window_ratio,
        "outputs are set against the pixels new to them": large.stride_ratio < 1 < small.stride_ratio,
    }
    return Finding(holds, large.stride_ratio)


def one_to_many_fills_little() -> Finding:
    """Dimensions that a 1 x 1 layer from one channel to 16 spans, before bias and ReLU and after."""
    v, u, x = normal(1, 16), normal(16, seed=1), normal(999, 1, seed=2)
    linear = rank_of(v, x)
    bent = int(np.linalg.matrix_rank(np.asarray(jax.nn.relu(x @ v + u), float), tol=1e-3))
    return Finding({"nothing follows": linear == 1, "bias and ReLU follow": bent == 1}, bent)


def stem_c_saves(what: str = "multiply_adds") -> Finding:
    """Multiply-adds, or weights, of ResNet-C's stem of three 3 x 3 layers, over those of the 7 x 7 one, on 224 x 224 pixels."""

    def total(stem: str) -> int:
        image = (224, 224, 3)
        model = nnx.eval_shape(lambda: models.ResNet(image, 1000, (1,), stem=stem, rngs=nnx.Rngs(0)))
        names = [f"stages/{number}/layer" for number in range(len(models.STEMS[stem].layers))]
        return sum(getattr(row, what) for row in cl.count(model, image).layers if row.name in names)

    number = total("3x3x3") / total("7x7")
    return one(number < 1, number)


# Training


def equal_updates() -> Finding:
    """One step of a dense weight, as it is and averaged over positions, against the convolution's at the tap's own rate."""
    space, window = (5, 7), cl.Window((3, 3), padding="CIRCULAR")
    x, target, v = normal(11, *space, 2), normal(11, *space, 3, seed=1), normal(3, 3, 2, 3, seed=2)
    w, rate = cl.lift_conv_to_dense(v, window, space), 1e-2
    by_v = jax.grad(lambda v: jnp.sum((cl.conv(x, v, window) - target) ** 2))(v)
    by_w = jax.grad(lambda w: jnp.sum((cl.dense(x, w) - target) ** 2))(w)
    holds, number = {}, 0.0
    for name, rule, scale in (("SGD", optax.sgd, 1 / math.prod(space)), ("Adam", optax.adam, 1.0)):
        dense, tied = rule(rate), rule(rate * scale)
        change, wanted = (jnp.asarray(own.update(g, own.init(g))[0]) for own, g in ((dense, by_w), (tied, by_v)))
        mean = cl.project_dense_to_conv(change, window, space)
        number = float(jnp.abs(mean - wanted).max() / jnp.abs(wanted).max())
        lifted = cl.lift_conv_to_dense(wanted, window, space)
        holds[f"they are {name}'s own"] = bool(jnp.abs(change - lifted).max() < 1e-3 * jnp.abs(lifted).max())
        holds[f"they are {name}'s, averaged"] = number < 1e-3
    return Finding(holds, number)


def published_counts() -> Finding:
    """The book's networks for 32 x 32 colour images: which have the printed weights; those of the last."""
    shape = (32, 32, 3)
    printed = {
        "MLP 512": (1_574_402, lambda rngs: models.MLP(shape, 2, (512,), rngs=rngs)),
        "MLP 1024": (3_737_474, lambda rngs: models.MLP(shape, 2, (1024, 512, 128), rngs=rngs)),
        "Net": (18_090, lambda rngs: models.Net(shape, rngs=rngs)),
        "Net of width 32": (38_386, lambda rngs: models.Net(shape, width=32, rngs=rngs)),
        "100 blocks": (994_530, lambda rngs: models.NetDeep(shape, blocks=100, tied=True, rngs=rngs)),
    }
    counts = {name: weights(build) for name, (_, build) in printed.items()}
    return Finding({name: counts[name] == count for name, (count, _) in printed.items()}, counts["100 blocks"])


def pooled_circles_cannot_tell_left() -> Finding:
    """Classify which half a bright box is in by circular layers and global pooling: images it tells apart from their shifts."""
    x = jnp.zeros((16, 16, 1)).at[6:10, 2:6].set(1)
    images = jnp.stack([x, jnp.roll(x, 8, 1)])
    v = [normal(3, 3, 1, 5), normal(3, 3, 5, 7, seed=1)]
    h = images
    for kernel in v:
        h = jax.nn.relu(cl.conv(h, kernel, cl.Window(3, padding="CIRCULAR")))
    left, right = h.max((1, 2))
    return one(equal(left, right), float(jnp.abs(left - right).max()))


def permuted_pixels() -> Finding:
    """The gradients of a dense layer and of a convolution when pixels, and dense weights, change places."""
    digits = data.load("digits").train.images[:11].reshape(11, 64).astype(np.float32) / 16
    order = np.random.default_rng(0).permutation(64)
    w, v = normal(64, 5), normal(3, 3, 1, 5, seed=1)

    def conv(x: np.ndarray, v: jax.Array) -> jax.Array:
        return cl.conv(jnp.asarray(x.reshape(11, 8, 8, 1)), v, cl.Window(3))

    def gradient(layer: Callable, x: np.ndarray, weight: jax.Array) -> jax.Array:
        return jax.grad(lambda weight: jnp.sum(jax.nn.relu(layer(x, weight)) ** 2))(weight)

    same = equal(gradient(jnp.matmul, digits, w)[order], gradient(jnp.matmul, digits[:, order], w[order]))
    before, after = gradient(conv, digits, v), gradient(conv, digits[:, order], v)
    number = float(jnp.linalg.norm(after - before) / jnp.linalg.norm(before))
    return one(same and number > 0.01, number)
