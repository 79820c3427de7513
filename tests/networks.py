"""Build every network on small images of unequal sides, with Gaussian parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from strategies import gaussian

from convlab import models

SMALL = {  # network -> (constructor, shape of small images of unequal sides)
    "MLP": (lambda **options: models.MLP((7, 5, 2), 3, (4, 3), kernel_size=3, **options), (7, 5, 2)),
    "LeNet": (lambda **options: models.LeNet((13, 12, 2), 3, batch_norm=True, **options), (13, 12, 2)),
    "Pyramid": (lambda **options: models.Pyramid((7, 5, 2), 3, (4, 3), **options), (7, 5, 2)),
    "Net": (lambda **options: models.Net((7, 5, 2), 3, width=4, **options), (7, 5, 2)),
    "NetRes": (
        lambda **options: models.Net((11, 9, 2), 3, width=4, depth=3, residual=True, activation=nnx.relu, **options),
        (11, 9, 2),
    ),
    "NetDeep": (lambda **options: models.NetDeep((7, 5, 2), 3, width=4, blocks=2, **options), (7, 5, 2)),
    "NetDeep-tied": (lambda **options: models.NetDeep((7, 5, 2), 3, width=4, blocks=3, tied=True, **options), (7, 5, 2)),
}
TINY = {  # network -> (constructor, shape of tiny images of unequal sides)
    "SNet": (lambda **options: models.SNet((5, 3, 2), 3, width=2, **options), (5, 3, 2)),
    "DNet": (lambda **options: models.DNet((5, 3, 2), 3, width=1, **options), (5, 3, 2)),
    "AllCNN": (lambda **options: models.AllCNN((9, 11, 2), 3, width=2, **options), (9, 11, 2)),
    "AllCNN-normed": (lambda **options: models.AllCNN((9, 11, 2), 3, width=1, batch_norm=True, **options), (9, 11, 2)),
    "ResNet": (lambda **options: models.ResNet((7, 5, 2), 3, (1, 1), width=2, stem="7x7", **options), (7, 5, 2)),
    "ResNet-zeros": (
        lambda **options: models.ResNet((7, 5, 2), 3, (2, 1), width=2, stem="3x3", projection=False, **options),
        (7, 5, 2),
    ),
}


def filled(build, seed=0, *, mean=0.0, deviation=0.2):
    """Build a network or layer with Gaussian parameters and positive variances, without compiling.

    The arrays go to the device by `jax.device_put`: `jnp.asarray` compiles a program for every shape of a NumPy array.
    """
    definition, state = nnx.split(nnx.eval_shape(build))
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):  # counts of calls and draws
            return jax.device_put(np.zeros(leaf.shape, leaf.dtype))
        array = random.normal(mean, deviation, leaf.shape).astype(leaf.dtype)
        return jax.device_put(array * array + 0.5 if "var" in jax.tree_util.keystr(path) else array)

    model = nnx.merge(definition, jax.tree_util.tree_map_with_path(draw, state))
    model.train()
    return model


@functools.partial(jax.jit, static_argnums=0)
def scores_of(definition, state, x):
    model = nnx.merge(definition, state)
    return model(x), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def images(*shape, seed=0):
    return jax.device_put(gaussian(shape, seed=seed)[0].astype(np.float32))
