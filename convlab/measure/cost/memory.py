"""What a network needs of memory, before it is spent."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from flax import nnx

from convlab.check import bytes_of
from convlab.geometry import as_integer
from convlab.measure.cost.count import count


@runtime_checkable
class Optimizer(Protocol):
    """What of an Optax optimizer says how much it keeps."""

    def init(self, params: Any, /) -> Any: ...


class Memory(NamedTuple):
    """Bytes that training a network, or applying it, holds at the same time.

    Attributes:
      parameters: Trained arrays.
      model_state: Arrays that are not trained: running statistics, keys.
      gradients: One for every trained array; 0 without an optimizer.
      optimizer: State of the optimizer; 0 without one.
      activations: What all layers return for one batch, kept for the gradient. Not in it: what activation functions and
        pools return, and what an op needs while it runs. Without an optimizer nothing is kept, and less will do.
    """

    parameters: int
    model_state: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(self)


def memory(model: nnx.Module, image_shape: Sequence[int], *, optimizer: Optimizer | None = None, batch_size: int = 1) -> Memory:
    """State the bytes that a network needs for its arrays and its layers' outputs, and with an optimizer for training.

    Training that recomputes nothing needs no less; what ops and the compiler take beside it is theirs to say.

    Args:
      model: A Flax NNX module that takes images (n, *image_shape); shapes only, from `nnx.eval_shape`, will do.
      image_shape: (*space, c) of one image.
      optimizer: Of Optax, or anything with its `init`; None asks for the network alone.
      batch_size: Images at a time.

    Raises:
      ValueError: The model does not take such images, or a batch size below 1.

    Example:
      >>> import optax
      >>> from convlab.layers import Dense
      >>> model = nnx.eval_shape(lambda: Dense(1, 1000, (1000, 1000), padding="VALID", space=(1000, 1000), rngs=nnx.Rngs(0)))
      >>> memory(model, (1000, 1000, 1)).parameters, memory(model, (1000, 1000, 1), optimizer=optax.adam(1e-3)).total
      (4000004000, 16000020004)
    """
    as_integer("batch_size", batch_size)
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
