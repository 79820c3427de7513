"""A sheet of sample images of every class, for notebooks."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from convlab.data.splits import Split
from convlab.display import curve_html, image_html, table_html

SAMPLES = 8  # the number of images of a class
CLASSES = 20  # the most classes of a sheet
TILE = 40  # the least height of an image on the page, in pixels


def sheet_html(title: str, classes: Sequence[str], splits: Mapping[str, Split]) -> str:
    """Return a table of classes with their numbers of examples, and sample images of the first split.

    Without Pillow, images are left out.

    Args:
      title: The text above.
      classes: The names of the classes, or () for targets.
      splits: The splits by name.
    """
    first, train = next(iter(splits.items()))
    labels, count = train.groups, max(len(classes), 1)
    shown = [np.flatnonzero(labels == label)[:SAMPLES] for label in range(min(count, CLASSES))]
    samples = [np.asarray(train.images[chosen]) for chosen in shown]
    high = max((float(np.nanmax(images)) for images in samples if images.size), default=0.0)
    low = min((float(np.nanmin(images)) for images in samples if images.size), default=0.0)
    rows = []
    for label, images in enumerate(samples):
        numbers = [f"{int((split.groups == label).sum()):,}" for split in splits.values()]
        name = classes[label] if classes else "examples with targets"
        rows.append([name, *numbers, _strip(images, min(low, 0.0), high)])
    further = f"; {count - CLASSES} more classes" * (count > CLASSES)
    header, raw = ["class", *splits, f"images of {first}"], [False] * (1 + len(splits)) + [True]
    return table_html(header, rows, [False, *(True for _ in splits), False], title=title + further, raw=raw)


def _strip(images: np.ndarray, low: float, high: float) -> str:
    """Return images side by side as HTML, or "" without images or Pillow.

    The value `low` is black and `high` is white.
    """
    if len(images) == 0:
        return ""
    if images.ndim == 3:  # signals (n, k, c)
        return "".join(curve_html(np.nan_to_num(signal[:, 0].astype(float)), "a signal") for signal in images)
    if images.ndim == 5:  # volumes: the middle slice
        images = images[:, images.shape[1] // 2]
    try:
        from PIL import Image
    except ImportError:
        return ""
    images = _as_bytes(images if images.shape[-1] == 3 else images[..., :1], low, high)
    sheet = np.concatenate([*np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)], 1)
    with io.BytesIO() as file:
        Image.fromarray(sheet if sheet.shape[-1] == 3 else sheet[..., 0]).save(file, "PNG")
        scale = max(1, round(TILE / images.shape[1]))
        return image_html(file.getvalue(), f"{len(images)} images", scale * sheet.shape[1])


def _as_bytes(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return pixels as bytes, from 0 at `low` to 255 at `high`."""
    shares = (np.nan_to_num(images.astype(float)) - low) / (high - low if high > low else 1.0)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
