"""Introduce one fault at a time and check that a test fails: `python tests/mutations.py [WORDS]`.

Each fault is a replacement in one file of a copy of the project. At least one of the tests selected by the fault must fail;
the README's test command runs all of them. If WORDS are given, only faults whose names contain all of them are tried.
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Fault(NamedTuple):
    """A fault: its name, the file, the old and new text, and the tests that must fail."""

    name: str
    path: str
    old: str
    new: str
    tests: str


FAULTS = [
    Fault(
        "swap a and b in the windows",
        "convlab/unfold.py",
        "    return x\n\n\ndef fold",
        "    return jnp.swapaxes(x, -2, -3) if len(axes) == 2 and axes[0].size == axes[1].size else x\n\n\ndef fold",
        "tests/test_ops.py -k unfold",
    ),
    Fault(
        "swap i and j of a locally connected kernel",
        "convlab/ops/local.py",
        "    return windowed(",
        "    if ndim == 2 and v.shape[0] == v.shape[1]:\n        v = v.swapaxes(0, 1)\n    return windowed(",
        "tests/test_ops.py -k 'loops or lax'",
    ),
    Fault(
        "fuse channels in the wrong order",
        "convlab/foreign/linen.py",
        "    kernel = kernel.reshape(*kernel.shape[:ndim], fused // math.prod(size), *size, kernel.shape[-1])\n"
        "    return jnp.moveaxis(kernel, ndim, -2)",
        "    return kernel.reshape(*kernel.shape[:ndim], *size, fused // math.prod(size), kernel.shape[-1])",
        "tests/test_foreign.py",
    ),
    Fault(
        "divide by all positions, not by those where the tap is live",
        "convlab/convert/period.py",
        "np.linalg.pinv(shared.sum(1), hermitian=True)",
        "np.linalg.pinv(np.eye(axis.size) * -(-axis.outputs // p) + 0 * shared.sum(1), hermitian=True)",
        "tests/test_convert.py -k 'live or idempotent'",
    ),
    Fault(
        "swap low and high padding in SAME",
        "convlab/geometry.py",
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
        "tests/test_geometry.py",
    ),
    Fault(
        "ignore the dilation of windows",
        "convlab/unfold.py",
        "first = axis.dilation * a",
        "first = a",
        "tests/test_ops.py -k 'loops or unfold'",
    ),
    Fault(
        "ignore the dilation of conv",
        "convlab/kernels/convolution.py",
        "rhs_dilation=[axis.dilation for axis in form.axes],\n        dimension_numbers",
        "dimension_numbers",
        "tests/test_ops.py -k 'conv_matches or loops'",
    ),
    Fault(
        "keep dead taps when lifting",
        "convlab/convert/period.py",
        "    return jnp.where(table[..., None, None], v, 0)",
        "    return jnp.asarray(v)",
        "tests/test_convert.py -k dead",
    ),
    Fault(
        "let taps on one pixel overwrite each other",
        "convlab/convert/dense.py",
        '.add(v.reshape(*reads.shape, *w.shape[2:]), mode="drop")',
        '.set(v.reshape(*reads.shape, *w.shape[2:]), mode="drop")',
        "tests/test_convert.py -k 'jacobian or unchanged'",
    ),
    Fault(
        "ignore that taps share a pixel when projecting",
        "convlab/convert/dense.py",
        "counts = np.maximum((reads[:, :, None] == reads[:, None, :]).sum(-1), 1)",
        "counts = np.ones_like(reads)",
        "tests/test_convert.py -k idempotent",
    ),
    Fault(
        "shift the tile by one position",
        "convlab/kernels/tiled.py",
        "axis.low - axis.stride * t,",
        "axis.low - axis.stride * ((t + 1) % p),",
        "tests/test_ops.py -k loops",
    ),
    Fault(
        "mirror the border pixel twice",
        "convlab/geometry.py",
        "n - 1 - np.abs(k % max(2 * n - 2, 1) - (n - 1))",
        "n - 1 - np.abs(k % max(2 * n - 1, 1) - (n - 1))",
        "tests/test_geometry.py",
    ),
    Fault(
        "give ties of max pooling to the last pixel",
        "convlab/ops/pool.py",
        "return (pixel > best) | jnp.isnan(pixel)",
        "return (pixel >= best) | jnp.isnan(pixel)",
        "tests/test_ops.py -k ties",
    ),
    Fault(
        "count all positions in the fan-in",
        "convlab/rungs/start.py",
        "return draw(jax.random.split(key, math.prod(count))).reshape(*count, *shape)",
        "return how.kernel_init(key, (*count, *shape), how.dtype)",
        "tests/test_layers.py -k deviation",
    ),
    Fault(
        "reshape groups in the wrong order",
        "convlab/kernels/trilinear.py",
        "x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups), -2, 0)",
        "x.reshape(*x.shape[:-1], x.shape[-1] // groups, groups), -1, 0)",
        "tests/test_ops.py -k loops",
    ),
    Fault(
        "ignore that windows overlap",
        "convlab/unfold.py",
        "functools.reduce(jnp.add, sums)",
        "sums[0]",
        "tests/test_kernels.py -k 'fold or implementation'",
    ),
    Fault(
        "let a block overwrite the sums of its neighbours",
        "convlab/kernels/blocks.py",
        "fence(before + slab)",
        "fence(slab)",
        "tests/test_kernels.py -k implementation",
    ),
    Fault(
        "ignore the stride in the gradient of a kernel",
        "convlab/kernels/convolution.py",
        "dilation=axis.stride",
        "dilation=1",
        "tests/test_kernels.py -k implementation",
    ),
    Fault(
        "merge the axis of vmap after the axis that it joins",
        "convlab/kernels/trilinear.py",
        "array = jnp.moveaxis(array, batched[name], at)",
        "array = jnp.moveaxis(array, batched[name], at + 1)",
        "tests/test_kernels.py -k vmap",
    ),
    Fault(
        "mirror the tiles of a gradient about the wrong pixel",
        "convlab/kernels/tiled.py",
        "+ axis.low - a) % p",
        "+ axis.low + a) % p",
        "tests/test_kernels.py -k implementation",
    ),
    Fault(
        "pad the cotangents like the image",
        "convlab/kernels/form.py",
        "low = axis.dilation * (axis.size - 1) - axis.low",
        "low = axis.low",
        "tests/test_kernels.py -k mirrored",
    ),
    Fault(
        "fetch rows from the wrong neighbour",
        "convlab/kernels/sharding.py",
        "(q, (q - step) % p) for q in range(p) if ring or 0 <= q - step < p",
        "(q, (q + step) % p) for q in range(p) if ring or 0 <= q + step < p",
        "tests/test_sharding.py",
    ),
    Fault(
        "add up the gradients of devices that split the batch",
        "convlab/kernels/table.py",
        'products["h"], proxy(form, wrt, p, q)',
        'products["h"], jax.ShapeDtypeStruct(form.shape(wrt, p, q), p.dtype)',
        "tests/test_sharding.py",
    ),
    Fault(
        "read records without verifying their checksums",
        "convlab/data/disk.py",
        "if zlib.crc32(block) != expected",
        "if False and zlib.crc32(block) != expected",
        "tests/test_disk.py -k damaged",
    ),
    Fault(
        "keep the leftovers of a killed process",
        "convlab/data/records.py",
        "                _remove_leftovers(folder)\n",
        "",
        "tests/test_disk.py -k unfinished",
    ),
    Fault(
        "lose the old preparation when the new one fails",
        "convlab/data/records.py",
        "old.rename(folder)",
        "pass",
        "tests/test_disk.py -k loses",
    ),
    Fault(
        "prepare without a lock",
        "convlab/data/records.py",
        "preserve_global_random_state(), disk.lock_folder(folder):",
        "preserve_global_random_state():",
        "tests/test_disk.py -k waited",
    ),
    Fault(
        "let the shards of a batch overlap",
        "convlab/data/batching.py",
        "first = step * batch_size + part * shard_size",
        "first = step * batch_size + part",
        "tests/test_batching.py -k processes",
    ),
    Fault(
        "return labels in another order than their images",
        "convlab/data/batching.py",
        "return split.images[indices], split.labels[indices]",
        "return split.images[indices], split.labels[np.sort(indices)]",
        "tests/test_batching.py -k epoch",
    ),
    Fault(
        "reuse a preparation without corrupt images as a complete one",
        "convlab/data/loading.py",
        '"-skipped" * skip_corrupt',
        '""',
        "tests/test_folder.py -k corrupt",
    ),
    Fault(
        "resume with the first batches",
        "convlab/train/loop.py",
        "stacked_training_batches(group, steps, training.step)",
        "stacked_training_batches(group, steps, 0)",
        "tests/test_checkpoint.py -k resumed_run_equals",
    ),
    Fault(
        "save a run before it is evaluated",
        "convlab/train/loop.py",
        "reversed(calls)",
        "calls",
        "tests/test_checkpoint.py -k resumed_run_equals",
    ),
    Fault(
        "shuffle although shuffling is disabled",
        "convlab/train/loop.py",
        "config.seed if config.shuffle else None",
        "config.seed",
        "tests/test_train.py -k unshuffled",
    ),
    Fault(
        "resume from a checkpoint of an older version",
        "convlab/train/checkpoint.py",
        "!= VERSION",
        "> VERSION",
        "tests/test_checkpoint.py -k format_version",
    ),
    Fault(
        "compile a network again for every run",
        "convlab/train/step.py",
        "_APPLIES.setdefault((training, evaluation), NnxApply(training, evaluation))",
        "NnxApply(training, evaluation)",
        "tests/test_train.py -k 'second_run or subsets'",
    ),
    Fault(
        "take a step despite a non-finite loss",
        "convlab/train/step.py",
        "jnp.where(diverged, 0, update * jnp.asarray(learning_rate, update.dtype))",
        "update * jnp.asarray(learning_rate, update.dtype)",
        "tests/test_step_options.py -k diverged",
    ),
    Fault(
        "evaluate the last parameters instead of their average",
        "convlab/train/step.py",
        "return self.parameters if self.ema_parameters is None else self.ema_parameters",
        "return self.parameters",
        "tests/test_step_options.py -k ema",
    ),
    Fault(
        "send the gradient of a block to the tap before the largest",
        "convlab/ops/pool.py",
        "jnp.asarray(m, number.dtype)",
        "jnp.asarray(m - 1, number.dtype)",
        "tests/test_ops.py -k 'pools_have or ties'",
    ),
    Fault(
        "omit the mean in the affine form of batch norm",
        "convlab/norm.py",
        " - mean * alpha",
        "",
        "tests/test_norm.py",
    ),
    Fault(
        "multiply the windows of all images by the cotangents of the first",
        "convlab/kernels/windows.py",
        "lax.dynamic_slice_in_dim(g, m * few, few, 1)",
        "lax.dynamic_slice_in_dim(g, 0, few, 1)",
        "tests/test_kernels.py -k every_implementation",
    ),
    Fault(
        "accept a checkpoint without verifying it",
        "convlab/train/checkpoint.py",
        "                disk.verify_folder(folder)\n",
        "                pass\n",
        "tests/test_checkpoint.py -k damaged",
    ),
    Fault(
        "count damaged checkpoints among those kept",
        "convlab/train/checkpoint.py",
        "path.rename(",
        "str(",
        "tests/test_checkpoint.py -k damaged_checkpoint_is_set_aside",
    ),
    Fault(
        "crop the corner instead of the centre",
        "convlab/data/records.py",
        "box = (left, top, left + scale * width, top + scale * height)",
        "box = (0, 0, scale * width, scale * height)",
        "tests/test_folder.py -k sizes",
    ),
    Fault(
        "transpose with respect to the wrong operand",
        "convlab/kernels/trilinear.py",
        "OTHERS[wrt][1 - operand]: (q, p)[operand]}",
        "OTHERS[wrt][1 - operand]: (p, q)[1 - operand] * 2}",
        "tests/test_ops.py -k second_order",
    ),
    Fault(
        "let the threshold follow the learning rate",
        "convlab/optim/thresholds.py",
        "_product(beta, l1_penalty)",
        "_product(learning_rate, l1_penalty)",
        "tests/test_optim.py -k equation",
    ),
    Fault(
        "threshold weights before the update instead of after it",
        "convlab/optim/thresholds.py",
        "jnp.abs(parameter + update) < threshold",
        "jnp.abs(parameter) < threshold",
        "tests/test_optim.py -k no_weight_ever",
    ),
    Fault(
        "project to symmetric kernels by the unweighted mean of an orbit",
        "convlab/rungs/symmetric.py",
        "spread.T @ gram @ spread",
        "spread.T @ spread * gram.mean()",
        "tests/test_rungs.py -k pseudoinverse",
    ),
    Fault(
        "exchange taps along axes of different dilation",
        "convlab/rungs/symmetric.py",
        "kinds = [*zip(sizes, *steps,",
        "kinds = [*zip(sizes,",
        "tests/test_rungs.py -k flipped",
    ),
    Fault(
        "ignore the strength on the way to the stricter layer",
        "convlab/surgery/networks.py",
        "array + strength * (nearest[name] - array)",
        "nearest[name]",
        "tests/test_relax.py -k share_of_the_way",
    ),
    Fault(
        "write out a convolution for all positions when converting it to tiles",
        "convlab/rungs/shared.py",
        'layout.zero_dead_taps(arrays["kernel"][(None,) * layout.ndim])',
        'layout.zero_dead_taps(jax.numpy.broadcast_to(arrays["kernel"], (*layout.positions, *layout.kernel_shape)))',
        "tests/test_rungs.py -k written_out",
    ),
    Fault(
        "project one update late",
        "convlab/optim/sharing.py",
        "lax.cond(count % steps == 0",
        "lax.cond(count % steps == 1 % steps",
        "tests/test_optim.py -k third",
    ),
    Fault(
        "keep a separate bias at every position",
        "convlab/optim/sharing.py",
        'if free.bias_sharing == "position" and',
        'if free.bias_sharing == "channel" and',
        "tests/test_optim.py -k 'bias_follows'",
    ),
    Fault(
        "count distances from the padded corner",
        "convlab/optim/penalties.py",
        "/ 2 - axis.low",
        "/ 2",
        "tests/test_optim.py -k centre_of_its_window",
    ),
    Fault(
        "freeze pruned weights at their current values",
        "convlab/optim/pruning.py",
        "jnp.where(kept, u, -p)",
        "jnp.where(kept, u, 0)",
        "tests/test_optim.py -k 'pruned_weights and nesterov'",
    ),
    Fault(
        "prune a fraction of all weights instead of the remaining ones",
        "convlab/optim/pruning.py",
        "round(fraction * len(entries))",
        "round(fraction * len(remaining))",
        "tests/test_optim.py -k smallest_share",
    ),
    Fault(
        "add the residual after the last activation of a block",
        "convlab/models/resnet.py",
        "return self.activation(h + (self._subsampled(x) if self.shortcut is None else self.shortcut(x)))",
        "return self.activation(h) + (self._subsampled(x) if self.shortcut is None else self.shortcut(x))",
        "tests/test_families.py -k adds_its_input",
    ),
    Fault(
        "leave the hidden layer of a head without its batch norm",
        "convlab/models/snet.py",
        "batch_norm=True, kernel_init",
        "kernel_init",
        "tests/test_families.py -k s_net_is",
    ),
    Fault(
        "choose the width whose cost is farthest from the target",
        "convlab/measure/cost/width.py",
        "abs(costs(width) - target)",
        "-abs(costs(width) - target)",
        "tests/test_width.py",
    ),
    Fault(
        "choose the best patch over all units jointly",
        "convlab/measure/weights/patches.py",
        "best = jnp.max(sums, range(ndim, 2 * ndim))",
        "best = jnp.max(sums)",
        "tests/test_weights.py -k patch",
    ),
    Fault(
        "shuffle without preserving the number of inputs of a unit",
        "convlab/measure/weights/patches.py",
        "to_first = jnp.where(exclusive, order < jnp.sum(exclusive & (x != 0), 1, keepdims=True), draw < 0.5)",
        "to_first = draw < 0.5",
        "tests/test_weights.py -k shuffling",
    ),
    Fault(
        "arrange filters column by column",
        "convlab/report/pictures.py",
        "divmod(unit, columns)",
        "divmod(unit, rows)[::-1]",
        "tests/test_report.py -k filters",
    ),
    Fault(
        "relax into dead taps",
        "convlab/rungs/layout.py",
        "zero_dead_taps(repeat(v, tile), *layout.where)",
        "repeat(v, tile)",
        "tests/test_relax.py -k every_padding",
    ),
    Fault(
        "constrain a bias to its sum instead of its mean",
        "convlab/rungs/transfer.py",
        "bias.reshape(-1, bias.shape[-1]).mean(0)",
        "bias.reshape(-1, bias.shape[-1]).sum(0)",
        "tests/test_relax.py -k orthogonal",
    ),
    Fault(
        "reinitialise the transferred optimizer state",
        "convlab/surgery/optimizer_state.py",
        "return _converted(name[0], value, before[layer], after[layer])",
        "return fresh",
        "tests/test_relax.py -k carried_state",
    ),
    Fault(
        "ignore the optimizer when estimating memory",
        "convlab/surgery/networks.py",
        "    if optimizer is not None:\n        state =",
        "    if optimizer is None:\n        state =",
        "tests/test_relax.py -k would_not_fit",
    ),
    Fault(
        "relax a masked kernel of Flax without its mask",
        "convlab/calls.py",
        "kernel if self.mask is None else kernel * self.mask",
        "kernel",
        "tests/test_surgery_of_transposes.py -k factors",
    ),
    Fault(
        "name another project's distribution for a missing extra",
        "convlab/extras.py",
        "pip install 'convlab-jax[{extra}]'",
        "pip install 'convlab[{extra}]'",
        "tests/test_report.py -k installs_it",
    ),
    Fault(
        "import a library that is not declared",
        "pyproject.toml",
        '    "orbax-checkpoint>=0.11", # checkpoints; Flax needs it too\n',
        "",
        "tests/test_house.py -k declared",
    ),
    Fault(
        "include the shared part in the local share",
        "convlab/convert/shares.py",
        '"local": local - shared,',
        '"local": local,',
        "tests/test_convert.py -k shares",
    ),
    Fault(
        "keep the smallest singular values of the kernels",
        "convlab/convert/low_rank.py",
        "basis = right[:rank] * (sign * sigma[:rank]",
        "basis = right[-rank:] * (sign * sigma[-rank:]",
        "tests/test_convert.py -k best_rank",
    ),
    Fault(
        "blur with weights that sum to more than one",
        "convlab/ops/pool.py",
        "return [math.comb(size - 1, a) / 2 ** (size - 1) for a in range(size)]",
        "return [math.comb(size - 1, a) for a in range(size)]",
        "tests/test_ops.py -k 'blur or pools_match'",
    ),
    Fault(
        "divide by a deviation without epsilon",
        "convlab/norm.py",
        "jax.lax.rsqrt(variance + self.epsilon)",
        "jax.lax.rsqrt(variance)",
        "tests/test_norm.py",
    ),
    Fault(
        "reject variances below one",
        "convlab/algebra/merging.py",
        "square > 0",
        "square > 1",
        "tests/test_algebra.py -k in_evaluation_merges",
    ),
    Fault(
        "let taps overwrite each other on a torus",
        "convlab/algebra/fourier.py",
        ".at[pixels].add(v)",
        ".at[pixels].set(v)",
        "tests/test_algebra.py -k every_frequency",
    ),
    Fault(
        "reject a rho of zero",
        "convlab/tasks/scenes.py",
        "not 0 <= rho",
        "not 0 < rho",
        "tests/test_tasks.py -k rho",
    ),
    Fault(
        "compute separate batch-norm statistics at every position",
        "convlab/norm.py",
        "axes = tuple(range(x.ndim - 1))",
        "axes = (0,)",
        "tests/test_norm.py",
    ),
    Fault(
        "multiply dead taps by zero, which gives NaN for infinite entries",
        "convlab/convert/period.py",
        "    return jnp.where(table[..., None, None], v, 0)",
        "    return table[..., None, None] * v",
        "tests/test_convert.py -k 'dead or whatever'",
    ),
    Fault(
        "place images farther from the centre than requested",
        "convlab/data/canvas.py",
        "rng.integers(-max_shift, max_shift + 1,",
        "rng.integers(-max_shift, max_shift + 2,",
        "tests/test_canvas.py",
    ),
    Fault(
        "draw different images at another distance",
        "convlab/data/canvas.py",
        "np.random.default_rng(key) for key in ((seed, 0)",
        "np.random.default_rng(key) for key in ((seed, by)",
        "tests/test_canvas.py -k nested",
    ),
    Fault(
        "scale by the deviation alone, without the mean",
        "convlab/data/sets.py",
        "np.hypot(mean, std)",
        "std",
        "tests/test_data.py -k scale",
    ),
    Fault(
        "give all runs the moments of the first data set",
        "convlab/train/training.py",
        "group.stack([data.mean for data in group.datasets])",
        "group.stack([group.datasets[0].mean for _ in group.datasets])",
        "tests/test_many.py -k one_data_set_per_run",
    ),
    Fault(
        "interpolate a crossing from the smallest size",
        "convlab/tasks/sample_complexity.py",
        "low = max((size for size in sizes if size < high)",
        "low = min((size for size in sizes if size < high)",
        "tests/test_sample_complexity.py -k crossing",
    ),
    Fault(
        "let the ends of an interval exceed the bounds",
        "convlab/report/seeds.py",
        "np.clip(np.arcsin(np.sqrt(share)) + turns, 0, np.pi / 2)",
        "np.arcsin(np.sqrt(share)) + turns",
        "tests/test_report.py -k 'interval or bounds'",
    ),
    Fault(
        "leave p-values uncorrected for the number of tests",
        "convlab/report/pairs.py",
        "(len(p_values) - before) * p_values[test]",
        "p_values[test]",
        "tests/test_report.py -k 'holm or paired or corrected'",
    ),
    Fault(
        "reuse finished parts of another code version",
        "experiments/shared/settings.py",
        'if line["code"] == self.code}',
        "}",
        "tests/test_sizes.py -k finished",
    ),
    Fault(
        "append a line to an incomplete one",
        "convlab/report/json_lines.py",
        'if file.read() != b"\\n":',
        "if False:",
        "tests/test_sizes.py -k finished",
    ),
    Fault(
        "stop doubling the steps after the first time",
        "experiments/parts/ladder_runs.py",
        'if abs(mean_of(rows, "accuracy") - before) <= MOVED:',
        "if True:",
        "tests/test_sizes.py -k doubled",
    ),
    Fault(
        "treat a replicated kernel as varying in a caller's shard_map",
        "convlab/kernels/trilinear.py",
        "    x, v = sharding.vary_alike(x, v)\n",
        "",
        "tests/test_transformations.py -k shard_map",
    ),
    Fault(
        "sum half precision in half precision",
        "convlab/ops/pool.py",
        "wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))",
        "wide = x",
        "tests/test_ops.py -k half",
    ),
    Fault(
        "shift the pixels of a depthwise gradient",
        "convlab/kernels/depthwise.py",
        "first = axis.dilation * tap - axis.low",
        "first = axis.dilation * tap - axis.high",
        "tests/test_kernels.py -k single_channels",
    ),
    Fault(
        "wrap a circular transposed convolution one pixel later",
        "convlab/rungs/flax_conventions.py",
        "(max(extent - stride, 0) + transpose_kernel) // 2",
        "max(extent - stride, 0) // 2",
        "tests/test_drop_ins.py -k first_weights",
    ),
    Fault(
        "draw a transposed layer by the channels of its result",
        "convlab/rungs/layout.py",
        "if self.transposed:\n            spec",
        "if False:\n            spec",
        "tests/test_surgery_of_transposes.py -k variance",
    ),
    Fault(
        "lose the mask of a converted layer",
        "convlab/surgery/networks.py",
        "    if mask is not None:\n        layer.mask",
        "    if False:\n        layer.mask",
        "tests/test_surgery_of_transposes.py -k mask",
    ),
    Fault(
        "convert a reversed kernel as it is stored",
        "convlab/calls.py",
        "return reversed_kernel(kernel) if self.is_reversed else kernel",
        "return kernel",
        "tests/test_surgery_of_transposes.py -k 'momentum or share'",
    ),
    Fault(
        "rescale a partial convolution by all taps",
        "convlab/ops/partial.py",
        "for pixels in (jnp.ones(space), valid)",
        "for pixels in (jnp.ones(space) * 9, valid)",
        "tests/test_partial.py",
    ),
    Fault(
        "check only the first image for NaN",
        "convlab/data/splits.py",
        "        finite = np.isfinite(images[first : first + step])",
        "        finite = np.isfinite(images[: 1 if first == 0 else 0])",
        "tests/test_arrays.py tests/test_fitted.py -k 'finite or whatever'",
    ),
    Fault(
        "take a mean over all pairs of images for a mean over images",
        "convlab/train/checks.py",
        'return f"[{n},{n}]" in str(program)',
        "return False",
        "tests/test_train.py -k hints",
    ),
    Fault(
        "give a bias per position the positions of the undilated image",
        "convlab/layers/conv.py",
        "space=dilated(layout.space, dilation))",
        "space=layout.space)",
        "tests/test_drop_ins.py -k dilated_image",
    ),
    Fault(
        "draw points below a logarithmic axis at their height",
        "convlab/report/limits.py",
        "axis.plot(x, [bottom] * len(x), **style",
        "axis.plot(x, [bottom / 2] * len(x), **style",
        "tests/test_report.py -k 'hollow'",
    ),
    Fault(
        "accept images of any channels",
        "convlab/rungs/layout.py",
        "if (got := images.shape[-1]) != features:",
        "if (got := images.shape[-1]) > 10**6:",
        "tests/test_layers.py -k 'refuses_images'",
    ),
    Fault(
        "compare with the reference of another seed",
        "experiments/parts/tuned.py",
        'row["accuracy"] - scores[row["against"], row["seed"]]',
        'row["accuracy"] - scores[row["against"], 0]',
        "tests/test_command.py -k gains",
    ),
    Fault(
        "call every answer of an exercise correct",
        "convlab/testing.py",
        "if not np.allclose(got, wanted",
        "if False and not np.allclose(got, wanted",
        "tests/test_testing.py -k answer",
    ),
]


def survives(fault: Fault) -> str:
    """Apply one fault to a copy, run its tests and return "" if one failed or else a report."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "results", "__pycache__"))
        text = (copy / fault.path).read_text()
        if text.count(fault.old) != 1:
            return f"its text occurs {text.count(fault.old)} times in {fault.path}"
        (copy / fault.path).write_text(text.replace(fault.old, fault.new))
        command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {fault.tests}"
        run = subprocess.run(command, shell=True, cwd=copy, capture_output=True, text=True)
        failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
        print(f"{fault.name:60s} {failed[0].split(' - ')[0] if failed else 'SURVIVES'}", flush=True)
        return "" if run.returncode == 1 and failed else run.stdout[-1000:]


if __name__ == "__main__":
    wanted = [fault for fault in FAULTS if all(word in fault.name for word in sys.argv[1:])]
    if not wanted:
        sys.exit(f"no fault's name contains {' and '.join(sys.argv[1:])}")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = list(pool.map(survives, wanted))
    left = [f"\n{fault.name}:\n{report}" for fault, report in zip(wanted, reports, strict=True) if report]
    print(*left, f"{len(wanted) - len(left)} of {len(wanted)} faults are caught", sep="\n")
    sys.exit(bool(left))
