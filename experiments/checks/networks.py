"""Checks of claims about whole networks: their weights, multiply-adds and bytes."""

import math

from flax import nnx

import convlab as cl
from convlab import models
from experiments.checks import Finding, one, weights


def first_layer_grows(layer: int = 0) -> Finding:
    """Compare the numbers that a layer of the book's residual network returns with those that it reads.

    Images have 32 x 32 pixels of three colours.
    """
    image = (32, 32, 3)
    model = nnx.eval_shape(lambda: models.NetDeep(image, blocks=10, tied=True, rngs=nnx.Rngs(0)))
    shapes = [image] + [row.output_shape for row in cl.count(model, image).layers if row.name.endswith("layer")]
    number = math.prod(shapes[layer + 1]) / math.prod(shapes[layer])
    return one(number > 2, number)


def published_counts(side: int = 32) -> Finding:
    """Compare the weights of the book's networks for two classes of colour images with the printed ones."""
    shape = (side, side, 3)
    printed = {
        "MLP 512": (1_574_402, lambda rngs: models.MLP(shape, 2, (512,), rngs=rngs)),
        "MLP 1024": (3_737_474, lambda rngs: models.MLP(shape, 2, (1024, 512, 128), rngs=rngs)),
        "Net of width 32": (38_386, lambda rngs: models.Net(shape, width=32, rngs=rngs)),
        "Net": (18_090, lambda rngs: models.Net(shape, rngs=rngs)),
    }
    counts = {name: weights(build) for name, (_, build) in printed.items()}
    return Finding({name: counts[name] == count for name, (count, _) in printed.items()}, counts["Net"])


def stem_saves(stem: str = "3x3x3") -> Finding:
    """Compare the multiply-adds of a ResNet's stem on 224 x 224 pixels with those of the 7 x 7 stem.

    ResNet-C has three 3 x 3 layers.
    """

    def products(name: str) -> int:
        image = (224, 224, 3)
        model = nnx.eval_shape(lambda: models.ResNet(image, 1000, (1,), stem=name, rngs=nnx.Rngs(0)))
        names = [f"stages/{number}/layer" for number in range(len(models.STEMS[name].layers))]
        return sum(row.multiply_adds for row in cl.count(model, image).layers if row.name in names)

    number = products(stem) / products("7x7")
    return one(number < 1, number)


ALEXNET = (  # the text's: channels, taps, stride, padding, and whether 3 x 3 max pooling of stride 2 follows
    (96, 11, 4, 1, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


def alexnet(classes: int = 10) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Return the weights of the text's AlexNet, and the shapes of its two huge matrices.

    The input is (224, 224, 1).
    """
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
    """Compare the sizes of AlexNet and of its two huge layers with 900 to 1000 megabytes."""
    total, *shapes = alexnet()
    sizes = {"the two layers are": sum(map(math.prod, shapes)), "the whole network is": total}
    holds = {f"{part} counted": 0.9e9 <= bytes_a_weight * count <= 1e9 for part, count in sizes.items()}
    return Finding(holds, bytes_a_weight * total / 1e6)


def two_matrices_take(claimed: int = 164) -> Finding:
    """Count the bytes of AlexNet's two huge matrices in float32, in megabytes of 2^20 and of 10^6."""
    _, *shapes = alexnet()
    taken = 4 * sum(map(math.prod, shapes))
    return Finding(
        {f"a MB has {name} bytes": round(taken / size) == claimed for name, size in (("2^20", 2**20), ("10^6", 10**6))},
        taken / 1e6,
    )
