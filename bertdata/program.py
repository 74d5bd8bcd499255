"""What the programs of the project have in common: their settings, and how they end.

0            all is well
1            something that a user can mend (`bertdata.errors`), said on stderr
2            a command line that is not allowed, which click says
128 + n      signal n has ended it: 130 for ^C
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from bertdata.errors import BertDataError

__all__ = ["SETTINGS", "ending"]

SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
"""For `context_settings` of click."""


@contextmanager
def ending(advice: str = "") -> Iterator[None]:
    """While in use with `with`, an error of the project and an interruption end the program as described above.

    Args:
        advice: What to know after an interruption, such as "nothing was written".
    """
    try:
        yield
    except BertDataError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt as error:
        click.echo(f"stopped; {advice}" if advice else "stopped", err=True)
        sys.exit(128 + (signal.SIGTERM if error.args == (signal.SIGTERM,) else signal.SIGINT))
