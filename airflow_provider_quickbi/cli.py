"""The command line: ``airflow quickbi`` and ``python -m airflow_provider_quickbi``, with one parser for both."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PROG = "python -m airflow_provider_quickbi"
_CONN_ID = "quickbi_default"
_DESCRIPTION = "Alibaba Cloud Quick BI: check a connection, list, send and follow mail tasks, run a simulator."


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--conn-id", default=_CONN_ID, help=f"Airflow connection (default: {_CONN_ID})")
    parser.add_argument("--output", "-o", choices=("table", "json"), default="table", help="default: table")


def _polling(parser: argparse.ArgumentParser, timeout: int) -> None:
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=timeout,
        metavar="SECONDS",
        help=f"how long to follow a run (default: {timeout})",
    )
    parser.add_argument(
        "--poll-interval", type=_seconds, default=10, metavar="SECONDS", help="time between two polls (default: 10)"
    )


def _check(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    _polling(parser, 1800)
    parser.add_argument("--mail-id", help="a mail task that must be visible; the one that --send starts")
    parser.add_argument(
        "--watch", type=_minutes, default=0, metavar="MINUTES", help="watch whether finished runs change (default: 0)"
    )
    parser.add_argument("--send", action="store_true", help="start --mail-id once: THE REPORT GOES OUT")
    parser.add_argument(
        "--probe-send",
        action="store_true",
        help="check whether a start is allowed, with a nonexistent MailId; starts nothing",
    )
    parser.add_argument("--dataset-id", help="a dataset whose refreshes are also checked")
    parser.add_argument("--record", metavar="FILE", help="write the responses, anonymised, to a file")
    parser.add_argument("--verbose", "-v", action="store_true", help="also show hosts, RequestIds and messages")


def _list(parser: argparse.ArgumentParser) -> None:
    _common(parser)
    parser.add_argument("--name", metavar="GLOB", help="only mail tasks whose name matches, for example 'Daily*'")
    parser.add_argument("--user-nick", help="only those of the owner with this nickname")
    paused = parser.add_mutually_exclusive_group()
    paused.add_argument("--paused", action="store_true", default=None, help="only paused ones")
    paused.add_argument("--active", dest="paused", action="store_false", default=None, help="only active ones")


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mail_id", metavar="MAIL_ID", help="the mail task")
    parser.add_argument("--task-id", help="a run (default: the latest)")
    _common(parser)


def _send(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mail_id", metavar="MAIL_ID", help="the mail task")
    parser.add_argument("--wait", action="store_true", help="follow the run until it is SENT or FAILED")
    parser.add_argument(
        "--start-timeout",
        type=_seconds,
        default=600,
        metavar="SECONDS",
        help="how long its run may take to appear (default: 600)",
    )
    _common(parser)
    _polling(parser, 3600)


def _simulate(parser: argparse.ArgumentParser) -> None:
    # All that follows, --help included, is for the simulator's own parser.
    parser.prefix_chars = "\0"
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="simulator options, such as --like FILE or --help")


#: Name, help, arguments.
_COMMANDS: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("check", "Check a connection before the first DAG; read-only unless --send", _check),
    ("list", "List the visible mail tasks", _list),
    ("send", "Start a mail task once", _send),
    ("simulate", "Run a Quick BI on this machine", _simulate),
    ("status", "Show the latest run of a mail task", _status),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: without the program; default those of the process.
    :returns: the exit code, see ``docs/command-line.md``.
    """
    parser = argparse.ArgumentParser(prog=_PROG, description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, configure in _COMMANDS:
        configure(commands.add_parser(name, help=text, description=text))
    options = parser.parse_args(arguments)
    return run(options.command, options)


def run(name: str, options: argparse.Namespace) -> int:
    """Carry out a subcommand.

    :returns: the exit code.
    """
    from airflow_provider_quickbi._check import commands

    if name == "simulate":
        return commands.simulate(options.arguments)
    with redirect_stdout(sys.stderr):  # what Airflow says while it is imported
        from airflow_provider_quickbi.exceptions import QuickBIConnectionError, QuickBIUnavailable
    carry_out: dict[str, Callable[[argparse.Namespace, TextIO], int]] = {
        "check": commands.check,
        "list": commands.list_mail_tasks,
        "send": commands.send,
        "status": commands.status,
    }
    try:
        with _logs_on_stderr() as out:
            return carry_out[name](options, out)
    except QuickBIConnectionError as error:
        return commands.complain(str(error), commands.Exit.USAGE)
    except QuickBIUnavailable as error:
        return commands.complain(str(error), commands.Exit.UNAVAILABLE)
    except OSError as error:
        return commands.complain(str(error), commands.Exit.FAILED)
    except KeyboardInterrupt:
        return 130


@contextmanager
def _logs_on_stderr() -> Iterator[TextIO]:
    """Reserve standard output for results: Airflow logs to it."""
    logger = logging.getLogger("airflow_provider_quickbi")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        out = sys.stdout
        with redirect_stdout(sys.stderr):
            yield out
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def get_cli_commands() -> list[Any]:
    """Return the commands for Airflow, which adds them to ``airflow``; called by Airflow 3.2 and later."""
    from airflow.cli.cli_config import ActionCommand, GroupCommand

    # Nothing heavy is imported up here: Airflow calls this for every command.
    return [
        GroupCommand(
            name="quickbi",
            help="Check, list, send and follow mail tasks of Alibaba Cloud Quick BI",
            description=_DESCRIPTION,
            subcommands=[
                ActionCommand(name=name, help=text, func=_action(name), args=_arguments(configure))
                for name, text, configure in _COMMANDS
            ],
        )
    ]


def _arguments(configure: Callable[[argparse.ArgumentParser], None]) -> Any:
    """Return what stands in for Airflow's ``Arg``, sorted by ``flags``, so that both command lines have one parser."""
    return (SimpleNamespace(flags=("--arguments",), add_to_parser=configure),)


def _action(name: str) -> Callable[[argparse.Namespace], None]:
    """Return what carries out a subcommand for Airflow, which ignores what is returned."""

    def action(options: argparse.Namespace) -> None:
        sys.exit(run(name, options))

    return action


def _seconds(text: str) -> float:
    return _number(text, "seconds")


def _minutes(text: str) -> float:
    return _number(text, "minutes")


def _number(text: str, unit: str) -> float:
    number = float(text)
    if not 0 <= number < 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}")
    return number
