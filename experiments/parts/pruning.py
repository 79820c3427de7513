"""Perceptrons whose smallest weights are pruned round after round, and controls for their masks."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import convlab as cl
from convlab import optim
from convlab.data import Data
from experiments.shared.settings import Source

TICKET, OTHER, RANDOM = "smallest pruned, rewound", "same mask, other first weights", "mask at random"


@dataclasses.dataclass(frozen=True)
class Pruning(Source):
    """The training and pruning of perceptrons.

    Args:
      features: The numbers of units of the hidden layers.
      fraction: The fraction of the remaining weights that is pruned in each round.
      rounds: The number of rounds.
      scope: Whether this fraction is pruned from every layer ("layer") or from all layers together ("global").
      steps: The number of training steps in every round.
      batch_size: The number of images per step.
      learning_rate: The learning rate of Adam, which decays along a cosine.
    """

    features: tuple[int, ...] = (256,)
    fraction: float = 0.2
    rounds: int = 20
    scope: str = "global"
    steps: int = 800
    batch_size: int = 64
    learning_rate: float = 1e-3

    def build(self, data: Data, features: tuple[int, ...], seed: int) -> cl.train.Trainable:
        """Build a perceptron."""
        model = cl.models.MLP(data.image_shape, len(data.classes), features, rngs=nnx.Rngs(seed))
        return cl.train.as_trainable(model, data.image_shape)

    def recipe(self, seed: int) -> cl.Config:
        """Return the configuration of `fit`."""
        sizes = {"steps": self.steps, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return cl.Config(**sizes, seed=seed, evaluations=1, steps_per_call=20, progress=False)

    def linear(self, data: Data, seed: int) -> float:
        """Train the linear classifier and return its accuracy."""
        return cl.fit(self.build(data, (), seed), data, self.recipe(seed)).history[-1]["test_accuracy"]

    def prune(self, data: Data, seed: int, other: int) -> Iterator[tuple[str, int, Any, float]]:
        """Prune the network of one seed and retrain it in three ways with the mask of every round.

        Args:
          data: The images.
          seed: The seed of the initial weights, of the order of images and of random masks.
          other: The seed of the other initial weights.

        Yields:
          The name of the way, the number of the round, the mask and the accuracy.
        """
        model, elsewhere = (self.build(data, self.features, key) for key in (seed, other))
        all_kept = jax.tree.map(lambda array: jnp.ones(array.shape, bool), model.parameters)
        adam = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        optimizer = optax.chain(adam, optim.keep_pruned(all_kept))  # masks are in the state: one compiled step
        scores = []

        def train(parameters: Any, mask: Any) -> Any:
            start: Any = optimizer.init(parameters)
            network = model._replace(parameters=parameters)
            state = (*start[:-1], mask)
            fitted = cl.fit(network, data, self.recipe(seed), optimizer=optimizer, optimizer_state=state)
            scores.append(fitted.history[-1]["test_accuracy"])
            return fitted.parameters

        pruned = optim.iterative_pruning(train, model.parameters, self.fraction, self.rounds, scope=self.scope)
        for number, (_, mask) in enumerate(pruned):
            drawn = shuffled(mask, seed)
            train(optim.rewind(elsewhere.parameters, mask), mask)
            train(optim.rewind(model.parameters, drawn), drawn)
            for name, kept, accuracy in zip((TICKET, OTHER, RANDOM), (mask, mask, drawn), scores[-3:], strict=True):
                yield name, number, kept, accuracy


def shuffled(mask: Any, seed: int) -> Any:
    """Draw a random mask that keeps as many weights in every array."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda kept: jnp.asarray(random.permutation(np.ravel(kept)).reshape(kept.shape)), mask)


def kernels(mask: Any) -> list[Any]:
    """Return the masks of kernels, without those of biases."""
    named = jax.tree.map(lambda is_kernel, kept: kept if is_kernel else None, optim.kernel_mask(mask), mask)
    return jax.tree.leaves(named)


def weights_left(mask: Any) -> int:
    """Count the weights that a mask keeps, without the biases."""
    return sum(int(np.sum(kept)) for kept in kernels(mask))


def count_weights(mask: Any) -> int:
    """Count all weights, without the biases."""
    return sum(kept.size for kept in kernels(mask))
