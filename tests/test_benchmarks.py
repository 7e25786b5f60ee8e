"""The benchmarks can be run, and the page that they wrote has what they measure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import SECTIONS

ROOT = Path(__file__).resolve().parent.parent


def test_a_section_is_measured_and_shown_with_its_targets() -> None:
    notified = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "paging"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert notified.returncode == 0, notified.stderr
    assert "2 of 2 targets met." in notified.stdout
    rows = [line for line in notified.stdout.splitlines() if line.startswith("| 500 mail tasks, ")]
    assert [row.split("|")[-2].strip() for row in rows] == ["yes", "yes"]
    assert all("500 in " in row for row in rows)


def test_an_unknown_section_is_refused() -> None:
    notified = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert notified.returncode == 2
    assert "invalid choice: 'speed'" in notified.stderr


def test_a_missed_target_is_named() -> None:
    rows = [report.Row("fast", "1 s", target="2 s", met=True), report.Row("small", "9 kB", target="8 kB", met=False)]
    sections = [report.Section("Of a kind", [*rows, report.Row("other", "7")], "How.")]
    assert report.summary(sections) == "1 of 2 targets met. Missed: small."
    assert "| small | 9 kB |  | 8 kB | **no** |" in report.table(sections)
    assert "| other | 7 |  |  |  |" in report.table(sections)


def test_the_page_holds_every_section() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    titles = re.findall(r"^\| \*\*(.+)\*\* \|", page, re.MULTILINE)
    assert len(titles) == len(SECTIONS)
    assert re.findall(r"^- \*\*(.+)\.\*\* ", page, re.MULTILINE) == titles


@pytest.mark.parametrize(("value", "written"), [(0.004, "4 ms"), (1.0, "1.0 s"), (12.34, "12.3 s")])
def test_durations_are_written_with_a_unit(value: float, written: str) -> None:
    assert report.seconds(value) == written
