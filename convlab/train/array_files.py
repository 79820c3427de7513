"""Arrays in a folder, written and read by Orbax."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def write_arrays(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a folder, in the order of their paths.

    Raises:
      OSError: The disk is full.
    """
    try:
        _orbax().save(folder, dict(zip(_names(arrays), arrays.values(), strict=True)))
    except (ValueError, RuntimeError) as error:  # Orbax raises these when the disk is full
        raise OSError(str(error)) from error


def read_arrays(folder: pathlib.Path, paths: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the arrays of a folder by their paths, given in the order in which they were written."""
    paths, arrays = [*paths], _orbax().restore(folder)
    return dict(zip(paths, (arrays[name] for name in _names(paths)), strict=True))


def key_data(leaf: Any) -> Any:
    """Return the key data of a random key, and any other array unchanged."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _names(paths: Any) -> list[str]:
    return [f"leaf_{number:05d}" for number in range(len(paths))]


def _orbax() -> Any:
    """Make an Orbax checkpointer for this process alone, without barriers between processes."""
    import orbax.checkpoint as ocp

    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"convlab{process}"
    )
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options)
