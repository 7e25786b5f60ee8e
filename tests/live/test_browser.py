"""What a person sees in the browser: the connection form, its test, a DAG run and the link to Quick BI.

``SCREENSHOTS=docs/images make test-live`` renews the pictures of the documentation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_quickbi import connection
from airflow_provider_quickbi.connection.form import form_behaviour
from tests.live import browser

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

    from airflow_provider_quickbi.testing import LocalQuickBI
    from dev.standalone import Airflow, Api
    from tests.live.runs import Run

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=browser.missing() or "")

#: A picture must not be larger than that, in bytes, to be read as part of a page.
LARGEST_PICTURE = 300_000
WIDTH, HEIGHT = 1280, 880
#: What Airflow leaves free below a table.
MARGIN = 13


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser.opened(WIDTH, HEIGHT) as page:
        yield page


@pytest.fixture(scope="module", autouse=True)
def report(quickbi: LocalQuickBI, trigger: Callable[..., Run]) -> Run:
    """A DAG run that sends a report while the other tests check something else."""
    quickbi.add_mail_task("Daily report", mail_id="daily-report", owner="Wang Fang", run_duration=3)
    return trigger("daily_report")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Takes a picture of what is shown."""
    folder = browser.screenshots(tmp_path_factory.mktemp("screenshots"))

    def take(shown: Page | Locator, name: str, down_to: Locator | None = None) -> None:
        path: Path = folder / f"{name}.png"
        page: Any = shown
        if down_to is not None:
            box: Any = down_to.bounding_box()
            page.set_viewport_size({"width": WIDTH, "height": math.ceil(box["y"] + box["height"]) + MARGIN})
        shown.screenshot(path=path, animations="disabled")
        if down_to is not None:
            page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        assert path.stat().st_size < LARGEST_PICTURE

    return take


@pytest.fixture
def form(airflow: Airflow, page: Page) -> Locator:
    """The empty form of a new Quick BI connection, with the standard fields open."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_role("combobox").click()
    page.keyboard.type("Quick BI")
    page.get_by_role("option", name=connection.HOOK_NAME, exact=True).click()
    form.get_by_text("Standard Fields", exact=True).wait_for()
    return form


def open_extra_fields(form: Locator) -> None:
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    field_of(form, connection.FIELDS[-1].name).wait_for()


def field_of(form: Locator, name: str) -> Locator:
    return form.locator(f"[name=element_{name}]")


def test_the_form_shows_label_and_help_of_every_field_and_no_raw_key(form: Locator) -> None:
    standard = form.inner_text().splitlines()
    assert set(form_behaviour()["relabeling"].values()) <= set(standard)
    for name, placeholder in form_behaviour()["placeholders"].items():
        assert form.locator(f"input[name={name}]").get_attribute("placeholder") == placeholder

    open_extra_fields(form)
    lines = form.inner_text().splitlines()
    for field in connection.FIELDS:
        assert field.label in lines, field.name
        assert field.description in lines, field.name
        assert field.name not in lines
    assert "null" not in lines


def test_each_field_of_the_form_is_of_its_kind_and_shows_its_default(form: Locator, page: Page) -> None:
    open_extra_fields(form)
    for field in connection.FIELDS:
        shown = field_of(form, field.name)
        assert shown.count() == 1, field.name
        assert (shown.get_attribute("type") == "password") == field.secret, field.name
        if field.kind == "boolean":
            assert shown.is_checked() == bool(field.default), field.name
        else:
            assert shown.input_value() == ("" if field.default is None else str(field.default)), field.name
    for position, field in enumerate((field for field in connection.FIELDS if field.choices), start=1):
        form.get_by_role("combobox").nth(position).click()  # the first one is the connection type
        assert page.get_by_role("option").all_inner_texts() == list(field.choices)
        page.get_by_role("option", name=str(field.default), exact=True).click()


def test_a_connection_is_filled_in_saved_and_tested(
    form: Locator, page: Page, quickbi: LocalQuickBI, api: Api, picture: Callable[..., None]
) -> None:
    form.locator("[name=connection_id]").fill("quickbi_reports")
    form.locator("[name=description]").fill("Daily reports of the sales department")
    form.locator("[name=password]").fill(quickbi.access_key_secret)
    form.locator("[name=login]").fill("LTAI5tExampleExample")
    form.get_by_text("Add Connection", exact=True).click()  # so that no field has the focus
    picture(form, "connection-form")
    form.locator("[name=login]").fill(quickbi.access_key_id)
    form.locator("[name=host]").fill(quickbi.host)
    form.locator("[name=port]").fill(str(quickbi.port))
    form.locator("[name=schema]").fill(quickbi.scheme)
    open_extra_fields(form)
    page.set_viewport_size({"width": WIDTH, "height": 4 * HEIGHT})
    picture(form, "connection-form-extra")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    field_of(form, "read_timeout").fill("20")
    field_of(form, "console_url").fill("https://bi.example.com/")
    form.get_by_role("button", name="Save", exact=True).click()

    page.set_viewport_size({"width": WIDTH, "height": HEIGHT * 2 // 3})
    page.get_by_role("row").filter(has_text="quickbi_reports").get_by_role("button", name="Test Connection").click()
    notified = page.get_by_text("Reached Quick BI").inner_text()
    picture(page, "connection-tested")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    visible = len(quickbi.mail_tasks())
    assert f"127.0.0.1:{quickbi.port}" in notified
    assert notified.endswith(f"mail tasks visible: {visible}.")
    saved = api.get("/connections/quickbi_reports")
    assert (saved["conn_type"], saved["host"], saved["port"], saved["schema"]) == (
        "quickbi",
        quickbi.host,
        quickbi.port,
        quickbi.scheme,
    )
    extra: dict[str, Any] = json.loads(saved["extra"])
    assert set(extra) <= connection.FIELD_NAMES
    assert (extra["read_timeout"], extra["console_url"]) == (20, "https://bi.example.com/")


def test_a_wrong_secret_is_explained_in_the_browser(
    airflow: Airflow, page: Page, quickbi: LocalQuickBI, api: Api
) -> None:
    wrong = quickbi.connection() | {"connection_id": "quickbi_mistyped", "password": "mistyped", "extra": "{}"}
    api.post("/connections", wrong)
    page.goto(f"{airflow.url}/connections")

    row = page.get_by_role("row").filter(has_text="quickbi_mistyped")
    row.get_by_role("button", name="Test Connection").click()
    notified = page.get_by_text("Check the AccessKey Secret").inner_text()
    api.request("DELETE", "/connections/quickbi_mistyped")

    assert "Code SignatureDoesNotMatch" in notified
    assert len(notified) < 500, notified


def test_the_page_of_a_task_has_the_link_to_quick_bi(
    airflow: Airflow, page: Page, report: Run, picture: Callable[..., None]
) -> None:
    report.succeed()

    page.goto(f"{airflow.url}/dags/daily_report/runs/{report.run_id}")
    rows = page.get_by_role("row")
    for task in report.states():
        rows.filter(has_text=task).last.wait_for()
    picture(page, "dag-run", down_to=rows.last)
    page.goto(f"{airflow.url}/dags/daily_report/runs/{report.run_id}/tasks/send_report/details")
    link = page.get_by_role("link", name="Quick BI", exact=True)
    link.wait_for()
    picture(page, "task-with-link", down_to=rows.filter(has_text="End Date").last)

    assert link.get_attribute("href") == "https://bi.aliyun.com/"
