"""Batch norm as in Flax, computed as one affine map of the images."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from convlab.signatures import ConstructorSignature

MOMENTUM = 0.9  # for running statistics, as in PyTorch; with Flax's 0.99 the start still counts after 300 steps


class BatchNorm(nnx.BatchNorm):
    r"""Normalise each channel over the batch and all positions.

    $$H_{ijd} = \alpha_d X_{ijd} + (\beta_d - \alpha_d \mu_d), \qquad \alpha_d = \gamma_d / \sqrt{\sigma^2_d + \epsilon}$$

    In evaluation it uses the running statistics. It is a drop-in for `flax.nnx.BatchNorm`: arguments, arrays and, up to
    rounding, results are the same. Only the default momentum is 0.9. One multiplication and one addition per pixel leave
    little to optimise for the compiler: training on CPU takes half the time. The statistics are those of the whole batch,
    even if it is sharded over the devices of a mesh.

    Raises:
      ValueError: The images have another number of channels.

    Reference: Ioffe and Szegedy 2015, Batch normalization, algorithm 1.
    """

    __signature__ = ConstructorSignature()

    def __init__(self, num_features: int, *, momentum: float = MOMENTUM, **options):
        super().__init__(num_features, momentum=momentum, **options)

    @property
    def _is_affine(self) -> bool:
        """Whether `_affine_map` applies: channels come last, and no axis of a `pmap` is averaged over."""
        return self.axis == -1 and self.axis_name is None

    def __call__(
        self, x: Float[Array, "*n d"], use_running_average: bool | None = None, *, mask: Array | None = None
    ) -> Float[Array, "*n d"]:
        """Normalise images. In training, also move the running statistics towards those of the batch."""
        self._check_channels(x)
        if mask is not None or not self._is_affine:
            return super().__call__(x, use_running_average, mask=mask)
        alpha, beta = self._affine_map(x, use_running_average)
        return x.astype(alpha.dtype) * alpha + beta

    def _affine_map(
        self, x: Float[Array, "*n d"], use_running_average: bool | None = None, *, offset: ArrayLike = 0
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Return the scale α and the shift β of every channel, so that α X + β normalises the images X + offset.

        In training, this also moves the running statistics towards those of X + offset. The offset changes the mean only, so
        a bias before the batch norm costs no pass over the images.

        Args:
          x: The images, with channels last.
          use_running_average: Whether to use the running statistics. If None, the layer's mode decides.
          offset: The bias of the images: one number for all channels or one per channel.

        Raises:
          ValueError: The images have another number of channels.
        """
        self._check_channels(x)
        running = self.use_running_average if use_running_average is None else use_running_average
        mean, variance = self.mean[...], self.var[...]
        if not running:
            mean, variance = self._statistics(x)
            mean = mean + offset
            for statistic, new in ((self.mean, mean), (self.var, variance)):
                average = self.momentum * statistic[...] + (1 - self.momentum) * jax.lax.stop_gradient(new)
                stored = statistic[...].dtype
                dtype = jnp.promote_types(stored, jnp.complex64) if jnp.iscomplexobj(new) else stored
                statistic.set_value(average.astype(dtype))
        alpha = jax.lax.rsqrt(variance + self.epsilon) * (1 if self.scale is None else self.scale[...])
        beta = (0 if self.bias is None else self.bias[...]) + (offset - mean) * alpha
        dtype = self.dtype or jnp.result_type(x, *(p[...] for p in (self.scale, self.bias) if p is not None))
        return alpha.astype(dtype), jnp.asarray(beta, dtype)

    def _check_channels(self, x: Array) -> None:
        """Raise ValueError if the last axis holds another number of channels."""
        if self.axis == -1 and x.shape[-1] != self.num_features:
            raise ValueError(f"x of shape {x.shape} has {x.shape[-1]} channels but needs {self.num_features}")

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        """Return the mean and the variance of each channel, at least in float32."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)
        if not self.use_fast_variance:
            return mean, _energy(x - mean).mean(axes)
        return mean, jnp.maximum(0, _energy(x).mean(axes) - _energy(mean))


def _energy(x: Array) -> Array:
    """Return the squared absolute values."""
    return jnp.real(x * jnp.conj(x))
