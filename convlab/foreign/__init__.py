"""Layers and networks of Keras, Flax Linen and PyTorch, read and written without these libraries.

| library | kernels | layers and networks |
|---|---|---|
| Keras 1 and 2 | `from_keras_local`, `to_keras_local` | `from_keras_layer`, `from_keras_sequential` |
| Flax Linen | `from_linen_local`, `to_linen_local` | `from_linen_variables`, `to_linen_variables` |
| PyTorch | `from_torch`, `to_torch` | `from_torch_state_dict`, `to_torch_state_dict` |

The converted layer is the same function of the same images, channels last. What has no counterpart raises an error that
names all of it. Axes are named by the alphabet: positions i j, pixels k l, taps a b, channels c d.
"""

from convlab.foreign.keras import from_keras_layer, from_keras_sequential
from convlab.foreign.keras_local import from_keras_local, keras_local_window, to_keras_local
from convlab.foreign.linen import from_linen_local, from_linen_variables, to_linen_local, to_linen_variables
from convlab.foreign.torch import from_torch, from_torch_state_dict, to_torch, to_torch_state_dict

__all__ = [
    "from_keras_layer",
    "from_keras_local",
    "from_keras_sequential",
    "from_linen_local",
    "from_linen_variables",
    "from_torch",
    "from_torch_state_dict",
    "keras_local_window",
    "to_keras_local",
    "to_linen_local",
    "to_linen_variables",
    "to_torch",
    "to_torch_state_dict",
]
