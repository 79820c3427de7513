"""Convolutions that people reported as slow, in stock JAX, in convlab and in PyTorch."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import convlab as cl
from experiments.parts import pytorch
from experiments.shared.stopwatch import Contender, compiled


class Case(NamedTuple):
    """A convolution as it was reported.

    Attributes:
      thread: The threads, by project and number.
      what: What is slow.
      pixels: The shape of one image, without channels.
      taps: The sizes of the kernel.
      channels: The input and output channels.
      batch: The number of images.
      groups: The number of groups of channels.
      stride: The stride along every axis. A transposed convolution enlarges images by it.
      dilation: The dilation along every axis.
      transposed: Whether the convolution is transposed.
      channels_first: Whether the reporter's arrays, and so those of stock JAX, have channels first.
      calls: The number of convolutions in a row, each of the result of the one before.
      loop: Whether these run in a compiled loop.
      step: What is computed: "forward", or "gradient", which is that of the mean with respect to the kernel.
      dtype: The dtype.
      implementation: The name of convlab's algorithm, if it must be asked for.
      as_posted: Whether all sizes are those of the thread.
    """

    thread: str
    what: str
    pixels: tuple[int, ...]
    taps: tuple[int, ...]
    channels: tuple[int, int]
    batch: int = 1
    groups: int = 1
    stride: int = 1
    dilation: int = 1
    transposed: bool = False
    channels_first: bool = False
    calls: int = 1
    loop: bool = False
    step: str = "forward"
    dtype: str = "float32"
    implementation: str = "auto"
    as_posted: bool = True

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """The padding of the convolution that is transposed, as in PyTorch.

        The result has `stride` times as many pixels.
        """
        surplus = (size - self.stride for size in self.taps)
        return tuple((more - more // 2, more // 2) for more in surplus)

    @property
    def padding(self) -> str:
        """The padding of a convolution that is not transposed. Kernels of one tap have none."""
        return "VALID" if math.prod(self.taps) == 1 else "SAME"

    @property
    def result(self) -> tuple[int, ...]:
        """The shape of a transposed convolution's result, without batch and channels."""
        return tuple(self.stride * size for size in self.pixels)

    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """Draw images and kernel, with channels last. A transposed convolution has the kernel of the convolution."""
        c, d = self.channels
        kernel = (*self.taps, d, c) if self.transposed else (*self.taps, c // self.groups, d)
        shapes = (self.batch, *self.pixels, c), kernel
        keys = jax.random.split(jax.random.key(0))
        x, v = (jax.random.normal(key, shape, self.dtype) for key, shape in zip(keys, shapes, strict=True))
        return x, v / math.sqrt(math.prod(self.taps) * c / self.groups)


CASES = (
    Case("jax 12868", "in a loop", (1024,), (1,), (1000, 1000), channels_first=True, calls=2, loop=True),
    Case("jax 5227", "large kernel", (300, 300), (300, 300), (1, 1), dtype="float64", implementation="fft"),
    Case("jax 13800", "depthwise, forward", (1024,), (5,), (512, 512), 32, 512, channels_first=True, calls=12),
    Case(
        "jax 13800", "depthwise, gradient", (1024,), (5,), (512, 512), 32, 512, channels_first=True, calls=12,
        step="gradient",
    ),
    Case("jax 26266", "depthwise, dilated", (1024,), (8,), (64, 64), 32, 64, dilation=16, as_posted=False),
    Case("jax 23713, flax 4207", "depthwise, one image", (124, 124), (3, 3), (256, 256), groups=256),
    Case("jax 23783", "transposed, long kernel", (128,), (1024,), (513, 1), stride=256, transposed=True, as_posted=False),
    Case(
        "jax 31662, xla 34273", "transposed, 3-D, gradient", (64, 64, 32), (3, 3, 3), (64, 1), stride=2, transposed=True,
        channels_first=True, step="gradient", dtype="bfloat16",
    ),
)  # fmt: skip


def contenders(case: Case, torch: bool = True) -> Iterator[Contender]:
    """Yield the case in stock JAX, in convlab, and in PyTorch if it is installed."""
    labels = {"thread": case.thread, "case": case.what, "as_posted": case.as_posted}
    x, v = case.arrays()
    yield compiled({**labels, "contender": "stock JAX"}, stock(case), as_posted(case, x, v))
    yield compiled({**labels, "contender": "convlab"}, ours(case), (x, v))
    if torch and pytorch.installed():
        call = pytorch.case_call(case, x, v)
        try:
            call()
        except RuntimeError as error:  # for example too little memory
            pytorch.leave_out(f"PyTorch, {case.thread}", error)
        else:
            yield Contender({**labels, "contender": "PyTorch"}, call)


def as_posted(case: Case, x: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Move the channels of images and kernel to the front if the thread has them there."""
    if not case.channels_first:
        return x, v
    return jnp.moveaxis(x, -1, 1), v.transpose(v.ndim - 1, v.ndim - 2, *range(v.ndim - 2))


def ours(case: Case) -> Callable:
    """Return convlab's function of images and kernel."""
    window = cl.Window(case.taps, case.stride, case.pads if case.transposed else case.padding, case.dilation)
    if case.transposed:
        call = lambda x, v: cl.conv_transpose(x, v, window, case.result, implementation=case.implementation)  # noqa: E731
    else:
        call = lambda x, v: cl.conv(x, v, window, case.groups, implementation=case.implementation)  # noqa: E731
    return _stepped(call, case)


def stock(case: Case) -> Callable:
    """Return the function in stock JAX."""
    space = "DHW"[-len(case.pixels) :]
    images, kernel = (f"NC{space}", f"OI{space}") if case.channels_first else (f"N{space}C", f"{space}IO")
    numbers, strides = (images, kernel, images), (case.stride,) * len(space)
    if case.transposed:
        pads = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(case.taps, case.pads, strict=True)]
        call = lambda x, v: lax.conv_transpose(x, v, strides, pads, dimension_numbers=numbers, transpose_kernel=True)  # noqa: E731
    else:
        options = {"rhs_dilation": (case.dilation,) * len(space), "feature_group_count": case.groups}
        call = lambda x, v: lax.conv_general_dilated(x, v, strides, case.padding, dimension_numbers=numbers, **options)  # noqa: E731
    return _stepped(call, case)


def _stepped(conv: Callable, case: Case) -> Callable:
    """Repeat a convolution, and differentiate the mean of the result if the case says so."""

    def repeated(x: jax.Array, v: jax.Array) -> jax.Array:
        if case.loop:
            return lax.fori_loop(0, case.calls, lambda _, x: conv(x, v), x)
        for _ in range(case.calls):
            x = conv(x, v)
        return x

    def gradient(x: jax.Array, v: jax.Array) -> Any:
        return jax.grad(lambda v: repeated(x, v).mean(dtype=jnp.float32))(v)

    return gradient if case.step == "gradient" else repeated
