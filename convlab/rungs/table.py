"""The table of rungs by name."""

import dataclasses
from typing import Any

from convlab import check
from convlab.choices import did_you_mean, one_of
from convlab.rungs.by_pixel import ByPixel
from convlab.rungs.layout import Layout, Tying
from convlab.rungs.mixed import Mixed
from convlab.rungs.periodic import Periodic
from convlab.rungs.shared import Shared
from convlab.rungs.symmetric import Symmetric
from convlab.rungs.untied import Untied

RUNGS: dict[str, type[Tying]] = {kind.name: kind for kind in (ByPixel, Untied, Periodic, Mixed, Shared, Symmetric)}


def make_tying(rung: str, **parameters: Any) -> Tying:
    """Make the tying of a rung from a name and the parameters of all rungs.

    Args:
      rung: The name of the rung.
      **parameters: The parameters of all rungs. Those of other rungs are ignored.

    Raises:
      ValueError: The rung is unknown, or no rung has a parameter of that name.

    Example:
      >>> make_tying("tiled", period=3, rank=2)
      Periodic(period=3)
    """
    one_of("rung", rung, RUNGS)
    known = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in RUNGS.items()}
    names = sorted(set().union(*known.values()))
    if unknown := sorted({*parameters} - {*names}):
        hint = did_you_mean(unknown[0], names)
        raise ValueError(f"{', '.join(unknown)}: no rung has this parameter; needs some of {', '.join(names)}{hint}")
    return RUNGS[rung].from_parameters({name: value for name, value in parameters.items() if name in known[rung]})


def with_rung(layout: Layout, rung: str, **parameters: Any) -> Layout:
    """Return the layout of the same layer at another rung.

    Parameters are clipped to the positions and entries of the layer.


    Raises:
      ValueError: The rung is unknown, the layout has no space, or the rung does not support its groups.
    """
    check.instance("layout", layout, Layout, "a convlab.rungs.Layout")
    new = make_tying(rung, **parameters)
    groups = 1 if new.by_pixel else layout.groups
    return dataclasses.replace(layout, tying=new.clipped(layout), groups=groups)
