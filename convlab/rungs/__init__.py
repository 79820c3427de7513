"""The rungs of the ladder, each of which is a window and a tying."""

from convlab.rungs.by_pixel import ByPixel
from convlab.rungs.layout import Arrays, Layout, Tying, make_window
from convlab.rungs.mixed import Mixed
from convlab.rungs.periodic import Periodic
from convlab.rungs.shared import Shared
from convlab.rungs.start import Start
from convlab.rungs.symmetric import Symmetric
from convlab.rungs.table import RUNGS, make_tying, with_rung
from convlab.rungs.transfer import contains, conversion_entries, transfer, transfer_bias
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
    "make_tying",
    "make_window",
    "transfer",
    "transfer_bias",
    "with_rung",
]
