"""Training steps in convlab, stock JAX and PyTorch."""

from experiments.parts import pytorch, rivals
from experiments.shared.stopwatch import Contender


def contenders(name: str, steps: int, torch: bool, compile_torch: bool) -> list[Contender]:
    """Return all contenders for a training step of a network."""
    made = [rivals.convlab_contender(name, steps), rivals.stock_contender(name, steps)]
    return made + (pytorch.network_contenders(name, steps, compile_torch) if torch and pytorch.installed() else [])
