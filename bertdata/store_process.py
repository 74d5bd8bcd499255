"""The process that talks to object stores for another one. It imports nothing of this package, so it starts quickly.

`pyarrow`'s clients cannot be used after a fork (a child waits for ever for locks that threads of its parent held), hold
Python's lock during some requests, and keep a process from ending during others. In a process of its own, which can be
killed, none of that matters. And an object that is being written when its stream is not closed is never published, so
on any failure of an upload this process simply ends.

A request is a line of JSON, {"do": ..., ...}:

    stream  path, position               S, then D: the object from `position` to its end
    parts   parts: [[path, start, stop]], clip, keep
                                         for each part F, then D: its bytes; fewer where `clip` and the object ends
                                         before; so many objects as `keep` says stay open for the next requests
    facts   path                         F
    list    path                         D: of all objects below a folder, a line [path, bytes, time] each
    put     path, source                 P from time to time: uploads a local file
    put     path, num_bytes              the same, of so many bytes that follow the line
    delete  paths                        objects; what is not there is passed over
    clear   path                         everything below a folder

An answer is frames of a kind, a length and so many bytes:

    R   it is ready; once, before the first request
    S   the object's size, in decimal
    F   facts about an object: {"size": ..., "modified": nanoseconds, "etag": ..., "num_bytes": of the part}
    D   bytes
    P   it goes on
    E   the end of the answer
    X   why it ends: {"error": name of the exception, "message": ..., "has_bucket": false where there is none}

The process ends with its input.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FRAME = struct.Struct(">cI")

_GCS_RETRY_SECONDS = 2  # within the library, whose waits cannot be cut short; all further tries are the other process's


def open_s3(bucket: str, options: dict[str, Any]) -> Any:
    """Returns the file system of a bucket in S3."""
    import pyarrow.fs

    endpoint = options.get("endpoint_override") or os.environ.get(
        "AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", "")
    )
    scheme, _, host = endpoint.rpartition("://")
    region = options.get("region")
    if region is None:
        # Stores of others mostly do not look at it; Amazon's has to be asked where the bucket is.
        region = "us-east-1" if host else pyarrow.fs.resolve_s3_region(bucket)
    return pyarrow.fs.S3FileSystem(
        anonymous=options.get("anonymous") == "true",
        region=region,
        scheme=options.get("scheme") or scheme or "https",
        endpoint_override=host.rstrip("/") or None,
        request_timeout=options["timeout"],
        connect_timeout=min(options["timeout"], 10.0),
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),  # all further tries are ours
        allow_delayed_open=True,  # a small object is one request then
    )


def open_gcs(options: dict[str, Any]) -> Any:
    """Returns the file system of Google Cloud Storage."""
    import pyarrow.fs

    return pyarrow.fs.GcsFileSystem(
        anonymous=options.get("anonymous") == "true",
        scheme=options.get("scheme"),
        endpoint_override=options.get("endpoint_override"),
        retry_time_limit=datetime.timedelta(seconds=_GCS_RETRY_SECONDS),
    )


def _facts_about(error: Exception, store: Any, bucket: str, *, is_known: bool) -> bytes:
    """Returns what is said about a request that failed; a bucket that is not there looks like a missing object."""
    import pyarrow.fs

    has_bucket = True
    if isinstance(error, FileNotFoundError) and not is_known:
        try:
            has_bucket = store.get_file_info(bucket).type != pyarrow.fs.FileType.NotFound
        except OSError:
            has_bucket = True  # it is not known
    return json.dumps({"error": type(error).__name__, "message": str(error)[:1000], "has_bucket": has_bucket}).encode()


def _load_operations() -> ModuleType:
    """Loads the module beside this one by its file, since importing it would import the package."""
    path = Path(__file__).with_name("store_operations.py")
    spec = importlib.util.spec_from_file_location("store_operations", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _requests() -> Iterator[dict[str, Any]]:
    """Yields the requests; ends the process with its input, also in the middle of an answer."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if "num_bytes" in request:
                num_bytes = request.pop("num_bytes")
                request["data"] = sys.stdin.buffer.read(num_bytes)
                if len(request["data"]) != num_bytes:
                    break
            waiting.put(request)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield waiting.get()


def main() -> None:
    """Answers requests for objects of one bucket, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the other process, and the input ends with it
    options = json.loads(sys.argv[1])
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer

    def send(kind: bytes, data: Any = b"") -> None:
        if isinstance(data, dict):
            data = json.dumps(data).encode()
        for part in (FRAME.pack(kind, len(data)), data):
            view = memoryview(part)
            while view:
                view = view[os.write(out, view) :]

    import pyarrow.fs  # noqa: F401 - it takes a while, for which nobody should think that a store is silent

    send(b"R")
    store: Any = None
    is_known = False
    for request in _requests():
        is_put = request["do"] == "put"
        try:
            if store is None:
                is_s3 = options["scheme_of_store"] == "s3"
                store = open_s3(options["bucket"], options) if is_s3 else open_gcs(options)
                operations = _load_operations().Operations(store, piece_bytes=options["piece_bytes"])
            for kind, data in operations.iter_answers(**request):
                send(kind, data)
            send(b"E")
            is_known = True  # there is such a bucket
        except Exception as error:
            send(b"X", _facts_about(error, store, options["bucket"], is_known=is_known))
            if is_put:
                os._exit(1)  # without closing what is written to, which would publish half an object


if __name__ == "__main__":
    main()
