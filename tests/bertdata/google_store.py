"""Objects as Google's store keeps them: what its JSON API answers to who reads, writes, lists and deletes."""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse
import zlib
from dataclasses import dataclass, field

Answer = tuple[int, dict[str, str], bytes]

_JSON = {"Content-Type": "application/json"}
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PLACED = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


def part_of(content: bytes, asked: str | None) -> Answer:
    """Returns the part of a file that the header Range asks for."""
    if asked is None:
        return 200, {}, content
    match = _RANGE.fullmatch(asked)
    assert match
    start, stop = int(match[1]), int(match[2]) + 1 if match[2] else len(content)
    if start >= len(content):
        return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
    body = content[start:stop]
    return 206, {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{len(content)}"}, body


def _generation(content: bytes) -> str:
    """Returns what tells an object from one that had the same name before."""
    return str(zlib.crc32(content) + 1)


@dataclass
class GoogleStore:
    """A store.

    Attributes:
        files: Content of objects by /BUCKET/NAME.
        uploads: Path, and what has come of it, of uploads by their id; an object only once all has come.
    """

    files: dict[str, bytes]
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """Answers a request to [/download|/upload]/storage/v1/b/BUCKET/o/NAME."""
        path, _, query = target.partition("?")
        match = re.fullmatch(r"(?:/(?:down|up)load)?/storage/v1/b/([^/]+)(?:/(o)(?:/(.+))?)?", path)
        if match is None:
            return 404, _JSON, b"{}"
        bucket, has_objects, name = match[1], match[2], urllib.parse.unquote(match[3] or "")
        values = {key: found[0] for key, found in urllib.parse.parse_qs(query).items()}
        if method == "POST":
            assert values["uploadType"] == "resumable"
            number = str(next(self._numbers))
            self.uploads[number] = (f"/{bucket}/{values['name']}", b"")
            here = f"http://{headers['Host']}{path}?uploadType=resumable&upload_id={number}"
            return 200, {"Location": here}, b""
        if method == "PUT":
            return self._go_on(values["upload_id"], headers["Content-Range"], body)
        if not has_objects and any(key.startswith(f"/{bucket}/") for key in self.files):
            return 200, _JSON, json.dumps({"name": bucket, "id": bucket}).encode()
        if has_objects and not name:
            return self._list(bucket, values.get("prefix", ""))
        content = self.files.get(f"/{bucket}/{name}")
        if content is None or values.get("generation", _generation(content)) != _generation(content):
            return 404, _JSON, b'{"error": {"code": 404, "message": "not found"}}'
        if method == "DELETE":
            del self.files[f"/{bucket}/{name}"]
            return 204, {}, b""
        if values.get("alt") == "media":
            return part_of(content, headers.get("Range"))
        return 200, _JSON, json.dumps(self._facts(f"/{bucket}/{name}")).encode()

    def _go_on(self, number: str, placed: str, body: bytes) -> Answer:
        """Takes a part of an upload; the object is there once all is."""
        path, data = self.uploads[number]
        if number in self._ended:  # the answer that said so was lost
            return 200, _JSON, json.dumps(self._facts(path)).encode()
        match = _PLACED.fullmatch(placed)
        assert match
        if match[1] is not None:
            # What has come before may come again, where its answer was lost.
            assert int(match[1]) <= len(data)
            data = data[: int(match[1])] + body
        if match[3] == "*" or len(data) != int(match[3]):
            self.uploads[number] = (path, data)
            return 308, {"Range": f"bytes=0-{len(data) - 1}"} if data else {}, b""
        self.files[path] = data
        self._ended.add(number)
        return 200, _JSON, json.dumps(self._facts(path)).encode()

    def _facts(self, path: str) -> dict[str, str]:
        _, bucket, name = path.split("/", 2)
        content = self.files[path]
        # A time that tells one content from another.
        changed = f"2026-01-01T00:00:{zlib.crc32(content) % 60:02d}.000Z"
        facts = {"name": name, "bucket": bucket, "size": str(len(content)), "metageneration": "1"}
        facts["generation"] = _generation(content)
        return {"kind": "storage#object", "updated": changed, "timeCreated": changed, **facts}

    def _list(self, bucket: str, prefix: str) -> Answer:
        items = [self._facts(path) for path in sorted(self.files) if path.startswith(f"/{bucket}/{prefix}")]
        return 200, _JSON, json.dumps({"kind": "storage#objects", "items": items}).encode()
