"""Signal handling for runs with checkpoints.

SIGTERM and Ctrl-C end such a run after the current step. The run saves a checkpoint and then exits as if the signal had ended
it at once.
"""

import signal
import threading
from typing import Any

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
            exit_after(self.signal_number)

    def _record(self, number: int, _: Any) -> None:
        if self.signal_number is not None:
            exit_after(self.signal_number)
        self.signal_number = number


def exit_after(number: int | None, message: str = "") -> None:
    """Exit as a signal would: KeyboardInterrupt for Ctrl-C, exit code 143 for SIGTERM, nothing for None.

    Args:
      number: The number of the signal.
      message: The text of the KeyboardInterrupt.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt(*[message] * bool(message))
    if number is not None:
        raise SystemExit(128 + number)
