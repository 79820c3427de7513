"""Signals that ask a run to stop: it ends the step it is in, saves, and leaves as if it had been stopped at once."""

import signal
import threading
from typing import Any

import jax

from convlab.train.mesh import Placement

ASKING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """A context in which SIGTERM and Ctrl-C are noted, the second time obeyed; outside the main thread it notes none."""

    def __init__(self):
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in ASKING}
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:  # a signal of the last moment
            self.obey()

    def _note(self, number: int, _: Any) -> None:
        if self.number is not None:
            self.obey()
        self.number = number

    def is_asked(self, placement: Placement, agree: bool) -> bool:
        """Whether to stop; of several processes all do where one was asked, at the next step at which they `agree` on it."""
        if jax.process_count() > 1:
            if not agree:
                return False
            self.number = placement.agreed(self.number)
        return self.number is not None

    def obey(self) -> None:
        """Leave as the signal asks, if one came: KeyboardInterrupt for Ctrl-C, exit code 143 for SIGTERM."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            raise SystemExit(128 + self.number)
