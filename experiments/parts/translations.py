"""The difference of two pitches of a tone that remains after the best translation."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from convlab import report
from experiments.parts.spectrograms import HOP, LINEAR, LOG, PER_OCTAVE, Waves, tones, transform
from experiments.shared.command import Rows

TONES = {0.0: "a tone that stays", 0.75: "a tone that rises by 3/4 of an octave"}
AXES = {LOG: "conv", LINEAR: "dense"}  # with the rung whose colour each axis has
STYLES = {kind: report.RUNG_STYLE[rung]._replace(label=f"axis: {kind}") for kind, rung in AXES.items()}
FINE = 8  # bins of the measured linear axis per bin of the networks' axis


@dataclasses.dataclass(frozen=True)
class Shifts(Waves):
    """The pitches that are compared.

    Args:
      shifts: The shifts of a tone for the residuals, in bins of log-frequency.
      seeds: The number of runs, each with its own waves and initial weights, or phases for the residuals.
    """

    shifts: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    seeds: int = 5


def residual(picture: np.ndarray, moved: np.ndarray) -> float:
    """Return the relative norm of the difference that the best translation leaves.

    The translation is along the second axis. Bins that enter the picture are left out. The norm is relative to that of the
    moved picture.
    """
    bins = picture.shape[1]
    norms = [np.linalg.norm(moved[:, by:] - picture[:, : bins - by]) for by in range(bins - bins // 4)]
    return float(min(norms) / np.linalg.norm(moved))


def residuals(config: Shifts) -> Rows:
    """Return one row per axis, kind of tone, shift and seed."""
    rows = []
    for rise, name in TONES.items():
        for seed in range(config.seeds):
            waves = jnp.asarray(tones(config, rise, (0, *config.shifts), seed))
            for kind in (LOG, LINEAR):
                first, *others = np.asarray(transform(config, kind, 1 if kind == LOG else FINE)(waves))[..., 0]
                for shift, moved in zip(config.shifts, others, strict=True):
                    labels = {"tone": name, "axis": kind, "shift": shift, "seed": seed}
                    rows.append(labels | {"residual": residual(first, moved)})
    return rows


def table(rows: Rows) -> Rows:
    """Average over the seeds."""
    return report.summarise(rows, ["tone", "axis", "shift"], "residual", bounds={"residual": report.POSITIVE})


def draw_tone(axes: Any, config: Waves, shift: int) -> None:
    """Draw one tone at two pitches on both axes."""
    for column, kind in enumerate((LINEAR, LOG)):
        low, *_, high = config.axis(kind)[0]
        pictures = np.asarray(transform(config, kind)(jnp.asarray(tones(config, 0.75, (0, shift), 0))))[..., 0]
        for panel, (picture, pitch) in enumerate(zip(pictures, ("low", f"{shift / PER_OCTAVE:g} octaves higher"), strict=True)):
            axis, up = axes[2 * column + panel], picture.T[::-1]
            report.heatmap(axis, np.ones_like(up), up, f"{kind}, {pitch}", label="magnitude", vmax=0.5)
            axis.set(xlabel=f"time, {up.shape[1]} steps of {HOP} samples", ylabel=f"{kind}, cycles a sample")
            axis.set_yticks([-0.5, len(up) - 0.5], [f"{high:.2g}", f"{low:.2g}"])
            axis.set_aspect("auto")


def draw(axes: Any, lines: Rows) -> None:
    """Draw the residual after the best translation, with a panel for each kind of tone."""
    words: dict[str, Any] = {"x_label": f"pitch shifted, in bins of 1/{PER_OCTAVE} octave", "baselines": {"exact": 0.0}}
    words |= {"y_label": "left by the best translation, 95 % interval", "y_format": ".0%", "styles": STYLES}
    for axis, tone in zip(axes, TONES.values(), strict=True):
        points = [line for line in lines if line["tone"] == tone]
        report.curves(axis, points, "shift", "residual", "axis", title=tone, **words)
        axis.set_ylim(-0.02, 1.1 * max(line["residual_high"] or 0 for line in lines))
