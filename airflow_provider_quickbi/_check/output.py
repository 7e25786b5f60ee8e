"""How results are shown: JSON for programs, a table with colours on a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TextIO
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLOURS = {"ok": "green", "SENT": "green", "warning": "yellow", "failed": "red", "FAILED": "red", "skipped": "dim"}


def show_json(value: Any, stream: TextIO) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False), file=stream, flush=True)


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], stream: TextIO) -> None:
    """Print rows under their headings.

    :param rows: what to show; a missing value is shown as nothing.
    :param columns: keys of the rows in their order.
    """
    cells = [["" if row.get(column) is None else str(row[column]) for column in columns] for row in rows]
    if stream.isatty():
        _show_with_rich(cells, columns, stream)
        return
    table = [[column.upper().replace("_", " ") for column in columns], *cells]
    widths = [max(_width(line[position]) for line in table) for position in range(len(columns))]
    for line in table:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(padded).rstrip(), file=stream)
    stream.flush()


def _show_with_rich(cells: Sequence[Sequence[str]], columns: Sequence[str], target: TextIO) -> None:
    """Print a table with rich, which comes with Airflow."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in line))
    Console(file=target).print(table)


def _width(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


class Progress:
    """Says on the standard error what takes long: one line that is overwritten on a terminal, a line each elsewhere.

    :param stream: where to; default the standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._said = ""

    def __call__(self, text: str) -> None:
        """Say what is being done; nothing if it was the last that was said."""
        if text == self._said:
            return
        self._said = text
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{text} ...")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def done(self) -> None:
        """Take the line of a terminal away."""
        if self._said and self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
