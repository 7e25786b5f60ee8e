"""A recording holds the shapes of the responses and nothing that identifies the account; the simulator can load it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quickbi._check import recording
from airflow_provider_quickbi._check.recording import Anonymiser, RecordingError
from airflow_provider_quickbi._check.replay import imitate, populate
from airflow_provider_quickbi._check.report import Report
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.testing import LocalQuickBI

KEY, SECRET, TOKEN = "LTAI5tRealAccessKeyId", "RealAccessKeySecret0123456789", "RealSecurityToken0123456789"
MAILS = {
    "0123456789abcdef0123456789abcdef": ("每日销售日报", "王芳", "204100000000000001"),
    "7f1c2a9e-5b64-4f3d-9a77-1b2c3d4e5f60": ("Finance review", "Li Wei", "204100000000000002"),
    "2342526": ("Inventory", "Chen Jie", "204100000000000003"),
}


@pytest.fixture
def account() -> Iterator[LocalQuickBI]:
    with LocalQuickBI(access_key_id=KEY, access_key_secret=SECRET) as quickbi:
        quickbi.task_id_as_string, quickbi.status_list = True, 3
        quickbi.change_account(KEY, security_token=TOKEN)
        for mail_id, (name, owner, owner_id) in MAILS.items():
            quickbi.add_mail_task(name, mail_id=mail_id, owner=owner, owner_id=owner_id)
        for mail_id in list(MAILS)[:2]:
            for days in (3, 2, 1):
                quickbi.add_run(mail_id, exec_time=quickbi.clock.now() - timedelta(days=days))
        yield quickbi


@pytest.fixture
def report(account: LocalQuickBI, check: Callable[..., Report]) -> Report:
    """A check that sends, and in which the service quotes what it should not."""
    mail_id = next(iter(MAILS))
    quoted = f"User {KEY} of 王芳 ({mail_id}, {TOKEN}) is not allowed to see Finance review."

    account.deny("Mail.Forbidden.Access", mail_id="2342526", message=quoted)
    credentials = CredentialSpec.of("sts", access_key_id=KEY, access_key_secret=SECRET, security_token=TOKEN)
    return check(account, credentials=credentials, mail_id=mail_id, send=True)


def test_nothing_secret_no_id_no_name_and_no_time_of_the_account_is_in_a_recording(
    account: LocalQuickBI, report: Report, tmp_path: Path
) -> None:
    recording.write(tmp_path / "recording.json", report)
    written = (tmp_path / "recording.json").read_text(encoding="utf-8")
    went_in = [KEY, SECRET, TOKEN, account.host, f"{account.port}"]
    for mail_id, facts in MAILS.items():
        went_in += [mail_id, *facts, *(run["task_id"] for run in account.runs(mail_id))]
        went_in += [run["exec_time"][:10] for run in account.runs(mail_id)]
    for exchange in report.exchanges:
        went_in += [str(exchange.envelope["requestid"]), datetime.now(UTC).strftime("%d %b %Y")]
    assert len(went_in) > 40
    assert [item for item in went_in if item in written or json.dumps(item)[1:-1] in written] == []
    assert "Mail.Forbidden.Access" in written
    assert '"SENT"' in written


def test_equal_values_stay_equal_and_the_distance_between_times_stays(report: Report) -> None:
    written = recording.record(report)
    bodies = [exchange["body"] for exchange in written["exchanges"]]
    listed = [task["MailId"] for task in bodies[0]["Result"]["Data"]]
    assert len(set(listed)) == len(MAILS)
    polled = [exchange["parameters"]["MailId"] for exchange in written["exchanges"][1:]]
    assert set(polled) == set(listed)
    assert [len(stand_in) for stand_in in listed] == [len(mail_id) for mail_id in MAILS]
    first = next(exchange for exchange in report.exchanges if len(exchange.result or ()) == 3)
    body = next(body for body in bodies if isinstance(body.get("Result"), list) and len(body["Result"]) == 3)

    def gaps(runs: list[dict[str, str]]) -> list[timedelta]:
        times = [datetime.fromisoformat(run["execTime"]) for run in runs]
        return [times[0] - time for time in times]

    assert gaps(body["Result"]) == gaps(first.result) != [timedelta(0)] * 3
    assert isinstance(body["Result"][0]["taskId"], str)


def test_the_behaviour_is_recorded_and_a_simulator_like_it_is_recorded_the_same(
    report: Report, tmp_path: Path, check: Callable[..., Report]
) -> None:
    recording.write(tmp_path / "recording.json", report)
    read = recording.read(tmp_path / "recording.json")
    assert (read.behaviour.task_id_type, read.behaviour.runs_per_response, read.behaviour.order) == (
        "string",
        3,
        "newest_first",
    )
    with LocalQuickBI() as like:
        populate(like, read)
        imitate(like, read.behaviour)
        assert len(like.mail_tasks()) == len(MAILS)
        mail_id = str(like.mail_tasks()[0]["mail_id"])
        for days in (3, 2):
            like.add_run(mail_id, exec_time=like.clock.now() - timedelta(days=days))
        again = check(like, mail_id=mail_id, send=True).behaviour
    for name in ("timezone", "task_id_type", "status_keys", "runs_per_response", "order", "outcome", "unknown_task_id"):
        assert getattr(again, name) == getattr(read.behaviour, name), name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("note", "Wang Fang"),
        ("note", 1234567),
        ("4711000815", True),
        ("Message", "mail task 4711 of Wang Fang"),
        ("status", "Sent to wang@example.com"),
        ("Code", "user 4711"),
        ("startDate", "2024/05/06 07:08:09"),
        ("list", [["Wang Fang"]]),
    ],
)
def test_what_is_not_known_to_be_harmless_is_replaced(key: str, value: Any) -> None:
    written = json.dumps(Anonymiser(1_700_000_000).value({key: value}))
    assert not any(part in written for part in ("Wang", "1234567", "4711", "wang@", "2024/05"))


def test_the_minutes_of_a_limit_and_the_blanks_of_a_status_stay() -> None:
    kept = Anonymiser(0).value({"Message": "任务请求频繁，请30分钟后重试。", "status": "SUCCESS ", "TotalNum": 12})  # noqa: RUF001
    assert kept == {"Message": "Please Try Again In 30 Minutes.", "status": "SUCCESS ", "TotalNum": 12}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no JSON", "is not JSON"),
        ("[]", "is not a recording"),
        (json.dumps({"format": recording.FORMAT, "version": 9}), "version 9"),
        (json.dumps({"format": recording.FORMAT, "version": 1, "behaviour": {"colour": 1}}), "'colour'"),
    ],
)
def test_what_is_no_recording_is_refused_in_words(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(text, encoding="utf-8")
    with pytest.raises(RecordingError, match=says):
        recording.read(tmp_path / "file.json")
