"""Short texts that describe layers and windows, for tables and notebooks."""

from collections.abc import Sequence
from typing import Any

from convlab.geometry import Window, as_axes
from convlab.rungs.layout import Layout


def layout_text(layout: Layout) -> str:
    """Describe a layer in one line.

    Example:
      >>> from convlab.rungs import Periodic
      >>> layout_text(Layout(Periodic(2), Window(3, strides=2), 1, 5, space=(8, 6)))
      '1 -> 5, period 2x2, window 3x3, stride 2x2, SAME, on 8x6 pixels'
    """
    features = (layout.in_features, layout.out_features)[:: -1 if layout.transposed else 1]
    parts = ["{} -> {}".format(*features), *tying_texts(layout)]
    parts += [] if layout.tying.by_pixel else [f"window {window_text(layout.window)}"]
    return ", ".join(parts + ([] if layout.space is None else [f"on {sizes_text(layout.space)} pixels"]))


def tying_texts(layout: Layout) -> list[str]:
    """Return the parameters of a layer's tying and its groups, as in "period 2x2".

    Example:
      >>> from convlab.rungs import Mixed
      >>> tying_texts(Layout(Mixed(3), Window(3), 1, 5, space=(8, 6)))
      ['rank 3']
    """
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in vars(layout.tying).items()}
    parameters = [f"{name} {sizes_text(sizes)}" for name, sizes in values.items()]
    return parameters + ([f"{layout.groups} groups"] if layout.groups > 1 else [])


def window_text(window: Window) -> str:
    """Describe a window: its size, strides and dilation other than 1, and its padding.

    Example:
      >>> window_text(Window((3, 3), strides=(2, 1)))
      '3x3, stride 2x1, SAME'
    """
    ndim = window.ndim or 1
    strides, dilation = (as_axes(name, getattr(window, name), ndim) for name in ("strides", "dilation"))
    options = [f"{name} {sizes_text(sizes)}" for name, sizes in (("stride", strides), ("dilation", dilation)) if max(sizes) > 1]
    return ", ".join([sizes_text(window.taps(ndim)), *options, _padding(window.padding)])


def sizes_text(sizes: Sequence[int | str]) -> str:
    """Join sizes by x.

    Example:
      >>> sizes_text((3, 5))
      '3x5'
    """
    return "x".join(map(str, sizes))


def _padding(padding: Any) -> str:
    if isinstance(padding, int):
        return f"padding {padding}"
    if isinstance(padding, str) or any(isinstance(entry, str) for entry in padding):
        return padding if isinstance(padding, str) else " x ".join(map(str, padding))
    low, high = zip(*padding, strict=True)
    return f"padding {sizes_text(low)}" + f" below, {sizes_text(high)} above" * (low != high)
