"""Turns measurements into one Markdown table for a reader who decides whether to adopt the provider."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HEADER = ("measure", "this provider", "beside it", "target", "met")


@dataclass(frozen=True)
class Row:
    """One measurement.

    :param measure: what was measured.
    :param ours: this provider's value.
    :param beside: what it is compared with, and its value.
    :param target: what it should be.
    :param met: whether it is; ``None`` where there is no target.
    """

    measure: str
    ours: str
    beside: str = ""
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Section:
    """Rows that belong together.

    :param title: what they are about.
    :param rows: the measurements.
    :param how: how they were made, for below the table.
    """

    title: str
    rows: list[Row]
    how: str


def table(sections: Iterable[Section]) -> str:
    """Return all measurements as one Markdown table.

    :param sections: of measurements.
    """
    lines = [HEADER, ("---",) * len(HEADER)]
    for section in sections:
        lines.append((f"**{section.title}**", "", "", "", ""))
        for row in section.rows:
            met = {True: "yes", False: "**no**", None: ""}[row.met]
            lines.append((row.measure, row.ours, row.beside, row.target, met))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def notes(sections: Iterable[Section]) -> str:
    """Return how the measurements were made.

    :param sections: of measurements.
    """
    return "\n".join(f"- **{section.title}.** {section.how}" for section in sections)


def summary(sections: Iterable[Section]) -> str:
    """Say how many targets were met.

    :param sections: of measurements.
    """
    rows = [row for section in sections for row in section.rows if row.met is not None]
    missed = [row.measure for row in rows if not row.met]
    text = f"{len(rows) - len(missed)} of {len(rows)} targets met."
    return f"{text} Missed: {'; '.join(missed)}." if missed else text


def percent(part: float, whole: float) -> str:
    """Return a share in percent.

    :param part: of the whole.
    :param whole: may be 0.
    """
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


def times(value: float) -> str:
    """Return a ratio, such as ``1.07x``.

    :param value: the ratio.
    """
    return f"{value:.2f}x" if value < 10 else f"{value:,.0f}x"


def seconds(value: float) -> str:
    """Return a duration.

    :param value: seconds.
    """
    return f"{value:.1f} s" if abs(value) >= 0.95 else f"{value * 1000:.0f} ms"
