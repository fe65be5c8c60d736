"""Reading the report's page: which numbers it shows, and where it says that they stand in metrics.json."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "br", "line", "rect", "circle", "path", "polyline"}
CONSTANTS = ("95%",)  # the level of every interval, part of the text


@dataclass
class Number:
    """A marked number: its JSON pointer, its format and its text."""

    key: str
    form: str
    text: str = ""


@dataclass
class Element:
    """An open element: whether digits need no mark in it, the number it marks, and its id."""

    tag: str
    exempt: bool
    number: Number | None
    id: str


@dataclass
class Page(HTMLParser):
    """Numbers that are marked, texts that show digits without a mark, tags, and what would be loaded."""

    numbers: list[Number] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    figures: list[list[str]] = field(default_factory=list)  # the ids of what each figure is labelled by
    labels: dict[str, str] = field(default_factory=dict)  # texts of titles and descriptions by id

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [named[name] for name in ("src", "href", "srcset", "xlink:href") if name in named]
        if named.get("role") == "img":
            self.figures.append(named["aria-labelledby"].split())
        if tag in VOID:
            return
        number = None
        if "data-key" in named:
            number = Number(named["data-key"], named["data-form"])
            self.numbers.append(number)
        exempt = "data-text" in named or tag in ("pre", "style") or "tick" in named.get("class", "").split()
        self._open.append(Element(tag, exempt, number, named.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            opened = self._open.pop()
            assert opened.tag == tag, f"<{opened.tag}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        for element in self._open:
            if element.tag in ("title", "desc"):
                self.labels[element.id] = self.labels.get(element.id, "") + data
        number = self._open[-1].number if self._open else None
        if number is not None:
            number.text += data
        elif not any(element.exempt for element in self._open):
            for constant in CONSTANTS:
                data = data.replace(constant, "")
            if any(map(str.isdigit, data)):
                self.unmarked.append(data.strip())


def read_page(text: str) -> Page:
    """The page, all of whose elements must be closed as they were opened."""
    page = Page()
    page.feed(str(text))
    page.close()
    assert not page._open
    return page


def value_at(metrics: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points to."""
    value = metrics
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        value = value[int(token)] if isinstance(value, list) else value[token]
    return value
