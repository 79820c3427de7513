"""Test identities behind the theory: invariances of training, excess risk and merged layers."""

import functools

import compiled as cl
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from assertions import close
from strategies import gaussian

pytestmark = pytest.mark.usefixtures("float64")
SPACE, WINDOW = (5, 6), cl.Window((3, 2))
NAMES = ("conv", "locally_connected", "dense")


def op(rung, window=WINDOW):
    """Return the op of a rung as a function of images and kernel."""
    return {
        "conv": lambda x, v: cl.conv(x, v, window),
        "locally_connected": lambda x, v: cl.locally_connected(x, v, window),
        "dense": cl.dense,
    }[rung]


def lifted(rung, v):
    """Lift a convolution's kernel to a rung."""
    lift = {"conv": lambda v, *_: v, "locally_connected": cl.lift_conv_to_local, "dense": cl.lift_conv_to_dense}[rung]
    return lift(v, WINDOW, SPACE)


# --- invariance of training to rotations and permutations of pixels --------------------------------------------------


@functools.partial(jax.jit, static_argnames=("optimizer", "rung"))
def trained(x, w, u, labels, optimizer, rung="dense"):
    """Train a network with one hidden layer from these weights and return the loss of every step."""
    forward = op(rung)

    def loss(parameters):
        hidden = jnp.tanh(forward(x, parameters[0])).reshape(len(x), -1)
        return optax.losses.softmax_cross_entropy_with_integer_labels(hidden @ parameters[1], labels).mean()

    def step(carry, _):
        parameters, state = carry
        value, gradient = jax.value_and_grad(loss)(parameters)
        updates, state = optimizer.update(gradient, state, parameters)
        return (optax.apply_updates(parameters, updates), state), value

    _, losses = jax.lax.scan(step, ((w, u), optimizer.init((w, u))), length=5)
    return losses


def rotation(n, seed=0):
    return np.linalg.qr(gaussian((n, n), seed=seed)[0])[0]


def signed_permutation(n, seed=0):
    random = np.random.default_rng(seed)
    return np.eye(n)[random.permutation(n)] * random.choice([-1, 1], n)


@pytest.mark.parametrize(
    "optimizer, turn, is_invariant",
    [
        (optax.sgd(0.3, momentum=0.9), rotation, True),
        (optax.adam(0.03), rotation, False),
        (optax.adam(0.03), signed_permutation, True),
    ],
)
def test_training_a_dense_network_is_invariant_to_pixel_rotations_under_sgd_but_not_adam(optimizer, turn, is_invariant):
    x, w, u = gaussian((11, *SPACE, 1), (*SPACE, *SPACE, 1, 2), (60, 3))
    labels = np.arange(11) % 3
    q = turn(30)
    rotated = (x.reshape(11, 30) @ q.T).reshape(x.shape)
    turned = np.einsum("pq,iqd->ipd", q, w.reshape(30, 30, 2)).reshape(w.shape)  # rotate the input pixels of every output
    before, after = (np.asarray(trained(*arrays, u, labels, optimizer)) for arrays in ((x, w), (rotated, turned)))
    gap = np.abs(after - before)
    assert gap[0] < 1e-12
    assert (gap.max() < 1e-10) == is_invariant
    assert is_invariant or gap.max() > 1e-3


@pytest.mark.parametrize("rung, is_invariant", [("dense", True), ("locally_connected", False), ("conv", False)])
def test_pixel_order_affects_local_networks_but_not_dense_ones(rung, is_invariant):
    """Only the dense network can start from weights permuted like the pixels."""
    x, v, u = gaussian((11, *SPACE, 1), (3, 2, 1, 2), (60, 3))
    labels, order = np.arange(11) % 3, np.random.default_rng(0).permutation(30)
    shuffled = x.reshape(11, 30)[:, order].reshape(x.shape)
    w = np.asarray(lifted(rung, v))
    permuted = w.reshape(30, 30, 2)[:, order].reshape(w.shape) if is_invariant else w
    descent = optax.sgd(0.3)
    before, after = (np.asarray(trained(*arrays, u, labels, descent, rung=rung)) for arrays in ((x, w), (shuffled, permuted)))
    assert (np.abs(after - before).max() < 1e-10) == is_invariant


# --- excess risk of learned weights ---------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def design(rung, x):
    """Return the derivative of every output with respect to every weight."""
    kernel = jnp.zeros(lifted(rung, jnp.zeros((3, 2, 1, 1))).shape)
    return jax.jacfwd(lambda kernel: op(rung)(x, kernel))(kernel).reshape(x.size, -1)


