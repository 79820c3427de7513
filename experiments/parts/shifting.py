"""Networks trained on digits with or without random shifts, and the shared share of their kernels."""

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import convlab as cl
from convlab import measure
from convlab.data import Data, chain, random_shift
from experiments.parts.canvas import Canvas, consistency, placed
from experiments.parts.networks import linear
from experiments.parts.tuned import CHOICE_SEED
from experiments.shared.command import Rows


class Network(NamedTuple):
    """A network and its training: its rung, whether digits are shifted, and whether it starts as a convolution."""

    connectivity: str
    shifted: bool
    starts_shared: bool = False


CONV, LOCAL, SHARED, LINEAR = "convolution", "local", "local, starts as a convolution", "linear classifier, shifted"
SHIFTED = ", shifted"
NETWORKS = {LINEAR: Network("linear", True), CONV: Network("conv", False), CONV + SHIFTED: Network("conv", True)} | {
    name + SHIFTED * shifted: Network("locally_connected", shifted, name == SHARED)
    for name, shifted in itertools.product((LOCAL, SHARED), (False, True))
}
MOVE = 3  # the pixels by which centred images move to measure shift consistency; no multiple of the total stride
SCORES = {"test_accuracy": "accuracy", "validation_accuracy": "validation"}


@dataclasses.dataclass(frozen=True)
class Shifting(Canvas):
    """The settings of the networks.

    Args:
      networks: The networks: names in `NETWORKS`.
      features: The numbers of channels of the layers.
      evaluations: The number of times that shares and accuracy are measured.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    features: tuple[int, ...] = (8, 16, 32)
    evaluations: int = 8


def build(config: Shifting, network: Network, data: Data, seed: int) -> nnx.Module:
    """Build a network. Local kernels start independent or equal."""
    if network.connectivity == "linear":
        return linear(data, seed)
    options: dict[str, Any] = {"connectivity": network.connectivity, "tied_noise": 0.0 if network.starts_shared else None}
    return cl.models.Pyramid(data.image_shape, len(data.classes), config.features, rngs=nnx.Rngs(seed), **options)


@functools.cache
def shares(config: Shifting, starts_shared: bool) -> Any:
    """Return a function from the parameters of a local network to the shared share of every layer."""
    network = Network("locally_connected", False, starts_shared)
    shared = measure.locality_metrics(build(config, network, placed(config, 0), 0), "shared")

    def measured(parameters: Any) -> dict[str, jax.Array]:
        layers = [*shared(parameters).values()]
        named = {f"shared_{number}": share for number, share in enumerate(layers, 1)}
        return named | {"shared": jnp.mean(jnp.array(layers))}

    return jax.jit(measured)


def trained(config: Shifting, network: Network, rate: float, seed: int) -> Rows:
    """Train a network and return one row for every evaluation."""
    data = placed(config, seed, 0 if network.shifted else None)
    model, choosing = build(config, network, data, seed), seed == CHOICE_SEED
    start = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    local = None if choosing or network.connectivity != "locally_connected" else shares(config, network.starts_shared)
    augment = chain(functools.partial(random_shift, max_shift=config.margin)) if network.shifted else None
    recipe = config.recipe(rate, seed, 1 if choosing else config.evaluations)
    fitted = cl.fit(model, data, recipe, augment=augment, parameter_metrics=local)
    dropped = {"epoch", "seconds", "test_loss", "validation_loss"}
    rows = [{SCORES.get(name, name): value for name, value in row.items() if name not in dropped} for row in fitted.history]
    if local is not None:
        rows.insert(0, {"step": 0} | {name: float(share) for name, share in local(start).items()})
        rows[-1]["added"] = float(local(jax.tree.map(jnp.subtract, fitted.parameters, start))["shared"])
    rows[-1] |= {} if choosing else {"consistency": consistency(config, fitted, MOVE)}
    return rows
