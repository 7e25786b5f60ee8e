"""The commands as a person or a script runs them: what is printed where, and the exit code."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_quickbi import cli
from airflow_provider_quickbi._check import commands
from airflow_provider_quickbi._check.exchange import Clock
from airflow_provider_quickbi._check.output import Progress, show_table
from airflow_provider_quickbi._check.report import NAMES
from airflow_provider_quickbi.get_provider_info import get_provider_info
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

ROOT = Path(__file__).resolve().parent.parent.parent


def void(_: Any) -> None:
    """Return nothing."""


MAIL = "0123456789abcdef0123456789abcdef"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    quickbi: LocalQuickBI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command against a simulator with one mail task; who sleeps moves its clock."""
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(status_calls_per_second=1000))
    quickbi.add_mail_task("每日销售日报", mail_id=MAIL, owner="Wang Fang")
    clock = Clock(time=quickbi.clock.time, sleep=lambda seconds: void(quickbi.clock.advance(seconds)))
    monkeypatch.setattr("airflow_provider_quickbi._check.exchange.Clock", lambda: clock)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_list_shows_names_owners_and_ids(run: Run, quickbi: LocalQuickBI) -> None:
    quickbi.add_mail_task("Paused one", mail_id="2", paused=True)
    code, out, _ = run("list")
    assert code == 0
    assert re.search(rf"^{MAIL}  每日销售日报 +False +Wang Fang$", out, re.MULTILINE)
    assert [task["mail_id"] for task in json.loads(run("list", "-o", "json", "--paused")[1])] == ["2"]
    assert [task["mail_id"] for task in json.loads(run("list", "-o", "json", "--name", "每日*")[1])] == [MAIL]


def test_status_shows_the_latest_run_or_the_one_with_a_task_id(run: Run, quickbi: LocalQuickBI) -> None:
    assert run("status", MAIL)[:2] == (0, "No run.\n")
    first, second = (quickbi.add_run(MAIL, status=status) for status in ("FAILED", "SENT"))
    assert [row["task_id"] for row in json.loads(run("status", MAIL, "-o", "json")[1])] == [second]
    assert json.loads(run("status", MAIL, "--task-id", first, "-o", "json")[1])[0]["status"] == "FAILED"


def test_status_of_a_mail_task_that_is_not_there_is_refused_with_what_to_do(run: Run) -> None:
    code, out, err = run("status", "nothing", "-o", "json")
    assert (code, out) == (1, "")
    assert "Mail.Not.Found" in err


def test_send_starts_once_and_does_not_wait(run: Run, quickbi: LocalQuickBI) -> None:
    quickbi.set_manual_start(MAIL, duration=600)
    assert run("send", MAIL, "-o", "json")[:2] == (0, json.dumps([{"mail_id": MAIL, "started": True}], indent=2) + "\n")
    assert quickbi.starts(MAIL) == 1


@pytest.mark.parametrize(("outcome", "code"), [("SENT", 0), ("FAILED", 1)])
def test_send_and_wait_follows_the_run_that_is_new(run: Run, quickbi: LocalQuickBI, outcome: str, code: int) -> None:
    quickbi.add_run(MAIL, exec_time="2020-01-01T00:00:00", status="SENT" if outcome == "FAILED" else "FAILED")
    quickbi.set_manual_start(MAIL, duration=120, appears_after=30, outcome=outcome)
    found, out, err = run("send", MAIL, "--wait", "-o", "json")
    assert found == code
    assert json.loads(out)[0]["status"] == outcome
    assert "PROCESSING" in err
    assert quickbi.starts(MAIL) == 1


def test_send_and_wait_follows_a_start_whose_response_was_lost(run: Run, quickbi: LocalQuickBI) -> None:
    quickbi.set_manual_start(MAIL, duration=60)
    quickbi.fail("ManualRunMailTask", Fault.answer_lost())
    assert run("send", MAIL, "--wait")[0] == 0
    assert quickbi.starts(MAIL) == quickbi.count("ManualRunMailTask") == 1


