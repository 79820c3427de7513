"""Do two small cross kernels with max pooling detect a large cross, and in how much noise?

This runs a textbook's drawing: one 3x3 kernel of each cross, with mean zero, then 2x2 max pooling, on pictures of one large
cross, + or x, with Gaussian noise. A cross is found if a unique largest pooled response covers its centre, and named if the
response is also in the channel of its kind. Baselines: random kernels of the same norm, the brightest pooled pixel, and a
random position.

Answer: yes. They find every cross without noise, and 38 % in noise of 0.4 of the crosses' brightness.

    python -m experiments.crosses                                                      (1 minute on 2 cores)

Reference: Stevens, Antiga and Viehmann 2020, Deep Learning with PyTorch, figure 8.8.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import convlab as cl
from convlab import algebra, report
from experiments.shared.command import Rows, main
from experiments.shared.progress import track
from experiments.shared.settings import styles

CROSSES, RANDOM, BRIGHT, CHANCE = "cross kernels", "random kernels", "brightest pixel", "drawn at random"
POOL = cl.Window((2, 2), 2, "VALID")
STYLES = styles({CROSSES: "conv", RANDOM: "dense", BRIGHT: "tiled"})
FORMATS = {"found": ".1%", "found_and_named": ".1%"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of the experiment.

    Args:
      side: The number of pixels of a picture along each axis.
      arm: The number of pixels from the centre of a cross to its ends.
      noise: The standard deviations of the noise. A cross has the value 1.
      pictures: The number of pictures of each kind of cross, at random positions.
      seeds: The number of runs, each with its own positions, noise and random kernels.
      root: The folder of the results.
    """

    side: int = 24
    arm: int = 6
    noise: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5)
    pictures: int = 500
    seeds: int = 5
    root: str = "runs"


SMOKE = Config(noise=(0.0, 0.5), pictures=10, seeds=2)


def pictures(config: Config, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw crosses on black, first all + and then all x. Return them with their centres and kinds."""
    count = 2 * config.pictures
    centres = rng.integers(config.arm, config.side - config.arm, (count, 2))
    kinds = np.repeat([0, 1], config.pictures)
    i, j = (np.arange(config.side)[:, None] - centres[:, 0, None, None], np.arange(config.side) - centres[:, 1, None, None])
    inside = np.maximum(np.abs(i), np.abs(j)) <= config.arm
    cross = np.where(kinds[:, None, None] == 0, (i == 0) | (j == 0), np.abs(i) == np.abs(j))
    return (cross & inside).astype(np.float32)[..., None], centres, kinds


@jax.jit
def peaks(x: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the position and channel of the largest pooled response, and how often it occurs."""
    h = cl.max_pool(cl.conv(x, v, cl.Window(v.shape[:2])), POOL)
    flat = h.reshape(len(h), -1)
    position, channel = jnp.divmod(flat.argmax(1), h.shape[-1])
    return jnp.stack(jnp.divmod(position, h.shape[2]), 1), channel, (flat == flat.max(1, keepdims=True)).sum(1)


def run(config: Config) -> Rows:
    """Return one row per kernels, noise and seed."""
    centred = [kernel - kernel.mean() for kernel in (algebra.upright_cross(), algebra.diagonal_cross())]
    crosses = jnp.concatenate([kernel / jnp.linalg.norm(kernel) for kernel in centred], -1)
    rows = []
    for seed in track(range(config.seeds), "draws"):
        rng = np.random.default_rng(seed)
        clean, centres, kinds = pictures(config, rng)
        drawn = jnp.asarray(rng.standard_normal((3, 3, 1, 2)), jnp.float32)
        random = drawn / jnp.linalg.norm(drawn, axis=(0, 1))
        for noise in config.noise:
            x = jnp.asarray(clean + noise * rng.standard_normal(clean.shape).astype(np.float32))
            for name, v in ((CROSSES, crosses), (RANDOM, random), (BRIGHT, jnp.ones((1, 1, 1, 1)))):
                position, channel, times = peaks(x, v)
                is_found = (position == centres // 2).all(1) & (times == 1)
                is_named = channel == kinds if v.shape[-1] == 2 else jnp.ones_like(is_found)
                rows.append({"kernels": name, "noise": noise, "seed": seed, "found": float(is_found.mean())})
                rows[-1] |= {"found_and_named": float((is_found & is_named).mean()) if v.shape[-1] == 2 else None}
    return rows


def table(rows: Rows, config: Config) -> Rows:
    """Average the share of crosses that are found over the seeds."""
    return report.summarise(rows, ["kernels", "noise"], list(FORMATS), bounds=dict.fromkeys(FORMATS, report.SHARE))


def draw(rows: Rows, config: Config) -> Any:
    """Draw a cross of each kind in noise, and the share of crosses found against the noise."""
    figure, axes = report.new_figure(3, size=(18.0, 5.5))
    rng = np.random.default_rng(0)
    x = pictures(dataclasses.replace(config, pictures=1), rng)[0]
    noisy = x + 0.4 * rng.standard_normal(x.shape)
    for axis, picture, kind in zip(axes, noisy, ("+", "x"), strict=False):
        axis.imshow(picture[..., 0], cmap="gray")
        axis.set(title=f"a cross, {kind}, in noise of 0.4", xlabel="column (pixels)", ylabel="row (pixels)")
    report.curves(
        axes[2],
        table(rows, config),
        "noise",
        "found",
        "kernels",
        x_label="standard deviation of the noise (a cross is 1)",
        y_label="centres found, 95 % interval",
        y_format=".0%",
        title=f"{2 * config.pictures:,} crosses a seed",
        baselines={CHANCE: 4 / (config.side - 2 * config.arm) ** 2},
        styles=STYLES,
    )
    return figure


if __name__ == "__main__":
    main(__name__, Config(), SMOKE)
