"""The memory that a network needs, computed from shapes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from flax import nnx

from convlab import check
from convlab.check import bytes_of
from convlab.geometry import as_integer
from convlab.measure.cost.count import count


@runtime_checkable
class Optimizer(Protocol):
    """The part of an Optax optimizer that determines the size of its state."""

    def init(self, params: Any, /) -> Any: ...


class Memory(NamedTuple):
    """The bytes that training a network, or applying it, holds at the same time.

    Attributes:
      parameters: The bytes of the trained arrays.
      model_state: The bytes of arrays that are not trained, such as running statistics and random keys.
      gradients: The bytes of the gradients of all trained arrays; 0 without an optimizer.
      optimizer: The bytes of the optimizer's state; 0 without an optimizer.
      activations: The bytes of all layers' outputs for one batch, which are kept for the gradient. Outputs of activation
        functions and pooling, and temporary arrays of operations, are not included. Without an optimizer, outputs need not be
        kept, and less memory suffices.
    """

    parameters: int
    model_state: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(self)


def memory(model: nnx.Module, image_shape: Sequence[int], *, optimizer: Optimizer | None = None, batch_size: int = 1) -> Memory:
    """Estimate the memory for applying a network, or for training it with an optimizer.

    The result is a lower bound for training without rematerialisation. Operations and the compiler may need more.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape), or its shapes from `nnx.eval_shape`.
      image_shape: The shape (*space, c) of one image.
      optimizer: An Optax optimizer, or any object with its `init`. If None, the network is only applied.
      batch_size: The number of images in a batch.

    Raises:
      ValueError: The model does not take such images, or `batch_size` is below 1.

    Example:
      >>> import optax
      >>> from convlab.layers import Dense
      >>> model = nnx.eval_shape(lambda: Dense(1, 1000, (1000, 1000), padding="VALID", space=(1000, 1000), rngs=nnx.Rngs(0)))
      >>> memory(model, (1000, 1000, 1)).parameters, memory(model, (1000, 1000, 1), optimizer=optax.adam(1e-3)).total
      (4000004000, 16000020004)
    """
    as_integer("batch_size", batch_size)
    check.instance("model", model, nnx.Module, "a Flax NNX module")
    if optimizer is not None:
        check.instance("optimizer", optimizer, Optimizer, "an Optax optimizer")
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = None if optimizer is None else jax.eval_shape(optimizer.init, parameters)
    size = bytes_of(parameters)
    return Memory(
        parameters=size,
        model_state=bytes_of(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))),
        gradients=0 if optimizer is None else size,
        optimizer=bytes_of(state),
        activations=batch_size * count(model, image_shape).total.output_bytes,
    )
