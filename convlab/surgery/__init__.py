"""Conversion of whole networks: `relax` to a freer rung, `constrain` to a stricter one."""

from convlab.calls import layouts
from convlab.surgery.changes import Change, LayerShares, diff, shares
from convlab.surgery.networks import constrain, relax
from convlab.surgery.optimizer_state import transfer_optimizer_state
from convlab.surgery.variables import transfer_variables

__all__ = [
    "Change",
    "LayerShares",
    "constrain",
    "diff",
    "layouts",
    "relax",
    "shares",
    "transfer_optimizer_state",
    "transfer_variables",
]
