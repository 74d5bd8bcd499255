"""A server on loopback that serves files, speaks for S3 or Google's store, and misbehaves as real ones do."""

from __future__ import annotations

import functools
import http.client
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.bertdata.google_store import Answer, GoogleStore, part_of
from tests.bertdata.loopback import LoopbackHandler, serve


@dataclass
class ShardServer:
    """What is served, what goes wrong, and what was asked for.

    Attributes:
        answer: Returns status, headers and body for (method, path with query, headers), and the body if one came.
        files: Content by path, for `answer_files` and `answer_gcs`.
        faults: What happens to the next requests for data: a status such as "503"; "drop" for no answer; "stall" for
            none either, but for ever; "cut:N" and "stall:N" after N bytes; "short:N" for a body of N bytes that says so;
            "flip:N" for a wrong bit in byte N; "lost" for no answer, but all is done; "" for nothing. "cut:N" of what is
            sent to here is the end of the connection after N bytes of it.
        is_data: Whether a request is one for data, by method and path.
        retry_after: Value of that header in failures.
        ignore_range: Answer requests for a part with the whole.
        requests: (method, path without query, header Range) of each request.
        on_request: Called with method and path before each answer.
    """

    answer: Callable[..., Answer] | None = None
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
        return (
            (404, {}, b"") if content is None else part_of(content, None if self.ignore_range else headers.get("Range"))
        )

    def answer_gcs(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """Answers as Google's JSON API does."""
        return self.google.answer(method, target, headers, body)

    @functools.cached_property
    def google(self) -> GoogleStore:
        """The objects in `files` as Google's store keeps them."""
        return GoogleStore(self.files)


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
    class Handler(LoopbackHandler):
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
            num_bytes = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(min(int(where), num_bytes) if kind == "cut" and num_bytes else num_bytes)
            if len(body) != num_bytes:
                self.close_connection = True
                return
            if kind.isdigit():
                self.send(int(kind), [("Retry-After", server.retry_after)], b"")
                return
            assert server.answer is not None
            headers = {name.title(): value for name, value in self.headers.items()}
            status, headers, body = server.answer(self.command, self.path, headers, *([body] if num_bytes else []))
            if kind == "lost":
                self.close_connection = True
                return
            number = min(int(where), len(body)) if where else 0
            if kind == "flip" and body:
                number %= len(body)
                body = body[:number] + bytes([body[number] ^ 4]) + body[number + 1 :]
            if kind == "short":
                body = body[:number]
            self.send(status, headers.items(), body, limit=number if kind in ("cut", "stall") else None)
            if kind == "stall":
                self.wfile.flush()
                server.released.wait()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    return Handler


@contextmanager
def serve_shards() -> Iterator[ShardServer]:
    """Runs a server on loopback while the context lasts."""
    server = ShardServer()
    server.answer = server.answer_files
    with serve(_handler(server), released=server.released) as server.address:
        yield server
