import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from trainer.signals import StopSignals

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function that waits until a signal has been noted."""
    event, note = threading.Event(), StopSignals._note

    def tell(self: StopSignals, number: signal.Signals) -> None:
        note(self, number)
        event.set()

    def wait() -> None:
        assert event.wait(timeout=30)
        event.clear()

    monkeypatch.setattr(StopSignals, "_note", tell)
    return wait


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_is_noted_and_all_is_left_as_it_was(number: signal.Signals, noted: Callable[[], None]) -> None:
    before = [signal.getsignal(one) for one in SIGNALS], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with StopSignals() as stop:
        assert not stop.is_asked
        os.kill(os.getpid(), number)
        noted()
        assert stop.reason == number.name
    assert ([signal.getsignal(one) for one in SIGNALS], signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before
    assert "signals" not in [thread.name for thread in threading.enumerate()]


def test_schedulers_may_repeat_their_signals(noted: Callable[[], None]) -> None:
    with StopSignals() as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            noted()
        assert stop.reason == "SIGUSR1"


def test_children_are_spared(noted: Callable[[], None]) -> None:
    # A compiler that torch.compile runs belongs to the group that a terminal or a scheduler signals.
    with StopSignals():
        with subprocess.Popen(["sh", "-c", "echo ready; read line"], stdin=-1, stdout=-1, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdout.readline()
            for number in SIGNALS:
                child.send_signal(number)
            child.communicate("go on\n")
        assert child.returncode == 0


def test_other_threads_note_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with StopSignals() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.is_asked))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


SCRIPT = """
import ctypes, logging, sys
from trainer.signals import StopSignals
logging.basicConfig(level=logging.INFO)
with StopSignals():
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(600)  # in compiled code, where no handler of Python's runs
"""


def test_second_interrupt_ends_at_once_wherever_the_main_thread_is() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):  # a wrapper passes the same ^C on
            process.send_signal(signal.SIGINT)
        assert "SIGINT received: stopping after this step" in process.stderr.readline()
        assert process.poll() is None
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
        assert process.returncode == 130
        assert "ended at once by a second SIGINT" in process.stderr.read()
