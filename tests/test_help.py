"""The help of every command: what it does, every option with its default and unit, and an example that can be typed."""

import importlib
import re
import shlex

import click
import pytest

from tests.environments import ROOT

SCRIPTS = dict(re.findall(r'^([\w-]+) = "([\w.]+:\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
UNITS = re.compile(
    r"\b(bytes|blocks?|characters|checkpoints|decay|documents|entries|epochs|gpus|keys|labels|lanes|mask sets?|norm"
    r"|number|passes|phase|power|predictions|processes|rate|records|root|samples?|seconds|sentences|shards?|shares?"
    r"|steps|threads|times|tokens|words)\b",
    re.IGNORECASE,
)
NUMBERS = ("integer", "float", "integer range", "float range", "size")


def iter_commands():
    """Yields name and context of every command that a script has, as its own help sees it."""
    for script, place in SCRIPTS.items():
        module, _, name = place.partition(":")
        root = getattr(importlib.import_module(module), name)
        context = click.Context(root, info_name=script, **root.context_settings)
        yield script, context
        for name, command in getattr(root, "commands", {}).items():
            yield f"{script} {name}", click.Context(command, info_name=name, parent=context, **command.context_settings)


COMMANDS = dict(iter_commands())


def options_of(command):
    return [parameter for parameter in COMMANDS[command].command.params if isinstance(parameter, click.Option)]


def parse(line):
    """Returns the command of a line after its options have been parsed as they are when it is typed."""
    script, *words = shlex.split(line)
    command, name = COMMANDS[script].command, script
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        name = f"{name} {words[0]}"
        command = command.commands[words.pop(0)]
    command.make_context(name, words).close()
    return name


def test_every_script_has_its_help():
    assert {"bertdata", "bert-train"} <= SCRIPTS.keys() <= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_a_verb(command):
    first = COMMANDS[command].command.help.split()[0]
    assert re.fullmatch(r"[A-Z][a-z-]+s", first), f"not a verb as of the other commands: {first}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_are_listed_with_their_whole_first_sentence(script):
    listed = COMMANDS[script].command.get_help(COMMANDS[script]).partition("Commands:")[2]
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_its_default(command):
    with_default = [
        option
        for option in options_of(command)
        if not (option.required or (option.is_flag and not option.secondary_opts))
    ]
    shown = {option.name: option.get_help_record(COMMANDS[command])[1] for option in with_default}
    assert [name for name, text in shown.items() if not re.search(r"\[default: |; default: ", text)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_says_what_it_counts(command):
    numbers = {option.name: option.help for option in options_of(command) if option.type.name in NUMBERS}
    assert {name: text for name, text in numbers.items() if not UNITS.search(text)} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_that_parses(command):
    lines = COMMANDS[command].command.get_help(COMMANDS[command]).strip().splitlines()
    found = re.fullmatch(r"Examples?:\n?((?:\n? *bert.*)+)", "\n".join(lines).split("\n\n")[-1].strip())
    assert found, "the last paragraph is no example"
    for line in found[1].strip().splitlines():
        assert parse(line.strip()).startswith(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_keeps_tables_as_they_are_written(command):
    context = COMMANDS[command]
    shown = context.command.get_help(context)
    assert "\\b" not in shown
    for table in re.findall(r"\x08\n(.*?)(?:\n\n|\Z)", context.command.help, re.DOTALL):
        assert all(line.strip() in shown for line in table.splitlines())
