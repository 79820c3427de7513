"""The table of rungs, freest first: what a rung's name stands for."""

import dataclasses
from typing import Any

from convlab.rungs.by_pixel import ByPixel
from convlab.rungs.layout import Layout, Tying
from convlab.rungs.mixed import Mixed
from convlab.rungs.periodic import Periodic
from convlab.rungs.shared import Shared
from convlab.rungs.symmetric import Symmetric
from convlab.rungs.untied import Untied

RUNGS: dict[str, type[Tying]] = {kind.name: kind for kind in (ByPixel, Untied, Periodic, Mixed, Shared, Symmetric)}


def tying(rung: str, **parameters: Any) -> Tying:
    """Make the tying of a rung, from its parameters among those of all rungs.

    Raises:
      ValueError: An unknown rung, or a parameter that no rung has.

    Example:
      >>> tying("tiled", period=3, rank=2)
      Periodic(period=3)
    """
    if rung not in RUNGS:
        raise ValueError(f"rung {rung!r} is unknown; needs one of {', '.join(RUNGS)}")
    known = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in RUNGS.items()}
    if unknown := {*parameters} - set().union(*known.values()):
        raise ValueError(f"no rung has a {' or a '.join(sorted(unknown))}")
    return RUNGS[rung].of({name: value for name, value in parameters.items() if name in known[rung]})


def at(layout: Layout, rung: str, **parameters: Any) -> Layout:
    """Describe the same layer at another rung, in as far as it has the positions and entries for the rung's parameters.

    Raises:
      ValueError: An unknown rung, a layout without space, or one in groups that the rung does not have.
    """
    new = tying(rung, **parameters)
    groups = 1 if new.by_pixel else layout.groups
    return dataclasses.replace(layout, tying=new.fitted(layout), groups=groups)
