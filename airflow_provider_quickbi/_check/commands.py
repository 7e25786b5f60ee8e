"""What each subcommand does: options in, output and an exit code out."""

from __future__ import annotations

import os
import sys
from enum import IntEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from airflow_provider_quickbi._check.output import Progress, show_json, show_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from airflow_provider_quickbi._check.report import Report
    from airflow_provider_quickbi.api.errors import QuickBIError
    from airflow_provider_quickbi.api.models import Run
    from airflow_provider_quickbi.api.settings import ClientSettings


_PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


class Exit(IntEnum):
    """The exit codes, documented in ``docs/command-line.md``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    TIMED_OUT = 4
    START_UNKNOWN = 5


def check(options: argparse.Namespace, out: TextIO) -> int:
    """Go through what can go wrong before the first DAG."""
    from airflow_provider_quickbi._check.behaviour import Behaviour
    from airflow_provider_quickbi._check.checks import Checker, Options
    from airflow_provider_quickbi._check.report import Level, Report, failed

    if options.send and not options.mail_id:
        return complain("--send needs --mail-id: the mail task that is started once", Exit.USAGE)
    progress = Progress()
    try:
        settings, identity = _settings(options.conn_id)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the connection is a line of the report
        report = Report(Behaviour())
        report.add(failed("connection", *_first_sentence(str(error))))
    else:
        checked = Options(
            mail_id=options.mail_id,
            watch=options.watch * 60.0,
            send=options.send,
            probe_send=options.probe_send,
            dataset_id=options.dataset_id,
            timeout=options.timeout,
            interval=options.poll_interval,
        )
        report = Checker(settings, identity, checked, progress=progress).run()
    progress.done()
    _show_report(report, options, out)
    if options.record:
        from airflow_provider_quickbi._check import recording

        recording.write(Path(options.record), report)
    return Exit.FAILED if report.worst is Level.FAILED else Exit.OK


def list_mail_tasks(options: argparse.Namespace, out: TextIO) -> int:
    """Show the visible mail tasks."""
    from airflow_provider_quickbi.api.errors import QuickBIError

    settings, _ = _settings(options.conn_id)
    progress = Progress()
    rows: list[dict[str, Any]] = []
    try:
        with _client(settings) as client:
            for task in client.iter_mail_tasks(options.user_nick, options.paused, page_size=100):
                if options.name is None or fnmatchcase(task.subscribe_name, options.name):
                    rows.append(task.as_dict())
                if rows and len(rows) % 100 == 0:
                    progress(f"{len(rows)} mail tasks")
    except QuickBIError as error:
        progress.done()
        return _explain(error)
    progress.done()
    _show(rows, ("mail_id", "subscribe_name", "paused", "biz_owner_name"), options, out)
    return Exit.OK


def status(options: argparse.Namespace, out: TextIO) -> int:
    """Show the latest run of a mail task, or the one with a TaskId."""
    from airflow_provider_quickbi.api.errors import QuickBIError

    settings, _ = _settings(options.conn_id)
    try:
        with _client(settings) as client:
            runs = client.get_mail_task_status(options.mail_id, options.task_id)
    except QuickBIError as error:
        return _explain(error)
    _show_runs(runs, options, out)
    return Exit.OK


def send(options: argparse.Namespace, out: TextIO) -> int:
    """Start a mail task once, and optionally follow its run."""
    from airflow_provider_quickbi._check.exchange import Clock
    from airflow_provider_quickbi._check.sending import follow, start_once
    from airflow_provider_quickbi._send.record import StartResult
    from airflow_provider_quickbi._wait.state import Outcome
    from airflow_provider_quickbi.api.errors import QuickBIError

    settings, _ = _settings(options.conn_id)
    clock, progress = Clock(), Progress()
    with _client(settings) as client:
        try:
            start = start_once(client, options.mail_id, clock)
        except QuickBIError as error:
            return _explain(error, "Nothing was started. ")
        if start.error is not None and not start.may_have_started:
            return _explain(start.error, "Nothing was started. ")
        unknown = start.result is StartResult.UNKNOWN
        if not options.wait:
            if unknown:
                hint = "The mail may have been started: check its status before you send it again."
                return complain(f"{start.error}. {hint}", Exit.START_UNKNOWN)
            _show([{"mail_id": options.mail_id, "started": True}], ("mail_id", "started"), options, out)
            return Exit.OK
        end = follow(
            client,
            options.mail_id,
            start.selector(),
            clock,
            timeout=options.timeout,
            start_timeout=min(options.start_timeout, options.timeout),
            interval=options.poll_interval,
            progress=progress,
        )
    progress.done()
    if end.run is not None:
        _show_runs([end.run], options, out)
    if end.outcome is Outcome.SUCCEEDED:
        return Exit.OK
    codes = {
        Outcome.FAILED: Exit.FAILED,
        Outcome.REFUSED: Exit.FAILED,
        Outcome.NOT_STARTED: Exit.START_UNKNOWN if unknown else Exit.TIMED_OUT,
        Outcome.UNAVAILABLE: Exit.UNAVAILABLE,
    }
    return complain(end.message, codes.get(end.outcome, Exit.TIMED_OUT))


def simulate(arguments: Sequence[str]) -> int:
    """Run the local Quick BI, as documented or like a recording."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, usage="simulate [--like FILE] [OPTION ...]")
    parser.add_argument("--like", metavar="FILE")
    own, rest = parser.parse_known_args([argument for argument in arguments if argument != "--"])
    if own.like is None:
        from airflow_provider_quickbi.testing.__main__ import main

        if {"-h", "--help"} & set(rest):
            print("simulate --like FILE: behave like a recording of check --record. Without it:\n")
        return main(rest)
    from airflow_provider_quickbi._check import recording, replay

    try:
        return replay.main(recording.read(Path(own.like)), rest)
    except (recording.RecordingError, OSError) as error:
        return complain(str(error), Exit.USAGE)


