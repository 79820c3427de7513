"""The rungs of the ladder, each of which is a window and a tying."""

from convlab.rungs.by_pixel import ByPixel as ByPixel
from convlab.rungs.layout import Arrays as Arrays
from convlab.rungs.layout import Layout as Layout
from convlab.rungs.layout import Tying as Tying
from convlab.rungs.layout import lay_window as lay_window
from convlab.rungs.mixed import Mixed as Mixed
from convlab.rungs.periodic import Periodic as Periodic
from convlab.rungs.shared import Shared as Shared
from convlab.rungs.start import Start as Start
from convlab.rungs.symmetric import Symmetric as Symmetric
from convlab.rungs.table import RUNGS as RUNGS
from convlab.rungs.table import at as at
from convlab.rungs.table import tying as tying
from convlab.rungs.transfer import contains as contains
from convlab.rungs.transfer import conversion_entries as conversion_entries
from convlab.rungs.transfer import transfer as transfer
from convlab.rungs.transfer import transfer_bias as transfer_bias
from convlab.rungs.untied import Untied as Untied
