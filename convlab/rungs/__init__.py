"""The rungs of the ladder. Each is a window and a tying of the weights."""

from convlab.rungs.by_pixel import ByPixel
from convlab.rungs.layout import Arrays, Layout, Tying, make_window
from convlab.rungs.mixed import Mixed
from convlab.rungs.periodic import Periodic
from convlab.rungs.shared import Shared
from convlab.rungs.start import Start
from convlab.rungs.symmetric import Symmetric
from convlab.rungs.table import RUNGS, make_tying, with_rung
from convlab.rungs.texts import layout_text, sizes_text, tying_texts, window_text
from convlab.rungs.transfer import contains, conversion_entries, transfer, transfer_bias, transfer_mask
from convlab.rungs.untied import Untied

__all__ = [
    "Arrays",
    "ByPixel",
    "Layout",
    "Mixed",
    "Periodic",
    "RUNGS",
    "Shared",
    "Start",
    "Symmetric",
    "Tying",
    "Untied",
    "contains",
    "conversion_entries",
    "layout_text",
    "make_tying",
    "make_window",
    "sizes_text",
    "transfer",
    "transfer_bias",
    "transfer_mask",
    "tying_texts",
    "window_text",
    "with_rung",
]
