"""Reading a page of HTML in tests: its elements, whether they are properly nested, and whether it stands alone."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr", "base", "col", "embed", "source", "track", "wbr", "area"}
DRAWN = {"svg", "g", "path", "use", "defs", "clippath", "rect", "text"}  # of which HTML lets /> close an element


class Page(HTMLParser):
    """A page: `elements` as (tag, attributes), and all `text` but that of styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in DRAWN, f"<{tag}/> is not closed in HTML"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def values_of(self, *names: str) -> list[str]:
        """The values of attributes."""
        return [value or "" for _, attributes in self.elements for name, value in attributes.items() if name in names]

    def tags(self) -> list[str]:
        """The names of all elements."""
        return [tag for tag, _ in self.elements]


def check_is_alone(html: str) -> Page:
    """Nothing runs, and nothing is asked of the network."""
    page = Page(html)
    assert not {"script", "iframe", "img", "link", "object", "embed", "base", "form", "image", "foreignobject"} & set(
        page.tags()
    )
    assert "://" not in html
    assert not re.search(r"@import|url\((?!#)|expression\(|javascript:", html)
    assert all(link.startswith("#") for link in page.values_of("href", "src", "xlink:href", "action", "data"))
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    return page


def check_is_well_formed(html: str) -> Page:
    """Names are there once, links lead somewhere, headings nest, pictures have a text."""
    page = Page(html)
    identifiers = page.values_of("id")
    assert len(identifiers) == len(set(identifiers))
    targets = {link[1:] for link in page.values_of("href")} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert targets <= set(identifiers)
    levels = [int(tag[1]) for tag in page.tags() if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(
        attributes["role"] == "img" and attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"
    )
    return page
