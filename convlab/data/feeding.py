"""Which images come when, and images from disk read ahead of the steps that need them."""

import functools
import sys
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from convlab.data.disk import THREADS
from convlab.data.splits import Split
from convlab.extras import require

AHEAD = 8  # batches read before they are asked for


def order(places: range, count: int, seed: int | None) -> Int[np.ndarray, " n"]:
    """Return which images stand at `places` of the endless row of shuffled epochs: a pure function of its arguments.

    Args:
      places: Part of the row; batch t of size B is range(t*B, (t+1)*B).
      count: Images in an epoch.
      seed: Of the shuffling; if None, every epoch has the images in their stored order.

    Example:
      >>> sorted(order(range(0, 5), 5, seed=0).tolist())
      [0, 1, 2, 3, 4]
    """
    epochs = range(places.start // count, (places.stop - 1) // count + 1)
    return np.concatenate(
        [_shuffled(e, count, seed)[max(places.start - e * count, 0) : places.stop - e * count] for e in epochs]
    )


@functools.lru_cache(maxsize=16)
def _shuffled(epoch: int, count: int, seed: int | None) -> np.ndarray:
    numbers = np.arange(count) if seed is None else np.random.default_rng((seed, epoch)).permutation(count)
    return numbers.astype(np.int32)


def batches(
    split: Split,
    size: int,
    *,
    seed: int | None = 0,
    start: int = 0,
    stop: int | None = None,
    shard: tuple[int, int] = (0, 1),
    ahead: int = AHEAD,
    threads: int = THREADS,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield shuffled batches of images and labels, read by threads before they are asked for.

    Batch t holds the same examples wherever the images lie and whenever it is read, so t is all there is to a position: a run
    that stopped before batch t goes on with `start=t`. At most `ahead + threads` batches are in memory.

    Args:
      split: Examples.
      size: Images of a batch, over all shards; the last batch of an epoch goes on into the next one.
      seed: Of the shuffling; if None, every epoch has the images in their stored order.
      start: First batch.
      stop: Batch to stop before; absent, there is no end.
      shard: (k, m): the k-th of m equal parts of every batch, for the k-th of m processes.
      ahead: Batches to keep ready.
      threads: That read.

    Raises:
      ValueError: A number is out of range, `shard` is none of its parts, or they do not divide the batch.
      TypeError: `split` is no Split.

    Example:
      >>> split = Split(np.zeros((5, 8, 7, 1), np.uint8), np.arange(5))
      >>> [labels.shape for _, labels in batches(split, 3, stop=2)]
      [(3,), (3,)]
    """
    if not isinstance(split, Split):
        raise TypeError(f"split must be a Split such as data.train, got {type(split).__name__}")
    for name, value, least in (("size", size, 1), ("start", start, 0), ("ahead", ahead, 1), ("threads", threads, 1)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    part, parts = shard
    if not 0 <= part < parts or size % parts:
        raise ValueError(f"shard {shard} of batches of {size}: needs (k, m) with k from 0 to m - 1, and m equal parts")
    each = size // parts

    def read(step: int) -> tuple[np.ndarray, np.ndarray]:
        first = step * size + part * each
        places = order(range(first, first + each), len(split), seed)
        return split.images[places], split.labels[places]

    grain = require("grain")
    steps = grain.MapDataset.range(start, sys.maxsize if stop is None else stop).map(read)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)))
