"""Placement of a run's arrays on the devices of a mesh, in one process or several.

Images are split along the mesh axis "n". Kernels that differ by row, and their part of the optimizer's state, are split along
the mesh axis "i". All other arrays are replicated on every device. The step is the same program as on one device, split by the
ops (`convlab.kernels.sharding`) and by XLA.

To train in several processes, each process calls `jax.distributed.initialize`, passes a mesh of all devices and loads the whole
data set. All save at the same steps and stop together. Start all processes again to resume from the last checkpoint, which all
must be able to read.

If one process is killed, the others end with an error that says so. On CPU the error comes as soon as the connection is closed.
On any device the processes have ended after `heartbeat_timeout_seconds` of `jax.distributed.initialize`, 100 by default, and a
few seconds. If a process fails with an error of its own, it first waits for the others for `shutdown_timeout_seconds`, 300 by
default, and then all end.
"""

import contextlib
import json
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convlab.kernels.sharding import BATCH, ROWS
from convlab.train.config import Config
from convlab.train.identity import config_to_json
from convlab.train.step import State, Tree, map_key_data

EXCHANGE_SECONDS = 1.0
LOST = "Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED"  # in XLA's errors if another process cannot be reached


class Placement:
    """Placement of arrays on the mesh of a configuration.

    Without a mesh, all methods return their arrays unchanged.

    Args:
      config: The configuration, which has the mesh and the batch size.
      rows: The paths of the parameters whose first axis is the output rows, as in `Trainable.rows`.

    Raises:
      ValueError: The mesh has axes other than "n" and "i", or the batch is not divisible by the size of axis "n".
    """

    def __init__(self, config: Config, rows: tuple[str, ...] = ()):
        self.rows, self.mesh = rows, None
        if config.mesh is None:
            return
        if unknown := set(config.mesh.axis_names) - {BATCH, ROWS}:
            raise ValueError(f"mesh has axes {sorted(unknown)}; needs only 'n' for the batch and 'i' for output rows")
        devices = config.mesh.shape.get(BATCH, 1)
        if config.batch_size // config.accumulation_steps % devices:
            split = f" in {config.accumulation_steps} micro-batches" * (config.accumulation_steps > 1)
            raise ValueError(f"batch_size {config.batch_size}{split} is not divisible by {devices} devices (mesh axis 'n')")
        names = config.mesh.axis_names
        self.mesh = Mesh(config.mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))

    @contextlib.contextmanager
    def mesh_context(self) -> Iterator[None]:
        """Set the mesh for all computations.

        Raises:
          RuntimeError: Another process that trains together with this one has ended or cannot be reached.
        """
        try:
            with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
                yield
        except jax.errors.JaxRuntimeError as error:
            if not self.is_shared or not any(sign in str(error) for sign in LOST):
                raise
            raise RuntimeError(
                f"another of the {jax.process_count()} processes that train together has ended or cannot be reached; start all"
                f" of them again to resume from the last checkpoint ({str(error).splitlines()[0][:200]})"
            ) from error

    def put_state(self, state: State) -> State:
        """Put a state on the devices."""
        if self.mesh is None:
            return state
        return jax.tree_util.tree_map_with_path(lambda path, leaf: self._put(leaf, self._rows(path, leaf)), state)

    def put_batch(self, *arrays: Any, axis: int = 0) -> Sequence[Any]:
        """Put arrays on the devices, split along their batch axis `axis`."""
        if self.mesh is None:
            return arrays
        spec = PartitionSpec(*[None] * axis, BATCH) if BATCH in self.mesh.axis_names else PartitionSpec()
        return [self._put(array, spec) for array in arrays]

    def round_up(self, size: int) -> int:
        """Round a number of images up to a multiple of the number of devices along "n"."""
        devices = 1 if self.mesh is None else self.mesh.shape.get(BATCH, 1)
        return -(-size // devices) * devices

    def gather(self, tree: Tree) -> Tree:
        """Gather arrays from all devices onto one."""
        if self.mesh is None:
            return tree
        replicated = jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))
        return jax.tree.map(lambda leaf: map_key_data(_local, leaf), replicated)

    @property
    def is_shared(self) -> bool:
        """Whether several processes train together."""
        return self.mesh is not None and jax.process_count() > 1

    def gather_numbers(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the numbers of all processes, with a row per process."""
        return multihost_utils.process_allgather(np.array(numbers, np.int32)) if self.is_shared else np.array([numbers])

    def check_same_config(self, config: Config) -> None:
        """Raise ValueError in every process unless all processes have the same configuration."""
        if not self.is_shared:
            return
        checksum = zlib.crc32(json.dumps(config_to_json(config)).encode())
        if (multihost_utils.process_allgather(np.uint32(checksum)) != checksum).any():
            raise ValueError(
                f"config differs among the {jax.process_count()} processes that train together; needs the same in all"
            )

    def _rows(self, path: tuple, leaf: jax.Array) -> PartitionSpec:
        """Return the sharding of a leaf of a state.

        A leaf is split if its path ends in that of a parameter in `rows`. So the optimizer's state is split like its parameter.
        """
        name = jax.tree_util.keystr(path)
        has_rows = ROWS in self.mesh.axis_names and any(name.endswith(row) for row in self.rows)  # pyright: ignore
        is_split = has_rows and leaf.ndim > 1 and leaf.shape[0] % self.mesh.shape[ROWS] == 0  # pyright: ignore
        return PartitionSpec(ROWS) if is_split else PartitionSpec()

    def _put(self, leaf: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(self.mesh, spec)  # pyright: ignore[reportArgumentType]
        return map_key_data(lambda a: jax.make_array_from_callback(np.shape(a), sharding, np.asarray(a).__getitem__), leaf)


class Exchange:
    """Exchange of the requests of processes that train together, at the same steps in all of them.

    They exchange requests about once a second. The first process chooses the step of the next exchange by its clock.

    Args:
      placement: The placement of the run.
    """

    def __init__(self, placement: Placement):
        self.placement, self.next_step = placement, 0
        self.last = 0, time.monotonic()  # step and time of the last exchange

    def __call__(self, step: int, is_due: bool, signal_number: int | None, synchronise: bool) -> tuple[bool, int | None]:
        """Exchange requests, and return whether to save the run and the signal that stops it.

        The signal is None if the run continues.

        Args:
          step: The number of steps taken.
          is_due: The request of this process to save the run. Among several processes only that of the first one counts.
          signal_number: The signal that this process has received, or None. The request of one process to stop stops all.
          synchronise: Whether requests are exchanged at this step in any case. It must be the same in all processes.
        """
        if not self.placement.is_shared:
            return is_due, signal_number
        if not synchronise and step < self.next_step:
            return False, None
        (last_step, last_time), now = self.last, time.monotonic()
        steps = round((step - last_step) / max(now - last_time, 1e-6) * EXCHANGE_SECONDS)
        rows = self.placement.gather_numbers([is_due, signal_number or 0, step + max(1, steps)])
        self.last, self.next_step = (step, time.monotonic()), int(rows[0, 2])
        return bool(rows[0, 0]), int(rows[:, 1].max()) or None


def _local(array: jax.Array) -> jax.Array:
    """Return this process's copy of a replicated array."""
    return jax.device_put(np.asarray(array.addressable_data(0)))


def is_first() -> bool:
    """Return True in the process that writes files and shows progress."""
    return jax.process_index() == 0
