"""The documentation: what it names is there, what it shows is so, and what can be run is run."""

from __future__ import annotations

import re

from tests.messages import ROOT, bare, find_messages

DOCS = ROOT / "docs"


def blocks_of(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def test_every_message_is_on_the_page_of_troubleshooting_and_no_other():
    lines = [line for block in blocks_of((DOCS / "troubleshooting.md").read_text(), "text") for line in block.splitlines()]
    known = {bare(line) for line in lines}
    messages = find_messages()
    missing = [f"{message.place}: {message.text}" for message in messages if message.words not in known]
    assert not missing, "add these lines to docs/troubleshooting.md:\n" + "\n".join(missing)
    said = {message.words for message in messages}
    stale = [line for line in lines if bare(line) not in said]
    assert not stale, "these lines of docs/troubleshooting.md are no messages any more:\n" + "\n".join(stale)
