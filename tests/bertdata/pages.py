"""Reading a page of HTML in tests: its elements, and whether they are properly nested."""

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
