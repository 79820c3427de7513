"""One valid call of every public function and class of training, data sets and reports, and of exercises."""

import atexit
import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from valid_calls import KEY, ROWS, blank, drop, first_of

import convlab as cl
from convlab import data, report, testing, train

IMAGE = np.linspace(0, 1, 20).reshape(5, 4)
HISTORY = [{"step": n, "loss": 2 / n, "test_loss": 3 / n, "test_accuracy": 1 - 1 / n} for n in (10, 20)]
SUMMARY = report.summarise(ROWS, "rung", "accuracy")
TREE = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
STORED = data.StoredImages(
    lambda indices: np.zeros((len(indices), 4, 3, 1), np.uint8), np.arange(5), (4, 3, 1), np.dtype("uint8")
)
CONFIG = train.Config(steps=2, batch_size=5, progress=False)
PIXELS, LABELS = np.ones((3, 4, 3, 1), np.uint8), np.arange(3)
FIGURE = object()  # stands for a new figure


def build(rngs):
    return nnx.Sequential(lambda x: x.reshape(len(x), -1), nnx.Linear(12, 5, rngs=rngs))


def chain(transform):
    return data.chain(transform)


chain.__wrapped__ = data.chain


@functools.cache
def fitted():
    return train.fit(build(nnx.Rngs(0)), blank(), CONFIG)


@functools.cache
def saved():
    parent = tempfile.TemporaryDirectory()  # removed when the process ends
    atexit.register(parent.cleanup)
    folder = pathlib.Path(parent.name, "fitted")
    fitted().save(folder)
    return folder


def squared(parameters, batch=0):
    return jnp.square(parameters["kernel"]).sum() + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(batch))


def draw_batch(key, n):
    return jax.random.normal(key, (n, 4, 3, 1)), jnp.zeros(n, int)


def with_figure(function, panels=1):
    """Return a function that draws on new axes in place of `FIGURE`."""

    def draw(**arguments):
        for name in ("axis", "axes", "figure"):
            if arguments.get(name) is FIGURE:
                figure, axes = report.new_figure(panels)
                arguments |= {name: {"axis": axes[0], "axes": axes, "figure": figure}[name]}
        function(**arguments)

    draw.__wrapped__ = function
    return draw


def step(function, several):
    """Return the call of a training step, from a new state, since a step donates its memory."""
    model, optimizer, options = train.as_trainable(build(nnx.Rngs(0)), (4, 3, 1)), optax.sgd(0.1), train.StepOptions()
    state, images, labels = object(), np.ones((2, 4, 3, 1), np.float32), np.arange(2)

    def call(**arguments):
        if arguments.get("state") is state:
            arguments |= {"state": train.initial_state(model, optimizer, 0, options)}
        function(**arguments)

    call.__wrapped__ = function
    rate = {"learning_rates": np.ones(1, np.float32)} if several else {"learning_rate": 0.1}
    batch = {"images": images[None], "labels": labels[None]} if several else {"images": images, "labels": labels}
    arguments = {"state": state, **batch, "mean": np.zeros(1, np.float32), "std": np.ones(1, np.float32), **rate}
    return call, arguments | {"apply": model.apply, "optimizer": optimizer, "step_options": options}, drop