def test_send_says_that_it_does_not_know_and_never_calls_twice(run: Run, quickbi: LocalQuickBI) -> None:
    quickbi.fail("ManualRunMailTask", Fault.reset(processed=False))
    code, _, err = run("send", MAIL)
    assert code == commands.Exit.START_UNKNOWN
    assert "check its status" in err
    quickbi.fail("ManualRunMailTask", Fault.reset(processed=False))
    assert run("send", MAIL, "--wait")[0] == commands.Exit.START_UNKNOWN
    assert quickbi.count("ManualRunMailTask") == 2
    assert quickbi.starts(MAIL) == 0


@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        (lambda q: q.limit_manual_starts(MAIL, minutes=5), commands.Exit.UNAVAILABLE),
        (lambda q: q.deny("Forbidden.RAM", action="ManualRunMailTask"), commands.Exit.FAILED),
        (lambda q: q.set_manual_start(MAIL, appears_after=10**6), commands.Exit.TIMED_OUT),
        (lambda q: q.set_manual_start(MAIL, duration=10**6), commands.Exit.TIMED_OUT),
    ],
)
def test_the_exit_code_of_a_send_says_what_a_script_may_do(
    run: Run, quickbi: LocalQuickBI, breaks: Callable[[LocalQuickBI], Any], code: int
) -> None:
    breaks(quickbi)
    assert run("send", MAIL, "--wait")[0] == code


def test_check_prints_every_line_and_records(run: Run, quickbi: LocalQuickBI, tmp_path: Path) -> None:
    quickbi.add_run(MAIL, exec_time="2020-01-01T00:00:00")
    file = tmp_path / "recording.json"
    code, out, err = run("check", "-o", "json", "--record", str(file))
    report = json.loads(out)
    assert (code, report["result"]) == (0, "ok")
    assert tuple(line["check"] for line in report["checks"]) == NAMES
    assert "GetMailTaskStatus 1/1" in err
    assert json.loads(file.read_text(encoding="utf-8"))["behaviour"]["runs_per_response"] == 1
    assert MAIL not in out
    assert [
        line for line in err.splitlines() if MAIL in line and not line.startswith("INFO: ")
    ] == []  # the simulator's
    assert quickbi.count("ManualRunMailTask") == 0


