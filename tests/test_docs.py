"""What the documentation says is what the code does."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_quickbi.api.credentials import AUTH_TYPES
from airflow_provider_quickbi.api.errors import CODES
from airflow_provider_quickbi.api.rate_limit import rate_limiter
from airflow_provider_quickbi.connection import FIELDS
from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor
from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
#: A fenced block, with what follows the fence.
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: A file that a page shows: its path and its text.
FILE = re.compile(r'^``` \{\.python title="([\w./]+)"\}\n(.*?)^```', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)]+)?\)")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link, _ in LINK.findall(page.read_text(encoding="utf-8")) if link and "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if DOCS in page.parents], ids=named)
def test_pages_of_the_site_link_only_to_files_of_the_site(page: Path) -> None:
    links = [link for link, _ in LINK.findall(page.read_text(encoding="utf-8")) if link and "://" not in link]
    assert [link for link in links if DOCS not in (page.parent / link).resolve().parents] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_within_a_page_names_one_of_its_headings(page: Path) -> None:
    wrong = []
    for link, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if not anchor or "://" in link:
            continue
        target = (page.parent / link).resolve() if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        if anchor.removeprefix("#") not in slugs:
            wrong.append(f"{link}{anchor}")
    assert wrong == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = re.findall(r"([\w./-]+\.md)$", text("mkdocs.yml"), re.MULTILINE)
    assert sorted(navigation) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_both_readmes_have_the_same_code() -> None:
    english, chinese = (BLOCK.findall(text(page)) for page in ("README.md", "README.zh-CN.md"))
    assert len(english) >= 4
    assert chinese == english


def test_both_readmes_have_the_same_sections_and_links() -> None:
    english, chinese = (text(page) for page in ("README.md", "README.zh-CN.md"))
    assert len(re.findall("^#+ ", chinese, re.MULTILINE)) == len(re.findall("^#+ ", english, re.MULTILINE))
    links = {link for link, _ in LINK.findall(english)} - {"README.zh-CN.md"}
    assert {link for link, _ in LINK.findall(chinese)} - {"README.md"} == links


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len(text("README.md").splitlines()) <= 95


def test_the_dag_of_the_readme_has_at_most_15_lines_and_no_template() -> None:
    (dag,) = (block for _, block in BLOCK.findall(text("README.md")) if "QuickBIMailTaskSensor" in block)
    assert len(dag.strip().splitlines()) <= 15
    assert "{{" not in dag


def test_the_files_shown_in_testing_your_dags_pass_as_they_are(tmp_path: Path) -> None:
    files = FILE.findall(text("docs/testing-your-dags.md"))
    assert [name for name, _ in files if name.startswith("tests/test_")]
    for name, content in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTEST"))}
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        env=ours
        | {
            "PATH": f"{bin_folder}{os.pathsep}{ours['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the page installs pytest and no plugin
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_table_of_codes_holds_every_code_of_the_code() -> None:
    page = text("docs/troubleshooting.md")
    assert [pattern for pattern, _, _ in CODES if f"`{pattern}`" not in page] == []


def test_the_table_of_connection_fields_is_the_one_of_the_form() -> None:
    fields = text("docs/connection.md").partition("## Credential types")[0].partition("<!-- fields")[2]
    documented = re.findall(r"^\| `\w+` \|.*\|$", fields, re.MULTILINE)
    # What fails here shows the rows to copy into the page.
    assert documented == [
        f"| `{field.name}` | {field.label} | {default_of(field.default)} | {field.description} |" for field in FIELDS
    ]


def default_of(value: object) -> str:
    written = str(value).lower() if isinstance(value, bool) else str(value)
    return "" if value is None else f"`{written}`"


def test_every_credential_type_is_documented_with_its_fields() -> None:
    page = text("docs/connection.md")
    for auth in AUTH_TYPES.values():
        (row,) = re.findall(rf"^\| `{auth.name}`[^|]*\|.*$", page, re.MULTILINE)[-1:]
        if auth.name not in ("access_key", "sts"):
            assert [name for name in (*auth.required, *auth.optional) if f"`{name}`" not in row] == []


@pytest.mark.parametrize(
    ("page", "heading", "documented"),
    [
        ("docs/operators.md", "QuickBIListMailTasksOperator", QuickBIListMailTasksOperator),
        ("docs/operators.md", "QuickBIRunMailTaskOperator", QuickBIRunMailTaskOperator),
        ("docs/sensor.md", "QuickBIMailTaskSensor", QuickBIMailTaskSensor),
        ("docs/sensor.md", "QuickBIMailTaskEventTrigger", QuickBIMailTaskEventTrigger),
    ],
)
def test_every_parameter_is_documented_where_its_class_is(page: str, heading: str, documented: type) -> None:
    parameters = [
        name
        for name, parameter in inspect.signature(inspect.unwrap(vars(documented)["__init__"])).parameters.items()
        if name not in ("self", "version") and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    section = text(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert [name for name in parameters if f"`{name}`" not in section] == []


def test_every_target_of_make_is_documented() -> None:
    targets = set(re.findall(r"^([a-z-]+):.* ## ", text("Makefile"), re.MULTILINE))
    assert len(targets) > 10
    documented = set(re.findall(r"^\| `make ([a-z-]+)[` ]", text("docs/development.md"), re.MULTILINE))
    assert targets == documented


def test_the_waits_that_fit_are_those_of_the_rate_that_is_used() -> None:
    rate = rate_limiter(("documented", "documented"), "GetMailTaskStatus").limit
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) (s|min) \| ([\d.]+) (s|min) \|", text("docs/pacing.md"), re.MULTILINE)
    assert len(rows) >= 4
    for waits, every, every_unit, mean, mean_unit in rows:
        least = int(waits.replace(",", "")) / rate
        seconds = {"s": 1, "min": 60}
        assert float(every) * seconds[every_unit] == pytest.approx(least, rel=0.02)
        assert float(mean) * seconds[mean_unit] == pytest.approx(least / 2, rel=0.02)
