"""The remaining time of a build, from what its stages are expected to cost and the speeds seen in this run.

    remaining = what is left of the present stage at its own speed
              + what later stages are expected to cost, at the speed of all stages so far

Speeds are seconds per expected second of one core, so a stage that has not begun is neither free nor unknown, and the
remaining time does not jump where one begins: at first it is told from the stages before. How much text there is in a
byte of input is seen while tokenizing.
"""

from __future__ import annotations

from collections.abc import Iterable

from bertdata.build_state import Snapshot
from bertdata.config import BuildOptions
from bertdata.costs import PARALLEL, STAGES, InputCosts, expected_seconds
from bertdata.splits import Split

__all__ = ["RemainingTime"]

_MIN_SECONDS = 3.0  # of a first stage before anything is said
_MIN_SHARE = 0.01  # of it
_PRIOR_SHARE = 0.1  # of a stage, for which the speed before it counts
_PRIOR_TEXT = 0.05  # of the input, for which as much text as expected counts


class RemainingTime:
    """Estimates the remaining time; fed with snapshots of a build in the order of time.

    Args:
        splits: The input.
        options: What is built.
    """

    def __init__(self, splits: Iterable[Split], *, options: BuildOptions) -> None:
        self._costs = InputCosts.of(splits)
        self._options = options
        self._seconds = expected_seconds(self._costs, options=options)
        self._spent = dict.fromkeys(STAGES, 0.0)
        self._found: dict[str, float] | None = None
        self._shares = dict.fromkeys(STAGES, 0.0)
        self._last: float | None = None
        self._done = 0.0

    def update(self, snapshot: Snapshot, *, now: float, num_workers: int) -> None:
        """Takes note of how far the build is.

        Args:
            snapshot: How far it is.
            now: Seconds, by any clock.
            num_workers: How many processes work.
        """
        self._num_workers = max(1, num_workers)
        if self._found is None:
            self._found = dict(snapshot.shares)
        if snapshot.tokens:
            share = snapshot.tokenized_bytes / snapshot.input_bytes
            found = snapshot.tokens / self._costs.tokens  # of what is expected of the whole input
            scale = (_PRIOR_TEXT + found) / (_PRIOR_TEXT + share)
            self._seconds = expected_seconds(self._costs, options=self._options, text_scale=scale)
        started = snapshot.shares.get(snapshot.stage, 0.0) > self._found.get(snapshot.stage, 0.0)
        if self._last is not None and snapshot.stage in STAGES and (started or snapshot.stage == "vocabulary"):
            self._spent[snapshot.stage] += now - self._last
        self._last = now
        self._stage = snapshot.stage
        self._shares = {stage: max(share, self._shares[stage]) for stage, share in snapshot.shares.items()}
        total = sum(self._seconds.values())
        self._done = max(self._done, sum(self._shares[stage] * self._seconds[stage] for stage in STAGES) / total)

    @property
    def share_done(self) -> float:
        """The part of the whole build that is done, by what its stages are expected to cost; from 0 to 1."""
        return self._done

    def share_per_second(self) -> float:
        """Returns which part of the present stage is done in a second, in this run; 0 where that is not known."""
        spent = self._spent.get(self._stage, 0.0)
        return self._new_share(self._stage) / spent if spent >= 1.0 else 0.0

    def seconds(self) -> float | None:
        """Returns the remaining seconds; None while there is nothing to tell them from."""
        pooled = self._pooled_speed()
        if self._stage == "finishing":
            return 0.0
        if pooled is None:
            return None
        remaining = 0.0
        for stage in STAGES:
            cost = self._seconds[stage]
            if stage in PARALLEL:
                remaining += (1 - self._shares[stage]) * cost * self._speed(stage, pooled)
            elif not self._shares[stage]:
                alone = cost * pooled * self._num_workers
                remaining += max(alone - self._spent[stage], 0.05 * alone)
        return remaining

    def _new_share(self, stage: str) -> float:
        return self._shares.get(stage, 0.0) - (self._found or {}).get(stage, 0.0)

    def _seen(self) -> list[str]:
        """Returns the stages that workers share and that this run has had something to do in."""
        return [name for name in STAGES if name in PARALLEL and self._new_share(name) > 0 and self._seconds[name] > 0]

    def _pooled_speed(self) -> float | None:
        """Returns the speed over all stages that workers share, as far as it is known."""
        seen = self._seen()
        spent = sum(self._spent[stage] for stage in seen)
        done = sum(self._new_share(stage) * self._seconds[stage] for stage in seen)
        if spent < _MIN_SECONDS or not any(self._new_share(stage) >= _MIN_SHARE for stage in seen):
            return None
        return spent / done

    def _speed(self, stage: str, pooled: float) -> float:
        """Returns a stage's own speed; at its beginning mostly that of the stages before it."""
        done = self._new_share(stage) * self._seconds[stage]
        prior = _PRIOR_SHARE * self._seconds[stage]
        others = [other for other in self._seen() if other != stage]
        if not done or not others:
            return pooled
        before = sum(self._spent[other] for other in others)
        before /= sum(self._new_share(other) * self._seconds[other] for other in others)
        return (self._spent[stage] + prior * before) / (done + prior)
