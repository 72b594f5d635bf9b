"""`Report`: what a report says, before it is a page or files."""

from collections.abc import Sequence
from dataclasses import dataclass

from schedsim.report.figures import Figure


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts: a heading for each column, the first of which names the rows."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report under one heading."""

    title: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    points: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.tables or self.figures or self.points)


@dataclass(frozen=True, slots=True)
class Report:
    """A title, a line below it, and sections; those without content are left out."""

    title: str
    subtitle: str
    sections: Sequence[Section]

    @property
    def figures(self) -> list[Figure]:
        """All figures, in the order of the page."""
        return [figure for section in self.sections for figure in section.figures]
