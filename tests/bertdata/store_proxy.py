"""A way to an object store on loopback on which requests of all kinds fail as they do on real ones."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.bertdata.loopback import LoopbackHandler, serve


@dataclass
class StoreProxy:
    """What goes wrong on the way, and what was asked for.

    Attributes:
        fault: Returns what happens to a request, by its method and target: "503" and the like instead of passing it on;
            "lost" where the answer is lost, though it was passed on; "drop" where it is not passed on; "cut:N" after N
            bytes of the answer; "short:N" for an answer of N bytes that says so; "" for nothing.
        requests: (method, target) of each request.
        stalled: Set when a request came that meets "stall"; it is never answered.
    """

    fault: Callable[[str, str], str] = lambda _method, _target: ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    address: str = ""  # host:port

    def count(self, method: str, part: str = "") -> int:
        """Returns how many requests of a method had `part` in their target."""
        return sum(used == method and part in target for used, target in self.requests)


def _handler(proxy: StoreProxy, moto: str) -> type[BaseHTTPRequestHandler]:
    class Handler(LoopbackHandler):
        def do_GET(self) -> None:
            body = self._body()
            proxy.requests.append((self.command, self.path))
            kind, _, where = proxy.fault(self.command, self.path).partition(":")
            if kind in ("drop", "stall"):
                if kind == "stall":
                    proxy.stalled.set()
                    proxy.released.wait()
                self.close_connection = True
                return
            if kind.isdigit():
                self.send(int(kind), [], b"")
                return
            status, headers, answer = self._pass_on(body)
            if kind == "lost":
                self.close_connection = True
            elif kind == "short":
                self.send(status, [(k, v) for k, v in headers if k.lower() != "content-length"], answer[: int(where)])
            else:
                self.send(status, headers, answer, limit=int(where) if kind == "cut" else None)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def _body(self) -> bytes:
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                data = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data
            num_bytes = int(self.headers.get("Content-Length", 0))
            data = self.rfile.read(num_bytes)
            if len(data) != num_bytes:
                raise ConnectionError("the client went away")
            return data

        def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(moto, timeout=20)
            try:
                left_out = ("connection", "content-length", "transfer-encoding", "expect")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
                connection.request(self.command, self.path, body=body, headers={**headers, "Connection": "close"})
                response = connection.getresponse()
                passed = [
                    (name, value)
                    for name, value in response.headers.items()
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server")
                ]
                return response.status, passed, response.read()
            finally:
                connection.close()

    return Handler


@contextmanager
def serve_proxy(moto: str) -> Iterator[StoreProxy]:
    """Runs a proxy to moto's server on loopback while the context lasts."""
    proxy = StoreProxy()
    with serve(_handler(proxy, moto), released=proxy.released) as proxy.address:
        yield proxy
