"""Every network on small images of unequal sides, filled with Gaussian numbers, and what tests ask of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from strategies import gaussian

from convlab import models

SMALL = {  # network -> how to build it on small images of unequal sides, and those images
    "MLP": (lambda **own: models.MLP((7, 5, 2), 3, (4, 3), kernel_size=3, **own), (7, 5, 2)),
    "LeNet": (lambda **own: models.LeNet((13, 12, 2), 3, batch_norm=True, **own), (13, 12, 2)),
    "Pyramid": (lambda **own: models.Pyramid((7, 5, 2), 3, (4, 3), **own), (7, 5, 2)),
    "Net": (lambda **own: models.Net((7, 5, 2), 3, width=4, **own), (7, 5, 2)),
    "NetRes": (
        lambda **own: models.Net((11, 9, 2), 3, width=4, depth=3, residual=True, activation=nnx.relu, **own),
        (11, 9, 2),
    ),
    "NetDeep": (lambda **own: models.NetDeep((7, 5, 2), 3, width=4, blocks=2, **own), (7, 5, 2)),
    "NetDeep-tied": (lambda **own: models.NetDeep((7, 5, 2), 3, width=4, blocks=3, tied=True, **own), (7, 5, 2)),
}
TINY = {  # network -> how to build it on tiny images of unequal sides, and those images
    "SNet": (lambda **own: models.SNet((5, 3, 2), 3, width=2, **own), (5, 3, 2)),
    "DNet": (lambda **own: models.DNet((5, 3, 2), 3, width=1, **own), (5, 3, 2)),
    "AllCNN": (lambda **own: models.AllCNN((9, 11, 2), 3, width=2, **own), (9, 11, 2)),
    "AllCNN-normed": (lambda **own: models.AllCNN((9, 11, 2), 3, width=1, batch_norm=True, **own), (9, 11, 2)),
    "ResNet": (lambda **own: models.ResNet((7, 5, 2), 3, (1, 1), width=2, stem="7x7", **own), (7, 5, 2)),
    "ResNet-zeros": (
        lambda **own: models.ResNet((7, 5, 2), 3, (2, 1), width=2, stem="3x3", projection=False, **own),
        (7, 5, 2),
    ),
}


def filled(build, seed=0, *, mean=0.0, deviation=0.2):
    """Build a network or layer with Gaussian numbers, positive where they are variances, without compiling.

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
