"""Pages of the documentation: their blocks, links and names, and the commands of the project that they show."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

_BLOCK = re.compile(r"(?P<run><!-- run -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_HAS = re.compile(r"<!-- has: (.*) -->")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PACKAGES = r"(?:bertdata|pipelines|trainer|tests|examples|docs)"
_PATH = re.compile(rf"(?:\.\./)?({_PACKAGES}/[\w./-]*\w)(?:::(\w+))?")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its text, its language ("" for none), and whether it is marked to be run."""

    text: str
    language: str
    is_run: bool

    @property
    def lines(self) -> list[str]:
        """Lines of shell, continued ones joined, without prompts."""
        joined = self.text.replace("\\\n", " ")
        return [line.removeprefix("$ ").strip() for line in joined.splitlines() if line.strip()]


def blocks_of(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page."""
    return [
        Block(text=match["text"], language=match["language"], is_run=match["run"] is not None)
        for match in _BLOCK.finditer(page.read_text())
    ]


def needs_of(page: Path) -> list[str]:
    """Returns what has to be there before the blocks of a page run."""
    match = _HAS.search(page.read_text())
    return match[1].split() if match else []


def prose_of(page: Path) -> str:
    """Returns a page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def commands() -> dict[str, click.Command]:
    """Returns the programs of the project by name, as its wheel installs them."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]\n")[2].partition("\n[")[0]
    scripts = dict(re.findall(r'^([\w-]+) = "(.*)"$', text, re.MULTILINE))  # tomllib comes with Python 3.11
    found = {}
    for name, place in scripts.items():
        module, _, function = place.partition(":")
        found[name] = getattr(importlib.import_module(module), function)
    return found


def iter_commands(page: Path) -> Iterator[list[str]]:
    """Yields the words of each command line of the project's in a page's blocks."""
    programs = commands()
    for block in blocks_of(page):
        for line in block.lines if block.language in ("", "console", "sh") else ():
            if line.split()[0] in programs:
                yield shlex.split(re.split(r" [<>|] ", line)[0], comments=True)
            elif line.split()[0] == "torchrun" and " -m trainer " in line:
                yield ["bert-train", *shlex.split(line.split(" -m trainer ")[1])]


def iter_scripts(page: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields each script of the project's that a page's blocks run, and its words."""
    for block in blocks_of(page):
        for line in block.lines if block.language in ("", "console", "sh") else ():
            if match := re.match(r"python (examples/\S+\.py)(.*)", line):
                yield ROOT / match[1], shlex.split(match[2], comments=True)


def options_of_script(script: Path) -> set[str]:
    """Returns the options that a script and the modules beside it have."""
    sources = [path.read_text() for path in script.parent.glob("*.py")]
    return {"--help", *(option for text in sources for option in re.findall(r'"(--[a-z][\w-]*)"', text))}


def check_command(words: list[str]) -> None:
    """Raises what click raises, where a command line is not one that its program takes."""
    program = commands()[words[0]]
    if isinstance(program, click.Group) and words[0] == "bertdata":
        program.commands[words[1]].make_context(words[1], words[2:])
    else:
        program.make_context(words[0], words[1:])


def glob_words(words: list[str]) -> list[str]:
    """Returns the words with patterns resolved, as a shell does."""
    return [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]


def known_options() -> set[str]:
    """Returns all options of all programs, and of the scripts in examples."""
    programs = list(commands().values())
    programs += [
        command for program in programs if isinstance(program, click.Group) for command in program.commands.values()
    ]
    names = {"--help", "--version"}
    for program in programs:
        for parameter in program.params:
            names |= {*parameter.opts, *parameter.secondary_opts}
    return names.union(*(options_of_script(script) for script in (ROOT / "examples").glob("*/*.py")))


def iter_code(page: Path) -> Iterator[str]:
    """Yields the code within a page's prose."""
    yield from _CODE.findall(prose_of(page))


def iter_paths(page: Path) -> Iterator[tuple[str, str | None]]:
    """Yields the files of the project that a page's prose names as code, and the test named in it if there is one."""
    for code in iter_code(page):
        if match := _PATH.fullmatch(code):
            yield match[1], match[2]


def iter_links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yields the files that a page links to, and the anchor in it ("" for none)."""
    for target in _LINK.findall(prose_of(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors_of(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found
