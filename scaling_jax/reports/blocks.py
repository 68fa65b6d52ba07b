"""What a section is made of: plain values that the template lays out, escaped there and only there."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from scaling_jax.reports.theme import Drawing


@dataclass(frozen=True)
class Cell:
    """A table cell: the value, its interval in smaller type, a link, a colour key."""

    text: str
    interval: str = ""
    href: str = ""
    key: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table that scrolls inside its own box.

    Attributes:
        label: names the scrolling box for keyboard and screen-reader users.
        header: one label per column.
        rows: cells (or plain strings) per column.
        text: positions of the left-aligned columns.
        groups: labels above the header, each with the number of columns it spans.
        tall: scrolls vertically too.
    """

    label: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    text: Sequence[int] = (0,)
    caption: str = ""
    groups: Sequence[tuple[str, int]] = ()
    tall: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Paragraph:
    """Running text; `quiet` sets it small and grey."""

    text: str
    quiet: bool = False
    kind: str = "paragraph"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Note:
    """What the reader must not miss: a caveat."""

    text: str
    kind: str = "note"


@dataclass(frozen=True)
class Bullets:
    """A list of statements."""

    items: Sequence[str]
    kind: str = "bullets"


@dataclass(frozen=True)
class Panels:
    """Small figures side by side, one above the other on a phone."""

    drawings: Sequence[Drawing]
    caption: str
    kind: str = "panels"


@dataclass(frozen=True)
class Picture:
    """One figure, drawn for wide and for narrow screens."""

    wide: Drawing
    narrow: Drawing
    caption: str
    kind: str = "picture"


@dataclass(frozen=True)
class Code:
    """Preformatted text."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Details:
    """Parts behind a summary that opens on demand."""

    summary: str
    parts: Sequence
    kind: str = "details"


@dataclass(frozen=True)
class Section:
    """One section of the report; `anchor` is its id, `short` its name in the list of contents."""

    anchor: str
    short: str
    heading: str
    parts: Sequence = field(default_factory=tuple)


@dataclass(frozen=True)
class Fact:
    """One number of the first screen."""

    label: str
    value: str
    about: str = ""


def drawings_of(parts: Sequence) -> list[Drawing]:
    """Every drawing in `parts`, in order (narrow variants are left out: the wide ones say the same)."""
    found = []
    for part in parts:
        if part.kind == "panels":
            found.extend(part.drawings)
        elif part.kind == "picture":
            found.append(part.wide)
        elif part.kind == "details":
            found.extend(drawings_of(part.parts))
    return found
