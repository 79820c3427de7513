"""Texts and HTML of trained networks, for interactive sessions and notebooks."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from convlab.display import image_html, table_html
from convlab.report import training_curves
from convlab.report.drawing import new_figure
from convlab.report.table import to_table
from convlab.train.identity import name_of_network
from convlab.train.step import Trainable

if TYPE_CHECKING:
    from convlab.train.fitted import Fitted

CURVES = {"loss", "validation_loss", "test_loss", "accuracy", "validation_accuracy", "test_accuracy"}


def fitted_text(fitted: "Fitted") -> str:
    """Describe a trained network in one line."""
    network = name_of_network(Trainable(fitted.apply, fitted.parameters, fitted.model_state))
    weights = sum(leaf.size for leaf in jax.tree.leaves(fitted.parameters) if hasattr(leaf, "size"))
    last = fitted.history[-1] if fitted.history else {}
    parts = [network, f"{weights:,} parameters", *(f"{name} {last[name]:.4g}" for name in ("epoch",) if name in last)]
    parts += [f"{name} {last[name]:.4g}" for name in ("test_loss", "test_accuracy") if name in last]
    return f"Fitted({', '.join(parts)}, {fitted.seconds:.1f} s)"


def runs_html(title: str, histories: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return the curves of runs and the last row of each as HTML.

    Without matplotlib, there are no curves.

    Args:
      title: The text above.
      histories: The history of every run.
    """
    last = [history[-1] for history in histories if history]
    table = table_html(*to_table(last)) if last else ""
    return f"<p><code>{html.escape(title)}</code></p>{_curves(histories)}{table}"


def _curves(histories: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    histories = [history for history in histories if CURVES & {name for row in history for name in row}]
    if not histories:
        return ""
    try:
        _, axes = new_figure(2, size=(12.0, 4.5))
    except ImportError:
        return ""
    figure = training_curves(axes, histories)
    return image_html(figure._repr_png_(), "the loss and accuracy during training")  # pyright: ignore[reportAttributeAccessIssue]
