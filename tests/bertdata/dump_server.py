"""A server on loopback with the layout of Wikimedia's dumps, which can misbehave as real ones do."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.bertdata.loopback import LoopbackHandler, serve

SUFFIX = "pages-articles-multistream.xml.bz2"


@dataclass
class DumpServer:
    """What is served, what goes wrong, and what was asked for.

    Attributes:
        files: Content by path.
        failures: Statuses that the next requests for files of data get instead; 0 for a dropped connection.
        cut_after: Bytes after which the next responses break off, each used once.
        ignore_range: Answer a request for a part with the whole.
        corrupt: How many of the next responses have a wrong byte.
        retry_after: Value of that header in failures.
        requests: (path, value of the header Range) of each request.
        user_agents: What clients said they are.
        num_bytes: Bytes of data that were sent.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    ignore_range: bool = False
    without_length: bool = False
    corrupt: int = 0
    retry_after: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    user_agents: set[str] = field(default_factory=set)
    num_bytes: int = 0
    url: str = ""

    def add_dump(
        self,
        database: str,
        date: str,
        data: dict[str, bytes] | bytes,
        *,
        status: str = "done",
        root: str = "",
        with_status: bool = True,
        with_sums: bool = True,
    ) -> None:
        """Adds a dump: of one file, or of files by the end of their names."""
        if isinstance(data, bytes):
            data = {SUFFIX: data}
        names = {f"{database}-{date}-{suffix}": content for suffix, content in data.items()}
        folder = f"{root}/{database}/{date}/"
        for name, content in names.items():
            self.files[folder + name] = content
        facts = {
            name: {"size": len(content), "url": folder + name, "sha1": hashlib.sha1(content).hexdigest()}
            for name, content in names.items()
        }
        if with_status:
            jobs = {"articlesmultistreamdump": {"status": status, "files": facts}, "xmlstubsdump": {"status": "done"}}
            self.files[folder + "dumpstatus.json"] = json.dumps({"version": "0.8", "jobs": jobs}).encode()
        if with_sums and status == "done":
            lines = [f"{values['sha1']}  {name}" for name, values in facts.items()]
            self.files[f"{folder}{database}-{date}-sha1sums.txt"] = "\n".join(lines).encode()
        dates = {path.split("/")[-2] for path in self.files if path.startswith(f"{root}/{database}/2")}
        links = "".join(f'<a href="{date}/">{date}/</a>\n' for date in [*sorted(dates), "latest"])
        self.files[f"{root}/{database}/"] = f'<html><a href="../">../</a>\n{links}</html>'.encode()

    def ranges_of(self, suffix: str = SUFFIX) -> list[str | None]:
        """Ranges that were asked for of files whose names end so."""
        return [asked for path, asked in self.requests if path.endswith(suffix)]


def _handler(server: DumpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(LoopbackHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            server.user_agents.add(self.headers["User-Agent"])
            content = server.files.get(self.path)
            is_data = self.path.endswith(".bz2")
            if content is None:
                return self.send_error(404)
            if is_data and server.failures:
                status = server.failures.pop(0)
                if status == 0:
                    self.close_connection = True
                    return None
                self.send_response(status)
                self.send_header("Retry-After", server.retry_after)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            return self._send(content, asked if is_data else None)

        def _send(self, content: bytes, asked: str | None) -> None:
            start = 0 if asked is None or server.ignore_range else int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            body = content[start:]
            if server.corrupt and self.path.endswith(".bz2"):
                server.corrupt -= 1
                body = body[:-1] + bytes([body[-1] ^ 1])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if not server.without_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path.endswith(".bz2"):
                if server.cut_after:
                    body = body[: server.cut_after.pop(0)]
                server.num_bytes += len(body)
            self.wfile.write(body)
            self.close_connection = True
            return None

    return Handler


@contextmanager
def serve_dumps() -> Iterator[DumpServer]:
    """Runs a server on loopback while the context lasts."""
    server = DumpServer()
    with serve(_handler(server)) as address:
        server.url = f"http://{address}"
        yield server
