"""Conversion of whole networks: `relax` to a freer rung, `constrain` to a stricter one."""

from convlab.surgery.changes import Change, diff
from convlab.surgery.networks import constrain, layouts, relax
from convlab.surgery.optimizer_state import transfer_optimizer_state
from convlab.surgery.variables import transfer_variables

__all__ = ["Change", "constrain", "diff", "layouts", "relax", "transfer_optimizer_state", "transfer_variables"]
