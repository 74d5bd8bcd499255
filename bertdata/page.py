"""Pages of HTML that need nothing beside them: their frame, how numbers are written in them, and the file.

Templates extend `page.html.jinja`, which has the head, the style and the foot, and fill its blocks.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bertdata.errors import OutputError
from bertdata.files import write_atomically

__all__ = ["format_bytes", "format_count", "format_percent", "format_short", "render_page", "write_page"]


def render_page(template: str, **values: Any) -> str:
    """Returns a page as HTML; all text in it is escaped but what is `Markup`.

    Args:
        template: Package and file, such as "bertdata/report.html.jinja".
        **values: What the template calls by name; one that is missing is an error.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_resource),
    )
    environment.filters |= {"count": format_count, "short": format_short}
    environment.filters |= {"percent": format_percent, "bytes": format_bytes}
    return environment.get_template(template).render(style=Markup(_resource("bertdata/report.css")), **values)


def write_page(page: str, out: Path) -> None:
    """Writes a page to a file, and the folder that it is in; there whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.encode())
    except OSError as error:
        raise OutputError(f"--out {out} cannot be written to: {error.strerror}") from error


def _resource(name: str) -> str:
    package, _, file = name.partition("/")
    return resources.files(package).joinpath(file).read_text(encoding="utf-8")


def format_count(value: float) -> str:
    """Returns a number for reading: 12,345 or 12.3."""
    if isinstance(value, int) or value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def format_short(value: float) -> str:
    """Returns a number for a headline: 9,999,999 or 12.3 M."""
    for unit, name in ((10**12, "tn"), (10**9, "bn"), (10**6, "M")):
        if value >= max(unit, 10**7):
            return f"{value / unit:.3g} {name}"
    return format_count(value)


def format_percent(value: float, digits: int = 1) -> str:
    """Returns a share; one that is not 0 or 1 is never shown as if it were."""
    text = f"{value:.{digits}%}"
    least = 10.0 ** -(digits + 2)
    if 0 < value < least / 2:
        return f"<{least:.{digits}%}"
    if 1 - least / 2 < value < 1:
        return f">{1 - least:.{digits}%}"
    return text


def format_bytes(value: float) -> str:
    """Returns a number of bytes with its unit: 1,023 bytes or 1.0 KiB."""
    power = next(power for power in range(5) if value < 1024 ** (power + 1) or power == 4)
    digits = 1 if power else 0
    return f"{value / 1024**power:,.{digits}f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
