"""A server on loopback that serves files, speaks for S3 or Google's store, and misbehaves as real ones do."""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], bytes]

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class ShardServer:
    """What is served, what goes wrong, and what was asked for.

    Attributes:
        answer: Returns status, headers and body for (method, path with query, headers).
        files: Content by path, for `answer_files` and `answer_gcs`.
        faults: What happens to the next requests for data: a status such as "503"; "drop" for no answer; "stall" for
            none either, but for ever; "cut:N" and "stall:N" after N bytes; "short:N" for a body of N bytes that says so;
            "flip:N" for a wrong bit in byte N; "" for nothing.
        is_data: Whether a request is one for data, by method and path.
        retry_after: Value of that header in failures.
        ignore_range: Answer requests for a part with the whole.
        requests: (method, path without query, header Range) of each request.
        on_request: Called with method and path before each answer.
    """

    answer: Callable[[str, str, dict[str, str]], Answer] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    is_data: Callable[[str, str], bool] = lambda method, path: method == "GET" and path.endswith(".tar")
    retry_after: str = ""
    ignore_range: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    on_request: Callable[[str, str], None] = lambda _method, _path: None
    address: str = ""  # host:port
    released: threading.Event = field(default_factory=threading.Event)

    def paths(self, suffix: str = ".tar", *, method: str = "GET") -> list[str]:
        """Paths that were asked for, and end so."""
        return [path for used, path, _ in self.requests if used == method and path.endswith(suffix)]

    def ranges(self, suffix: str = ".tar") -> list[str | None]:
        """Ranges that were asked for of files whose names end so."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith(suffix)]

    def answer_files(self, _method: str, target: str, headers: dict[str, str]) -> Answer:
        """Answers as a web server does."""
        content = self.files.get(urllib.parse.unquote(target.partition("?")[0]))
        return (404, {}, b"") if content is None else self._part(content, headers.get("Range"))

    def answer_gcs(self, _method: str, target: str, headers: dict[str, str]) -> Answer:
        """Answers as Google's JSON API does to who reads objects: /storage/v1/b/BUCKET/o/NAME."""
        path, _, query = target.partition("?")
        match = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(?:/o/(.+))?", path)
        bucket, name = (match[1], urllib.parse.unquote(match[2] or "")) if match else ("", "")
        content = self.files.get(f"/{bucket}/{name}")
        if match and not name and any(key.startswith(f"/{bucket}/") for key in self.files):
            return 200, {"Content-Type": "application/json"}, json.dumps({"name": bucket, "id": bucket}).encode()
        if listed := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            return self._list_gcs(listed[1], urllib.parse.parse_qs(query).get("prefix", [""])[0])
        if content is None:
            return 404, {}, b'{"error": {"code": 404, "message": "not found"}}'
        if "media" in urllib.parse.parse_qs(query).get("alt", []):
            return self._part(content, headers.get("Range"))
        return 200, {"Content-Type": "application/json"}, json.dumps(self._facts_gcs(bucket, name)).encode()

    def _facts_gcs(self, bucket: str, name: str) -> dict[str, str]:
        content = self.files[f"/{bucket}/{name}"]
        # A time that tells one content from another.
        changed = f"2026-01-01T00:00:{zlib.crc32(content) % 60:02d}.000Z"
        facts = {"name": name, "bucket": bucket, "size": str(len(content)), "generation": "1", "metageneration": "1"}
        return {"kind": "storage#object", "updated": changed, "timeCreated": changed, **facts}

    def _list_gcs(self, bucket: str, prefix: str) -> Answer:
        names = (path.removeprefix(f"/{bucket}/") for path in self.files if path.startswith(f"/{bucket}/{prefix}"))
        items = [self._facts_gcs(bucket, name) for name in sorted(names)]
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps({"kind": "storage#objects", "items": items}).encode(),
        )

    def _part(self, content: bytes, asked: str | None) -> Answer:
        if asked is None or self.ignore_range:
            return 200, {}, content
        match = _RANGE.fullmatch(asked)
        assert match
        start, stop = int(match[1]), int(match[2]) + 1 if match[2] else len(content)
        if start >= len(content):
            return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
        body = content[start:stop]
        return 206, {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{len(content)}"}, body


def passed_on_to(host: str, port: int) -> Callable[[str, str, dict[str, str]], Answer]:
    """Returns the function that answers as another server does."""

    def answer(method: str, target: str, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request(method, target, headers={**headers, "Connection": "close"})
            response = connection.getresponse()
            kept = {
                name: value
                for name, value in response.headers.items()
                if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server")
            }
            if method == "HEAD":
                kept["Content-Length"] = response.headers.get("Content-Length", "0")
            return response.status, kept, response.read()
        finally:
            connection.close()

    return answer


def _handler(server: ShardServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urllib.parse.unquote(self.path.partition("?")[0])
            server.requests.append((self.command, path, self.headers.get("Range")))
            server.on_request(self.command, path)
            is_data = server.is_data(self.command, self.path)
            kind, _, where = (server.faults.pop(0) if is_data and server.faults else "").partition(":")
            if kind == "drop" or (kind == "stall" and not where):
                if kind == "stall":
                    server.released.wait()
                self.close_connection = True
                return
            if kind.isdigit():
                self._send(int(kind), {"Retry-After": server.retry_after}, b"")
                return
            assert server.answer is not None
            headers = {name.title(): value for name, value in self.headers.items()}
            status, headers, body = server.answer(self.command, self.path, headers)
            number = min(int(where), len(body)) if where else 0
            if kind == "flip" and body:
                number %= len(body)
                body = body[:number] + bytes([body[number] ^ 4]) + body[number + 1 :]
            if kind == "short":
                body = body[:number]
            self._send(status, headers, body, limit=number if kind in ("cut", "stall") else None)
            if kind == "stall":
                self.wfile.flush()
                server.released.wait()

        do_HEAD = do_GET

        def _send(self, status: int, headers: dict[str, str], body: bytes, *, limit: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:limit])
            if limit is not None:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away in the middle; what they got is what tests look at."""


@contextmanager
def serve_shards() -> Iterator[ShardServer]:
    """Runs a server on loopback while the context lasts."""
    server = ShardServer()
    server.answer = server.answer_files
    with _Quiet(("127.0.0.1", 0), _handler(server)) as running:
        server.address = f"127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            running.shutdown()
            thread.join()
