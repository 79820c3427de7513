"""Outputs of a network's layers: maps, metrics during training, and rank."""

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
    """Return the outputs of layers for some images, in evaluation mode.

    Args:
      model: A Flax NNX module.
      images: The network's input.
      layers: The layers' paths, as `count` names them; the second call of a layer is "path (2)". convlab's and Flax's spatial
        and linear layers and norms can be chosen. If none is given, all are returned.

    Returns:
      The output of each layer by its name, in the order of the calls. Activation functions are not layers, so outputs are those
      before the activation.

    Raises:
      ValueError: The network calls no layer of that name.

    Example:
      >>> from convlab.layers import Conv
      >>> layers = Conv(1, 6, (3,), rngs=nnx.Rngs(0)), nnx.Linear(6, 4, rngs=nnx.Rngs(0))
      >>> maps = feature_maps(nnx.Sequential(layers[0], nnx.relu, layers[1]), jnp.ones((2, 5, 1)))
      >>> [(name, h.shape) for name, h in maps.items()]
      [('layers/0', (2, 5, 6)), ('layers/2', (2, 5, 4))]
    """
    images = check.image_batch("images", images)
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
    r"""Build a function of the parameters that summarises the outputs of layers.

    $$\text{dead channels} = \frac{1}{D} \, \#\{\, d : H_{nijd} \le 0 \text{ for all } n, i, j \,\}$$

    `fit(..., parameter_metrics=)` takes such a function. Batch norms normalise with the statistics of these images, because the
    function does not receive the running statistics.

    Args:
      model: A Flax NNX module; its parameters are not kept.
      images: Some dozens of standardised images, which the function keeps.
      layers: The layers' paths, as in `feature_maps`. If none is given, all layers are summarised.

    Returns:
      A jittable function of the parameters (plain nested dicts). Its result holds, for every layer, the mean and standard
      deviation of all outputs, "layer/mean" and "layer/std". "layer/dead_channels" is the share of channels that are above zero
      for no image and position; a ReLU sets these to zero.

    Raises:
      ValueError: The network calls no layer of that name.
      TypeError: The images are not floating, or outputs are complex; the latter is raised by the function that is returned.

    Example:
      >>> from convlab.models import MLP
      >>> model = MLP((4, 4, 1), 3, (5,), rngs=nnx.Rngs(0))
      >>> metrics = activation_metrics(model, jnp.ones((2, 4, 4, 1)), "head/layers/0")
      >>> list(metrics(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
      ['head/layers/0/mean', 'head/layers/0/std', 'head/layers/0/dead_channels']
    """
    images = check.image_batch("images", images)
    network = nnx.clone(check.instance("model", model, nnx.Module, "a Flax NNX module"))
    network.eval()
    for _, module in nnx.iter_modules(network):
        if isinstance(module, nnx.BatchNorm):
            module.use_running_average = False
    definition, _, model_state = nnx.split(network, nnx.Param, ...)
    model_state, program = nnx.to_pure_dict(model_state), trace(model, images)
    numbers = program.layers()
    chosen = {program.number_of(layer) for layer in layers or numbers}

    def metrics(parameters: Any) -> dict[str, Float[Array, ""]]:
        outputs: dict[int, Array] = {}
        with recorded(*KINDS, leave=lambda number, h: outputs.setdefault(number, h)):
            nnx.merge(definition, parameters, model_state)(images)
        named = {name: outputs[call] for call, (name, number) in enumerate(numbers.items()) if number in chosen}
        for name, h in named.items():
            check.real(f"the output of {name}", h)
        return {f"{name}/{statistic}": STATISTICS[statistic](h) for name, h in named.items() for statistic in STATISTICS}

    return metrics


STATISTICS: dict[str, Callable[[Array], Array]] = {
    "mean": jnp.mean,
    "std": jnp.std,
    "dead_channels": lambda h: jnp.mean(~(h > 0).any(tuple(range(h.ndim - 1)))),
}


class ActivationRank(NamedTuple):
    """The number of dimensions that activations span.

    Attributes:
      rank: The rank of the matrix of activations.
      effective_rank: The exponential of the entropy of the normalised singular values. As many equal singular values have the
        same entropy.
    """

    rank: int
    effective_rank: float


def activation_rank(h: Float[Array, "*n d"], tolerance: float | None = None) -> ActivationRank:
    r"""Compute the number of dimensions that activations span.

    The activations of every example and position are a vector of d channels. With their singular values $\sigma$,

    $$\text{effective rank} = \exp\Big(-\sum_q p_q \log p_q\Big), \qquad p_q = \sigma_q / \sum_r \sigma_r$$

    Args:
      h: The activations; all axes but the last count as examples.
      tolerance: The threshold for singular values, as a share of the largest one. If None, the threshold is `rounding`: the
        larger of the dtype's resolution and d times the resolution of float32 (or of a finer dtype). It does not depend on the
        number of examples.

    Raises:
      ValueError: `h` has fewer than two axes.
      TypeError: `h` is not floating.

    Example:
      >>> activation_rank(jnp.eye(3)[:, :2])
      ActivationRank(rank=2, effective_rank=2.0)

    Reference: Roy and Vetterli 2007, The effective rank.
    """
    h = check.floating("h", h)
    if h.ndim < 2:
        raise ValueError(f"h has shape {h.shape}; needs axes of examples, then an axis of channels")
    if tolerance is not None:
        check.number("tolerance", tolerance)
    flat = np.asarray(h, float).reshape(-1, h.shape[-1])
    sigma = np.linalg.svd(flat, compute_uv=False)
    if sigma[0] == 0:
        return ActivationRank(0, 0.0)
    share = sigma[sigma > 0] / sigma.sum()
    return ActivationRank(
        numerical_rank(sigma, tolerance, flat.shape[1], h.dtype), float(np.exp(-np.sum(share * np.log(share))))
    )
