"""What layers return: for some images, all along training, and how many dimensions it fills."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from convlab import check
from convlab.calls import recorded
from convlab.measure.spectrum import numerical_rank
from convlab.measure.trace import KINDS, trace


def feature_maps(model: Any, images: Float[Array, "n k l c"], *layers: str) -> dict[str, Float[Array, "n i j d"]]:
    """Return what layers make of images, in evaluation mode.

    Args:
      model: A Flax NNX module.
      images: What it is given.
      layers: Paths, as `count` names them, of convlab's and Flax's spatial and linear layers and norms; the second call
        of a layer is "path (2)". Absent, all.

    Returns:
      What each layer returned, in the order of the calls; before the activation, which is no layer.

    Raises:
      ValueError: No layer of that name is called.

    Example:
      >>> from convlab.layers import Conv
      >>> layers = Conv(1, 6, (3,), rngs=nnx.Rngs(0)), nnx.Linear(6, 4, rngs=nnx.Rngs(0))
      >>> maps = feature_maps(nnx.Sequential(layers[0], nnx.relu, layers[1]), jnp.ones((2, 5, 1)))
      >>> [(name, h.shape) for name, h in maps.items()]
      [('layers/0', (2, 5, 6)), ('layers/2', (2, 5, 4))]
    """
    images = check.floating("images", images)
    program = trace(model, images)
    numbers = {name: program.number_of(name) for name in layers or program.layers()}

    def run(arrays: dict[int, Array], x: Array) -> dict[str, Array]:
        values = program.run(dict(arrays) | {program.images: x})
        return {name: values[number] for name, number in numbers.items()}

    maps = jax.jit(run)(program.arrays, images)
    return {name: maps[name] for name in numbers}


def activation_metrics(
    model: nnx.Module, images: Float[Array, "n k l c"], *layers: str
) -> Callable[[Any], dict[str, Float[Array, ""]]]:
    r"""Make of what layers return on some images a function of the parameters: what `fit(..., parameter_metrics=)` asks for.

    Batch norms take the statistics of these images, as nobody hands over those that run along.

    Args:
      model: A Flax NNX module; its parameters are not kept.
      images: Standardised, some dozens; kept.
      layers: Paths, as in `feature_maps`; absent, all.

    Returns:
      A jittable function of the parameters (plain nested dicts): for every layer "layer/mean" and "layer/deviation" of all it
      returns, and "layer/dead", the share of channels above zero for no image and position, which a ReLU silences.

    Raises:
      ValueError: No layer of that name is called.

    Example:
      >>> from convlab.models import MLP
      >>> model = MLP((4, 4, 1), 3, (5,), rngs=nnx.Rngs(0))
      >>> watch = activation_metrics(model, jnp.ones((2, 4, 4, 1)), "head/layers/0")
      >>> list(watch(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
      ['head/layers/0/mean', 'head/layers/0/deviation', 'head/layers/0/dead']
    """
    images = check.floating("images", images)
    copy = nnx.clone(model)
    copy.eval()
    for _, module in nnx.iter_modules(copy):
        if isinstance(module, nnx.BatchNorm):
            module.use_running_average = False
    definition, _, rest = nnx.split(copy, nnx.Param, ...)
    rest, program = nnx.to_pure_dict(rest), trace(model, images)
    numbers = program.layers()
    chosen = {program.number_of(layer) for layer in layers or numbers}

    def watch(parameters: Any) -> dict[str, Float[Array, ""]]:
        kept: dict[int, Array] = {}
        with recorded(*KINDS, leave=lambda number, h: kept.setdefault(number, h)):
            nnx.merge(definition, parameters, rest)(images)
        named = {name: kept[call] for call, (name, number) in enumerate(numbers.items()) if number in chosen}
        return {f"{name}/{told}": STATISTICS[told](h) for name, h in named.items() for told in STATISTICS}

    return watch


STATISTICS: dict[str, Callable[[Array], Array]] = {
    "mean": jnp.mean,
    "deviation": jnp.std,
    "dead": lambda h: jnp.mean(~(h > 0).any(tuple(range(h.ndim - 1)))),
}


class Kept(NamedTuple):
    """How many dimensions activations fill.

    Attributes:
      rank: Directions in which they are not zero.
      effective: exp of the entropy of the singular values' shares: how many of equal size would be as spread.
    """

    rank: int
    effective: float


def activation_rank(h: Float[Array, "*n d"], tolerance: float | None = None) -> Kept:
    r"""Tell how many dimensions activations fill: as vectors of d channels, one an example or position.

    $$\text{effective} = \exp\Big(-\sum_q p_q \log p_q\Big), \qquad p_q = \sigma_q / \sum_r \sigma_r$$

    Args:
      h: Activations; all axes but the last are examples.
      tolerance: Singular values that count, as a share of the largest; None for `rounding`: the resolution of the dtype,
        or the channels times that of float32 or finer, however many examples there are.

    Raises:
      ValueError: `h` has fewer than two axes.
      TypeError: `h` is not floating.

    Example:
      >>> activation_rank(jnp.eye(3)[:, :2])
      Kept(rank=2, effective=2.0)

    Reference: of the effective rank, Roy and Vetterli 2007, The effective rank.
    """
    h = check.floating("h", h)
    if h.ndim < 2:
        raise ValueError(f"h has shape {h.shape}; needs axes of examples, then channels")
    flat = np.asarray(h, float).reshape(-1, h.shape[-1])
    sigma = np.linalg.svd(flat, compute_uv=False)
    if sigma[0] == 0:
        return Kept(0, 0.0)
    share = sigma[sigma > 0] / sigma.sum()
    return Kept(numerical_rank(sigma, tolerance, flat.shape[1], h.dtype), float(np.exp(-np.sum(share * np.log(share)))))
