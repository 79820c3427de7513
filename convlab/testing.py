"""Assertions for tests of layers and networks, in the style of Chex.

They raise AssertionError with the largest difference and its index.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab import check
from convlab.choices import shown
from convlab.geometry import Size, Space, Window, as_axes, as_integer, as_space
from convlab.rungs import ByPixel, Layout, transfer, with_rung

__all__ = ["assert_matches_dense", "assert_on_rung", "assert_same_function", "assert_shift_equivariant", "check_answer"]

Function = Callable[[Any], Any]


def assert_same_function(
    a: Function, b: Function, image_shape: Sequence[int], *, seed: int = 0, tolerance: float = 1e-5
) -> None:
    r"""Assert that two functions of images agree on Gaussian images.

    $$\max |a(X) - b(X)| \le \epsilon \max |b(X)|$$

    Args:
      a: A function of images (n, *image_shape), such as a layer or a network in evaluation mode.
      b: Another such function.
      image_shape: The shape of one image, (*space, c).
      seed: The seed of the images.
      tolerance: The largest difference allowed, relative to the largest absolute result of `b`.

    Raises:
      AssertionError: The results differ in shape or value.

    Example:
      >>> assert_same_function(jnp.abs, lambda x: jnp.maximum(x, -x), (5, 7, 2))
    """
    for name, function in {"a": a, "b": b}.items():
        check.function(name, function, "a function of images")
    check.number("tolerance", tolerance)
    x = _images(image_shape, seed)
    _assert_close(a(x), b(x), "a and b differ on Gaussian images", tolerance)


def assert_matches_dense(op: Function, w: Float[ArrayLike, "i j k l c d"], *, tolerance: float = 1e-5) -> None:
    r"""Assert that the Jacobian of a linear function of one image is a dense weight.

    $$\partial H_{ijd} / \partial X_{klc} = W_{ijklcd}$$

    Args:
      op: A function that takes an image (*space, c) to activations (*out, d).
      w: The dense weight (*out, *space, c, d), such as `convlab.lift_conv_to_dense` returns.
      tolerance: The largest difference allowed, relative to the largest absolute weight.

    Raises:
      AssertionError: The function is not linear, or its Jacobian has other shapes or values.

    Example:
      >>> import convlab as cl
      >>> v, window = jnp.arange(18.0).reshape(3, 3, 1, 2), cl.Window(3)
      >>> assert_matches_dense(lambda x: cl.conv(x, v, window), cl.lift_conv_to_dense(v, window, (5, 7)))
    """
    check.function("op", op, "a function of one image")
    check.number("tolerance", tolerance)
    w, ndim = check.kernel("w", w, spatial=2, others="c d")
    first, second = (_images((*w.shape[ndim : 2 * ndim], w.shape[-2]), seed)[0].astype(w.dtype) for seed in (0, 1))
    at_zero = check.array("the result of op", op(jnp.zeros_like(first)))
    tangent = jax.jvp(op, (first,), (second,))[1]
    _assert_close(op(second), at_zero + tangent, "op is not linear", tolerance)
    _assert_close(at_zero, jnp.zeros_like(at_zero), "op of a zero image is not zero", tolerance)
    _assert_close(jnp.moveaxis(jax.jacobian(op)(first), ndim, -1), w, "the Jacobian of op differs from w", tolerance)


def assert_on_rung(
    w: Float[ArrayLike, "i j k l c d"], window: Window, space: Space, rung: str, *, tolerance: float = 1e-5, **parameters: Any
) -> None:
    """Assert that a dense weight is that of a layer on a rung.

    $$P W = W$$

    P finds the nearest weight on the rung.

    Args:
      w: The dense weight (*out, *space, c, d).
      window: The pixels that each position reads.
      space: The number of input pixels along each spatial axis.
      rung: The name of the rung, such as "conv" or "locally_connected".
      tolerance: The largest difference allowed from the nearest weight on the rung, relative to the largest absolute weight.
      **parameters: The parameters of the rung, as in `convlab.relax`.

    Raises:
      AssertionError: The weight is not on the rung.

    Example:
      >>> import convlab as cl
      >>> w = cl.lift_conv_to_dense(jnp.ones((3, 3, 1, 2)), cl.Window(3), (5, 7))
      >>> assert_on_rung(w, cl.Window(3), (5, 7), "conv")
      >>> assert_on_rung(2 * w.at[1, 2].multiply(2), cl.Window(3), (5, 7), "locally_connected")
    """
    check.number("tolerance", tolerance)
    w, _ = check.kernel("w", w, spatial=2, others="c d")
    check.equal_shapes("w has {} axes", (w.ndim,), "space needs {}", (2 * len(as_space(space)) + 2,))
    check.positions("w", w.shape[: len(space)], window, space)
    check.equal_shapes("w reads {} pixels", w.shape[len(space) : -2], "space is {}", as_space(space))
    c, d = w.shape[-2:]
    dense = Layout(ByPixel(), window, c, d, space)
    strict = with_rung(dense, rung, **parameters)
    nearest = transfer(transfer({"kernel": w}, dense, strict), strict, dense)["kernel"]
    _assert_close(w, nearest, f"w differs from the nearest {rung} weight", tolerance)


def assert_shift_equivariant(
    function: Function, image_shape: Sequence[int], delta: Size, *, stride: Size = 1, seed: int = 0, tolerance: float = 1e-5
) -> None:
    r"""Assert that a function commutes with a circular shift of images.

    $$f(T_\delta X) = T_{\delta / s} f(X)$$

    Args:
      function: A function of images (n, *image_shape) that returns activations (n, *out, d), or (n, d) if it is invariant.
      image_shape: The shape of one image, (*space, c).
      delta: The shift in pixels along each spatial axis, a multiple of the stride.
      stride: The stride of the output positions.
      seed: The seed of the images.
      tolerance: The largest difference allowed, relative to the largest absolute result.

    Raises:
      AssertionError: The result for shifted images differs from the shifted result.
      ValueError: The shift is not a multiple of the stride.

    Example:
      >>> import convlab as cl
      >>> v, window = jnp.arange(18.0).reshape(3, 3, 1, 2), cl.Window(3, padding="CIRCULAR")
      >>> assert_shift_equivariant(lambda x: cl.conv(x, v, window), (5, 7, 1), (1, 2))
    """
    check.function("function", function, "a function of images")
    check.number("tolerance", tolerance)
    image_shape = check.image_shape(image_shape)
    axes = tuple(range(1, len(image_shape)))
    deltas, strides = as_axes("delta", delta, len(axes)), as_axes("stride", stride, len(axes))
    if any(d % s for d, s in zip(deltas, strides, strict=True)):
        raise ValueError(
            f"delta {deltas} must be a multiple of the stride {strides}, else no shift of the result corresponds to it"
        )
    x = _images(image_shape, seed)
    expected = check.array("the result of function", function(x))
    if expected.ndim == x.ndim:
        expected = jnp.roll(expected, [d // s for d, s in zip(deltas, strides, strict=True)], axes)
    shifted = function(jnp.roll(x, deltas, axes))
    _assert_close(shifted, expected, f"the function does not commute with a shift by {deltas}", tolerance)


def _images(image_shape: Sequence[int], seed: int) -> Array:
    """Draw three Gaussian images."""
    shape = check.image_shape(image_shape)
    check.shape_fits("images of image_shape", 3, *shape, itemsize=4)
    return jax.random.normal(jax.random.key(as_integer("seed", seed, least=0, most=2**32 - 1)), (3, *shape))


def _assert_close(got: Any, expected: Any, message: str, tolerance: float) -> None:
    """Raise AssertionError with the largest difference and its index, if it exceeds the tolerance."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise AssertionError(f"{message}: the shapes are {got.shape} and {expected.shape}")
    difference = np.abs(got - expected)
    difference = np.where(np.isnan(difference) & ~(np.isnan(got) & np.isnan(expected)), math.inf, np.nan_to_num(difference))
    allowed = tolerance * max(float(np.abs(expected).max(initial=0, where=np.isfinite(expected))), np.finfo(np.float32).tiny)
    if difference.size and difference.max() > allowed:
        index = tuple(int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
        raise AssertionError(
            f"{message}: the largest difference is {difference.max():.3g} at {index}, where the values are {got[index]:.6g} and"
            f" {expected[index]:.6g}; allowed is {allowed:.3g} (tolerance {tolerance:g} of the largest value)"
        )


def check_answer(answer: Any, expected: ArrayLike, *, tolerance: float = 1e-3) -> None:
    r"""Check the answer to an exercise of a notebook, and print whether it is correct.

    $$|a - e| \le \epsilon \max |e|$$

    Args:
      answer: The answer: a number or an array. With `...` there is no answer yet, and the text says so.
      expected: The expected number or array.
      tolerance: The largest difference allowed, relative to the largest absolute value of `expected`.

    Raises:
      AssertionError: The answer has another shape or value. The message does not tell the expected value.
      TypeError: The answer or the expected value is no number and no array of numbers.

    Example:
      >>> check_answer(..., 9)
      Not answered yet.
      >>> check_answer(3 * 3, 9)
      Correct.
    """
    check.not_negative("tolerance", tolerance)
    wanted = _as_numbers("expected", expected)
    if answer is ...:
        print("Not answered yet.")
        return
    got = _as_numbers("answer", answer)
    if got.shape != wanted.shape:
        raise AssertionError(f"The answer has the shape {got.shape}, but the shape {wanted.shape} is expected.")
    if not np.allclose(got, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(initial=0.0), 1e-12)):
        raise AssertionError(f"{answer} is not the answer. Try again.")
    print("Correct.")


def _as_numbers(name: str, value: Any) -> np.ndarray:
    """Return a number or an array of numbers, in its own precision."""
    try:
        array = np.asarray(value)
        is_numeric = array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)
    except (TypeError, ValueError):
        is_numeric = False
    if not is_numeric:
        raise TypeError(f"{name} must be a number or an array of numbers, got {shown(value)}")
    return array
