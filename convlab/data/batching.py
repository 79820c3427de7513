"""The order of training examples, and batches that are read from disk ahead of the training steps."""

import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from convlab import check
from convlab.choices import shown
from convlab.data.disk import THREADS
from convlab.data.splits import Split
from convlab.extras import require

PREFETCH = 8  # batches


def shuffled_indices(span: range, count: int, seed: int | None) -> Int[np.ndarray, " n"]:
    """Return the indices of the examples in part of an endless sequence of shuffled epochs.

    The result depends on the arguments alone.

    Args:
      span: The part of the sequence, counted in examples. Batch t of size B is range(t*B, (t+1)*B).
      count: The number of examples in an epoch.
      seed: The seed of the shuffling. If None, every epoch has the examples in their stored order.

    Example:
      >>> sorted(shuffled_indices(range(0, 5), 5, seed=0).tolist())
      [0, 1, 2, 3, 4]
    """
    epochs = range(span.start // count, (span.stop - 1) // count + 1)
    return np.concatenate([_shuffled(e, count, seed)[max(span.start - e * count, 0) : span.stop - e * count] for e in epochs])


@functools.lru_cache(maxsize=16)
def _shuffled(epoch: int, count: int, seed: int | None) -> np.ndarray:
    """Return the indices of all examples in the order of one epoch."""
    numbers = np.arange(count) if seed is None else np.random.default_rng((seed, epoch)).permutation(count)
    return numbers.astype(np.int32)


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int | None = 0,
    start: int = 0,
    stop: int | None = None,
    shard: tuple[int, int] = (0, 1),
    prefetch: int = PREFETCH,
    threads: int = THREADS,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield shuffled batches of images and labels, which threads read in advance.

    The examples of batch t depend on t, `batch_size`, `seed` and the number of examples alone. So a run that stopped before
    batch t resumes with `start=t`. At most `prefetch + threads` batches are in memory.

    Args:
      split: The examples.
      batch_size: The number of examples in a batch, over all shards. A batch at the end of an epoch continues in the
        next epoch.
      seed: The seed of the shuffling. If None, every epoch has the examples in their stored order.
      start: The index of the first batch.
      stop: The index of the batch to stop before. If None, the batches never end.
      shard: A pair (k, m) that selects the k-th of m equal parts of every batch, for the k-th of m processes.
      prefetch: The number of batches to keep ready.
      threads: The number of threads that read.

    Raises:
      ValueError: A number is out of range, k is not between 0 and m - 1, or m does not divide the batch size.
      TypeError: `split` is not a `Split`, or `shard` is no pair.
      MemoryError: The batches do not fit into memory.

    Example:
      >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
      >>> [labels.shape for _, labels in batches(split, 3, stop=2)]
      [(3,), (3,)]
    """
    if not isinstance(split, Split):
        raise TypeError(f"split must be a Split such as data.train, got {type(split).__name__}")
    batch_size, start = _count("batch_size", batch_size, 1), _count("start", start, 0)
    prefetch, threads = _count("prefetch", prefetch, 1), _count("threads", threads, 1)
    stop = sys.maxsize if stop is None else _count("stop", stop, 0)
    seed = None if seed is None else _count("seed", seed, 0)
    part, parts = _shard(shard, batch_size)
    shard_size = batch_size // parts
    purpose = "prefetch and threads, which is a number of batches of batch_size"
    check.shape_fits(purpose, prefetch + threads, shard_size, *split.images.shape[1:], itemsize=split.images.dtype.itemsize)

    def read(step: int) -> tuple[np.ndarray, np.ndarray]:
        first = step * batch_size + part * shard_size
        indices = shuffled_indices(range(first, first + shard_size), len(split), seed)
        return split.images[indices], split.labels[indices]

    grain = require("grain")
    steps = grain.MapDataset.range(start, stop).map(read)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)))


def _count(name: str, value: Any, least: int) -> int:
    """Return a Python integer, which Grain takes instead of a number of NumPy.

    Raises:
      ValueError: `value` is no integer, or too small or too large.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or not least <= value <= sys.maxsize:
        limit = "" if not is_integer or value < least else f" and at most {sys.maxsize}"
        raise ValueError(f"{name} must be an integer of at least {least}{limit}, got {shown(value)}")
    return int(value)


def _shard(shard: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """Return the number of a shard and the number of all.

    Raises:
      ValueError: The first is not below the second, or the second does not divide the batch.
      TypeError: `shard` is no pair.
    """
    pair = check.sequence("shard", shard, "two integers (k, m)")
    are_integers = all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in pair)
    if len(pair) != 2 or not are_integers or not 0 <= pair[0] < pair[1] or batch_size % pair[1]:
        raise ValueError(
            f"shard {shown(shard)} of batches of {batch_size}: needs (k, m) with k from 0 to m - 1 and an m that divides the"
            " batch"
        )
    return int(pair[0]), int(pair[1])
