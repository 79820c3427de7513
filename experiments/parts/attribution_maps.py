"""Attribution methods that rank pixels by their influence on a prediction, with two tests."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import algebra, measure
from convlab.measure.attribution import RULES

TIMES, GRAD_CAM, OCCLUSION, EDGES, RANDOM = "gradient x image", "Grad-CAM", "occlusion", "edges", "random"
METHODS = (*RULES, TIMES, GRAD_CAM, OCCLUSION)
LAST = "stages/1/layer"  # the path of the network's last layer with positions
PARTS = 8  # an occluding window has an eighth of the image's side, and moves by half its own side


def importance(model: nnx.Module, x: jax.Array, target: np.ndarray) -> dict[str, jax.Array]:
    """Return maps of the importance of each pixel, (n, k, l), by method.

    Maps on coarser grids are interpolated to the image's pixels.
    """
    space = x.shape[1:-1]
    size = [max(2, side // PARTS) for side in space]
    window = cl.Window(size, [side // 2 for side in size], "VALID")
    gradients = {rule: measure.saliency(model, x, target, rule) for rule in RULES}
    maps = {rule: jnp.abs(gradient).sum(-1) for rule, gradient in gradients.items()}
    maps[TIMES] = (gradients["gradient"] * x).sum(-1)
    maps[GRAD_CAM] = measure.grad_cam(model, x, LAST, target)
    maps[OCCLUSION] = measure.occlusion(model, x, target, window)
    return {method: jax.image.resize(method_maps, (len(x), *space), "linear") for method, method_maps in maps.items()}


def edges(x: jax.Array) -> jax.Array:
    """Return the steepness of each image at each pixel, (n, k, l)."""
    slopes = [cl.conv(x.mean(-1, keepdims=True), algebra.derivative(axis), _around(axis))[..., 0] for axis in range(2)]
    return jnp.hypot(*slopes)


def _around(axis: int) -> cl.Window:
    return cl.Window((3, 1) if axis == 0 else (1, 3), padding="EDGE")


def ranks(maps: jax.Array) -> np.ndarray:
    """Return the ranks of the pixels of every map, minus their mean."""
    flat = np.asarray(jax.scipy.stats.rankdata(maps.reshape(len(maps), -1), axis=1))
    return flat - flat.mean(1, keepdims=True)


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Return Spearman's correlation of two maps per image, averaged over images.

    The correlation with a constant map is 0.
    """
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(np.mean(np.sum(one * two, 1) / np.where(lengths > 0, lengths, 1)))


def kept_predictions(model: nnx.Module, x: jax.Array, order: np.ndarray, share: float) -> float:
    """Return the share of predictions that stay if the pixels of highest rank are hidden.

    Hidden pixels take the mean colour of all images, which is zero. Ties, such as pixels where a map is zero, are broken at
    random.
    """
    count, ties = round(share * order.shape[1]), np.random.default_rng(0).random(order.shape)
    hidden = np.zeros(order.shape, bool)
    np.put_along_axis(hidden, np.lexsort((ties, -order), 1)[:, :count], True, 1)
    predict: Callable[[jax.Array], jax.Array] = jax.jit(lambda x: model(x).argmax(-1))
    return float(jnp.mean(predict(jnp.where(hidden.reshape(*x.shape[:-1], 1), 0, x)) == predict(x)))
