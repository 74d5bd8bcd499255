"""SIGTERM, SIGINT and SIGUSR1 ask a run to stop; it does so after the current step, when it has saved.

A thread takes the signals, so that they are noted also while the main thread is busy in compiled code for minutes. The
main thread blocks them, and what it starts inherits that: a ^C at the terminal, or a scheduler that signals the whole
group, would else kill the compilers that torch.compile runs, and with them the step after which the run is to stop.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from typing import Any

__all__ = ["StopSignals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_SAME_KEY_SECONDS = 0.5
"""A SIGINT so soon after the first is the same ^C, passed on by a wrapper such as make or a launcher."""

_log = logging.getLogger(__name__)


class StopSignals:
    """While in use with `with`, notes that a run is asked to stop, and by what; a second ^C ends the process at once.

    SIGTERM and SIGUSR1 may come any number of times: schedulers repeat them. In a thread other than the main one it
    notes nothing, and signals act as usual.

    Attributes:
        reason: What has asked first, such as "SIGTERM"; None as long as nothing has.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._interrupted: float | None = None
        self._before: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Whether the run shall stop."""
        return self.reason is not None

    def ask(self, reason: str) -> None:
        """Asks the run to stop; another process does so too when a signal has come there."""
        if self.reason is None:
            self.reason = reason
            _log.info("%s received: stopping after this step", reason)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            self._finish()

    def _start(self) -> None:
        self._waking, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        # Handlers of Python's own are needed for the numbers to arrive at the socket; the thread does the rest.
        self._before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        self._thread = threading.Thread(target=self._receive, name="signals", daemon=True)
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._thread.start()

    def _finish(self) -> None:
        self._woken.send(b"\0")
        self._thread.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        signal.set_wakeup_fd(self._wakeup_before)
        # Last: a signal that came meanwhile is delivered here, and acts as it did before.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)
        self._waking.close()
        self._woken.close()

    def _receive(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        while True:
            for number in self._waking.recv(64):
                if number == 0:
                    return
                if number in _SIGNALS:
                    self._note(signal.Signals(number))

    def _note(self, number: signal.Signals) -> None:
        self.ask(number.name)
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
        elif now - self._interrupted > _SAME_KEY_SECONDS:
            # The main thread may be anywhere, so nothing is unwound: files are whole at any moment.
            os.write(2, b"\nended at once by a second SIGINT; the same command continues from the last checkpoint\n")
            os._exit(128 + signal.SIGINT)
