import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from trainer.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(22):
    if number == 12:  # the first ones leave small gaps, see tcache_count of glibc
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_kept() -> None:
    pages = {
        way: int(subprocess.run([sys.executable, "-c", PROGRAM, way], check=True, capture_output=True).stdout)
        for way in ("kept", "given back")
    }
    assert pages["kept"] < 100  # pages that the kernel cleared for ten tensors
    assert pages["given back"] > 300
