"""Reading in tests: a file to documents, counts and rejects, split by split."""

from collections import Counter
from pathlib import Path
from typing import Any

from bertdata.config import ReadOptions
from bertdata.documents import Document, Reject
from bertdata.readers import iter_documents
from bertdata.splits import plan_splits

KINDS = ("documents", "empty", "too_short")


def read(
    path: Path, *, split_bytes: int | None = None, **options: Any
) -> tuple[list[Document], Counter[str], list[Reject]]:
    """Reads a file, and checks that every record was booked once."""
    read_options = ReadOptions(**options)
    counts: Counter[str] = Counter()
    rejects: list[Reject] = []
    documents = [
        document
        for split in plan_splits([str(path)], options=read_options, split_bytes=split_bytes)
        for document in iter_documents(split, options=read_options, counts=counts, rejects=rejects)
    ]
    assert counts["documents"] == len(documents)
    dropped = sum(number for name, number in counts.items() if name.startswith(("rejected_", "filtered_")))
    assert counts["records"] == sum(counts[name] for name in KINDS) + dropped
    return documents, counts, rejects
