"""Arrays by name, read from the bytes of an `.npz`."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["read_npz"]

# numpy reads the heads of arrays by `ast`, which Python before 3.11.8 gets wrong in several threads at once.
_LOCK = threading.Lock()


def read_npz(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of an `.npz`; nothing that is pickled is read.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile: It is damaged.
    """
    with _LOCK, np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
