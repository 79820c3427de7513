"""Run calls of `test_mesh.py` on several simulated devices and print the results as JSON."""

import json
import sys

import jax
import numpy as np
import optax
from flax import nnx

from convlab import models
from convlab.data import Data, Split
from convlab.norm import BatchNorm
from convlab.train import Checkpoints, Config, fit
from convlab.train.mesh import Placement
from convlab.train.step import as_trainable, initial_state

SHAPE = (16, 8, 2)
MESHES = {"none": None, "n": (8, 1), "both": (2, 4), "two": (2, 1)}


class Net(models.Pyramid):
    """Network of layers at one rung, with dropout and batch norm over the whole batch."""

    def __init__(self, rung):
        super().__init__(SHAPE, 3, (8, 8), connectivity=rung, rngs=nnx.Rngs(0))
        self.norm, self.dropout = BatchNorm(2, rngs=nnx.Rngs(0)), nnx.Dropout(0.1, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return super().__call__(self.dropout(self.norm(x)))


def make_data():
    random = np.random.default_rng(0)
    patterns = random.normal(size=(3, *SHAPE))

    def split(n):
        labels = random.integers(0, 3, n).astype(np.int32)
        return Split((patterns[labels] * 0.3 + random.normal(size=(n, *SHAPE))).astype(np.float32), labels)

    return Data("made", split(67), split(31), tuple("abc"))


def mesh_of(name):
    return None if MESHES[name] is None else jax.make_mesh(MESHES[name], ("n", "i"))


def run(rung, mesh, steps, folder=None):
    """Train a network and return its losses and parameters."""
    options = {"optimizer": "momentum", "learning_rate": 0.05, "evaluations": steps // 2, "progress": False}
    config = Config(steps=steps, batch_size=16, mesh=mesh_of(mesh), **options)
    fitted = fit(Net(rung), make_data(), config, checkpoints=None if folder is None else Checkpoints(folder, every_steps=5))
    parameters = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(fitted.parameters)]
    return {"loss": [row["loss"] for row in fitted.history], "test": fitted.history[-1]["test_loss"], "parameters": parameters}


def run_until_killed(mesh, folder):
    """Train for ever and save by time."""
    config = Config(steps=10**6, batch_size=16, mesh=mesh_of(mesh), progress=False)
    fit(Net("conv"), make_data(), config, checkpoints=Checkpoints(folder, every_seconds=0.1))


def different_seeds(mesh):
    """Return the error message of each process if their seeds differ."""
    config = Config(steps=2, batch_size=16, seed=jax.process_index(), mesh=mesh_of(mesh), progress=False)
    try:
        fit(Net("conv"), make_data(), config)
    except ValueError as error:
        return str(error)


def split_leaves(rung, mesh):
    """Return the paths of the leaves of a state that are split along "i"."""
    model = as_trainable(Net(rung), SHAPE)
    config = Config(batch_size=16, mesh=mesh_of(mesh))
    state = Placement(config, model.rows).put_state(initial_state(model, optax.sgd(1.0, momentum=0.9), 0, config.step_options))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return sorted(jax.tree_util.keystr(path) for path, leaf in leaves if "i" in jax.tree.leaves(tuple(leaf.sharding.spec)))


if __name__ == "__main__":
    calls = json.loads(sys.argv[1])
    if len(sys.argv) > 2:
        address, count, number = sys.argv[2:]
        jax.distributed.initialize(address, int(count), int(number), heartbeat_timeout_seconds=10)
    print(json.dumps([globals()[name](*arguments) for name, *arguments in calls]))
