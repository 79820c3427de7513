"""The difference of two pitches of a tone that remains after the best translation."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from convlab import report
from experiments.parts.spectrograms import LINEAR, LOG, PER_OCTAVE, Waves, tones, transform
from experiments.shared.command import Rows
from experiments.shared.settings import styles

RISE = "a tone that rises by 3/4 of an octave"
TONES = {0.0: "a tone that stays", 0.75: RISE}
STYLES = styles({LOG: "conv", LINEAR: "dense"})
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


def draw(axis: Any, lines: Rows) -> None:
    """Draw the residual of a tone after the best translation, along both axes."""
    words: dict[str, Any] = {"x_label": f"pitch shifted, in bins of 1/{PER_OCTAVE} octave", "y_format": ".0%", "styles": STYLES}
    words |= {"y_label": "left by the best translation, 95 % interval", "title": lines[0]["tone"]}
    report.curves(axis, lines, "shift", "residual", "axis", **words)
    axis.set_xticks(sorted({line["shift"] for line in lines}))
    axis.set_ylim(bottom=-0.02)
