"""One valid call of every public function and class of layers, networks and rungs, and of conversions to other libraries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as flax_linen
from flax import nnx

import convlab as cl
import convlab.linen
from convlab import algebra, foreign, layers, measure, models, optim, rungs, surgery, tasks

KEY, SPACE, SHAPE = jax.random.key(0), (5, 4), (6, 4, 1)
WINDOW = cl.Window((3, 2))
X = jnp.ones((2, *SPACE, 2))
RUNG_OPTIONS = {
    "LocallyConnected": {"space": SPACE, "tied_noise": 0.1},
    "Dense": {"space": SPACE, "tied_noise": None},
    "Tiled": {"period": 2, "tied_noise": 0.1},
    "LowRank": {"rank": 2, "space": SPACE, "tied_noise": None},
    "Symmetric": {},
    "Conv": {"input_dilation": 1, "conv_general_dilated": jax.lax.conv_general_dilated, "space": None},
    "ConvTranspose": {"transpose_kernel": False, "space": None},
}
OPTIONS = {"padding": "SAME", "kernel_dilation": 1, "feature_group_count": 1, "use_bias": True, "mask": None, "dtype": None}
OPTIONS |= {"param_dtype": "float32", "precision": None, "kernel_init": nnx.initializers.lecun_normal()}
OPTIONS |= {"bias_init": nnx.initializers.zeros_init(), "promote_dtype": nnx.nn.dtypes.promote_dtype}
OPTIONS |= {"preferred_element_type": None, "kernel_metadata": {}, "bias_metadata": {}}
LINEN_OPTIONS = {name: value for name, value in OPTIONS.items() if not name.endswith("metadata") and name != "mask"}
LINEN_OPTIONS |= {"promote_dtype": flax_linen.dtypes.promote_dtype}


def construct(kind):
    """Return the call that makes a layer of a class and applies it."""
    name = kind.__name__
    sizes = {"in_features": 2, "out_features": 3, "kernel_size": (3, 2), "strides": 1, "rngs": nnx.Rngs(0)}
    own = RUNG_OPTIONS.get(name, RUNG_OPTIONS.get(name.removesuffix("Transpose"), {}))
    return kind, sizes | OPTIONS | own, lambda layer: layer(X)


def construct_linen(name):
    """Return the call that makes a Linen module and initialises it."""
    kind, own = getattr(convlab.linen, name), {"Tiled": {"period": 2}, "LowRank": {"rank": 2}}.get(name, {})
    fields = {"features": 3, "kernel_size": (3, 2), "strides": 1} | LINEN_OPTIONS | own
    if name in ("Conv", "ConvLocal", "ConvTranspose"):
        fields |= {"mask": None}
    if name in ("Conv", "ConvLocal"):
        fields |= {"input_dilation": 1, "conv_general_dilated": None, "conv_general_dilated_cls": None}
    if name == "ConvTranspose":
        fields = {key: value for key, value in fields.items() if key != "feature_group_count"} | {"transpose_kernel": False}
    if name not in ("Conv", "ConvLocal", "ConvTranspose"):
        fields = {key: value for key, value in fields.items() if key != "promote_dtype"} | {"tied_noise": None}
    return kind, fields, lambda module: module.init(KEY, X)


CONNECTION_OPTIONS = {"connectivity": "tiled", "period": 2, "rank": 2, "tied_noise": None}
CONNECTION_OPTIONS |= {"kernel_init": nnx.initializers.lecun_normal()}


def abstractly(kind, image_shape):
    """Return the function that makes a module of a class and applies it to one image, but computes no numbers."""

    def make(**arguments):
        def build():
            fresh = {"rngs": nnx.Rngs(0)} if isinstance(arguments.get("rngs"), nnx.Rngs) else {}
            kind(**arguments | fresh)(jnp.ones((1, *image_shape)))

        nnx.eval_shape(build)

    make.__wrapped__ = kind
    return make


def module(kind, image_shape=SHAPE, **arguments):
    """Return the call that makes a module and applies it to one image."""
    return abstractly(kind, image_shape), {"image_shape": image_shape, "rngs": nnx.Rngs(0)} | arguments, nothing


def network(kind, image_shape=SHAPE, **arguments):
    """Return the call that makes a network and applies it to one image."""
    return module(kind, image_shape, classes=3, **arguments, **CONNECTION_OPTIONS)


def nothing(result):
    pass


LINEAR = {"class_name": "Dense", "config": {"name": "dense", "units": 3}}
LOCAL = {"class_name": "LocallyConnected2D", "config": {"filters": 3, "kernel_size": (2, 2), "implementation": 1}}
KERAS_KERNEL = np.ones((12, 8, 3))
STOCK = nnx.Sequential(nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.relu)
LOCALLY = nnx.Sequential(cl.LocallyConnected(1, 2, (3, 3), space=SHAPE[:2], rngs=nnx.Rngs(0)))
LINEN = flax_linen.Conv(2, (3, 3))
VARIABLES = LINEN.init(KEY, jnp.ones((1, *SHAPE)))
CONV = rungs.Layout(rungs.Shared(), WINDOW, 2, 3, SPACE)
FREE = rungs.with_rung(CONV, "locally_connected")
ARRAYS = {"kernel": jnp.ones((3, 2, 2, 3)), "bias": jnp.ones(3)}
PIXELS = jnp.ones((1, *SHAPE))
ADAM = optax.adam(0.1)
STATE = ADAM.init(nnx.to_pure_dict(nnx.state(STOCK, nnx.Param)))
SHARED = models.Connections("conv")

CALLS = {kind.__name__: construct(kind) for kind in layers.layer.CLASSES.values()}
CALLS |= {f"linen.{name}": construct_linen(name) for name in convlab.linen.__all__}
CALLS |= {
    "Layer.__call__": (layers.Conv(2, 3, (3, 2), rngs=nnx.Rngs(0)), {"inputs": X, "out_sharding": None}, nothing),
    "connect": (
        layers.connect,
        {"connectivity": "tiled", "in_features": 2, "out_features": 3, "kernel_size": (3, 2), "strides": 1, "padding": "SAME"}
        | {"space": SPACE, "tied_noise": None, "use_bias": True, "rngs": nnx.Rngs(0), "period": 2, "rank": 2},
        nothing,
    ),
    "spatial_layers": (layers.spatial_layers, {"model": STOCK}, nothing),
    "AllCNN": network(models.AllCNN, (9, 9, 1), width=2, batch_norm=True, activation=nnx.relu),
    "DNet": network(models.DNet, (3, 3, 1), width=1),
    "SNet": network(models.SNet, (3, 3, 1), width=1),
    "LeNet": network(models.LeNet, (16, 16, 1), activation=nnx.relu, pool=cl.max_pool, batch_norm=False),
    "MLP": network(models.MLP, features=(2,), kernel_size=3, activation=nnx.relu),
    "Net": network(models.Net, width=2, depth=2, residual=False, batch_norm=True, dropout=0.1, activation=nnx.relu),
    "NetDeep": network(models.NetDeep, width=2, blocks=1, tied=False),
    "Pyramid": network(models.Pyramid, features=(2, 2), flatten=False),
    "ResNet": network(models.ResNet, (8, 8, 1), blocks=(1, 1), width=2, stem="3x3", projection=True, activation=nnx.relu),
    "Block": module(models.Block, features=2, strides=2, connections=SHARED, projection=True, activation=nnx.relu),
    "Connections": (models.Connections, CONNECTION_OPTIONS, nothing),
    "Stage": module(
        models.Stage,
        **{"features": 2, "kernel_size": 3, "strides": 1, "connections": SHARED, "padding": "SAME", "use_bias": True},
        **{"batch_norm": True, "norm_scale": 1.0, "activation": nnx.relu, "residual": False, "pool": cl.max_pool},
        **{"pool_window": cl.Window(2, 2), "dropout": 0.1},
    ),
    "Head": module(
        models.Head,
        **{"widths": (3, 2), "activation": nnx.relu, "mean": True, "batch_norm": True},
        kernel_init=nnx.initializers.lecun_normal(),
    ),
    "partial_convolution": (
        cl.partial_convolution,
        {
            "apply": lambda x: cl.conv(x, jnp.ones((3, 2, 2, 3)), WINDOW),
            "x": X,
            "valid": jnp.ones(SPACE, bool),
            "window": WINDOW,
        },
        nothing,
    ),
    "from_keras_layer": (
        foreign.from_keras_layer,
        {"layer": LINEAR, "weights": [np.ones((2, 3)), np.ones(3)], "image_shape": (2,)},
        nothing,
    ),
    "from_keras_sequential": (
        foreign.from_keras_sequential,
        {"model": [LINEAR], "weights": {"dense": [np.ones((2, 3)), np.ones(3)]}, "image_shape": (2,)},
        nothing,
    ),
    "from_keras_local": (
        foreign.from_keras_local,
        {"kernel": KERAS_KERNEL, "window": cl.Window((2, 2), padding="VALID"), "space": SPACE, "implementation": 1}
        | {"data_format": "channels_last", "out_features": None},
        nothing,
    ),
    "keras_local_window": (
        foreign.keras_local_window,
        {"size": 2, "strides": 1, "padding": "valid", "space": SPACE},
        nothing,
    ),
    "to_keras_local": (
        foreign.to_keras_local,
        {"v": jnp.ones((4, 3, 2, 2, 2, 3)), "window": cl.Window((2, 2), padding="VALID"), "space": SPACE}
        | {"implementation": 1, "data_format": "channels_last"},
        nothing,
    ),
    "from_linen_local": (foreign.from_linen_local, {"kernel": jnp.ones((5, 4, 12, 3)), "window": WINDOW}, nothing),
    "to_linen_local": (foreign.to_linen_local, {"v": jnp.ones((5, 4, 3, 2, 2, 3))}, nothing),
    "from_linen_variables": (
        foreign.from_linen_variables,
        {"variables": VARIABLES, "module": LINEN, "image_shape": SHAPE, "model": None},
        nothing,
    ),
    "to_linen_variables": (foreign.to_linen_variables, {"model": STOCK, "module": LINEN, "image_shape": SHAPE}, nothing),
    "from_torch": (foreign.from_torch, {"kernel": jnp.ones((3, 2, 3, 2))}, nothing),
    "to_torch": (foreign.to_torch, {"v": jnp.ones((3, 2, 2, 3))}, nothing),
    "from_torch_state_dict": (
        foreign.from_torch_state_dict,
        {"model": STOCK, "state_dict": {"0.weight": np.ones((2, 1, 3, 3)), "0.bias": np.ones(2)}}
        | {"flattened": {}, "names": {"layers": ""}},
        nothing,
    ),
    "to_torch_state_dict": (
        foreign.to_torch_state_dict,
        {"model": STOCK, "flattened": {}, "names": {"layers": ""}},
        nothing,
    ),
    "summary": (measure.summary, {"model": STOCK, "image_shape": SHAPE, "columns": None}, nothing),
    "memory": (measure.memory, {"model": STOCK, "image_shape": SHAPE, "optimizer": ADAM, "batch_size": 2}, nothing),
    "count_weights": (measure.count_weights, {"model": STOCK}, nothing),
    "match_width": (
        measure.match_width,
        {"build": lambda width: nnx.Linear(1, width, rngs=nnx.Rngs(0)), "target": 4, "cost": measure.count_weights}
        | {"widths": (1, 2, 3)},
        nothing,
    ),
    "shares": (surgery.shares, {"model": LOCALLY, "image_shape": SHAPE}, nothing),
    "layouts": (surgery.layouts, {"model": STOCK, "image_shape": SHAPE, "paths": None}, nothing),
    "relax with options": (
        surgery.relax,
        {"model": STOCK, "to": "tiled", "image_shape": SHAPE, "only": "layers/0", "optimizer": ADAM, "period": 2},
        nothing,
    ),
    "constrain with options": (
        surgery.constrain,
        {"model": LOCALLY, "to": "conv", "image_shape": SHAPE, "only": ["layers/0"], "strength": 0.5},
        nothing,
    ),
    "sharing_projection with an image": (
        optim.sharing_projection,
        {"model": STOCK, "to": "symmetric", "image_shape": SHAPE},
        lambda project: project(nnx.to_pure_dict(nnx.state(STOCK, nnx.Param))),
    ),
    "transfer_optimizer_state": (
        surgery.transfer_optimizer_state,
        {"optimizer": ADAM, "state": STATE, "old": STOCK, "new": STOCK, "image_shape": SHAPE},
        nothing,
    ),
    "transfer_variables": (
        surgery.transfer_variables,
        {"old": LINEN, "new": convlab.linen.Tiled(2, (3, 3)), "variables": VARIABLES, "image_shape": SHAPE},
        nothing,
    ),
    "Layout": (
        rungs.Layout,
        {"tying": rungs.Periodic(2), "window": WINDOW, "in_features": 2, "out_features": 3, "space": SPACE, "groups": 1}
        | {"use_bias": True, "transposed": False},
        nothing,
    ),
    "Periodic": (rungs.Periodic, {"period": 2}, lambda tying: rungs.Layout(tying, WINDOW, 2, 3, SPACE)),
    "Mixed": (rungs.Mixed, {"rank": 2}, lambda tying: rungs.Layout(tying, WINDOW, 2, 3, SPACE)),
    "make_tying": (rungs.make_tying, {"rung": "tiled", "period": 2}, nothing),
    "make_window": (
        rungs.make_window,
        {"kernel_size": 3, "strides": None, "padding": "SAME", "kernel_dilation": 1, "space": SPACE},
        nothing,
    ),
    "with_rung": (rungs.with_rung, {"layout": CONV, "rung": "tiled", "period": 2}, nothing),
    "contains": (rungs.contains, {"freer": FREE, "stricter": CONV}, nothing),
    "conversion_entries": (rungs.conversion_entries, {"old": CONV, "new": FREE}, nothing),
    "transfer": (rungs.transfer, {"arrays": ARRAYS, "old": CONV, "new": FREE}, nothing),
    "transfer_bias": (rungs.transfer_bias, {"bias": jnp.ones(3), "new": FREE}, nothing),
    "transfer_mask": (rungs.transfer_mask, {"mask": jnp.ones((3, 2, 2, 3)), "old": CONV, "new": FREE}, nothing),
}

RESULTS = "holds results, which functions of the table make"
NOT_CALLED = {
    **dict.fromkeys((measure.ActivationRank, measure.Cost, measure.Count, measure.Memory, measure.StemCost), RESULTS),
    **dict.fromkeys((measure.ClassPreference, measure.OrientationTuning, measure.ShuffledNull), RESULTS),
    **dict.fromkeys((algebra.Factors, algebra.VaryingBlur, surgery.Change, surgery.LayerShares), RESULTS),
    **dict.fromkeys((tasks.PowerLaw, tasks.SampleComplexity, tasks.Task), RESULTS),
    **dict.fromkeys((rungs.Tying, layers.Layer, models.Stack), "is a base class, and the table has its subclasses"),
    **dict.fromkeys((rungs.ByPixel, rungs.Shared, rungs.Symmetric, rungs.Untied), "takes no arguments"),
    **dict.fromkeys(
        (rungs.layout_text, rungs.sizes_text, rungs.tying_texts, rungs.window_text), "shows objects, and checks none"
    ),
    rungs.Start: "holds arguments that the layers of the table check",
    models.Stem: "is an entry of the table of stems",
    models.ConnectionOptions: "is a type of keyword arguments",
    cl.allow_large_arrays: "takes no arguments",
}
"""The public classes and functions that no call of the table makes wrong, with the reason."""
