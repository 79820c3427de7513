"""Contenders that run in a process of their own, whose memory can be measured."""

import ctypes
import dataclasses
import functools
import gc
import multiprocessing
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from experiments.shared.stopwatch import Contender

STATUS, CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
FORGET_PEAK = "5"  # what Linux takes to forget the largest memory so far
FORGET = "forget the peak"


class Elsewhere:
    """Context manager of a separate process, with the default settings of the C library.

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
        return [
            dataclasses.replace(contender, call=functools.partial(self._ask, number)) for number, contender in enumerate(made)
        ]

    def memory(self, name: str) -> float | None:
        """Return the memory of the other process in MiB.

        Linux names what is resident "VmRSS", and the most that was "VmHWM". On another system it is None.
        """
        return self._ask(name)

    def forget_peak(self) -> None:
        """Return freed memory to the system, and let "VmHWM" start again."""
        self._ask(FORGET)

    def _ask(self, message: Any) -> Any:
        """Send a message and return the answer."""
        self.pipe.send(message)
        return self.pipe.recv()


def _serve(pipe: Any) -> None:
    """Answer messages: run a contender, read the memory, or make contenders."""
    made: Sequence[Contender] = ()
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if isinstance(message, int):
            made[message].call()
            pipe.send(None)
        elif isinstance(message, str):
            pipe.send(_memory(message))
        else:
            make, arguments = message
            made = make(*arguments)
            pipe.send([dataclasses.replace(contender, call=None) for contender in made])


def _memory(name: str) -> float | None:
    """Read a number of this process in MiB, or forget the peak."""
    if not CLEAR.exists():
        return None
    gc.collect()
    if name == FORGET:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
        CLEAR.write_text(FORGET_PEAK)
        return None
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024
