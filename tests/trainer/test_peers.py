"""The watch, with a store that is a dictionary: the test plays the other process."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import trainer.peers
from bertdata.errors import TrainingError
from trainer.peers import Peers, PeerTimes, meet
from trainer.signals import StopSignals

BEAT = 0.02

# A thread that would end its process ends by SystemExit instead.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class FakeStore:
    """As much of a store as the watch uses."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.is_closed = False
        self.on_read: Callable[[], None] = lambda: None
        self.lock = threading.RLock()

    def _use(self) -> None:
        if self.is_closed:
            raise RuntimeError("Broken pipe")

    def set(self, key: str, value: str) -> None:
        with self.lock:
            self._use()
            self.values[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        self._use()
        return all(key in self.values for key in keys)

    def compare_set(self, key: str, expected: str, value: str) -> bytes:
        with self.lock:
            self._use()
            if self.values.get(key, b"") == expected.encode():
                self.values[key] = value.encode()
            return self.values[key]

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self._use()
        self.on_read()
        return [self.values[key] for key in keys]


class Watch:
    """A watch of two processes: the one under test, and the test."""

    def __init__(self, *, rank: int = 0, store_rank: int | None = 0) -> None:
        self.store, self.stop = FakeStore(), StopSignals()
        self.count = 0
        self.exited = threading.Event()
        for number in (0, 1):
            self.store.set(f"peer/{number}", json.dumps([0, "runs", ""]))
        self.other = 1 - rank
        self.peers = Peers(
            self.store,  # type: ignore[arg-type]
            rank=rank,
            names=["rank 0 (here)", "rank 1 (there)"],
            stop=self.stop,
            store_name="rank 0 (here), where the processes met,",
            store_rank=store_rank,
        )

    def say(self, state: str, text: str = "") -> None:
        self.count += 1
        self.store.set(f"peer/{self.other}", json.dumps([self.count, state, text]))

    def read(self) -> tuple[int, str, str]:
        count, state, text = json.loads(self.store.values[f"peer/{1 - self.other}"])
        return count, state, text

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = threading.Event()
        for _ in range(1000):
            if condition():
                return
            until.wait(0.01)
        raise AssertionError("it has not come")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Watch]]:
    """Returns a function that starts a watch, the process of which does not really exit."""
    watches: list[Watch] = []
    times = PeerTimes(
        beat_seconds=BEAT,
        silent_seconds=30 * BEAT,
        stopping_seconds=10 * BEAT,
        yield_seconds=5 * BEAT,
        farewell_seconds=20 * BEAT,
    )
    monkeypatch.setattr(trainer.peers, "TIMES", times)

    def leave(code: int) -> None:
        assert code == 1
        watches[-1].exited.set()
        watches[-1].peers._is_over.set()
        raise SystemExit  # which ends the thread silently

    monkeypatch.setattr(os, "_exit", leave)

    def begin(**options: Any) -> Watch:
        watches.append(Watch(**options))
        watches[-1].peers.__enter__()
        return watches[-1]

    yield begin
    for watch in watches:
        watch.peers._is_over.set()


def test_silent_process_ends_the_others_with_its_name(
    start: Callable[..., Watch], capfd: pytest.CaptureFixture[str]
) -> None:
    watch = start()
    assert watch.exited.wait(30)
    error = capfd.readouterr().err
    assert "error: rank 1 (there) is gone: nothing was heard of it for" in error
    assert "the same command continues the run" in error
    assert watch.read()[1] == "ended"


def test_beating_process_is_left_alone(start: Callable[..., Watch], capfd: pytest.CaptureFixture[str]) -> None:
    watch = start()
    watch.store.on_read = lambda: watch.say("runs")  # one line for each round
    watch.wait_for(lambda: watch.read()[0] > 60)  # twice as long as a silence may last
    assert not watch.exited.is_set()
    assert capfd.readouterr().err == ""


def test_limit_is_lower_where_the_run_is_asked_to_stop(start: Callable[..., Watch]) -> None:
    watch = start()
    watch.stop.ask("SIGTERM")
    assert watch.exited.wait(30)
    assert watch.read()[0] < 30 / 2
    assert watch.read()[1] == "ended"


