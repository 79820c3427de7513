"""Compute the equations of all rungs by loops over NumPy arrays, independently of convlab."""

import itertools
import math

import numpy as np


def pads(n, size, stride, dilation, padding):
    """Return the numbers of pixels padded before and after one axis."""
    extent = dilation * (size - 1) + 1
    if padding in ("SAME", "SAME_LOWER"):
        outputs = -(-n // stride)
        total = max((outputs - 1) * stride + extent - n, 0)
        small, large = math.floor(total / 2), math.ceil(total / 2)
        return (small, large) if padding == "SAME" else (large, small)
    if padding in ("CIRCULAR", "REFLECT", "EDGE"):
        return (extent - 1) // 2, extent // 2
    return {"VALID": (0, 0), "FULL": (extent - 1, extent - 1), "CAUSAL": (extent - 1, 0)}[padding]


def outside(k, n, padding):
    """Return the pixel that coordinate `k` of an axis of `n` pixels reads, or None."""
    if padding == "CIRCULAR":
        while k < 0:
            k += n
        while k >= n:
            k -= n
    if padding == "EDGE":
        k = max(0, min(k, n - 1))
    if padding == "REFLECT":
        while not 0 <= k < n:
            k = 0 if n == 1 else -k if k < 0 else 2 * (n - 1) - k
    return k if 0 <= k < n else None


def axis_reads(n, size, stride, dilation, padding):
    """Return for each output of one axis the pixel that each tap reads (None for padding)."""
    low, high = padding if isinstance(padding, tuple) else pads(n, size, stride, dilation, padding)
    outputs = (n + low + high - dilation * (size - 1) - 1) // stride + 1
    return [[outside(stride * i + dilation * a - low, n, padding) for a in range(size)] for i in range(outputs)]


def tables(space, size, strides, dilation, padding):
    """Return one `axis_reads` table per axis for a named or explicit padding."""
    per_axis = [padding] * len(space) if isinstance(padding, str) else padding  # an entry is a name or a (low, high) pair
    return [axis_reads(*axis) for axis in zip(space, size, strides, dilation, per_axis, strict=True)]


def each_tap(reads):
    """Yield (position, tap, pixel) for every tap of every position that reads a pixel."""
    for position in itertools.product(*(range(len(table)) for table in reads)):
        for tap in itertools.product(*(range(len(table[0])) for table in reads)):
            pixel = tuple(table[i][a] for table, i, a in zip(reads, position, tap, strict=True))
            if None not in pixel:
                yield position, tap, pixel


def out_shape(reads):
    return tuple(len(table) for table in reads)


def dense(x, w):
    """Compute H[i,j,d] = sum_klc W[i,j,k,l,c,d] X[k,l,c] for one image."""
    ndim = x.ndim - 1
    h = np.zeros((*w.shape[:ndim], w.shape[-1]), np.result_type(x, w))
    for position in np.ndindex(*w.shape[:ndim]):
        for pixel in np.ndindex(*x.shape[:-1]):
            for c in range(x.shape[-1]):
                for d in range(w.shape[-1]):
                    h[(*position, d)] += w[(*position, *pixel, c, d)] * x[(*pixel, c)]
    return h


def local(x, kernel_at, reads, channels_out, groups=1):
    """Compute H[i,j,d] = sum_abc V(i,j)[a,b,c,d] X[i+a,j+b,c] for one image.

    `kernel_at(position)` returns the kernel V(i,j).
    """
    h = np.zeros((*out_shape(reads), channels_out), np.result_type(float, x, kernel_at((0,) * len(reads))))
    per_in, per_out = x.shape[-1] // groups, channels_out // groups
    for position, tap, pixel in each_tap(reads):
        v = kernel_at(position)
        for d in range(channels_out):
            for c in range(per_in):
                h[(*position, d)] += v[(*tap, c, d)] * x[(*pixel, (d // per_out) * per_in + c)]
    return h


def conv(x, v, reads, groups=1):
    return local(x, lambda position: v, reads, v.shape[-1], groups)


def locally_connected(x, v, reads, groups=1):
    return local(x, lambda position: v[position], reads, v.shape[-1], groups)


def tiled(x, v, reads):
    period = v.shape[: len(reads)]
    return local(x, lambda position: v[tuple(i % p for i, p in zip(position, period, strict=True))], reads, v.shape[-1])


def low_rank(x, basis, weights, reads):
    def kernel_at(position):
        return sum(weights[(*position, r)] * basis[r] for r in range(len(basis)))

    return local(x, kernel_at, reads, basis.shape[-1])


def dense_matrix(kernel_at, reads, space, channels_in, channels_out, groups=1):
    """Return the dense weights of a layer with kernels `kernel_at`, adding taps on one pixel."""
    dtype = np.result_type(float, kernel_at((0,) * len(reads)))
    w = np.zeros((*out_shape(reads), *space, channels_in, channels_out), dtype)
    per_in, per_out = channels_in // groups, channels_out // groups
    for position, tap, pixel in each_tap(reads):
        for d in range(channels_out):
            for c in range(per_in):
                w[(*position, *pixel, (d // per_out) * per_in + c, d)] += kernel_at(position)[(*tap, c, d)]
    return w


def pool(x, reads, reduce):
    """Reduce the live pixels of each window, in row-major order, for every channel."""
    seen = {}
    for position, _, pixel in each_tap(reads):
        seen.setdefault(position, []).append(x[pixel])
    h = np.zeros((*out_shape(reads), x.shape[-1]), x.dtype)
    for position, pixels in seen.items():
        h[position] = reduce(np.stack(pixels))
    return h


def live(reads):
    table = np.zeros((*out_shape(reads), *(len(axis[0]) for axis in reads)), bool)
    for position, tap, _ in each_tap(reads):
        table[(*position, *tap)] = True
    return table


def coverage(reads, space):
    readers = {pixel: set() for pixel in np.ndindex(*space)}
    for position, _, pixel in each_tap(reads):
        readers[pixel].add(position)
    return np.array([len(readers[pixel]) for pixel in np.ndindex(*space)]).reshape(space)
