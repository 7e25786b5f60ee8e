"""What the documentation says is what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from airflow_provider_quickbi.api.credentials import AUTH_TYPES
from airflow_provider_quickbi.api.errors import CODES
from airflow_provider_quickbi.api.rate_limit import rate_limiter
from airflow_provider_quickbi.connection import FIELDS
from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link, _ in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_a_page_names_one_of_its_headings(page: Path) -> None:
    wrong = []
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target = (page.parent / link).resolve() if link else page
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        if anchor not in slugs:
            wrong.append(f"{link}#{anchor}")
    assert wrong == []


def test_the_table_of_codes_holds_every_code_of_the_code() -> None:
    page = text("docs/troubleshooting.md")
    assert [pattern for pattern, _, _ in CODES if f"`{pattern}`" not in page] == []


def test_the_table_of_connection_fields_is_the_one_of_the_form() -> None:
    fields = text("docs/connection.md").partition("## Credential types")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", fields, re.MULTILINE)
    documented = {name: (label, description) for name, label, _, description in rows}
    assert documented == {field.name: (field.label, field.description) for field in FIELDS}


def test_every_field_is_in_the_readme() -> None:
    page = text("README.md")
    general = [field.name for field in FIELDS if field.name in page]
    assert {"region", "network", "auth_type", "timezone", "status_calls_per_second", "verify"} <= set(general)


def test_every_credential_type_is_documented_with_its_fields() -> None:
    page = text("docs/connection.md")
    for auth in AUTH_TYPES.values():
        (row,) = re.findall(rf"^\| `{auth.name}`[^|]*\|.*$", page, re.MULTILINE)[-1:]
        if auth.name not in ("access_key", "sts"):
            assert [name for name in (*auth.required, *auth.optional) if f"`{name}`" not in row] == []


@pytest.mark.parametrize(
    ("page", "operator"),
    [
        ("docs/operators.md", QuickBIListMailTasksOperator),
        ("docs/operators.md", QuickBIRunMailTaskOperator),
        ("README.md", QuickBIMailTaskSensor),
        ("docs/sensor.md", QuickBIMailTaskSensor),
    ],
)
def test_every_parameter_is_documented(page: str, operator: type) -> None:
    parameters = [
        name
        for name, parameter in inspect.signature(inspect.unwrap(operator.__init__)).parameters.items()
        if name != "self" and parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    known = text(page) + text("README.md")
    assert [name for name in parameters if f"`{name}`" not in known and f"`{name}=" not in known] == []


def test_the_dag_of_the_readme_has_at_most_15_lines() -> None:
    (dag,) = (block for block in blocks(ROOT / "README.md") if "QuickBIMailTaskSensor" in block)
    assert len(dag.strip().splitlines()) <= 15


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
