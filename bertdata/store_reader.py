"""The process that reads object stores for another one. It imports nothing of this package, so it starts quickly.

`pyarrow`'s clients cannot be used after a fork (a child waits for ever for locks that threads of its parent held), hold
Python's lock during some requests, and keep a process from ending during others. In a process of its own, which can be
killed, none of that matters.

Requests are lines of JSON: {"path": ..., "position": ...}. An answer is frames of a kind, a length and so many bytes:

    R   it is ready; once, before the first request
    S   the object's size, in decimal
    D   bytes, from `position` on
    E   the end of the answer
    X   why it ends: {"error": name of the exception, "message": ..., "has_bucket": false where there is none}

The process ends with its input.
"""

from __future__ import annotations

import datetime
import json
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

FRAME = struct.Struct(">cI")

_GCS_RETRY_SECONDS = 2  # within the library, whose waits cannot be cut short; all further tries are the other process's
_GCS_READ_BYTES = 1 << 20


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


def read_s3(store: Any, path: str, position: int, *, piece_bytes: int) -> Iterator[bytes | bytearray | int]:
    """Yields the size of an object, then its bytes from `position` on; each piece is one request."""
    with store.open_input_file(path) as file:
        size = file.size()
        yield size
        while position < size:
            data = _read_whole(file, min(piece_bytes, size - position), position)
            yield data
            position += len(data)


def _read_whole(file: Any, num_bytes: int, position: int) -> bytearray:
    """Reads a range of an object.

    `pyarrow` takes an answer that is too short for whole, and gives whatever stood in memory for the rest. So the last
    byte is set before; where it has not changed, the range is read once more with another one.

    Raises:
        OSError: Too few bytes came.
    """
    for mark in (0x5A, 0xA5):
        data = bytearray(num_bytes)
        data[-1] = mark
        file.seek(position)
        if file.readinto(data) == num_bytes and data[-1] != mark:
            return data
    raise OSError(f"fewer than {num_bytes:,} bytes came from byte {position:,} on")


def read_gcs(store: Any, path: str, position: int) -> Iterator[bytes | bytearray | int]:
    """Yields the same from a stream, which starts with the first byte: files at places ask for all of it each time."""
    size = store.get_file_info(path).size
    if size is None:
        raise FileNotFoundError(f"there is no object {path}")
    yield size
    with store.open_input_stream(path) as stream:
        skipped = 0
        while data := stream.read(_GCS_READ_BYTES):
            if len(data) > position - skipped:
                yield data[max(0, position - skipped) :]
            skipped += len(data)


def _facts_about(error: Exception, store: Any, bucket: str) -> bytes:
    """Returns what is said about a request that failed; a bucket that is not there looks like a missing object."""
    import pyarrow.fs

    has_bucket = True
    if isinstance(error, FileNotFoundError):
        try:
            has_bucket = store.get_file_info(bucket).type != pyarrow.fs.FileType.NotFound
        except OSError:
            has_bucket = True  # it is not known
    return json.dumps({"error": type(error).__name__, "message": str(error)[:1000], "has_bucket": has_bucket}).encode()


def _requests() -> Iterator[dict[str, Any]]:
    """Yields the requests; ends the process with its input, also in the middle of an answer."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield json.loads(waiting.get())


def main() -> None:
    """Answers requests for objects of one bucket, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the other process, and the input ends with it
    options = json.loads(sys.argv[1])
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer

    def send(kind: bytes, data: bytes | bytearray = b"") -> None:
        for part in (FRAME.pack(kind, len(data)), data):
            view = memoryview(part)
            while view:
                view = view[os.write(out, view) :]

    import pyarrow.fs  # noqa: F401 - it takes a while, for which nobody should think that a store is silent

    send(b"R")
    store = None
    for request in _requests():
        try:
            if options["scheme_of_store"] == "s3":
                store = store or open_s3(options["bucket"], options)
                parts = read_s3(store, **request, piece_bytes=options["piece_bytes"])
            else:
                store = store or open_gcs(options)
                parts = read_gcs(store, **request)
            for part in parts:
                if isinstance(part, int):
                    send(b"S", str(part).encode())
                else:
                    send(b"D", part)
            send(b"E")
        except Exception as error:
            send(b"X", _facts_about(error, store, options["bucket"]))


if __name__ == "__main__":
    main()
