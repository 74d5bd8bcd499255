"""How workers on other machines come by this package.

Beam installs on each worker what the launcher names: a requirements file, and packages that it uploads. So a released
version is a line of requirements, and a checkout a wheel that is built here:

    installed release     --requirements_file   bertdata==1.0.0, and the libraries below
    checkout              --extra_package       bertdata-1.1.0.dev0-py3-none-any.whl
                          --requirements_file   the libraries below
    the user's own image  nothing: it has to have the package

`sentencex` and `tokenizers` are required in the launcher's versions, because they decide a build's bytes; a worker
that has others refuses to start. What the user gives by `--extra_package`, `--requirements_file` or `--setup_file`
stays, and where it holds bertdata already, nothing is added.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

import bertdata
from bertdata.errors import ConfigError
from bertdata.fingerprint import library_versions
from pipelines.beam_options import image_of

__all__ = ["build_wheel", "packages_for_workers"]

_NAME = "bertdata"
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "bertdata", "pipelines", "trainer")
_PINNED = ("sentencex", "tokenizers")
_SETUPTOOLS = 77
_OWN = "give workers one of your own: -- --extra_package=bertdata-VERSION-py3-none-any.whl, or --sdk_container_image"
_LINES = 30


@contextmanager
def packages_for_workers(values: Namespace) -> Iterator[list[str]]:
    """Makes ready what brings this package to workers; it is gone when the `with` ends.

    Args:
        values: Beam's options, from `parse_beam_options`.

    Yields:
        Options for Beam that go after the user's own.

    Raises:
        ConfigError: This package is neither a release nor a checkout, or no wheel can be built.
    """
    if image_of(values) or _holds_package(values):
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="bertdata-packages-") as temporary:
        folder = Path(temporary)
        requirements = folder / "requirements.txt"
        lines = [f"{name}=={version}" for name, version in library_versions().items() if name in _PINNED]
        flags = [f"--requirements_file={requirements}"]
        source = _source()
        if source is None:
            lines.insert(0, f"{_NAME}=={library_versions()[_NAME]}")
        else:
            wheel = source if source.is_file() else build_wheel(source, folder=folder)
            flags.append(f"--extra_package={wheel}")
        if values.requirements_file:  # Beam takes one such file
            lines.append(_read_requirements(values.requirements_file))
        requirements.write_text("\n".join(lines) + "\n")
        yield flags


def _read_requirements(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"--requirements_file {path} cannot be read: {error.strerror}") from error


def _holds_package(values: Namespace) -> bool:
    """Returns whether what the user gives to workers names this package."""
    if any(re.match(rf"{_NAME}[-_]", path.rpartition("/")[2]) for path in values.extra_packages or ()):
        return True
    if not values.requirements_file:
        return False
    return re.search(rf"^\s*{_NAME}\b", _read_requirements(values.requirements_file), re.MULTILINE) is not None


def _source() -> Path | None:
    """Returns where this package comes from: a checkout, a wheel that it was installed from, or None for a release.

    Raises:
        ConfigError: It was installed from something that is not there any more, and is no release.
    """
    code = Path(bertdata.__file__).resolve().parents[1]
    if (code / "pyproject.toml").is_file():
        return code
    version = library_versions()[_NAME]
    try:
        origin = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        origin = None
    if origin is None and re.fullmatch(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?", version):
        return None
    url = urllib.parse.urlsplit(json.loads(origin)["url"] if origin else "")
    path = Path(urllib.request.url2pathname(url.path))
    if url.scheme == "file" and path.suffix == ".whl" and path.is_file():
        return path
    if url.scheme == "file" and (path / "pyproject.toml").is_file():
        return path
    raise ConfigError(f"workers cannot install bertdata {version}: it is neither a release nor a checkout; {_OWN}")


def build_wheel(source: Path, *, folder: Path) -> Path:
    """Builds a wheel of a checkout and returns its path; nothing is written into the checkout.

    Args:
        source: Folder with `pyproject.toml`.
        folder: Where the wheel goes.

    Raises:
        ConfigError: pip is not installed, or fails.
    """
    # Not `importlib.util.find_spec`: setuptools listens there for "pip", and takes its distutils away from all else in
    # this process, such as torch.compile.
    if PathFinder.find_spec("pip") is None:
        raise ConfigError(f"to build a wheel of this checkout for workers needs pip, which is not installed; {_OWN}")
    copy = folder / "source"  # setuptools builds within the folder, and would take what older builds left there
    copy.mkdir()
    for name in _SOURCES:
        if (source / name).is_dir():
            shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (source / name).is_file():
            shutil.copy(source / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(copy)]
    if _has_setuptools():
        command.insert(-1, "--no-build-isolation")  # else pip fetches it from the index
    found = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wheels = list(folder.glob(f"{_NAME}-*.whl"))
    if found.returncode or not wheels:
        lines = "\n".join(f"  {line}" for line in found.stdout.strip().splitlines()[-_LINES:])
        raise ConfigError(f"pip cannot build a wheel of {source} for workers:\n{lines}\n{_OWN[0].upper()}{_OWN[1:]}")
    shutil.rmtree(copy)
    return wheels[0]


def _has_setuptools() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= _SETUPTOOLS
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
