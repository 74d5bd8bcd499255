"""The messages of errors and warnings, as the source has them, each with its variable parts as `<name>`.

A message is what a call of an error class of the project, or of click's for usage, is given; or of a function that
raises what it is given (`_check(condition, message)`). Some modules say findings and warnings by `yield` or `return`.
What holds no words of its own, such as `str(error)`, is the message of another place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bertdata", "pipelines", "trainer")
CLICK_ERRORS = {"UsageError", "BadParameter", "ClickException"}
# What else is given a message: a class that is a variable, types of click's, the end of a group, warnings of the log.
SAYING_CALLS = {"cls", "error", "fail", "_end", "warning"}
# Modules whose functions give messages away, by `yield` or by `return`.
SAYING: dict[str, type[ast.Yield] | type[ast.Return]] = {
    "bertdata/block_checks.py": ast.Yield,
    "bertdata/shard_checks.py": ast.Yield,
    "bertdata/share_checks.py": ast.Yield,
    "bertdata/summary.py": ast.Yield,
    "bertdata/verify.py": ast.Return,
    "trainer/symptoms.py": ast.Return,
}
PLACEHOLDER = re.compile(r"<[a-z_ ]*>")


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message: its text, where the source says it, and whether it is a part of others."""

    text: str
    place: str
    is_part: bool

    @property
    def words(self) -> str:
        """The text without the names of what varies."""
        return bare(self.text)


def bare(text: str) -> str:
    """Returns a message with "…" for whatever varies, so that names of variables do not matter."""
    return re.sub(r"(…\s*)+", "…", PLACEHOLDER.sub("…", text)).strip()


def error_classes() -> set[str]:
    """Returns the names of all classes that derive from BertDataError, and of click's."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"BertDataError"}
    while more := {name for name, names in bases.items() if names & found} - found:
        found |= more
    return found | CLICK_ERRORS


def name_of(node: ast.expr) -> str:
    """Returns the last name in an expression: "path" for `str(split.path)`."""
    names = [part.attr if isinstance(part, ast.Attribute) else part.id for part in ast.walk(node) if _is_name(part)]
    return re.sub(r"[^a-z_]", "", names[0].strip("_").lower()) if names else ""


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) or (isinstance(node, ast.Name) and node.id not in ("str", "repr", "len"))


def text_of(node: ast.expr) -> str:
    """Returns a string expression as text, with <name> for what varies."""
    if isinstance(node, ast.Constant):
        return re.sub(r"%[,.\d]*[sdgf]", "<>", str(node.value))  # a message of the log
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value) if isinstance(node.value, ast.Name) else f"<{name_of(node.value)}>"
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.Name) and node.id in constants():
        return constants()[node.id]
    return f"<{name_of(node)}>"


@lru_cache(maxsize=1)
def constants() -> dict[str, str]:
    """Returns the strings of modules that have a name, such as MANIFEST; those by which several go are left out."""
    found: dict[str, set[str]] = {}
    for _, tree in sources():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                text = node.value.value if isinstance(node.value, ast.Constant) else None
                found.setdefault(node.targets[0].id, set()).add(text if isinstance(text, str) else "")
    return {name: texts.pop() for name, texts in found.items() if len(texts) == 1 and all(texts)}


@lru_cache(maxsize=1)
def sources() -> list[tuple[str, ast.Module]]:
    """Returns the modules of the packages, by their paths."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    else:
        yield node


def _passing_functions(tree: ast.Module, errors: set[str]) -> dict[str, int]:
    """Returns the functions that raise an error with the text of a parameter, and which parameter that is."""
    found = {}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        parameters = [argument.arg for argument in function.args.args]
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _called(node) in errors and node.args:
                first = node.args[0]
                if isinstance(first, ast.Name) and first.id in parameters:
                    found[function.name] = parameters.index(first.id)
    return found


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _given(tree: ast.Module, errors: set[str]) -> Iterator[ast.expr]:
    passing = _passing_functions(tree, errors)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = _called(node)
        if name in errors or name in SAYING_CALLS:
            yield node.args[0]
        elif passing.get(name, len(node.args)) < len(node.args):
            yield node.args[passing[name]]


def _said(tree: ast.Module, *, by: type[ast.Yield] | type[ast.Return]) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, by) and node.value is not None:
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            yield from (value for value in values if isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp))
        if isinstance(node, ast.Call) and _called(node) == "Problem":
            yield from (word.value for word in node.keywords if word.arg == "message")


def _parts(functions: list[ast.FunctionDef], message: ast.expr) -> Iterator[ast.expr]:
    """Yields the texts that a message's variables may have: those given to them in its function, or returned to it."""
    holding = [one for one in functions if one.lineno <= message.lineno <= (one.end_lineno or 0)]
    inner = max(holding, key=lambda one: one.lineno, default=None)
    for value in (node.value for node in ast.walk(message) if isinstance(node, ast.FormattedValue)):
        if isinstance(value, ast.IfExp):
            yield from _alternatives(value)
        if isinstance(value, ast.Name) and inner is not None:
            for node in ast.walk(inner):
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == value.id:
                    yield from _alternatives(node.value)
        if isinstance(value, ast.Call):
            for function in (one for one in functions if one.name == _called(value)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Return) and node.value is not None:
                        yield from _alternatives(node.value)


def find_messages() -> list[Message]:
    """Returns all messages of the source, in its order, and the parts of which some are made."""
    errors = error_classes()
    messages = []
    for place, tree in sources():
        given = [*_given(tree, errors), *(_said(tree, by=SAYING[place]) if place in SAYING else ())]
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        parts = [part for node in given for part in _parts(functions, node)]
        for node, is_part in [*((node, False) for node in given), *((node, True) for node in parts)]:
            for alternative in _alternatives(node):
                text = " ".join(text_of(alternative).split())
                # Some words of its own, or it is the message of another place.
                num_words = len(re.findall(r"[A-Za-z]{2,}", PLACEHOLDER.sub(" ", text)))
                if isinstance(alternative, ast.Constant | ast.JoinedStr | ast.BinOp) and num_words >= 3 + is_part:
                    messages.append(Message(text=text, place=f"{place}:{node.lineno}", is_part=is_part))
    unique = {(message.place.partition(":")[0], message.words): message for message in reversed(messages)}
    return sorted(
        unique.values(), key=lambda message: (message.place.partition(":")[0], int(message.place.rpartition(":")[2]))
    )


def find_texts() -> str:
    """Returns all strings of the source, with "…" for whatever varies, a line each."""
    nodes = (node for _, tree in sources() for node in ast.walk(tree))
    return "\n".join(bare(text_of(node)) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr))
