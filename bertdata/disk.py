"""Whether the disk has room for a build, asked before it starts: an error where it surely has not, else a warning."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from bertdata.config import BuildOptions
from bertdata.costs import InputCosts, expected_disk
from bertdata.errors import OutputError
from bertdata.splits import Split

__all__ = ["check_disk", "format_bytes", "free_bytes"]

_LOG = logging.getLogger(__name__)

_MANY_CHARS = 100


def free_bytes(out: Path) -> int:
    """Returns how many bytes a folder's disk has free for this user; the folder need not be there."""
    folder = out.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _bytes_there(out: Path) -> int:
    """Returns the bytes of what a build has written to its folder already, or of another one that it replaces."""
    total = 0
    for path in [*out.rglob(".work/**/*"), *out.rglob("*.tar")]:
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a build that runs has removed it; the lock, taken next, refuses this one
            continue
    return total


def check_disk(out: Path, *, splits: Iterable[Split], options: BuildOptions) -> None:
    """Checks that a build may fit on the disk of its output, and warns where it likely does not.

    The estimate goes by the input's bytes and formats alone, which takes no time and is rough: `--dry-run` measures.

    Args:
        out: The output folder, there or not.
        splits: The input.
        options: What is built.

    Raises:
        OutputError: The disk is too small even for the least that such an input can need.
    """
    need = expected_disk(InputCosts.of(splits), options=options)
    drops = options.read.filter is not None or options.read.min_document_chars > _MANY_CHARS
    least = 0 if drops else need.least
    room = free_bytes(out)
    if room >= need.usual:
        return
    room += _bytes_there(out)
    if room >= need.usual:
        return
    what = f"about {format_bytes(need.usual)}, for the tokens of all documents in the work folder and for the shards"
    remedy = "bertdata build --dry-run with the same options measures what it needs"
    if room < least:
        raise OutputError(
            f"not enough disk for {out}: {format_bytes(room)} are free, and this build needs at least "
            f"{format_bytes(least)}, likely {what}. Give --out on another disk, or lower --num-mask-sets or "
            f"--dupe-factor; {remedy}."
        )
    _LOG.warning(
        "%s are free on the disk of %s, and this build likely needs %s; %s", format_bytes(room), out, what, remedy
    )


def format_bytes(num_bytes: float) -> str:
    """Returns a number of bytes in the unit in which it is short: 512 B, 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.95:
            return f"{num_bytes:,.1f} {unit}" if unit != "B" else f"{num_bytes:,.0f} B"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
