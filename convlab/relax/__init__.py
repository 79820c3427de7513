"""Conversion of whole networks: `relax` to a freer rung, `constrain` to a stricter one."""

from convlab.relax.changes import Change, diff
from convlab.relax.networks import constrain, layouts, relax
from convlab.relax.optimizer_state import transfer_optimizer_state
from convlab.relax.variables import transfer_variables

__all__ = ["Change", "transfer_optimizer_state", "constrain", "diff", "layouts", "relax", "transfer_variables"]
