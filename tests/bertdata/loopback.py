"""What the servers of the tests have in common: HTTP/1.1 on loopback, said nothing of, and answers that may break off."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers requests; those that are derived from it say how."""

    protocol_version = "HTTP/1.1"

    def send(self, status: int, headers: Iterable[tuple[str, str]], body: bytes, *, limit: int | None = None) -> None:
        """Sends an answer, or the first `limit` bytes of its body and then the end of the connection."""
        headers = list(headers)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204 and not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:limit])
        if limit is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away in the middle; what they got, or what is in the store then, is what tests look at."""


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler], *, released: threading.Event | None = None) -> Iterator[str]:
    """Runs a server on loopback while the context lasts.

    Args:
        handler: What answers.
        released: Set at the end, for those that wait.

    Yields:
        Its host:port.
    """
    with _Quiet(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{running.server_port}"
        finally:
            if released is not None:
                released.set()
            running.shutdown()
            thread.join()
