"""Where fetched shards are kept, and how many of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bertdata.errors import ConfigError

__all__ = ["CacheOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheOptions:
    """Where fetched shards are kept.

    Attributes:
        folder: The folder; None for $BERTDATA_CACHE, or else ~/.cache/bertdata.
        max_bytes: What it may hold at most; None for nine tenths of what it holds and what is free on its disk.
        timeout: Seconds without a byte after which a connection is given up.
    """

    folder: Path | None = None
    max_bytes: int | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ConfigError(f"--cache-size is {self.max_bytes}; it must be at least 1")
        if not self.timeout > 0:
            raise ConfigError(f"the time-out is {self.timeout}; it must be more than 0")

    @property
    def path(self) -> Path:
        """The folder that is meant."""
        default = os.environ.get("BERTDATA_CACHE") or Path.home() / ".cache" / "bertdata"
        return Path(default if self.folder is None else self.folder).absolute()
