"""Clean environments: what a wheel's extra asks for, and nothing else of what is installed where the tests run.

An environment is a folder with an interpreter and an empty `site-packages`. The distributions that an extra needs, and
those that they need, are linked into it, and pip installs the wheel without an index: it says what is missing, were
something missing. That takes seconds where fetching torch and Beam takes minutes. With BERTDATA_TEST_INSTALLS=index pip
fetches everything instead, as a user's does; `make package` runs the tests that way.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FROM_INDEX = os.environ.get("BERTDATA_TEST_INSTALLS") == "index"


class Environment:
    """An interpreter with packages of its own.

    Args:
        folder: Where it goes; must not exist.
    """

    def __init__(self, folder: Path, /) -> None:
        venv.create(folder, with_pip=False)
        self.folder = folder
        (self.packages,) = folder.glob("lib/python*/site-packages")

    def pip(self, *words: str | Path, index: bool = True) -> None:
        """Runs this interpreter's pip on the environment; without `index` it knows nothing but what is there."""
        command = [sys.executable, "-m", "pip", "--python", str(self.folder / "bin" / "python"), "--quiet"]
        hidden = {} if index else {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        kept = {name: value for name, value in os.environ.items() if index or not name.startswith("PIP_")}
        found = subprocess.run([*command, *map(str, words)], env=kept | hidden, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr

    def run(self, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Runs a command of the environment as a user does who has activated it."""
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        environment["PATH"] = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        command = [str(self.folder / "bin" / str(words[0])), *map(str, words[1:])]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    def python(self, code: str, *, cwd: Path) -> str:
        """Returns what a program prints; an error of it is one of the test."""
        found = self.run("python", "-c", code, cwd=cwd)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def install(self, wheel: Path, *, extras: tuple[str, ...]) -> None:
        """Installs the wheel with extras, as this module says."""
        wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
        if FROM_INDEX:
            self.pip("install", "--constraint", ROOT / "constraints.txt", wanted)
            return
        for distribution in iter_needed(wheel, extras=extras):
            self._link(distribution)
        self.pip("install", wanted, index=False)

    def _link(self, distribution: importlib.metadata.Distribution) -> None:
        source = Path(str(distribution.locate_file("")))
        tops = {path.parts[0] for path in distribution.files or ()} - {".."}
        shared = {top for top in tops if _owners()[top] > 1 and top != "__pycache__"}
        for top in tops - shared - {"__pycache__"}:
            (self.packages / top).symlink_to(source / top)
        for path in distribution.files or ():  # a folder such as google/ that several distributions have files in
            if path.parts[0] in shared:
                (self.packages / path).parent.mkdir(parents=True, exist_ok=True)
                (self.packages / path).symlink_to(source / path)


@functools.cache
def _owners() -> Counter[str]:
    """Returns how many distributions have each file or folder at the top of `site-packages`."""
    return Counter(
        top
        for distribution in importlib.metadata.distributions()
        for top in {path.parts[0] for path in distribution.files or ()}
    )


def iter_needed(wheel: Path, *, extras: tuple[str, ...]) -> Iterator[importlib.metadata.Distribution]:
    """Yields the installed distributions that a wheel needs with some extras, each once, without itself."""
    (metadata,) = importlib.metadata.distributions(path=[str(wheel)])
    waiting = [(metadata, frozenset(extras))]
    seen = {}
    while waiting:
        distribution, wanted = waiting.pop()
        name = canonicalize_name(distribution.name)
        if wanted <= seen.get(name, frozenset()) and name in seen:
            continue
        if name not in seen and distribution is not metadata:
            yield distribution
        wanted = seen[name] = seen.get(name, frozenset()) | wanted
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                own = canonicalize_name(needed.name) == canonicalize_name(metadata.name)
                found = metadata if own else importlib.metadata.distribution(needed.name)
                waiting.append((found, frozenset(needed.extras)))
