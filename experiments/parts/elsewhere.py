"""Training steps in convlab, stock JAX and PyTorch, and a separate process that runs them."""

import functools
import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

from experiments.parts import pytorch, rivals
from experiments.shared.stopwatch import Contender


def contenders(name: str, steps: int, torch: bool, compile_torch: bool) -> list[Contender]:
    """Return all contenders for a training step of a network."""
    made = [rivals.convlab_contender(name, steps), rivals.stock_contender(name, steps)]
    return made + (pytorch.network_contenders(name, steps, compile_torch) if torch and pytorch.installed() else [])


class Elsewhere:
    """Context manager of a separate process whose C library returns freed memory to the system.

    `contenders` builds contenders there, in place of earlier ones, and returns contenders that run them from this process.
    """

    def __enter__(self) -> "Elsewhere":
        context = multiprocessing.get_context("spawn")
        self.pipe, child_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(child_end,))
        self.process.start()
        child_end.close()
        return self

    def __exit__(self, *_: Any) -> None:
        self.pipe.close()
        self.process.join()

    def contenders(self, make: Callable[..., Sequence[Contender]], *arguments: Any) -> list[Contender]:
        """Call `make`, a function of a module, in the other process."""
        made = self._ask((make, arguments))
        return [Contender(labels, functools.partial(self._ask, number), steps) for number, (labels, steps) in enumerate(made)]

    def _ask(self, message: Any) -> Any:
        self.pipe.send(message)
        return self.pipe.recv()


def _serve(pipe: Any) -> None:
    made: Sequence[Contender] = ()
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if isinstance(message, int):
            made[message].call()
            pipe.send(None)
        else:
            make, arguments = message
            made = make(*arguments)
            pipe.send([(contender.labels, contender.steps) for contender in made])
