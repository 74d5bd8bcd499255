"""Members of a shard: plain USTAR tar members that hold one array each, as a `.npy` file of unsigned integers.

    tar header     512 bytes: name, size and checksum; all else is the same in every header
    .npy header    128 bytes: dtype and shape
    data           little-endian, in C order
    padding        zeros up to a multiple of 512

Reading knows only what writing makes. A tar header is accepted where making it anew from its name and size gives the
same bytes, so there are no links, devices, sparse or extended members, owners, folders or sizes beyond octal digits.
A `.npy` header has one form, the dtypes are unsigned integers, and the shape must be what the bytes hold, so nothing is
allocated that was not read, and nothing is ever unpickled.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.errors import ShardError

__all__ = ["RECORD", "encode_member", "padded", "parse_member", "parse_npy", "parse_tar_header"]

RECORD = 512
_DTYPES: dict[str, np.dtype[Any]] = {descr: np.dtype(descr) for descr in ("|u1", "<u2", "<u4", "<u8")}

_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb"\{'descr': '(\|u1|<u[248])', 'fortran_order': False, 'shape': \((\d{1,10},|\d{1,10}, \d{1,10})\), \} *\n"
)
_NAME = re.compile(rb"(?:train|eval)-\d{5,}-\d{5,}\.[a-z_]+\.npy")
_SIZE = re.compile(rb"[0-7]{11}")
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2  # mode, user, group
_AFTER_SIZE = b"\0" + b"00000000000\0"  # time
_AFTER_CHECKSUM = (b"0" + bytes(100) + b"ustar\x0000").ljust(RECORD - 156, b"\0")  # plain file, no link, magic
_CHECKSUM_OF_REST = sum(_BEFORE_SIZE + _AFTER_SIZE + b" " * 8 + _AFTER_CHECKSUM)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"x": "an extended header",
    b"g": "an extended header",
    b"L": "a long name",
    b"K": "a long link",
}


def padded(num_bytes: int) -> int:
    """Returns the bytes that a member's `num_bytes` take up with their padding."""
    return num_bytes + -num_bytes % RECORD


def _npy_header(array: npt.NDArray[Any]) -> bytes:
    shape = f"({array.shape[0]},)" if array.ndim == 1 else str(tuple(array.shape))
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    padding = -(len(_MAGIC) + 2 + len(text) + 1) % 64
    text += b" " * padding + b"\n"
    return _MAGIC + len(text).to_bytes(2, "little") + text


def _tar_header(name: bytes, size: bytes) -> bytes:
    """Returns the header of a member from its name and the eleven octal digits of its size."""
    checksum = sum(name) + sum(size) + _CHECKSUM_OF_REST
    name = name.ljust(100, b"\0")
    return b"".join((name, _BEFORE_SIZE, size, _AFTER_SIZE, b"%06o\0 " % checksum, _AFTER_CHECKSUM))


def encode_member(name: str, array: npt.NDArray[Any]) -> bytes:
    """Returns the bytes of a member: header, data and padding.

    Raises:
        ShardError: The array is not of unsigned integers, or the name is not that of a member.
    """
    if array.dtype.str not in _DTYPES:
        raise ShardError(f"{name} has dtype {array.dtype}; a shard holds {', '.join(_DTYPES)}")
    stored_name = name.encode()
    if _NAME.fullmatch(stored_name) is None or len(stored_name) > 100:
        raise ShardError(f"{name!r} is no name of a member; train-00000-00000.tokens.npy is one")
    data = _npy_header(array) + np.ascontiguousarray(array).tobytes()
    return _tar_header(stored_name, b"%011o" % len(data)) + data.ljust(padded(len(data)), b"\0")


def parse_tar_header(header: bytes, *, where: str) -> tuple[str, int]:
    """Returns the name of a member and its bytes, from its tar header.

    Raises:
        ShardError: It is not the header of a plain file as `encode_member` writes it.
    """
    name, size = header[:100].rstrip(b"\0"), header[124:135]
    if _SIZE.fullmatch(size) and _NAME.fullmatch(name) and header == _tar_header(name, size):
        return name.decode(), int(size, 8)
    raise ShardError(f"{where}: {_what_is_wrong(header)}; build the shard again or copy it from where it is whole")


def _what_is_wrong(header: bytes) -> str:
    if len(header) < RECORD:
        return f"the bytes end {len(header)} bytes into a tar header"
    if header[257:262] != b"ustar":
        return "there is no tar header where one belongs"
    checksum = sum(header[:148] + b" " * 8 + header[156:])
    if header[148:154] != b"%06o" % checksum:
        return f"the tar header has checksum {checksum:06o}, but says {header[148:156]!r}"
    name, kind, size = header[:100].rstrip(b"\0"), header[156:157], header[124:135]
    member = f"member {name.decode('ascii', 'backslashreplace')!r}"
    if kind != b"0":
        return f"{member} is {_KINDS.get(kind, f'of type {kind!r}')}; only plain files belong into a shard"
    if _SIZE.fullmatch(size) is None:
        return f"{member} has size {size!r} instead of eleven octal digits"
    if _NAME.fullmatch(name) is None:
        return f"{member} has another name than, for example, train-00000-00000.tokens.npy"
    return f"the tar header of {member} says more than a name and a size"


def parse_npy(data: memoryview, *, where: str) -> npt.NDArray[Any]:
    """Returns the array in the bytes of a member, a read-only view of them.

    Raises:
        ShardError: They are no array of unsigned integers, or of another shape.
    """
    if data[:8] != _MAGIC:
        raise ShardError(f"{where}: not an array of the expected form; build the shard again")
    header_end = 10 + int.from_bytes(data[8:10], "little")
    match = _NPY_HEADER.fullmatch(data[10:header_end])
    if match is None:
        raise ShardError(f"{where}: unexpected array header {bytes(data[10:header_end])[:80]!r}; build the shard again")
    dtype = _DTYPES[match[1].decode()]
    shape = tuple(int(size) for size in match[2].split(b",") if size)
    num_bytes = len(data) - header_end
    if math.prod(shape) * dtype.itemsize != num_bytes:
        raise ShardError(f"{where}: {num_bytes} bytes do not hold an array of shape {shape}; build the shard again")
    array: npt.NDArray[Any] = np.frombuffer(data[header_end:], dtype=dtype).reshape(shape)
    return array


def parse_member(data: memoryview, position: int, *, where: str) -> tuple[str, npt.NDArray[Any], int]:
    """Returns name, array and end (padding included) of the member at `position`.

    Args:
        data: The bytes of a block.
        position: Where the member's tar header starts.
        where: Shard and block, for messages.

    Raises:
        ShardError: There is something else, or it reaches past the end.
    """
    start = position + RECORD
    name, num_bytes = parse_tar_header(bytes(data[position:start]), where=f"{where}, byte {position}")
    end = start + padded(num_bytes)
    if end > len(data):
        raise ShardError(f"{where}: member {name} of {num_bytes} bytes reaches past the block; copy the shard again")
    return name, parse_npy(data[start : start + num_bytes], where=f"{where}, member {name}"), end
