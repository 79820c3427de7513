"""Where the arrays of a run live on the devices of a mesh, in one process or in several.

Images lie along the mesh's axis "n", the rows of kernels that differ by row (and what the optimizer keeps of them) along its
axis "i"; all else is on every device. The step is the same program: the ops split it (`convlab.kernels.sharding`), as does XLA.

Several processes train together once each has called `jax.distributed.initialize` and passes a mesh of all their devices; each
loads the whole data set. When one dies the others wait for it, for 95 seconds unless `heartbeat_timeout_seconds` says
otherwise, and end too: start all again, and they go on from the last checkpoint, which must lie where all can read it.
"""

import contextlib
import json
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convlab.kernels.sharding import BATCH, ROWS
from convlab.train.config import Config
from convlab.train.identity import plain
from convlab.train.step import State, Tree, of_numbers


class Placement:
    """Puts arrays on a mesh and takes them back; without a mesh it does nothing.

    Raises:
      ValueError: The mesh has other axes than "n" and "i", or the batch does not divide along "n".
    """

    def __init__(self, config: Config, rows: tuple[str, ...] = ()):
        self.rows, self.mesh = rows, None
        if config.mesh is None:
            return
        if unknown := set(config.mesh.axis_names) - {BATCH, ROWS}:
            raise ValueError(f"mesh has axes {sorted(unknown)}; needs 'n' for the batch, 'i' for output rows, or both")
        devices = config.mesh.shape.get(BATCH, 1)
        if config.batch_size // config.accumulate % devices:
            pieces = f" in {config.accumulate} pieces" * (config.accumulate > 1)
            raise ValueError(f"batch_size {config.batch_size}{pieces} does not divide over {devices} devices (mesh axis 'n')")
        names = config.mesh.axis_names
        self.mesh = Mesh(config.mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))

    def ambient(self) -> contextlib.AbstractContextManager:
        """The context in which all is computed."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def state(self, state: State) -> State:
        """Put a state on the devices."""
        if self.mesh is None:
            return state
        return jax.tree_util.tree_map_with_path(lambda path, leaf: self._put(leaf, self._rows(path, leaf)), state)

    def batch(self, *arrays: Any, axis: int = 0) -> Sequence[Any]:
        """Put a batch, which is `axis` of the arrays, on the devices, each its own images."""
        if self.mesh is None:
            return arrays
        spec = PartitionSpec(*[None] * axis, BATCH) if BATCH in self.mesh.axis_names else PartitionSpec()
        return [self._put(array, spec) for array in arrays]

    def multiple(self, size: int) -> int:
        """The next number of images from `size` on that divides over the devices."""
        devices = 1 if self.mesh is None else self.mesh.shape.get(BATCH, 1)
        return -(-size // devices) * devices

    def fetch(self, tree: Tree) -> Tree:
        """Bring arrays together, as if there were one device."""
        if self.mesh is None:
            return tree
        whole = jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))
        return jax.tree.map(lambda leaf: of_numbers(_local, leaf), whole)

    def agreed(self, number: int | None) -> int | None:
        """The largest of what the processes that train together say, None where none says anything."""
        if self.mesh is None or jax.process_count() == 1:
            return number
        return int(multihost_utils.process_allgather(np.int32(number or 0)).max()) or None

    def check_agreed(self, config: Config) -> None:
        """Raise ValueError, in every process, unless all that train together have this configuration."""
        if self.mesh is None or jax.process_count() == 1:
            return
        mine = zlib.crc32(json.dumps(plain(config)).encode())
        if (multihost_utils.process_allgather(np.uint32(mine)) != mine).any():
            raise ValueError(
                f"the {jax.process_count()} processes that train together have different configurations; needs one"
            )

    def _rows(self, path: tuple, leaf: jax.Array) -> PartitionSpec:
        """How a leaf of a state is split: as the parameter is whose path its own ends in."""
        name = jax.tree_util.keystr(path)
        mine = ROWS in self.mesh.axis_names and any(name.endswith(row) for row in self.rows) and leaf.ndim > 1  # pyright: ignore
        return PartitionSpec(ROWS) if mine and leaf.shape[0] % self.mesh.shape[ROWS] == 0 else PartitionSpec()  # pyright: ignore

    def _put(self, leaf: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(self.mesh, spec)  # pyright: ignore[reportArgumentType]
        return of_numbers(lambda a: jax.make_array_from_callback(np.shape(a), sharding, np.asarray(a).__getitem__), leaf)


def _local(array: jax.Array) -> jax.Array:
    """This process's copy of an array that is everywhere."""
    return jax.device_put(np.asarray(array.addressable_data(0)))


def is_first() -> bool:
    """Whether this process is the one that writes and shows, of all that train together."""
    return jax.process_index() == 0