def test_check_of_a_connection_that_is_wrong_names_the_field(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, says in (
        ('{"conn_type": "quickbi", "login": "x"}', "password (AccessKey Secret) is missing"),
        (
            '{"conn_type": "quickbi", "login": "x", "password": "y", "extra": {"timezone": "Mars"}}',
            "timezone is 'Mars'",
        ),
        ('{"conn_type": "quickbi", "login": "x", "password": "y", "extra": {"region": "cn-beijing"}}', "region is"),
    ):
        monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", value)
        code, out, _ = run("check", "-o", "json")
        failed = [line for line in json.loads(out)["checks"] if line["level"] == "failed"]
        assert (code, [line["check"] for line in failed]) == (1, ["connection"])
        assert says in failed[0]["seen"]
    code, _, err = run("list")
    assert code == commands.Exit.USAGE
    assert "region is" in err


def test_a_connection_that_does_not_exist_is_unavailable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("list", "--conn-id", "nobody_made_it")[0] == commands.Exit.UNAVAILABLE


def test_check_sends_nothing_that_is_not_named(run: Run) -> None:
    code, _, err = run("check", "--send")
    assert code == commands.Exit.USAGE
    assert "--mail-id" in err


@pytest.mark.parametrize(
    "arguments",
    [[], ["check", "--watch", "-1"], ["send"], ["list", "--paused", "--active"], ["status", MAIL, "-o", "xml"]],
)
def test_wrong_arguments_are_a_matter_of_usage(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2


def test_a_terminal_gets_a_table_of_rich_and_a_line_that_is_overwritten() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        show_table([{"level": "ok", "check": "dns"}], ("level", "check"), stream)
    assert plain.getvalue() == "LEVEL  CHECK\nok     dns\n"
    assert "dns" in terminal.getvalue() != plain.getvalue()
    progress = Progress(terminal)
    progress("network")
    progress.done()
    assert terminal.getvalue().endswith("\r\x1b[Knetwork ...\r\x1b[K")


def test_every_option_and_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    shown = subprocess.run(
        [sys.executable, "-m", "airflow_provider_quickbi", "check", "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    assert [option for option in set(re.findall(r"--[a-z-]+", shown)) - {"--help"} if option not in page] == []
    assert [code for code in commands.Exit if f"| {code.value} |" not in page] == []


def test_simulate_runs_the_simulator_and_one_that_is_like_a_recording(tmp_path: Path) -> None:
    reading = ROOT / "tests" / "cli" / "readings" / "never-ran-null.json"
    for arguments, says in (([], "Daily"), (["--like", str(reading)], "like the recording")):
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_quickbi", "simulate", *arguments, "--port", "0"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        with process, process.stdout as out:
            lines: list[str] = []
            while not (lines and lines[-1].startswith("export AIRFLOW_CONN_QUICKBI_DEFAULT=")):
                lines.append(out.readline())
                assert lines[-1], lines
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        assert says in "".join(lines) or says == "Daily"
    assert cli.main(["simulate", "--like", str(tmp_path / "nothing.json")]) == commands.Exit.USAGE


def test_airflow_is_given_the_same_commands() -> None:
    assert get_provider_info()["cli"] == ["airflow_provider_quickbi.cli.get_cli_commands"]
    (group,) = cli.get_cli_commands()
    assert [command.name for command in group.subcommands] == ["check", "list", "send", "simulate", "status"]


def test_airflow_parses_and_runs_them(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    from airflow.cli import cli_parser

    parser = argparse.ArgumentParser()
    cli_parser._add_command(parser.add_subparsers(dest="subcommand"), cli.get_cli_commands()[0])
    options = parser.parse_args(["quickbi", "list", "--output", "json"])
    with pytest.raises(SystemExit) as stopped:
        options.func(options)
    assert stopped.value.code == 0
    printed = re.search(r"^\[\s*\{.*", capsys.readouterr().out, re.DOTALL | re.MULTILINE)  # Airflow 2 logs before it
    assert printed is not None
    assert json.loads(printed.group())[0]["mail_id"] == MAIL
    assert parser.parse_args(["quickbi", "simulate", "--port", "0", "--help"]).arguments == ["--port", "0", "--help"]


def test_loading_the_commands_costs_airflow_nothing() -> None:
    program = (
        "import sys, airflow.cli.cli_config\nbefore = set(sys.modules)\n"
        "from airflow_provider_quickbi.cli import get_cli_commands\nget_cli_commands()\n"
        "print(sorted(name for name in set(sys.modules) - before if 'quickbi' not in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    loaded = done.stdout.splitlines()[-1]
    assert [name for name in ("requests", "aiohttp", "rich.table", "alibabacloud") if f"'{name}" in loaded] == []


def test_a_connection_of_airflows_database_is_found(quickbi: LocalQuickBI, tmp_path: Path) -> None:
    quickbi.add_mail_task("Daily sales", mail_id=MAIL)
    program = f"""
import sys
from airflow import settings
from airflow.models.connection import Connection
settings.initialize()
from airflow.utils.db import initdb
initdb()
with settings.Session() as session:
    session.add(Connection(conn_id="stored", conn_type="quickbi", host="127.0.0.1", port={quickbi.port}, schema="http",
                           login={quickbi.access_key_id!r}, password={quickbi.access_key_secret!r}))
    session.commit()
from airflow_provider_quickbi import cli
sys.exit(cli.main(["list", "--conn-id", "stored", "-o", "json"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "AIRFLOW_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert MAIL in done.stdout
