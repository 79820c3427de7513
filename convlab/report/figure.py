"""A figure that notebooks show without a magic command. Importing this module imports matplotlib."""

import io

import matplotlib.figure

from convlab.report.drawing import slide_style

DOTS_PER_INCH = 80  # a figure of 12 inches then fits a notebook's page


class Figure(matplotlib.figure.Figure):
    """A figure of matplotlib that shows itself in notebooks.

    Example:
      >>> Figure(figsize=(1, 1))._repr_png_()[1:4]
      b'PNG'
    """

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG. Notebooks call it."""
        with io.BytesIO() as file, slide_style():
            self.savefig(file, dpi=DOTS_PER_INCH, format="png")
            return file.getvalue()
