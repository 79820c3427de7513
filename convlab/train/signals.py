"""Signal handling for runs with checkpoints.

SIGTERM and Ctrl-C end such a run after the current step. The run saves a checkpoint and then exits as if the signal had ended
it at once.
"""

import signal
import threading
from typing import Any

import jax

from convlab.train.mesh import Placement

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Context manager that records SIGTERM and Ctrl-C instead of exiting at once.

    A second signal exits at once. Outside the main thread it records nothing, as Python allows signal handlers only in the main
    thread.
    """

    def __init__(self):
        self.signal_number: int | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if kind is None:  # the signal arrived after the last check
            self.exit()

    def _record(self, number: int, _: Any) -> None:
        if self.signal_number is not None:
            self.exit()
        self.signal_number = number

    def is_requested(self, placement: Placement, synchronise: bool) -> bool:
        """Return True if the run should stop.

        Among several processes the request of one stops all. They exchange requests only at steps with `synchronise`.
        """
        if jax.process_count() > 1:
            if not synchronise:
                return False
            self.signal_number = placement.max_over_processes(self.signal_number)
        return self.signal_number is not None

    def exit(self) -> None:
        """Exit if a signal was recorded: KeyboardInterrupt for Ctrl-C, exit code 143 for SIGTERM."""
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal_number is not None:
            raise SystemExit(128 + self.signal_number)
