"""Claims that counting decides: weights, offsets, pixels, multiply-adds, bytes."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

import convlab as cl
from convlab import models
from experiments.checks import Finding, one, weights


def dense_weights(pixels: int = 10**6, claimed: int = 10**9) -> Finding:
    """Weights of a dense layer from every pixel to a thousand units."""
    number = weights(lambda rngs: nnx.Linear(pixels, 1000, use_bias=False, rngs=rngs))
    return one(number == claimed, number)


def offsets(side: int = 1000, least: float = 0, most: float = 10**6) -> Finding:
    """Offsets that lead from some pixel of a square image to another."""
    number = math.prod(cl.Window.full((side, side)).taps(2))
    return one(least <= number <= most, number)


def saving_by_sharing(side: int = 20) -> Finding:
    """Whether sharing divides by the number of pixels what V has, on a small image; by how much, of a megapixel's weights."""
    space = (side, side)
    window = cl.Window.full(space)
    kernel, pixels = math.prod(window.taps(2)), side**2
    slots = math.prod(window.live(space).shape)
    live = int(window.live(space).sum())
    holds = {"slots of V are counted": slots == pixels * kernel, "weights are counted": live == pixels * kernel}
    return Finding(holds, 10**12 / math.prod(cl.Window.full((1000, 1000)).taps(2)))


def weights_of_a_window() -> Finding:
    """Taps of a window that reaches Delta pixels to each side, over 4 Delta^2: within a quarter of it, or not."""
    ratios = {delta: math.prod(cl.Window(2 * delta + 1).taps(2)) / (4 * delta**2) for delta in (9, 1)}
    return Finding({f"Delta is {delta}": ratio < 5 / 4 for delta, ratio in ratios.items()}, ratios[1])


