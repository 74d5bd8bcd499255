"""Bad records: counted by reason, the first kept, and an error when there are more than allowed."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from bertdata.config import ReadOptions
from bertdata.documents import Document, Reject
from bertdata.errors import ChangedInputError, InputError
from bertdata.meter import count
from bertdata.readers import iter_documents
from bertdata.splits import Split
from bertdata.storage import Folder

__all__ = ["REJECTS", "check_damage", "check_rejects", "iter_checked_documents", "keep_rejects", "write_rejects"]

_LOG = logging.getLogger(__name__)

REJECTS = "rejects.jsonl"
_MAX_KEPT = 20
_DAMAGED = "damaged_split"


def keep_rejects(kept: list[Reject], more: Iterable[Reject]) -> None:
    """Adds bad records to those that are kept: the first 20, and the first that is no damaged split."""
    for reject in more:
        is_first = reject.reason != _DAMAGED and all(other.reason == _DAMAGED for other in kept)
        if len(kept) < _MAX_KEPT or is_first:
            kept.append(reject)


def write_rejects(folder: Folder, rejects: list[Reject]) -> None:
    """Writes the first 20 bad records to `rejects.jsonl`, a JSON object per line."""
    lines = [json.dumps(dataclasses.asdict(reject), ensure_ascii=False) for reject in rejects[:_MAX_KEPT]]
    folder.write(REJECTS, ("\n".join(lines) + "\n").encode())


def check_rejects(counts: Counter[str], rejects: list[Reject], *, max_rejects: int, keep_in: Folder | None) -> None:
    """Ends the build when there are more bad records than allowed.

    Args:
        counts: What readers counted; bad records under names that start with "rejected_".
        rejects: The first of them.
        max_rejects: How many are allowed.
        keep_in: Folder for a file with the first of them when there are more; None for none.

    Raises:
        InputError: There are more; the message shows the first.
    """
    found = sum(count for name, count in counts.items() if name.startswith("rejected_"))
    if found > max_rejects:
        if keep_in is not None:
            write_rejects(keep_in, rejects)
        first = next(reject for reject in rejects if reject.reason != _DAMAGED)
        remedy = "Name the field of the text with --text-field" if first.reason == "missing_field" else "Mend them"
        raise InputError(
            f"{found} bad records, {max_rejects} allowed; the first: {first.path}, {first.where}: {first.reason} "
            f"({first.excerpt[:80]!r}). {remedy}, or allow more with --max-rejects."
        )


def check_damage(counts: Counter[str], rejects: list[Reject], *, skip_bad_splits: bool) -> None:
    """Ends the build when an earlier run of it has left out damaged splits, and that is not allowed any more.

    Args:
        counts: What readers counted.
        rejects: The first bad records, damaged splits among them.
        skip_bad_splits: Whether damaged splits are left out.

    Raises:
        InputError: One has been left out.
    """
    if counts["damaged_splits"] and not skip_bad_splits:
        first = next(reject for reject in rejects if reject.reason == _DAMAGED)
        raise InputError(
            f"{counts['damaged_splits']} damaged splits have been left out of this build, the first: {first.path} "
            f"({first.excerpt}). Give --skip-bad-splits again, or fetch the files again and build with --overwrite."
        )


def iter_checked_documents(
    portion: Sequence[Split],
    *,
    options: ReadOptions,
    counts: Counter[str],
    rejects: list[Reject],
    keep_in: Folder | None,
) -> Iterator[Document]:
    """Yields the documents of some splits, like `iter_documents`, and checks the rejects after each.

    With `skip_bad_splits`, damage ends a split and is counted as "damaged_splits".

    Raises:
        InputError: The file is damaged, or has more bad records than allowed.
    """
    for split in portion:
        try:
            for document in iter_documents(split, options=options, counts=counts, rejects=rejects):
                count(documents=1)
                yield document
        except ChangedInputError:
            raise
        except InputError as error:
            if not options.skip_bad_splits:
                raise InputError(f"{error}; --skip-bad-splits leaves out the rest of such a split") from error
            _LOG.warning("%s is damaged; the rest of it is left out: %s", split.name, error)
            counts["damaged_splits"] += 1
            rejects.append(Reject(path=split.path, where=split.name, reason=_DAMAGED, excerpt=str(error)[:200]))
        check_rejects(counts, rejects, max_rejects=options.max_rejects, keep_in=keep_in)
