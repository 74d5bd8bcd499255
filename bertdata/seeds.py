"""Randomness: every draw is a counter-based hash, so that it depends on what it is for and on nothing else.

A *stage key* is made of the user's seed and the stage's name. A draw hashes that key with the numbers that identify
it: the document or sample, the pass, the mask set, the position. There is no generator whose state could depend on the
order of work, and no distribution of numpy's, whose streams may change between versions. Two different counters give
independent draws; the same counters give the same draw in every process, on every machine and in every version.

    key = stage_key(seed, "pairs")
    bits = hash64(key, document, number)        # 64 uniform bits, for arrays of documents and numbers too
    start = below(bits, num_sentences)          # uniform in [0, num_sentences)

The hash is the finalizer of splitmix64 (Steele, Lea and Flood 2014, with Stafford's constants), once per counter.
`hash64` works on arrays, `hash64_int` on Python integers; both give the same bits.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["below", "below_int", "hash64", "hash64_int", "lower_half", "stage_key", "unit"]

UInt64Array = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

_GOLDEN_U = np.uint64(_GOLDEN)
_MIX_1_U = np.uint64(_MIX_1)
_MIX_2_U = np.uint64(_MIX_2)
_27, _30, _31, _32, _11 = (np.uint64(shift) for shift in (27, 30, 31, 32, 11))


def stage_key(seed: int, stage: str) -> int:
    """Returns the 64-bit key of one stage's draws.

    Args:
        seed: The user's seed.
        stage: What the draws are for, such as "pairs"; different names give independent draws.
    """
    digest = hashlib.blake2b(f"{seed}:{stage}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def hash64(key: int | np.uint64 | UInt64Array, *counters: int | npt.NDArray[np.integer]) -> UInt64Array:
    """Returns 64 uniform bits for each combination of the counters.

    Args:
        key: A stage key, or an array of keys.
        counters: Integers or integer arrays that identify the draw; broadcast against each other.

    Returns:
        uint64 array of the broadcast shape (of shape () where all counters are integers).
    """
    state: UInt64Array = np.asarray(key, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for counter in counters:
            if isinstance(counter, int):
                counter = np.asarray(counter & _MASK, dtype=np.uint64)
            state = state + (counter.astype(np.uint64, copy=False) + np.uint64(1)) * _GOLDEN_U
            state ^= state >> _30  # in place, but for a single number
            state *= _MIX_1_U
            state ^= state >> _27
            state *= _MIX_2_U
            state ^= state >> _31
    return state


def hash64_int(key: int, *counters: int) -> int:
    """Returns the same 64 bits as `hash64`, for Python integers; faster for a single draw."""
    state = key
    for counter in counters:
        state = (state + (counter + 1) * _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        state ^= state >> 31
    return state


def below(bits: UInt64Array, bound: int | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Returns integers uniform in [0, bound), one for each of `bits`.

    Args:
        bits: Uniform bits, from `hash64`.
        bound: Exclusive upper bound, 1 to 2**32; broadcast against `bits`.

    Returns:
        int64 array. The bias is at most bound / 2**32.
    """
    product = (bits >> _32) * np.asarray(bound).astype(np.uint64)
    return (product >> _32).view(np.int64)


def lower_half(bits: UInt64Array) -> UInt64Array:
    """Returns bits for a second draw from the same hash, which has 64: their upper half is the lower half of `bits`.

    `below` looks at the upper half alone, so `below(bits, n)` and `unit(lower_half(bits))` are independent.
    """
    return bits << _32


def below_int(bits: int, bound: int) -> int:
    """Returns what `below` returns, for Python integers."""
    return ((bits >> 32) * bound) >> 32


def unit(bits: UInt64Array) -> npt.NDArray[np.float64]:
    """Returns float64 numbers uniform in [0, 1), one for each of `bits`."""
    return (bits >> _11).astype(np.float64) * 2.0**-53
