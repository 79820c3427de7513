"""The networks of *Deep Learning with PyTorch* for birds and planes, with printed accuracies."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import optax
from flax import nnx

import convlab as cl

Name = Literal[
    "linear",
    "mlp",
    "mlp_deep",
    "net",
    "net_local",
    "l2",
    "wide",
    "dropout",
    "batch_norm",
    "depth",
    "residual",
    "deep_tied",
    "deep_untied",
]
LINEAR, NET = "linear classifier", "Net"
PYTORCH_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
L2 = 1e-3  # the factor of the sum of all squared parameters in the loss; its gradient is 2 * L2 * parameter


class Network(NamedTuple):
    """A network of the book: label, builder, training settings and printed accuracies."""

    label: str
    build: Callable[..., nnx.Module]
    learning_rate: float
    train: float | None = None
    test: float | None = None
    l2: float = 0.0

    @property
    def optimizer(self) -> optax.GradientTransformation | None:
        """SGD with the gradient of the squared parameters, if the book adds them to the loss."""
        decay = optax.add_decayed_weights(2 * self.l2)
        return optax.chain(decay, optax.sgd(self.learning_rate)) if self.l2 else None


def networks(image_shape: tuple[int, ...], blocks: int, rate: float, slow: float) -> dict[Name, Network]:
    """Return all networks by name, with the accuracies that the book prints.

    The perceptrons are in chapter 7, the other networks in section 8.5.

    Args:
      image_shape: The shape of an image.
      blocks: The number of blocks of the deep networks.
      rate: The learning rate.
      slow: The learning rate of the deep networks.
    """
    mlp, net, deep = (
        functools.partial(kind, image_shape, 2, kernel_init=PYTORCH_INIT)
        for kind in (cl.models.MLP, cl.models.Net, cl.models.NetDeep)
    )
    mlp, wide = functools.partial(mlp, activation=nnx.tanh), functools.partial(net, width=32)
    deeper = functools.partial(wide, depth=3, activation=nnx.relu)
    tied, untied = (functools.partial(deep, blocks=blocks, tied=tied) for tied in (True, False))
    return {
        "linear": Network(LINEAR, functools.partial(mlp, features=()), rate / 10),
        "mlp": Network("MLP 512", functools.partial(mlp, features=(512,)), rate, test=0.82),
        "mlp_deep": Network("MLP 1024-512-128", functools.partial(mlp, features=(1024, 512, 128)), rate, test=0.80),
        "net": Network(NET, net, rate, 0.93, 0.89),
        "net_local": Network("Net, locally connected", functools.partial(net, connectivity="locally_connected"), rate),
        "l2": Network("Net, L2", net, rate, test=0.87, l2=L2),
        "wide": Network("Net, wide", wide, rate, test=0.90),
        "dropout": Network("wide, dropout", functools.partial(wide, dropout=0.4), rate, test=0.88),
        "batch_norm": Network("wide, batch norm", functools.partial(wide, batch_norm=True), rate, test=0.89),
        "depth": Network("wide, three layers", deeper, rate, test=0.90),
        "residual": Network("wide, residual", functools.partial(deeper, residual=True), rate, test=0.90),
        "deep_tied": Network(f"{blocks} blocks, tied", tied, slow, test=0.86 if blocks == 100 else None),
        "deep_untied": Network(f"{blocks} blocks, untied", untied, slow),
    }