def test_own_suspension_blames_nobody(start: Callable[..., Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    leap, clock = [0.0], trainer.peers.time.monotonic
    monkeypatch.setattr(trainer.peers.time, "monotonic", lambda: clock() + leap[0])
    watch = start()
    watch.wait_for(lambda: watch.read()[0] > 2)
    for _ in range(5):
        leap[0] += 1000.0
        watch.say("runs")
        before = watch.read()[0]
        watch.wait_for(lambda before=before: watch.read()[0] > before + 2)  # type: ignore[misc]
    assert not watch.exited.is_set()


def test_wish_to_stop_is_told_and_heard(start: Callable[..., Watch]) -> None:
    watch = start()
    watch.store.on_read = lambda: watch.say("runs")
    watch.stop.ask("SIGTERM")
    watch.wait_for(lambda: watch.read()[1:] == ("stops", "SIGTERM"))
    other = start()
    other.store.on_read = lambda: other.say("stops", "SIGUSR1")
    other.wait_for(lambda: other.stop.is_asked)
    assert other.stop.reason == "SIGUSR1 at rank 1 (there)"


def test_failed_process_ends_the_others_silently(
    start: Callable[..., Watch], capfd: pytest.CaptureFixture[str]
) -> None:
    watch = start()
    watch.say("failed")
    assert watch.exited.wait(30)
    assert capfd.readouterr().err == ""


def test_process_that_said_goodbye_is_not_missed(start: Callable[..., Watch]) -> None:
    watch = start()
    watch.say("bye")
    watch.wait_for(lambda: watch.read()[0] > 60)
    assert not watch.exited.is_set()


@pytest.mark.parametrize(("state", "message"), [("runs", "where the processes met, is gone"), ("bye", "")])
def test_store_that_closes_is_an_end_unless_its_process_said_goodbye(
    start: Callable[..., Watch], capfd: pytest.CaptureFixture[str], state: str, message: str
) -> None:
    watch = start(rank=1)
    watch.say(state)
    count = watch.read()[0]
    watch.wait_for(lambda: watch.read()[0] > count + 2)
    watch.store.is_closed = True
    watch.peers._threads[0].join(30)
    assert watch.exited.is_set() == bool(message)
    assert message in capfd.readouterr().err


def test_store_that_does_not_answer_is_an_end(start: Callable[..., Watch], capfd: pytest.CaptureFixture[str]) -> None:
    watch, release = start(rank=1), threading.Event()
    watch.store.on_read = lambda: release.wait(60) and None
    assert watch.exited.wait(30)
    release.set()
    assert "rank 0 (here), where the processes met, has not answered for" in capfd.readouterr().err


def test_only_one_of_those_that_fail_together_says_why(start: Callable[..., Watch]) -> None:
    first = start(rank=0)
    assert first.peers.fail(is_broken_connection=False)
    assert first.read()[1] == "failed"
    second = start(rank=1)
    second.store.set("speaker", "0")
    assert not second.peers.fail(is_broken_connection=False)
    third = start(rank=1)  # the first process knows nothing of it
    assert third.peers.fail(is_broken_connection=False)


def test_broken_connection_waits_for_its_cause(start: Callable[..., Watch], capfd: pytest.CaptureFixture[str]) -> None:
    watch = start()
    threading.Thread(target=watch.peers.fail, kwargs={"is_broken_connection": True}, daemon=True).start()
    assert watch.exited.wait(30)
    assert watch.read()[0] < 30
    assert "error: rank 1 (there) is gone" in capfd.readouterr().err


def test_first_process_stays_until_all_have_said_goodbye(start: Callable[..., Watch]) -> None:
    watch = start()
    watch.store.on_read = lambda: watch.say("runs" if watch.count < 10 else "bye")
    watch.peers.__exit__()
    assert watch.count >= 10
    assert watch.read()[1] == "bye"


def test_meeting_names_who_is_missing() -> None:
    store = FakeStore()
    with pytest.raises(TrainingError, match="of 3 processes, those of rank 1, 2 have not come"):
        meet(store, rank=0, size=3, name="rank 0", timeout_seconds=0.0)  # type: ignore[arg-type]
    store.set("failed", "")
    with pytest.raises(SystemExit):
        meet(store, rank=0, size=3, name="rank 0", timeout_seconds=60.0)  # type: ignore[arg-type]


def test_meeting_names_who_came_and_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.peers, "TIMES", PeerTimes(silent_seconds=0.1))
    store = FakeStore()
    store.set("peer/1", json.dumps([0, "runs", "rank 1 (there)"]))
    with pytest.raises(TrainingError, match=r"rank 1 \(there\) came to where the processes meet, and is gone"):
        meet(store, rank=0, size=2, name="rank 0", timeout_seconds=60.0)  # type: ignore[arg-type]


def test_meeting_gives_the_names_of_all() -> None:
    store, found = FakeStore(), {}

    def come(rank: int) -> None:
        found[rank] = meet(store, rank=rank, size=3, name=f"rank {rank}", timeout_seconds=60.0)  # type: ignore[arg-type]

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [["rank 0", "rank 1", "rank 2"]] * 3
