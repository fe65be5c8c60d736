"""Define the interface of report sections. A section has numbers, figures and a template.

A section is a package of report/sections, or one file given by --plugin. It is a subclass of ReportSection, decorated
with `@SECTIONS.register`:

    @SECTIONS.register
    class AnswerCounts(ReportSection):
        name, title, order = "answers", "Answers", 65
        summary = "Counts the answers."
        template = "<h2>Answers</h2><p>There are {{ number(',', 'answers', 'count') }} answers.</p>"

        def compute(self, context):
            return {"answers": {"count": 2 * len(context.votes)}}
"""

from __future__ import annotations

import importlib.resources
import sys
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from markupsafe import Markup

    from report.context import ReportContext

    Metrics = dict[str, Any]  # of metrics.json
    Figure = Callable[..., Markup]  # takes the metrics, and what the template passes

LAST_ORDER: Final = 1000


class ReportSection(ABC):
    """One part of the page."""

    name: ClassVar[str]  # unique; the id of the section in the page
    title: ClassVar[str] = ""  # of the link in the navigation; a section without a title is in the head of the page
    order: ClassVar[int] = LAST_ORDER  # sections stand in this order
    summary: ClassVar[str]  # one line for the documentation
    figures: ClassVar[Mapping[str, Figure]] = MappingProxyType({})  # by the name that the template uses

    @property
    def template(self) -> str:
        """Return the Jinja template. By default it is template.html in the package of the section.

        The template is HTML inside the element `<section id=NAME>`. A section whose template renders to nothing is
        left out of the page and of the navigation. Templates see these names:

        - `metrics`: the contents of metrics.json;
        - `number(format, *keys)`: the number at these keys of metrics.json, formatted and marked with its place;
        - `interval(format, *keys)`: the two ends of an interval, in the same way;
        - `name(text)`, `names(texts)`: names or other texts of the run, escaped;
        - `figures.NAME(...)`: a figure of this section;
        - `legend((class, text), ...)`: a legend of a figure;
        - all values of `details`.

        Raises InputError if the section has no template.
        """
        if not hasattr(sys.modules[type(self).__module__], "__path__"):  # a file has no folder of its own
            raise InputError("a report section in one file needs a template", self.name, "add `template = ...`.")
        return importlib.resources.files(type(self).__module__).joinpath("template.html").read_text("utf-8")

    @abstractmethod
    def compute(self, context: ReportContext) -> Metrics:
        """Return the numbers of this section by their keys in metrics.json. No two sections may share a key."""

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return values for the template that are not numbers of metrics.json, such as texts of records."""
        return {}