CALLS = {
    "check_answer": (testing.check_answer, {"answer": 9, "expected": 9, "tolerance": 1e-3}, drop),
    "Config": (
        train.Config,
        {"epochs": 1, "steps": None, "batch_size": 5, "optimizer": "adam", "learning_rate": 0.1, "schedule": "cosine"}
        | {"weight_decay": 0.0, "label_smoothing": 0.0, "accumulation_steps": 1, "ema_decay": 0.0, "dtype": "float32"}
        | {"patience": None, "seed": 0, "shuffle": True, "evaluations": 10, "steps_per_call": None, "mesh": None}
        | {"progress": False},
        drop,
    ),
    "Checkpoints": (
        train.Checkpoints,
        {"folder": "here", "every_steps": 1, "every_seconds": 60.0, "max_to_keep": 2, "on_write_error": "warn"},
        drop,
    ),
    "Log": (train.Log, {"folder": "here", "tensorboard": False}, drop),
    "fit": (
        train.fit,
        {"model": build(nnx.Rngs(0)), "data": blank(), "config": CONFIG, "test": None, "loss": None, "metrics": None}
        | {"optimizer": None, "optimizer_state": None, "augment": None, "checkpoints": None, "log": None}
        | {"parameter_metrics": None},
        drop,
    ),
    "fit_many": (
        train.fit_many,
        {"build": build, "data": blank(), "configs": [CONFIG], "vmapped": None, "loss": None, "metrics": None, "augment": None}
        | {"checkpoints": None, "parameter_metrics": None},
        drop,
    ),
    "fit_seeds": (train.fit_seeds, {"build": build, "data": blank(), "config": CONFIG, "seeds": (0, 1)}, drop),
    "jit_build": (train.jit_build, {"build": build, "image_shape": (4, 3, 1)}, lambda start: start(nnx.Rngs(0))),
    "Fitted.predict": (lambda **options: fitted().predict(**options), {"images": PIXELS}, drop),
    "Fitted.predict_proba": (lambda **options: fitted().predict_proba(**options), {"images": PIXELS}, drop),
    "Fitted.logits": (lambda **options: fitted().logits(**options), {"images": PIXELS}, drop),
    "Fitted.evaluate": (lambda **options: fitted().evaluate(**options), {"images": PIXELS, "labels": LABELS}, drop),
    "Fitted.model": (lambda **options: fitted().model(**options), {"inputs": "raw"}, drop),
    "Fitted.save": (lambda **options: fitted().save(**options), {"path": "saved", "overwrite": True}, drop),
    "Fitted.load": (
        lambda path=None, **options: train.Fitted.load(saved() if path is SUMMARY else path, **options),
        {"path": SUMMARY, "model": build(nnx.Rngs(0)), "optimizer": None, "loss": None, "metrics": None},
        drop,
    ),
    "RawInputs": (
        train.RawInputs,
        {"network": build(nnx.Rngs(0)), "mean": np.zeros(1), "std": np.ones(1)},
        lambda network: network(PIXELS),
    ),
    "as_trainable": (train.as_trainable, {"model": build(nnx.Rngs(0)), "image_shape": (4, 3, 1), "seed": 0}, drop),
    "initial_state": (
        train.initial_state,
        {"model": train.as_trainable(build(nnx.Rngs(0)), (4, 3, 1)), "optimizer": optax.sgd(0.1), "seed": 0}
        | {"step_options": train.StepOptions(), "optimizer_state": None},
        drop,
    ),
    "train_step": step(train.train_step, several=False),
    "train_steps": step(train.train_steps, several=True),
    "training_batches": (train.training_batches, {"data": blank(), "config": CONFIG, "steps": 2, "start": 0}, first_of),
    "cross_entropy": (train.cross_entropy, {"logits": jnp.ones((2, 3)), "labels": jnp.arange(2), "smoothing": 0.1}, drop),
    "linear_path": (train.linear_path, {"a": TREE, "b": TREE}, lambda path: path(0.5)),
    "bezier_path": (train.bezier_path, {"a": TREE, "middle": TREE, "b": TREE}, lambda path: path(0.5)),
    "evaluate_along": (
        train.evaluate_along,
        {"path": train.linear_path(TREE, TREE), "loss": squared, "points": 3, "refresh": None},
        drop,
    ),
    "loss_barrier": (train.loss_barrier, {"rows": [{"t": 0.0, "loss": 1.0}, {"t": 1.0, "loss": 2.0}], "name": "loss"}, drop),
    "fit_bezier": (
        train.fit_bezier,
        {"a": TREE, "b": TREE, "loss": squared, "optimizer": optax.sgd(0.1), "batches": [1.0], "key": KEY},
        drop,
    ),
    "make_learner": (
        train.make_learner,
        {"build": build, "sample": draw_batch, "max_examples": 5, "test_examples": 3, "max_steps": 2, "batch_size": 2}
        | {"optimizer": None, "tolerance": 0.01, "score": None},
        drop,
    ),
    "StoredImages": (
        data.StoredImages,
        {"read": lambda indices: np.zeros((len(indices), 4, 3, 1), np.uint8), "indices": np.arange(5)}
        | {"shape": (4, 3, 1), "dtype": np.dtype("uint8")},
        lambda images: images[:2],
    ),
    "batches": (
        data.batches,
        {
            "split": blank().train,
            "batch_size": 4,
            "seed": 0,
            "start": 0,
            "stop": 2,
            "shard": (0, 1),
            "prefetch": 1,
            "threads": 1,
        },
        first_of,
    ),
    "chain": (chain, {"transform": data.random_flip}, drop),
    "list_prepared": (data.list_prepared, {"data_dir": "prepared"}, drop),
    "load": (
        data.load,
        {"name": "digits", "data_dir": "prepared", "manual_dir": None, "image_size": None, "storage": "memory"}
        | {"standardisation": "moments", "skip_corrupt": False, "overwrite": False, "seed": 0, "progress": False},
        drop,
    ),
    "new_figure": (report.new_figure, {"panels": 2, "rows": 1, "size": (4.0, 3.0)}, drop),
    "curves": (
        with_figure(report.curves),
        {"axis": FIGURE, "summary": ROWS, "x": "seed", "y": "accuracy", "by": "rung", "x_label": "seed", "y_label": "accuracy"}
        | {"title": "", "y_format": "", "log_x": False, "band": False}
        | {"baselines": {"chance": 0.5}, "labels": {"conv": "shared"}, "styles": None},
        drop,
    ),
    "dot_plot": (
        with_figure(report.dot_plot),
        {"axis": FIGURE, "rows": ROWS, "x": "seed", "y": "accuracy", "by": "rung", "x_label": "seed", "y_label": "accuracy"}
        | {"title": "", "baselines": None, "styles": None},
        drop,
    ),
    "comparison": (
        with_figure(report.comparison),
        {"axis": FIGURE, "summary": SUMMARY, "name": "rung", "value": "accuracy", "label": "mean", "x_label": "accuracy"}
        | {"x_format": ".0%", "title": "", "references": None, "baselines": {"chance": 0.5}},
        drop,
    ),
    "training_curves": (
        with_figure(report.training_curves, 2),
        {"axes": FIGURE, "histories": HISTORY, "x": "step", "x_label": None, "loss_label": "loss", "accuracy_label": "accuracy"}
        | {"baselines": None, "log_loss": False},
        drop,
    ),
    "heatmap": (
        with_figure(report.heatmap),
        {"axis": FIGURE, "image": IMAGE, "values": IMAGE, "title": "", "label": "share", "vmax": 1.0},
        drop,
    ),
    "filter_grid": (
        with_figure(report.filter_grid),
        {"axis": FIGURE, "images": np.ones((3, 5, 4)), "title": "", "columns": 2, "label": "weight"},
        drop,
    ),
    "sheet": (
        with_figure(report.sheet),
        {"axis": FIGURE, "units": np.arange(6).reshape(2, 3), "title": "", "kind": "class", "label": "class"}
        | {"classes": tuple("abcdef"), "bar": True},
        drop,
    ),
    "feature_map_grid": (
        with_figure(report.feature_map_grid),
        {"axis": FIGURE, "maps": np.ones((5, 4, 3)), "title": "", "columns": 2, "label": "activation"},
        drop,
    ),
    "matrix_picture": (
        with_figure(report.matrix_picture),
        {"axis": FIGURE, "labels": [[1, 2, 0], [0, 1, 2]], "title": "", "grid": (1, 2), "x_label": "in", "y_label": "out"},
        drop,
    ),
    "dense_matrix": (
        with_figure(report.dense_matrix),
        {"window": cl.Window(2), "space": (3, 2), "tying": "tiled", "channels": (1, 1), "groups": 1, "transposed": False}
        | {"axis": FIGURE, "title": None, "period": 2},
        drop,
    ),
    "explore": (
        report.explore,
        {"window": cl.Window(3), "space": (5, 4), "connectivity": "conv", "period": 2, "rank": 2},
        drop,
    ),
    "append_json_lines": (report.append_json_lines, {"path": "rows.jsonl", "rows": [{"seed": 0}]}, drop),
    "read_json_lines": (report.read_json_lines, {"path": "rows.jsonl"}, list),
    "provenance": (report.provenance, {"seconds": 2.5}, drop),
    "report_folder": (report.report_folder, {"experiment": "trial", "root": "runs"}, drop),
    "save_rows": (
        report.save_rows,
        {"experiment": "trial", "rows": ROWS, "config": {"steps": 3}, "seconds": 1.0, "root": "runs", "keep_previous": False},
        drop,
    ),
    "save_report": (
        with_figure(report.save_report),
        {"experiment": "trial", "rows": ROWS, "config": {"steps": 3}, "figure": None, "summary": None}
        | {"formats": {"accuracy": ".1%"}, "seconds": 1.0, "root": "runs"},
        drop,
    ),
    "draw_report": (
        with_figure(report.draw_report),
        {"folder": "drawn", "summary": ROWS, "figure": None, "formats": {"accuracy": ".1%"}, "title": "trial"}
        | {"columns": ["rung", "accuracy"]},
        drop,
    ),
}

RESULTS = "holds results or values, which functions of the table make or check"
LONG = ("fit", "fit_many", "fit_seeds", "jit_build", "make_learner", *(name for name in CALLS if name.startswith("Fitted.")))
"""The names of the calls that compile or save networks."""
NOT_CALLED = {
    **dict.fromkeys((train.Fitted, train.FittedRuns, train.State, train.StepOptions, train.Trainable), RESULTS),
    **dict.fromkeys((train.LogWriter, data.PreparedData, data.DamagedError), RESULTS),
    **dict.fromkeys((report.Explorer, report.Interval, report.Style), RESULTS),
    train.Apply: "is a type of functions",
    train.keep_freed_memory: "takes no arguments",
}