def _settings(conn_id: str) -> tuple[ClientSettings, str]:
    """Return the settings of a connection and the caller, masked.

    :raises QuickBIConnectionError: if a field is wrong or missing.
    :raises QuickBIUnavailable: if it does not exist or cannot be read.
    """
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

    # As Airflow's own commands do: without it Airflow 3 finds connections of the environment only.
    before = os.environ.get(_PROCESS_CONTEXT)
    os.environ[_PROCESS_CONTEXT] = "server"
    try:
        settings = QuickBIHook(conn_id).quickbi_connection.settings
    finally:
        if before is None:
            del os.environ[_PROCESS_CONTEXT]
        else:
            os.environ[_PROCESS_CONTEXT] = before
    return settings, settings.credentials.shown


def _client(settings: ClientSettings) -> Any:
    from airflow_provider_quickbi.api.client import QuickBIClient

    return QuickBIClient(settings)


def _show(rows: Sequence[dict[str, Any]], columns: Sequence[str], options: argparse.Namespace, out: TextIO) -> None:
    if options.output == "json":
        show_json(list(rows), out)
    else:
        show_table(rows, columns, out)


def _show_runs(runs: Sequence[Run], options: argparse.Namespace, out: TextIO) -> None:
    rows = [run.as_dict() for run in runs]
    if not rows and options.output != "json":
        print("No run.", file=out)
        return
    _show(rows, ("task_id", "status", "exec_time"), options, out)


def _show_report(report: Report, options: argparse.Namespace, out: TextIO) -> None:
    if options.output == "json":
        show_json(report.as_dict(verbose=options.verbose), out)
        return
    columns = ("level", "check", "seen", "remedy", *(("detail",) if options.verbose else ()))
    show_table([finding.as_dict(verbose=options.verbose) for finding in report.findings], columns, out)


def _explain(error: QuickBIError, before: str = "") -> int:
    from airflow_provider_quickbi.api.errors import PermanentError

    return complain(f"{before}{error}", Exit.FAILED if isinstance(error, PermanentError) else Exit.UNAVAILABLE)


def complain(text: str, code: Exit) -> int:
    """Print an error, and return the exit code."""
    print(f"Error: {text}", file=sys.stderr, flush=True)
    return code


def _first_sentence(text: str) -> tuple[str, str]:
    """Split an error of the connection into what was seen and what to do."""
    seen, _, remedy = text.partition(". ")
    return seen.rstrip("."), remedy or "Check the connection"
