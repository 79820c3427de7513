"""One valid call of every public function and class, which `test_wrong_calls` makes wrong in many ways."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import convlab as cl
from convlab import algebra, data, measure, optim, report, tasks, testing
from convlab.ops.pool import polyphase_pool

KEY, WINDOW, SPACE = jax.random.key(0), cl.Window((3, 2)), (5, 4)
RANDOM = np.random.default_rng(0)


def gaussian(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


X, H = gaussian(2, 5, 4, 2), gaussian(2, 5, 4, 3)
V, LOCAL, TILE = gaussian(3, 2, 2, 3), gaussian(5, 4, 3, 2, 2, 3), gaussian(2, 1, 3, 2, 2, 3)
BASIS, MIX, DENSE = gaussian(2, 3, 2, 2, 3), gaussian(5, 4, 2), gaussian(5, 4, 5, 4, 2, 3)
ROUND = cl.Window((3, 2), padding="CIRCULAR")
HALF = cl.Window((2, 2), strides=2, padding="VALID")
PARAMETERS = {"layer": {"kernel": gaussian(3, 5), "bias": gaussian(5)}}
PATCH = gaussian(2, 3, 4, 2)
ROWS = [
    {"rung": rung, "seed": seed, "accuracy": 0.5 + 0.1 * seed + 0.2 * (rung == "dense")}
    for rung in ("conv", "dense")
    for seed in range(3)
]
IMAGES = gaussian(2, 6, 4, 1)


@functools.cache
def network():
    layers = cl.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, lambda h: h.mean((1, 2)), nnx.Linear(2, 3, rngs=nnx.Rngs(1))
    return nnx.Sequential(*layers)


@functools.cache
def local_network():
    return nnx.Sequential(cl.LocallyConnected(1, 2, (3, 3), space=(6, 4), rngs=nnx.Rngs(0)))


@functools.cache
def blank():
    images = np.arange(60, dtype=np.uint8).reshape(5, 4, 3, 1)
    split = data.Split(images, np.arange(5))
    return data.Data("blank", split, split, tuple("abcde"))


def scores(x):
    return x.reshape(len(x), -1)[:, :3]


def halve(tree):
    return jax.tree.map(lambda leaf: leaf / 2, tree)


def sample(task):
    if isinstance(task, tasks.Task):
        task.sample(KEY, 2)


def step(optimizer):
    """Take one step with an optimizer."""
    optimizer.update(PARAMETERS, optimizer.init(PARAMETERS), PARAMETERS)


def apply(function):
    function(PARAMETERS)


def measured(metrics):
    metrics(nnx.to_pure_dict(nnx.state(local_network(), nnx.Param)))


def first_of(iterator):
    next(iter(iterator), None)


def drop(result):
    pass


def pool(function):
    return function, {"x": X, "window": WINDOW}, drop


def convert(function, name, array, **others):
    return function, {name: array, "window": WINDOW, "space": SPACE, **others}, drop


# the function, one valid call of it by keywords, and the use of its result
CALLS = {
    "conv": (cl.conv, {"x": X, "v": V, "window": WINDOW, "groups": 1, "precision": None, "implementation": "auto"}, drop),
    "locally_connected": (cl.locally_connected, {"x": X, "v": LOCAL, "window": WINDOW, "groups": 1}, drop),
    "tiled": (cl.tiled, {"x": X, "v": TILE, "window": WINDOW, "preferred_element_type": None}, drop),
    "low_rank": (cl.low_rank, {"x": X, "basis": BASIS, "weights": MIX, "window": WINDOW}, drop),
    "dense": (cl.dense, {"x": X, "w": DENSE, "precision": None}, drop),
    "conv_transpose": (cl.conv_transpose, {"h": H, "v": V, "window": WINDOW, "space": SPACE, "groups": 1}, drop),
    "locally_connected_transpose": (
        cl.locally_connected_transpose,
        {"h": H, "v": LOCAL, "window": WINDOW, "space": SPACE, "groups": 1},
        drop,
    ),
    "tiled_transpose": (cl.tiled_transpose, {"h": H, "v": TILE, "window": WINDOW, "space": SPACE}, drop),
    "low_rank_transpose": (
        cl.low_rank_transpose,
        {"h": H, "basis": BASIS, "weights": MIX, "window": WINDOW, "space": SPACE},
        drop,
    ),
    "max_pool": pool(cl.max_pool),
    "mean_pool": pool(cl.mean_pool),
    "blur_pool": pool(cl.blur_pool),
    "polyphase_pool": (polyphase_pool, {"x": IMAGES, "window": cl.Window((2, 2), 2, "CIRCULAR")}, drop),
    "unfold": (cl.unfold, {"x": X, "window": WINDOW, "ndim": None}, drop),
    "Window": (cl.Window, {"size": 3, "strides": 1, "padding": "SAME", "dilation": 1}, lambda window: window.live(SPACE)),
    "Window.axes": (WINDOW.axes, {"space": SPACE}, drop),
    "Window.live": (WINDOW.live, {"space": SPACE}, drop),
    "Window.reads": (WINDOW.reads, {"space": SPACE}, drop),
    "Window.coverage": (WINDOW.coverage, {"space": SPACE}, drop),
    "Window.output_shape": (WINDOW.output_shape, {"space": SPACE}, drop),
    "Window.full": (cl.Window.full, {"space": SPACE}, drop),
    "Window.widened": (WINDOW.widened, {"space": SPACE}, drop),
    "Window.with_ndim": (WINDOW.with_ndim, {"ndim": 2}, drop),
    "Window.taps": (WINDOW.taps, {"ndim": 2}, drop),
    "lift_conv_to_local": convert(cl.lift_conv_to_local, "v", V),
    "lift_conv_to_dense": convert(cl.lift_conv_to_dense, "v", V, groups=1),
    "lift_local_to_dense": convert(cl.lift_local_to_dense, "v", LOCAL, groups=1),
    "lift_tiled_to_local": convert(cl.lift_tiled_to_local, "v", TILE, period=(2, 1)),
    "lift_low_rank_to_local": (
        cl.lift_low_rank_to_local,
        {"basis": BASIS, "weights": MIX, "window": WINDOW, "space": SPACE},
        drop,
    ),
    "project_local_to_conv": convert(cl.project_local_to_conv, "v", LOCAL),
    "project_dense_to_conv": convert(cl.project_dense_to_conv, "w", DENSE, groups=1),
    "project_dense_to_local": convert(cl.project_dense_to_local, "w", DENSE, groups=1),
    "project_local_to_tiled": convert(cl.project_local_to_tiled, "v", LOCAL, period=2),
    "project_local_to_low_rank": (cl.project_local_to_low_rank, {"v": LOCAL, "rank": 2}, drop),
    "decompose": convert(cl.decompose, "w", DENSE, groups=1),
    "compose": (
        algebra.compose,
        {"first": PATCH[0][..., None, :], "second": gaussian(2, 1, 2, 3), "window_first": cl.Window((3, 4))}
        | {"window_second": cl.Window((2, 1)), "space": None},
        drop,
    ),
    "is_composable": (algebra.is_composable, {"window_first": WINDOW, "window_second": WINDOW, "space": SPACE}, drop),
    "flip": (algebra.flip, {"v": V}, drop),
    "adjoint": (algebra.adjoint, {"v": V, "window": WINDOW}, drop),
    "factorise": (
        algebra.factorise,
        {"v": gaussian(3, 1, 1), "sizes": (2, 2), "width": 1, "key": KEY, "steps": 2, "tolerance": 0.0},
        drop,
    ),
    "middle_width": (algebra.middle_width, {"size": 3, "first": 2, "second": 2, "channels": 1}, drop),
    "transfer_function": (algebra.transfer_function, {"v": V, "window": ROUND, "space": SPACE}, drop),
    "merge_batch_norm": (
        algebra.merge_batch_norm,
        {"v": V, "bias": gaussian(3), "mean": gaussian(3), "variance": jnp.ones(3)}
        | {"scale": gaussian(3), "shift": None, "epsilon": 1e-5},
        drop,
    ),
    "varying_blur": (
        algebra.varying_blur,
        {"psfs": gaussian(2, 3, 2, 2, 3), "positions": [(0, 1), (4, 2.5)], "space": SPACE, "window": WINDOW}
        | {"rank": 1, "interpolation": None},
        drop,
    ),
    "depthwise_kernel": (algebra.depthwise_kernel, {"v": gaussian(3, 2, 1, 1), "channels": 3}, drop),
    "derivative": (algebra.derivative, {"axis": 0, "order": 1, "ndim": 2}, drop),
    "sobel": (algebra.sobel, {"axis": 0, "ndim": 2}, drop),
    "upright_cross": (algebra.upright_cross, {"size": 3}, drop),
    "diagonal_cross": (algebra.diagonal_cross, {"size": 3}, drop),
    "activation_rank": (measure.activation_rank, {"h": H, "tolerance": None}, drop),
    "aliased_energy": (measure.aliased_energy, {"h": H, "stride": 2}, drop),
    "arrange_on_sheet": (measure.arrange_on_sheet, {"values": LOCAL, "grid": (1, 3)}, drop),
    "orientation_tuning": (
        measure.orientation_tuning,
        {"apply": scores, "image_shape": (5, 4, 1), "orientations": 3, "frequencies": (0.1,), "phases": 3},
        drop,
    ),
    "class_preference": (measure.class_preference, {"responses": H, "labels": jnp.arange(2)}, drop),
    "map_roughness": (measure.map_roughness, {"units": V[:, :, 0, 0], "kind": "orientation", "circular": True}, drop),
    "pinwheels": (measure.pinwheels, {"orientations": V[:, :, 0, 0], "circular": True}, drop),
    "shuffled_null": (
        measure.shuffled_null,
        {"statistic": jnp.sum, "units": V[:, :, 0, 0], "key": KEY, "shuffles": 3},
        drop,
    ),
    "best_patch_share": (measure.best_patch_share, {"w": DENSE, "size": 2}, drop),
    "mean_input_distance": (measure.mean_input_distance, {"w": DENSE}, drop),
    "shuffle_inputs": (measure.shuffle_inputs, {"w": DENSE, "key": KEY, "rounds": 2}, drop),
    "inverse_participation_ratio": (measure.inverse_participation_ratio, {"w": DENSE, "axes": (2, 3)}, drop),
    "local_share": convert(measure.local_share, "w", DENSE, groups=1),
    "tiled_share": convert(measure.tiled_share, "v", LOCAL, period=2),
    "signal_to_noise": convert(measure.signal_to_noise, "v", LOCAL),
    "neighbour_distance": convert(measure.neighbour_distance, "v", LOCAL, offset=(1, 0)),
    "conv_operator": convert(measure.conv_operator, "v", V),
    "LinearOperator": (
        measure.LinearOperator,
        {"function": jnp.negative, "input_shape": (5, 1)},
        lambda operator: operator.shape,
    ),
    "singular_values": (
        measure.singular_values,
        {"operator": measure.conv_operator(V, WINDOW, SPACE), "method": "auto", "count": None},
        drop,
    ),
    "matrix_rank": (measure.matrix_rank, {"operator": measure.conv_operator(V, WINDOW, SPACE), "tolerance": None}, drop),
    "null_space": (measure.null_space, {"operator": measure.conv_operator(V, WINDOW, SPACE), "tolerance": None}, drop),
    "shift_images": (measure.shift_images, {"x": X, "delta": 1}, drop),
    "sample_shifts": (measure.sample_shifts, {"space": SPACE, "number": 3, "seed": 0}, drop),
    "shift_consistency": (measure.shift_consistency, {"predict": scores, "images": IMAGES, "shifts": [(1, 0), (0, 1)]}, drop),
    "equivariance_error": (
        measure.equivariance_error,
        {"function": jnp.abs, "x": IMAGES, "delta": (2, 0), "stride": 1},
        drop,
    ),
    "equivariance_by_layer": (measure.equivariance_by_layer, {"model": network(), "images": IMAGES, "delta": 1}, drop),
    "compare_downsampling": (measure.compare_downsampling, {"x": IMAGES, "size": 2, "stride": 2}, drop),
    "stem_report": (
        measure.stem_report,
        {"layers": [(cl.Window(3, 2), 4)], "images": IMAGES, "key": KEY, "pool": None, "kernels": None},
        drop,
    ),
    "saliency": (measure.saliency, {"model": network(), "images": IMAGES, "target": 1, "rule": "gradient"}, drop),
    "grad_cam": (measure.grad_cam, {"model": network(), "images": IMAGES, "layer": "layers/0", "target": 1}, drop),
    "occlusion": (
        measure.occlusion,
        {"model": scores, "images": IMAGES, "target": 1, "window": cl.Window((2, 2)), "fill_value": 0.0},
        drop,
    ),
    "feature_maps": (measure.feature_maps, {"model": network(), "images": IMAGES}, drop),
    "activation_metrics": (measure.activation_metrics, {"model": local_network(), "images": IMAGES}, measured),
    "effective_receptive_field": (
        measure.effective_receptive_field,
        {"model": local_network(), "images": IMAGES, "position": (1, 2), "squared": False},
        drop,
    ),
    "input_dependencies": (
        measure.input_dependencies,
        {"model": local_network(), "image_shape": (6, 4, 1), "layer": "output", "position": None},
        drop,
    ),
    "receptive_field": (
        measure.receptive_field,
        {"model": local_network(), "image_shape": (6, 4, 1), "layer": "output", "position": (1, 2)},
        drop,
    ),
    "locality_indices": (measure.locality_indices, {"model": local_network()}, drop),
    "locality_metrics": (measure.locality_metrics, {"model": local_network()}, measured),
    "kernel_mask": (optim.kernel_mask, {"parameters": PARAMETERS}, drop),
    "at_paths": (optim.at_paths, {"changes": {("layer", "kernel"): jnp.negative}}, apply),
    "beta_lasso": (
        optim.beta_lasso,
        {"learning_rate": 0.1, "l1_penalty": 0.01, "beta": 2, "momentum": None, "mask": None},
        step,
    ),
    "soft_threshold": (optim.soft_threshold, {"learning_rate": 0.1, "l1_penalty": 0.1, "momentum": 0.9, "mask": None}, step),
    "add_penalty": (optim.add_penalty, {"penalty": lambda p: p["layer"]["kernel"].sum(), "weight": 0.5}, step),
    "projection_penalty": (optim.projection_penalty, {"projection": halve}, apply),
    "locality_penalty": (
        optim.locality_penalty,
        {"model": local_network(), "weighting": "distance", "penalty": jnp.square},
        measured,
    ),
    "neighbour_penalty": (
        optim.neighbour_penalty,
        {"model": local_network(), "distance": "cosine", "grids": (1, 2), "circular": True},
        measured,
    ),
    "sharing_projection": (optim.sharing_projection, {"model": local_network(), "to": "conv"}, measured),
    "project_every": (optim.project_every, {"projection": halve, "steps": 2}, step),
    "tie_gradients": (optim.tie_gradients, {"projection": halve}, step),
    "keep_pruned": (optim.keep_pruned, {"mask": jax.tree.map(lambda leaf: leaf > 0, PARAMETERS)}, step),
    "prune": (
        optim.prune,
        {"parameters": PARAMETERS, "fraction": 0.5, "mask": None, "scope": "layer", "prunable": None},
        drop,
    ),
    "rewind": (
        optim.rewind,
        {"initial_parameters": PARAMETERS, "mask": jax.tree.map(lambda leaf: leaf > 0, PARAMETERS)},
        drop,
    ),
    "iterative_pruning": (
        optim.iterative_pruning,
        {"train": lambda parameters, mask: parameters, "parameters": PARAMETERS, "fraction": 0.5, "rounds": 1}
        | {"scope": "layer", "prunable": None},
        first_of,
    ),
    "relax": (cl.relax, {"model": network(), "to": "tiled", "image_shape": (6, 4, 1)}, drop),
    "constrain": (
        cl.constrain,
        {"model": local_network(), "to": "conv", "image_shape": (6, 4, 1)},
        drop,
    ),
    "diff": (
        cl.diff,
        {"old": local_network(), "new": local_network(), "image_shape": (6, 4, 1)},
        drop,
    ),
    "count": (cl.count, {"model": network(), "image_shape": (6, 4, 1)}, drop),
    "permute_pixels": (data.permute_pixels, {"images": X, "key": KEY, "ndim": None}, drop),
    "centre_on_canvas": (data.centre_on_canvas, {"images": X, "space": (7, 9)}, drop),
    "standardise": (data.standardise, {"images": X, "mean": jnp.ones(2), "std": jnp.ones(2)}, drop),
    "random_shift": (data.random_shift, {"images": X, "key": KEY, "max_shift": (2, 1), "ndim": None}, drop),
    "random_crop": (
        data.random_crop,
        {"images": X, "key": KEY, "pad": 1, "space": (3, 4), "mode": "zero", "ndim": None},
        drop,
    ),
    "random_flip": (data.random_flip, {"images": X, "key": KEY, "axis": -1, "probability": 0.5, "ndim": None}, drop),
    "place_on_canvas": (
        data.place_on_canvas,
        {"data": blank(), "space": (8, 7), "max_shift": 1, "size": 6, "copies": 2, "seed": 0},
        drop,
    ),
    "Split": (data.Split, {"images": np.ones((5, 4, 3, 1), np.uint8), "labels": np.arange(5)}, drop),
    "Data": (
        data.Data,
        {"name": "blank", "train": blank().train, "test": blank().test, "classes": tuple("abcde"), "validation": None}
        | {"standardisation": "moments"},
        drop,
    ),
    "energy_comparison": (tasks.energy_comparison, {"half_size": 4}, sample),
    "correlation_sign": (tasks.correlation_sign, {"length": 8, "distance": 3, "flip_second_half": False}, sample),
    "parity": (tasks.parity, {"length": 7, "pattern_size": 2, "start": 3}, sample),
    "random_patch": (tasks.random_patch, {"patches": 5, "patch_size": 3, "noise": 0.5, "key": KEY}, sample),
    "red_green": (tasks.red_green, {"swap_rows": False}, sample),
    "coordinate_classification": (
        tasks.coordinate_classification,
        {"side": 8, "split": "uniform", "held_out": False, "key": None},
        sample,
    ),
    "template_detection": (
        tasks.template_detection,
        {"side": 9, "pattern_size": 3, "distractors": 2, "key": KEY, "noise": 0.0, "columns": None},
        sample,
    ),
    "flying_pigs": (
        tasks.flying_pigs,
        {"side": 8, "pattern_size": 3, "rho": 1.0, "key": KEY, "noise": 0.0, "same_pattern": False},
        sample,
    ),
    "word_order": (tasks.word_order, {"length": 9, "distance": 3, "vocabulary": 5}, sample),
    "chirps": (
        tasks.chirps,
        {"samples": 64, "lowest_frequency": 0.02, "octaves": 3.0, "sweep": 0.5, "noise": 0.3},
        sample,
    ),
    "spectrogram": (
        tasks.spectrogram,
        {"x": gaussian(1, 64, 1), "frequencies": [0.0625, 0.25], "widths": 32, "hop": 16},
        drop,
    ),
    "random_hierarchy": (
        tasks.random_hierarchy,
        {"levels": 2, "branching": 2, "vocabulary": 4, "synonyms": 2, "blanks": 1, "key": KEY},
        sample,
    ),
    "nonlinear_process": (
        tasks.nonlinear_process,
        {"space": (16,), "correlation_lengths": (1.0, 4.0), "gain": 3.0, "gaussian_clone": False, "power": 1.0},
        sample,
    ),
    "process_covariance": (
        tasks.process_covariance,
        {"space": (5,), "correlation_length": 2.0, "gain": None, "power": 1.0},
        drop,
    ),
    "linear_teacher": (
        tasks.linear_teacher,
        {"rung": "conv", "space": (7,), "window": cl.Window(3), "channels": (2, 5), "noise": 0.1, "key": KEY},
        sample,
    ),
    "Task.sample": (tasks.energy_comparison(4).sample, {"key": KEY, "n": 3}, drop),
    "Task.data": (tasks.energy_comparison(4).data, {"seed": 0, "train": 5, "test": 3, "validation": 0}, drop),
    "loop_over_runs": (
        tasks.loop_over_runs,
        {"learn_one": lambda size, seed: 1 - 10 / size},
        lambda learn: learn(np.array([20]), np.array([0])),
    ),
    "examples_needed": (
        tasks.examples_needed,
        {"learn": tasks.loop_over_runs(lambda size, seed: 1 - 10 / size), "target": 0.9, "seeds": [0]}
        | {"min_examples": 10, "max_examples": 1000, "factor": 1.5, "learner_name": ""},
        drop,
    ),
    "threshold_crossing": (tasks.threshold_crossing, {"scores": {100: 0.8, 400: 0.9}, "target": 0.85}, drop),
    "fit_power_law": (
        tasks.fit_power_law,
        {"examples": {2.0: [12.0, 13.0], 4.0: [48.0, 50.0]}, "resamples": 20, "seed": 0, "level": 0.95},
        drop,
    ),
    "interval": (report.interval, {"values": [0.9, 0.8, 0.7], "level": 0.95, "bounds": (0, 1)}, drop),
    "summarise": (
        report.summarise,
        {"rows": ROWS, "by": "rung", "values": "accuracy", "level": 0.95, "bounds": {"accuracy": (0, 1)}},
        drop,
    ),
    "interval_of": (report.interval_of, {"row": {"a": 1.0, "a_low": 0.0, "a_high": 2.0}, "name": "a"}, drop),
    "best_rows": (report.best_rows, {"summary": ROWS, "by": "rung", "value": "accuracy"}, drop),
    "p_value": (report.p_value, {"differences": [0.01, 0.02, 0.04]}, drop),
    "holm": (report.holm, {"p_values": [0.01, 0.04, 0.03]}, drop),
    "paired_differences": (
        report.paired_differences,
        {"rows": ROWS, "by": "rung", "reference": {"rung": "conv"}, "values": "accuracy"}
        | {"pair": "seed", "ratio": False, "level": 0.95},
        drop,
    ),
    "assert_same_function": (
        testing.assert_same_function,
        {"a": jnp.abs, "b": jnp.abs, "image_shape": (5, 7, 2), "seed": 0, "tolerance": 1e-5},
        drop,
    ),
    "assert_matches_dense": (
        testing.assert_matches_dense,
        {"op": lambda x: cl.conv(x, V, WINDOW), "w": cl.lift_conv_to_dense(V, WINDOW, SPACE), "tolerance": 1e-5},
        drop,
    ),
    "assert_on_rung": (
        testing.assert_on_rung,
        {"w": cl.lift_conv_to_dense(V, WINDOW, SPACE), "window": WINDOW, "space": SPACE, "rung": "conv", "tolerance": 1e-5},
        drop,
    ),
    "assert_shift_equivariant": (
        testing.assert_shift_equivariant,
        {"function": jnp.abs, "image_shape": (5, 7, 1), "delta": (1, 2), "stride": 1, "seed": 0, "tolerance": 1e-5},
        drop,
    ),
}
