"""The six layers of a published topographic network, in convlab, in JAX and in Keras.

Keras' first implementation cuts out every window by itself, and the gradient of each cut is as large as all images. At the
first layer, where nothing needs that gradient, it would take 20 GB for 32 images.
"""

import functools
import importlib.util
import math
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

import convlab as cl
from convlab.train import keep_freed_memory
from experiments.shared.stopwatch import Contender, compiled

OURS, OP, CONV = "convlab", "JAX's op", "convolution"
KERAS = {f"Keras, implementation {number}": number for number in (1, 2, 3)}


class Layer(NamedTuple):
    """A locally connected layer without padding.

    Attributes:
      name: Its name in the figure.
      side: The side of the image.
      channels: The number of input channels.
      features: The number of output channels.
      k: The side of the kernel.
      stride: The stride.
      first: Whether it is the first layer of the network, which needs no gradient by the images.
      images: The number of images.
    """

    name: str
    side: int
    channels: int
    features: int
    k: int = 3
    stride: int = 1
    first: bool = False
    images: int = 1

    @property
    def outputs(self) -> int:
        """The number of output positions along an axis."""
        return (self.side - self.k) // self.stride + 1

    @property
    def weights(self) -> int:
        """The number of weights."""
        return self.outputs**2 * self.k**2 * self.channels * self.features

    @property
    def dense_weights(self) -> int:
        """The number of weights of a dense layer from all pixels to all units."""
        return self.side**2 * self.channels * self.outputs**2 * self.features

    def small(self) -> "Layer":
        """Return a layer of its kind with few weights."""
        return self._replace(side=self.k, channels=1, features=2, images=1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of images, kernels, a single kernel and cotangents."""
        out, kernel = (self.outputs, self.outputs), (self.k, self.k, self.channels, self.features)
        images, cotangents = (self.images, self.side, self.side, self.channels), (self.images, *out, self.features)
        return {"images": images, "kernels": (*out, *kernel), "kernel": kernel, "cotangents": cotangents}

    def draw(self, name: str) -> jax.Array:
        """Draw an array of a name in `shapes`, the same one for every contender."""
        return jax.random.normal(jax.random.key(list(self.shapes).index(name)), self.shapes[name])


ALL_TNN = (
    Layer("1: 7x7, stride 3", 150, 3, 64, 7, 3, first=True),
    Layer("2: 3x3", 24, 64, 81),
    Layer("3: 3x3", 22, 81, 81),
    Layer("4: 3x3", 10, 81, 256),
    Layer("5: 3x3", 8, 256, 256),
    Layer("6: 3x3", 3, 256, 2500),
)


def installed() -> bool:
    """Return True if TensorFlow and its Keras 2, tf_keras, are installed."""
    return all(importlib.util.find_spec(name) for name in ("tensorflow", "tf_keras"))


def names(keras: bool) -> tuple[str, ...]:
    """List the contenders."""
    return (OURS, OP, CONV, *(KERAS if keras else ()))


def largest_arrays_mib(layer: Layer, name: str) -> float:
    """Estimate the size of the largest arrays of a contender in MiB.

    These are the weights and their gradient. Keras' first implementation also has a gradient as large as all images for each
    position, the second one a masked copy of the dense matrix. The third gathers three numbers for each weight and image, and
    has two indices of 64 bits for each weight.
    """
    images = math.prod(layer.shapes["images"])
    numbers = {
        CONV: 2 * math.prod(layer.shapes["kernel"]),
        "Keras, implementation 1": 2 * layer.weights + (0 if layer.first else layer.outputs**2 * images),
        "Keras, implementation 2": 3 * layer.dense_weights,
        "Keras, implementation 3": (6 + 3 * layer.images) * layer.weights,
    }
    return 4 * numbers.get(name, 2 * layer.weights) / 2**20


def contenders(layer: Layer, name: str) -> list[Contender]:
    """Build the contender of a name, which runs a layer forward and backward. Its process keeps freed memory."""
    keep_freed_memory()
    return [_keras_contender(layer, name) if name in KERAS else _jax_contender(layer, name)]


def _jax_contender(layer: Layer, name: str) -> Contender:
    """Build a layer of convlab, JAX's op or a convolution."""
    window = cl.Window((layer.k, layer.k), strides=layer.stride, padding="VALID")
    x, v, g = (layer.draw(array) for array in ("images", "kernel" if name == CONV else "kernels", "cotangents"))
    calls: dict[str, Callable[..., Any]] = {OURS: functools.partial(cl.locally_connected, window=window)}
    module = linen.ConvLocal(layer.features, (layer.k,) * 2, (layer.stride,) * 2, "VALID", use_bias=False)
    calls[OP] = lambda x, v: module.apply({"params": {"kernel": v}}, x)
    calls[CONV] = lambda x, v: lax.conv_general_dilated(
        x, v, (layer.stride,) * 2, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    if name == OP:
        v = jnp.moveaxis(v, 4, 2).reshape(*v.shape[:2], -1, layer.features)  # channels before taps

    def step(x: jax.Array, v: jax.Array, g: jax.Array) -> Any:
        if layer.first:
            h, pull = jax.vjp(functools.partial(calls[name], x), v)
        else:
            h, pull = jax.vjp(calls[name], x, v)
        return h, pull(g)

    return compiled({"contender": name}, step, (x, v, g))


def _keras_contender(layer: Layer, name: str) -> Contender:
    """Build Keras' layer in one of its implementations. Its compile time is that of the first call.

    The third implementation is Keras' sparse product with the same indices in the same order. They are listed by NumPy, because
    Keras lists them in Python, which takes minutes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    import tf_keras  # pyright: ignore[reportMissingImports]

    x, g = (tf.constant(np.asarray(layer.draw(array))) for array in ("images", "cotangents"))
    if KERAS[name] == 3:
        values: Any = np.moveaxis(np.asarray(layer.draw("kernels")), -1, 2).ravel()
        weights = tf.Variable(values)
        indices = tf.constant(sparse_indices(layer))
        shape = (layer.outputs**2 * layer.features, layer.side**2 * layer.channels)

        def local(x: Any) -> Any:
            sparse = tf.SparseTensor(indices, weights, shape)
            h = tf.sparse.sparse_dense_matmul(sparse, tf.reshape(x, (len(x), -1)), adjoint_b=True)
            return tf.reshape(tf.transpose(h), g.shape)

        variables = [weights]
    else:
        options: dict[str, Any] = {"use_bias": False, "implementation": KERAS[name]}
        local = tf_keras.layers.LocallyConnected2D(layer.features, layer.k, layer.stride, **options)
        local.build(x.shape)
        variables = local.trainable_variables

    @tf.function
    def both(x: Any, g: Any) -> Any:
        with tf.GradientTape() as tape:
            if not layer.first:
                tape.watch(x)
            h = local(x)
        wanted = variables if layer.first else [x, *variables]
        return h, tape.gradient(h, wanted, output_gradients=g)

    def call() -> None:
        both(x, g)  # on CPU it returns when all is computed

    begin = time.perf_counter()
    call()  # builds the graph
    return Contender({"contender": name}, call, compile_seconds=time.perf_counter() - begin)


def sparse_indices(layer: Layer) -> np.ndarray:
    """List the output and the input of every weight, in Keras' order: (i, j, d, a, b, c)."""
    sizes = (layer.outputs, layer.outputs, layer.features, layer.k, layer.k, layer.channels)
    i, j, d, a, b, c = np.indices(sizes, np.int64, sparse=True)
    outputs = (i * layer.outputs + j) * layer.features + d
    inputs = ((i * layer.stride + a) * layer.side + j * layer.stride + b) * layer.channels + c
    return np.stack([array.ravel() for array in np.broadcast_arrays(outputs, inputs)], -1)