def excess_risk(rung, images, sigma, seed):
    """Fit a rung to noisy outputs of a convolution and return its excess squared error."""
    x, v, noise = gaussian((images, *SPACE, 1), (3, 2, 1, 1), (images, *SPACE, 1), seed=seed)
    y = np.asarray(op("conv")(x, v)) + sigma * noise
    columns = np.asarray(design(rung, x))
    live = columns.any(0)  # dead taps keep the minimum-norm value, zero
    columns, fitted = columns[:, live], np.zeros(live.shape)
    fitted[live] = np.linalg.solve(columns.T @ columns, columns.T @ y.ravel())
    fitted = fitted.reshape(lifted(rung, v).shape)
    lift = {"dense": lambda w, *_: w, "locally_connected": cl.lift_local_to_dense, "conv": cl.lift_conv_to_dense}[rung]
    error = np.asarray(lift(fitted, WINDOW, SPACE)) - np.asarray(cl.lift_conv_to_dense(v, WINDOW, SPACE))
    return np.sum(error**2) / 30  # pixels have variance 1


def predicted_risk(rung, images, sigma):
    """Predict the excess risk sigma^2 p / (n - p - 1) of an output with p live weights and n examples."""
    live = WINDOW.live(SPACE).sum((2, 3))
    p, n = {"dense": (np.full(SPACE, 30), images), "locally_connected": (live, images), "conv": (np.array(6), 30 * images)}[
        rung
    ]
    return float(np.mean(sigma**2 * p / (n - p - 1)))


@pytest.mark.parametrize("rung", NAMES)
def test_excess_risk_of_linear_regression_is_predicted_by_its_live_weights(rung):
    images, sigma = 70, 0.5
    risks = [excess_risk(rung, images, sigma, seed) for seed in range(40 if rung == "conv" else 4)]
    predicted = {name: predicted_risk(name, images, sigma) for name in NAMES}
    assert abs(np.mean(risks) / predicted[rung] - 1) < 0.2
    assert predicted["conv"] < 0.1 * predicted["locally_connected"] < 0.02 * predicted["dense"] * 10


# --- merged layers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", NAMES)
def test_batch_norm_in_evaluation_folds_into_the_preceding_layer(rung):
    x, v, scale, shift, mean = gaussian((4, *SPACE, 2), (3, 2, 2, 3), (3,), (3,), (3,))
    kernel, variance, epsilon = np.asarray(lifted(rung, v)), mean**2 + 0.5, 1e-5
    alpha = scale / np.sqrt(variance + epsilon)
    expected = (np.asarray(op(rung)(x, kernel)) - mean) * alpha + shift
    close(np.asarray(op(rung)(x, kernel * alpha)) + (shift - mean * alpha), expected)


def test_branches_of_3x3_1x1_and_identity_merge_into_one_layer_including_borders():
    x, v, one = gaussian((4, *SPACE, 2), (3, 3, 2, 2), (1, 1, 2, 2))
    window = cl.Window(3)
    branches = np.asarray(cl.conv(x, v, window)) + np.asarray(cl.conv(x, one, cl.Window(1))) + x
    merged = v.copy()
    merged[1, 1] += one[0, 0] + np.eye(2)
    close(cl.conv(x, merged, window), branches)


def test_1x1_layer_with_bias_merges_into_a_3x3_layer_only_if_it_pads_with_the_bias():
    x, one, bias, v = gaussian((4, *SPACE, 2), (1, 1, 2, 3), (3,), (3, 3, 3, 2))
    h = np.asarray(cl.conv(x, one, cl.Window(1))) + bias
    merged = np.einsum("ce,abed->abcd", one[0, 0], v)
    total = np.einsum("abed,e->d", v, bias)
    padded = np.broadcast_to(bias, (4, 7, 8, 3)).copy()
    padded[:, 1:-1, 1:-1] = h
    expected = np.asarray(cl.conv(x, merged, cl.Window(3))) + total
    close(cl.conv(padded, v, cl.Window(3, padding="VALID")), expected)
    gap = np.abs(np.asarray(cl.conv(h, v, cl.Window(3))) - expected).max((0, -1))
    assert gap[1:-1, 1:-1].max() < 1e-12
    assert min(gap[0].min(), gap[-1].min(), gap[:, 0].min(), gap[:, -1].min()) > 1e-3
