"""``python -m airflow_provider_quickbi.testing`` as a user starts and stops it."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_quickbi.testing import DOCUMENTED_CALLS_PER_SECOND, RemoteQuickBI
from airflow_provider_quickbi.testing.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Caller

COMMAND = [sys.executable, "-W", "error", "-u", "-m", "airflow_provider_quickbi.testing"]


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start the command; yields the process and what it printed until it was ready."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or not lines[-1].startswith("export "):
                line = process.stdout.readline()
                assert line, process.stderr.read() if process.stderr else ""
                lines.append(line.rstrip("\n"))
            yield process, lines
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_what_to_copy_serves_and_stops_cleanly(
    number: signal.Signals, make_caller: Callable[..., Caller]
) -> None:
    with running("--port", "0") as (process, lines):
        name, _, value = shlex.split(lines[-1])[1].partition("=")
        connection = json.loads(value)
        assert name == "AIRFLOW_CONN_QUICKBI_DEFAULT"
        assert f"http://127.0.0.1:{connection['port']}" in lines[0]
        remote = RemoteQuickBI(f"http://127.0.0.1:{connection['port']}")
        assert remote.connection() == connection
        call = make_caller(
            SimpleNamespace(
                host=remote.host,
                port=remote.port,
                url=remote.url,
                access_key_id=connection["login"],
                access_key_secret=connection["password"],
            )
        )
        page = call("GetMailTaskList")
        assert len(page["Data"]) == 8
        assert all(
            any(mail["MailId"] in line and mail["SubscribeName"] in line for line in lines) for mail in page["Data"]
        )
        assert [mail["Paused"] for mail in page["Data"]].count(True) == 1
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert "GetMailTaskList {} -> 200 OK" in output
    assert output.endswith("Stopped.\n")


def test_the_demo_has_mail_tasks_that_ran_and_one_with_a_schedule() -> None:
    with running("--port", "0") as (_, lines):
        connection = json.loads(shlex.split(lines[-1])[1].partition("=")[2])
        remote = RemoteQuickBI(f"http://127.0.0.1:{connection['port']}")
        assert [run["status"] for run in remote.runs("daily-sales")] == ["SENT"]
        assert remote.runs("weekly-review") == []
        before = len(remote.runs("frequent-sales"))
        remote.clock.advance(3600)
        assert len(remote.runs("frequent-sales")) == before + 20
        assert remote.calls_per_second == DOCUMENTED_CALLS_PER_SECOND


@pytest.mark.parametrize(("schedule", "runs"), [(("--every", "60"), 1440), (("--cron", "30 8 * * *"), 1)])
def test_every_mail_task_that_is_not_paused_runs_by_a_schedule(schedule: tuple[str, str], runs: int) -> None:
    with running("--port", "0", *schedule) as (_, lines):
        connection = json.loads(shlex.split(lines[-1])[1].partition("=")[2])
        remote = RemoteQuickBI(f"http://127.0.0.1:{connection['port']}")
        before = len(remote.runs("weekly-review"))
        remote.clock.advance(24 * 3600)
        assert len(remote.runs("weekly-review")) == before + runs
        assert remote.runs("stock-alert") == []
        if schedule[0] == "--cron":
            assert remote.runs("weekly-review")[-1]["exec_time"].endswith("T08:30:00+08:00")


@pytest.mark.parametrize("line", ["* * * *", "61 * * * *", "daily"])
def test_a_wrong_cron_line_is_named(line: str) -> None:
    done = subprocess.run([*COMMAND, "--cron", line], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert f"{line!r} is not a cron line such as '30 8 * * *'" in done.stderr


def test_mails_keys_and_limits_can_be_chosen() -> None:
    arguments = ["--mail", "Daily:Wang Fang:my-id", "--mail", "Weekly", "--no-limits"]
    arguments += ["--access-key-id", "my-key", "--access-key-secret", "it's", "--port", "0"]
    with running(*arguments) as (_, lines):
        connection = json.loads(shlex.split(lines[-1])[1].partition("=")[2])
        assert (connection["login"], connection["password"]) == ("my-key", "it's")
        remote = RemoteQuickBI(f"http://127.0.0.1:{connection['port']}")
        mails = remote.mail_tasks()
        assert [(mail["name"], mail["owner"]) for mail in mails] == [("Daily", "Wang Fang"), ("Weekly", "owner")]
        assert mails[0]["mail_id"] == "my-id"
        assert remote.calls_per_second == {}


def test_a_port_in_use_is_one_sentence_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith(f"Cannot listen on 127.0.0.1 port {port}: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--run-duration", "-1"],
        ["--timezone", "Mars/Olympus"],
        ["--mail", ":owner"],
        ["--every", "0"],
    ],
)
def test_an_option_that_makes_no_sense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err
