"""Layers on images in which some pixels are missing."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from convlab import check
from convlab.geometry import Window
from convlab.ops.conv import conv


def partial_convolution(
    apply: Callable[[Array], Array],
    x: Float[Array, "*n k l c"],
    valid: Bool[Array, "*n k l"],
    window: Window,
) -> tuple[Float[Array, "*n i j d"], Bool[Array, "*n i j"]]:
    r"""Apply a layer to valid pixels only, and divide by the share of valid pixels in each window.

    $$H_{ij} = \frac{|L_{ij}|}{|L_{ij} \cap M|} \; A(M X)_{ij} \quad \text{if } L_{ij} \cap M \neq \emptyset, \text{ else } 0$$

    L holds the live taps of a position, those that read a pixel, and M the valid pixels. So a constant image has the same
    outputs with and without missing pixels, for kernels that are constant within a window. An output is valid if one of its
    pixels is. A map of the oceans, for example, has no valid pixels on land.

    Args:
      apply: A layer without bias, for example `lambda x: cl.conv(x, v, window)`, on any rung but dense.
      x: The images, with any number of leading batch axes. Pixels that are not valid may hold any number, also NaN.
      valid: The pixels that are valid. Their axes are those of the images without channels, or the spatial axes alone.
      window: The window of the layer.

    Returns:
      h: The outputs.
      valid: The outputs that are valid, for the next layer.

    Raises:
      ValueError: `valid` does not have the axes of the images, or `apply` returns other positions than the window's.
      TypeError: `valid` is not boolean, or `x` is neither floating nor complex.

    Example:
      >>> x, valid = jnp.array([1.0, 1.0, jnp.nan, 1.0])[:, None], jnp.array([True, True, False, True])
      >>> window = Window((3,))
      >>> h, _ = partial_convolution(lambda x: conv(x, jnp.ones((3, 1, 1)) / 3, window), x, valid, window)
      >>> [round(float(number), 2) for number in h[:, 0]]
      [0.67, 1.0, 1.0, 0.67]

    Reference: Liu et al. 2018, Image inpainting for irregular holes using partial convolutions, equations 1 and 2.
    """
    check.function("apply", apply, "a function of images")
    ndim = check.window(window).ndim or max(jnp.ndim(x) - 1, 1)
    x, space = check.images(x, ndim, f"{window} has {ndim} spatial axes")
    valid = check.array("valid", valid)
    if valid.dtype != bool:
        raise TypeError(f"valid must be boolean, got dtype {valid.dtype}; compare numbers with zero, as in valid != 0")
    if valid.shape not in (space, x.shape[:-1]):
        raise ValueError(f"valid has shape {valid.shape}; needs the pixels {space} or also the batch, {x.shape[:-1]}")
    ones = jnp.ones((*window.taps(ndim), 1, 1), jnp.float32)
    live, seen = (conv(pixels.astype(jnp.float32)[..., None], ones, window) for pixels in (jnp.ones(space), valid))
    h = check.array("the result of apply", apply(jnp.where(valid[..., None], x, 0)))
    check.equal_shapes(
        "apply returns {} positions", h.shape[-1 - ndim : -1], f"{window} on {space} pixels has {{}}", live.shape[:-1]
    )
    scale = jnp.where(seen > 0, live / jnp.maximum(seen, 1), 0)
    return h * scale.astype(h.dtype), seen[..., 0] > 0