def output_sizes(rule: Callable[[int, int, int, int], int] = lambda n, k, p, s: (n - k + p + s) // s) -> Finding:
    """A rule for output sizes against the places where a window of k lies on n + p pixels, s apart, over small sizes."""
    x, cases = jnp.zeros((12, 1)), itertools.product(range(3, 12), range(1, 4), range(4), range(1, 4))

    def outputs(n: int, k: int, p: int, s: int) -> int:
        window = cl.Window((k,), s, ((p // 2, p - p // 2),))
        return jax.eval_shape(functools.partial(cl.conv, window=window), x[:n], x[:k, :, None]).shape[0]

    right = [
        sum(first + k <= n + p for first in range(0, n + p, s)) == outputs(n, k, p, s) == rule(n, k, p, s)
        for n, k, p, s in cases
    ]
    return one(all(right), len(right))


def ten_layers_slice_off(size: int = 5) -> Finding:
    """Share of a 240 x 240 image that ten layers without padding lose."""
    space = (240, 240)
    for _ in range(10):
        space = cl.Window(size, padding="VALID").of_rank(2).output_shape(space)
    number = 1 - math.prod(space) / 240**2
    return one(space == (200, 200) and round(number, 1) == 0.3, number)


def trimmed(before: int = 32, after: int = 28) -> Finding:
    """Share of a square image that trimming its sides takes away, to be 30 % to a percent."""
    number = 1 - after**2 / before**2
    return one(abs(number - 0.3) < 0.01, number)


def every_pixel_is_used_equally() -> Finding:
    """How often pixels are read: the most often, over the least often."""
    uses = {padding: cl.Window((3, 3), padding=padding).coverage((7, 7)) for padding in ("CIRCULAR", "FULL", "SAME")}
    holds = {f"padding is {padding}": bool(many.max() == many.min()) for padding, many in uses.items()}
    return Finding(holds, float(uses["SAME"].max() / uses["SAME"].min()))


def strided_windows_read_every_pixel(sizes: Sequence[tuple[int, int]] = ((3, 4), (3, 3))) -> Finding:
    """Least share of pixels that windows of stride 2, padded by (k - 1) // 2, read of images of even and odd sides."""

    def share(size: tuple[int, int], side: int) -> float:
        pads = tuple(((k - 1) // 2, (k - 1) // 2) for k in size)
        return float((cl.Window(size, 2, padding=pads).coverage((side, side)) > 0).mean())

    number = min(share(size, side) for size in sizes for side in (7, 8))
    return one(number == 1, number)


def doubled_channels(inputs: int = 2, outputs: int = 2) -> Finding:
    """Multiply-adds with so many times the channels in and out, over those without."""

    def products(c: int, d: int) -> int:
        layer = nnx.eval_shape(lambda: cl.Conv(c, d, (3, 3), rngs=nnx.Rngs(0)))
        return cl.count(layer, (7, 7, c)).total.multiply_adds

    number = products(5 * inputs, 5 * outputs) / products(5, 5)
    return one(number == 4, number)


def operations(of_a_product: int = 2) -> Finding:
    """Operations of a 5 x 5 layer from 128 to 128 channels on 256 x 256 pixels, an addition to every multiplication."""
    layer = nnx.eval_shape(lambda: cl.Conv(128, 128, (5, 5), use_bias=False, padding="CIRCULAR", rngs=nnx.Rngs(0)))
    number = of_a_product * cl.count(layer, (256, 256, 128)).total.multiply_adds
    return one(53e9 < number < 54e9, number)


def parameters_know_no_image(kind: type = cl.Conv) -> Finding:
    """Weights of a layer made for images of 16 x 16 pixels, over those of one made for 8 x 8."""
    small, large = (weights(lambda rngs, n=n: kind(2, 3, (3, 3), space=(n, n), rngs=rngs)) for n in (8, 16))
    return one(small == large, large / small)


def first_layer_grows(layer: int = 0) -> Finding:
    """Numbers that a layer of the book's residual network returns, over those that it reads, images of 32 x 32 colours."""
    image = (32, 32, 3)
    model = nnx.eval_shape(lambda: models.NetDeep(image, blocks=10, tied=True, rngs=nnx.Rngs(0)))
    shapes = [image] + [row.output_shape for row in cl.count(model, image).layers if row.name.endswith("layer")]
    number = math.prod(shapes[layer + 1]) / math.prod(shapes[layer])
    return one(number > 2, number)


def published_counts(side: int = 32) -> Finding:
    """The weights of the book's networks for two classes of colour images, against those that it prints."""
    shape = (side, side, 3)
    printed = {
        "MLP 512": (1_574_402, lambda rngs: models.MLP(shape, 2, (512,), rngs=rngs)),
        "MLP 1024": (3_737_474, lambda rngs: models.MLP(shape, 2, (1024, 512, 128), rngs=rngs)),
        "Net of width 32": (38_386, lambda rngs: models.Net(shape, width=32, rngs=rngs)),
        "Net": (18_090, lambda rngs: models.Net(shape, rngs=rngs)),
    }
    counts = {name: weights(build) for name, (_, build) in printed.items()}
    return Finding({name: counts[name] == count for name, (count, _) in printed.items()}, counts["Net"])


def fewer_weights(large: int = 5, small: int = 3) -> Finding:
    """Weights that two small kernels save, at equal width, and whether together they see what the large one sees."""
    nets = [
        nnx.Sequential(*(cl.Conv(7, 7, (size, size), use_bias=False, rngs=nnx.Rngs(0)) for size in sizes))
        for sizes in ((large,), (small, small))
    ]
    alone, twice = (cl.count(net, (2 * large, 2 * large, 7)).total for net in nets)
    number = 1 - twice.weights / alone.weights
    return one(number > 0 and twice.field == alone.field, number)


def stem_saves(stem: str = "3x3x3") -> Finding:
    """Multiply-adds of a ResNet's stem over those of the 7 x 7 one, on 224 x 224 pixels; ResNet-C has three 3 x 3 layers."""

    def products(name: str) -> int:
        image = (224, 224, 3)
        model = nnx.eval_shape(lambda: models.ResNet(image, 1000, (1,), stem=name, rngs=nnx.Rngs(0)))
        names = [f"stages/{number}/layer" for number in range(len(models.STEMS[name].layers))]
        return sum(row.multiply_adds for row in cl.count(model, image).layers if row.name in names)

    number = products(stem) / products("7x7")
    return one(number < 1, number)


ALEXNET = (  # as the text has it: channels, taps, stride, padding; whether 3 x 3 max pooling of stride 2 follows
    (96, 11, 4, 1, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


def alexnet(classes: int = 10) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Weights of the text's AlexNet on (224, 224, 1), and the shapes of its two huge matrices."""
    space, c, total = (224, 224), 1, 0
    for d, size, stride, padding, pooled in ALEXNET:
        pads = ((padding, padding),) * 2
        total += weights(lambda rngs, c=c, d=d, size=size: cl.Conv(c, d, (size, size), rngs=rngs))
        space, c = cl.Window((size, size), stride, pads).output_shape(space), d
        space = cl.Window((3, 3), 2, "VALID").output_shape(space) if pooled else space
    shapes = (math.prod(space) * c, 4096), (4096, 4096)
    total += sum(weights(lambda rngs, s=shape: nnx.Linear(*s, rngs=rngs)) for shape in (*shapes, (4096, classes)))
    return total, *shapes


def nearly_a_gigabyte(bytes_a_weight: int = 4) -> Finding:
    """Megabytes of AlexNet's two huge layers, and of the whole network, against 900 to 1000; those of the whole."""
    total, *shapes = alexnet()
    sizes = {"the two layers are": sum(map(math.prod, shapes)), "the whole network is": total}
    holds = {f"{what} counted": 0.9e9 <= bytes_a_weight * many <= 1e9 for what, many in sizes.items()}
    return Finding(holds, bytes_a_weight * total / 1e6)


def two_matrices_take(claimed: int = 164) -> Finding:
    """Bytes of AlexNet's two huge matrices in single precision, in megabytes of 2^20 and of 10^6."""
    _, *shapes = alexnet()
    taken = 4 * sum(map(math.prod, shapes))
    return Finding(
        {f"a MB has {name} bytes": round(taken / size) == claimed for name, size in (("2^20", 2**20), ("10^6", 10**6))},
        taken / 1e6,
    )
