"""Tables: what was measured, ours against peers."""

from __future__ import annotations

import click

__all__ = ["head", "report"]


def head(title: str) -> None:
    """Prints the head of a table."""
    click.echo(f"\n{title}\n{'':<34} {'MB/s':>9}   {'peer':<34} {'MB/s':>8} {'ratio':>10}")


def report(what: str, ours: float, peers: dict[str, float]) -> None:
    """Prints a row for each peer.

    Args:
        what: What was measured.
        ours: MB/s.
        peers: MB/s by name.
    """
    for name, rate in peers.items():
        click.echo(f"{what:<34} {ours:>9.2f}   {name:<34} {rate:>8.2f} {ours / rate:>8.1f} x")
        what = ""
