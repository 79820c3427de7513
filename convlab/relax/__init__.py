"""Between the rungs with whole networks: `relax` gives freedom without changing the function, `constrain` takes it back."""

from convlab.relax.carry import carry
from convlab.relax.changes import Change, diff
from convlab.relax.networks import constrain, layouts, relax
from convlab.relax.variables import transfer_variables

__all__ = ["Change", "carry", "constrain", "diff", "layouts", "relax", "transfer_variables"]
