"""Hostile data sets: shards, indexes and manifests that say what they like, read by a process of little memory.

`python -m tests.bertdata.hostile fuzz FOLDER KIND,... FIRST STOP` draws damage to files of a data set, a case for
each number, and reads the data set after each; what came of them is printed as JSON. `... read PATH...` prints the error that
each data set or shard ends in.
"""

import copy
import dataclasses
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bertdata.blocks import iter_samples
from bertdata.config import BuildOptions
from bertdata.counting import count_block
from bertdata.data_set import DataSet, open_data_set
from bertdata.diagnostics import describe_label_guess
from bertdata.errors import ShardError
from bertdata.inspection import describe_sample, iter_shard_samples, sample_to_json
from bertdata.locating import find_document
from bertdata.masking import draw_masks
from bertdata.painting import Painter
from bertdata.shard_reading import iter_blocks
from bertdata.statistics import Statistics
from bertdata.summary import iter_warnings, summary_rows
from bertdata.verify import iter_problems
from tests.bertdata.damage import damage

SPARE_BYTES = 128 << 20
SECONDS = 20
INTS = (-(2**63), -1, 0, 1, 2, 3, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**60, 2**63 - 1)
JSON_VALUES = (
    *INTS, None, True, 2**64, 10**400, 0.5, math.nan, math.inf, "", "x", "\0", "\ud800", "../x", "/etc/passwd", "9" * 5000,
    "none", "uint32", "eval-00000-of-00001.tar", "0" * 64, [], {}, [[]], {"": {}}, [{}] * 3, ["x"],
)  # fmt: skip
SIZES = (
    b"77777777777\0",
    b"00000000000\0",
    b"00000000001\0",
    b"-0000000001\0",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"1_000\0",
)
SIZES += (b" 12345\0", bytes(12), b"\x80" + bytes(11))
DESCRS = ("|u1", "<u2", "<u4", "<u8", ">u2", "<i8", "|O", "<f4", "|V0", "<U9", "|b1", "<M8[s]")
SHAPES = (
    "()",
    "(0,)",
    "(1,)",
    "(-1,)",
    "(9999999999,)",
    "(0, 9999999999)",
    "(9999999999, 0)",
    "(4294967296, 4294967296)",
)
SHAPES += ("(" + "9" * 60 + ",)", "(1, 1, 1)", "(None,)", "(2**9,)", "(1.0,)", "(3 , )")


