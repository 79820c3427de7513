"""The accuracy with batch statistics, which tells whether a tied network has learnt little or normalises wrongly."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from experiments.birds_and_planes import BATCH, batch_accuracy


def test_accuracy_with_statistics_of_the_batch_does_not_depend_on_the_order_of_the_test_images():
    class Brightness(nnx.Module):
        """Tell bright from dark images by the sign of a normalised pixel."""

        def __init__(self):
            self.norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))

        def __call__(self, x):
            h = self.norm(x)[:, 0, 0]
            return jnp.concatenate([-h, h], -1)

    labels = np.repeat([0, 1], 2 * BATCH)  # sorted, as in a folder of pictures
    images = np.broadcast_to(labels[:, None, None, None], (len(labels), 1, 1, 1)).astype(np.float32)
    data = cl.Data.from_arrays(images, labels, test=(images, labels))
    assert batch_accuracy(Brightness(), data) == 1.0