def edit_header(data: bytes, place: int, *, start: int, value: bytes) -> bytes:
    """Replaces a field of the tar header at `place`, and mends its checksum."""
    header = bytearray(data[place : place + 512])
    header[start : start + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


def edit_npy(data: bytes, place: int, text: str) -> bytes:
    """Replaces the text of the `.npy` header of the member at `place`, to the same length."""
    return data[: place + 522] + text.encode().ljust(117) + b"\n" + data[place + 640 :]


def members_of(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return archive.getmembers()


def index_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


class TooSlowError(Exception):
    pass


def _stop(number: int, frame: object) -> None:
    raise TooSlowError


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _use(data_set: DataSet) -> None:
    """Does with a data set what users do."""
    summary_rows(data_set)
    list(iter_warnings(data_set.manifest))
    options = BuildOptions.from_json(data_set.manifest.options)
    vocabulary = data_set.load_vocabulary()
    tokenizer, pairs = data_set.manifest.tokenizer, data_set.manifest.options["pairs"]
    empty = Statistics.empty(max_seq_length=pairs["max_seq_length"], vocab_size=tokenizer.vocab_size)
    describe_label_guess(data_set.load_statistics())
    find_document(data_set, 1)
    painter = Painter.of(data_set, width=80)
    for split in ("train", "eval"):
        blocks = data_set.blocks(split)
        for row in range(len(blocks)):
            block = data_set.read(blocks, row)
            assert len(list(iter_samples(block))) == block.num_samples
            draw_masks(block, options=options, vocabulary=vocabulary, sets=[0])
            empty + count_block(
                block, empty=empty, mask_token=tokenizer.roles["mask"], has_labels=pairs["next_sentence"] != "none"
            )
        for sample in iter_shard_samples(data_set, split=split, num_samples=1000) if len(blocks) else ():
            describe_sample(sample, painter=painter)
            sample_to_json(sample, painter=painter)


class Fuzz:
    """Damages a copy of a data set, and reads it."""

    def __init__(self, folder: Path, *, scratch: Path) -> None:
        self._folder = Path(shutil.copytree(folder, scratch / "copy"))
        self._data_set = open_data_set(self._folder)
        self._shard = self._folder / self._data_set.manifest.shards[0].name
        self._members = members_of(self._shard)
        self._foreign = [path.read_bytes() for path in sorted(self._folder.iterdir())]

    def run(self, kind: str, numbers: range) -> dict[str, Any]:
        """Returns how many cases were read, how many refused, and with which messages."""
        path = {"shard": self._shard, "index": self._folder / "index.arrow"}.get(kind, self._folder / f"{kind}.json")
        read = self._read_shard if kind == "shard" else self._read_data_set
        whole = path.read_bytes()
        outcomes: Counter[str] = Counter()
        messages: Counter[str] = Counter()
        signal.signal(signal.SIGALRM, _stop)
        for number in numbers:
            draw = random.Random(f"{kind} {number}")
            broken = getattr(self, f"_damage_{kind}")(whole, draw)
            path.write_bytes(broken)
            signal.alarm(SECONDS)
            try:
                is_found = bool(list(iter_problems(self._folder)))
                assert is_found or broken == whole or kind == "manifest"  # not all of which the shards can contradict
                read()
                outcomes["read" if broken != whole else "unchanged"] += 1
            except ShardError as error:
                outcomes["refused"] += 1
                messages[re.sub(r"[^a-zA-Z_ ]+", "", str(error).removeprefix(str(self._folder)))[:60]] += 1
            except BaseException as error:
                raise AssertionError(f"case {number} of {kind}") from error
            finally:
                signal.alarm(0)
        path.write_bytes(whole)
        return {"outcomes": outcomes, "messages": messages}

    def _read_data_set(self) -> None:
        _use(open_data_set(self._folder))

    def _read_shard(self) -> None:
        """Reads the shard without an index, and by one whose checksums know of the damage."""
        data, index = self._shard.read_bytes(), self._data_set.index
        crc32 = index.crc32.copy()
        for row in np.flatnonzero(index.shard == 0).tolist():
            crc32[row] = zlib.crc32(data[index.offset[row] : index.offset[row] + index.num_bytes[row]])
        errors = []
        for read in (
            self._read_alone,
            lambda: _use(dataclasses.replace(self._data_set, index=dataclasses.replace(index, crc32=crc32))),
        ):
            try:
                read()
            except ShardError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _read_alone(self) -> None:
        for block in iter_blocks(self._shard):
            assert len(list(iter_samples(block))) == block.num_samples

    def _splice(self, data: bytes, draw: random.Random) -> bytes:
        other = draw.choice(self._foreign)
        start, place = draw.randrange(len(other)), draw.randrange(len(data))
        if draw.random() < 0.5:
            start, place = start // 512 * 512, place // 512 * 512
        part = other[start : start + draw.choice([8, 64, 512, 4096])]
        return data[:place] + part + data[place + len(part) * draw.randrange(2) :]

    def _damage_bytes(self, data: bytes, draw: random.Random) -> bytes:
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            data = draw.choice([damage, self._splice])(data or b"x", draw)
        return data

    def _damage_shard(self, data: bytes, draw: random.Random) -> bytes:
        member = draw.choice(self._members)
        place, start, stop = member.offset, member.offset_data, member.offset_data + member.size
        kind = draw.choice(["bytes", "header", "npy", "value", "value", "value", "move"])
        if kind == "bytes":
            return self._damage_bytes(data, draw)
        if kind == "header":
            field = draw.choice([0, 100, 108, 116, 124, 124, 124, 136, 156, 157, 257, 265, 329, 345])
            values = (
                SIZES
                if field == 124
                else [bytes([draw.choice(b"01234567xgLKSAV\0")]), draw.randbytes(4), b"../x", b"0000"]
            )
            return edit_header(data, place, start=field, value=draw.choice(values))
        if kind == "npy":
            order, shape = draw.choice(["False", "False", "False", "True"]), draw.choice(SHAPES)
            return edit_npy(
                data, place, f"{{'descr': '{draw.choice(DESCRS)}', 'fortran_order': {order}, 'shape': {shape}, }}"
            )
        if kind == "value":
            width = draw.choice([1, 2, 4])
            spot = draw.randrange(start + 128, max(stop, start + 129))
            value = draw.choice([draw.randbytes(width), bytes(width), b"\xff" * width, bytes([1, 0, 0, 0])[:width]])
            return data[:spot] + value + data[spot + width :]
        other = draw.choice(self._members)
        length = draw.choice([512, 1024, 512 + -(-other.size // 512) * 512, 4096])
        part = data[other.offset : other.offset + length]
        return data[:place] + part + data[place + draw.choice([0, length]) :]

    def _damage_index(self, data: bytes, draw: random.Random) -> bytes:
        if draw.random() < 0.5:
            return self._damage_bytes(data, draw)
        table = pa.ipc.open_file(data).read_all()
        columns: dict[str, Any] = {name: table[name].to_pylist() for name in table.column_names}
        types = dict(zip(table.schema.names, table.schema.types, strict=True))
        name = draw.choice(table.column_names)
        kind = draw.choice(["value", "value", "value", "null", "type", "rows", "drop", "extra", "whole"])
        row = draw.randrange(table.num_rows)
        if kind == "value":
            low, high = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}.get(
                str(types[name]), (-(2**63), 2**63 - 1)
            )
            value = draw.choice([draw.choice(INTS), columns[name][row] + draw.choice([-512, -1, 1, 512])])
            columns[name][row] = min(max(value, low), high)
        elif kind == "null":
            columns[name][row] = None
        elif kind == "type":
            types[name] = draw.choice(
                [pa.int8(), pa.uint64(), pa.float64(), pa.string(), pa.list_(pa.int64()), pa.null()]
            )
            columns[name] = [None] * table.num_rows
        elif kind == "rows":
            order = [draw.randrange(table.num_rows) for _ in range(draw.randrange(2 * table.num_rows))]
            columns = {name: [values[row] for row in order] for name, values in columns.items()}
        elif kind == "drop":
            del columns[name]
        elif kind == "extra":
            columns["extra"], types["extra"] = columns[name], types[name]
        arrays = {name: pa.array(values, types[name]) for name, values in columns.items()}
        if kind == "whole" and draw.random() < 0.3:
            arrays[name] = arrays[name].dictionary_encode()
        return index_bytes(pa.table(arrays), compression=draw.choice([None, None, "zstd", "lz4"]))

    def _damage_json(self, data: bytes, draw: random.Random) -> bytes:
        if draw.random() < 0.2:
            return self._damage_bytes(data, draw)
        values = json.loads(data)
        for _ in range(draw.choice([1, 1, 1, 2])):
            places = list(_places(values))
            holder, key = draw.choice(places)
            change = draw.choice(["set", "set", "set", "delete", "copy", "swap"])
            other_holder, other_key = draw.choice(places)
            if change == "set":
                holder[key] = copy.deepcopy(draw.choice(JSON_VALUES))
            elif change == "delete":
                del holder[key]
            elif change == "copy":
                holder[key] = copy.deepcopy(other_holder[other_key])
            elif isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            else:
                holder[draw.choice(["x", "../x", "", "\0"])] = holder.pop(key)
        return json.dumps(values).encode()

    _damage_manifest = _damage_statistics = _damage_json


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yields where each value of a tree of JSON stands."""
    for key in list(values) if isinstance(values, dict) else range(len(values)):
        yield values, key
        if isinstance(values[key], (dict, list)):
            yield from _places(values[key])


def _error_of(path: Path) -> str:
    try:
        if path.suffix == ".tar":
            list(iter_blocks(path))
        else:
            _use(open_data_set(path))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def run_limited(*arguments: object) -> Any:
    """Runs this module in a process that cannot take much memory, and returns what it prints."""
    command = [sys.executable, "-m", "tests.bertdata.hostile", *map(str, arguments)]
    allocators = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}  # reserve no more than they use
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | allocators)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def main(action: str, *arguments: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        if action == "read":
            _limit_memory()
            result: Any = [_error_of(Path(path)) for path in arguments]
        else:
            folder, kinds, first, stop = arguments
            fuzz = Fuzz(Path(folder), scratch=Path(scratch))
            _use(open_data_set(folder))  # what it imports and keeps is no part of the limit
            _limit_memory()
            result = {kind: fuzz.run(kind, range(int(first), int(stop))) for kind in kinds.split(",")}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
