"""Runs the simulator by itself: ``python -m airflow_provider_quickbi.testing``."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_quickbi.testing.demo import add_demo_data
from airflow_provider_quickbi.testing.exchange import logger
from airflow_provider_quickbi.testing.limits import DOCUMENTED_CALLS_PER_SECOND
from airflow_provider_quickbi.testing.runs import cron_times
from airflow_provider_quickbi.testing.server import LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(
    arguments: Sequence[str] | None = None, prepare: Callable[[LocalQuickBI], None] | None = None, title: str = ""
) -> int:
    """Run the simulator until SIGINT or SIGTERM.

    :param arguments: the command line without the program; default that of the process.
    :param prepare: adds the mail tasks, instead of those of the command line.
    :param title: what the first line says after the address.
    :returns: the exit status: 0 after a clean stop, 1 if the address cannot be used.
    """
    options = _parse(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logger.setLevel(logging.WARNING if options.quiet else logging.INFO)
    quickbi = LocalQuickBI(
        host=options.host,
        port=options.port,
        access_key_id=options.access_key_id,
        access_key_secret=options.access_key_secret,
        calls_per_second=options.limits,
        run_duration=options.run_duration,
        run_appears_after=options.run_appears_after,
        timezone=options.timezone,
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        quickbi.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        print(f"Cannot listen on {options.host} port {options.port}: {reason}.", file=sys.stderr)
        return 1
    try:
        (prepare or (lambda local: _add_mails(local, options.mail)))(quickbi)
        if options.every or options.cron:
            for mail in quickbi.mail_tasks():
                quickbi.add_schedule(mail["mail_id"], every=options.every, cron=options.cron)
        _introduce(quickbi, title)
        while not stopping.wait(3600):
            pass
    finally:
        quickbi.stop()
    print("Stopped.", flush=True)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_quickbi.testing",
        description="Run a local Quick BI to try DAGs without an account.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=None,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=_port, default=8765, help="port to listen on, 0 for any free one")
    add("--access-key-id", default="local-access-key-id", help="of the account")
    add("--access-key-secret", default="local-access-key-secret", help="of the account")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument(
        "--calls-per-second",
        dest="limits",
        type=_positive,
        metavar="X",
        default=DOCUMENTED_CALLS_PER_SECOND,
        help="calls per second for each operation, the documented limits",
    )
    limits.add_argument("--no-limits", dest="limits", action="store_const", const=None, help="no rate limits")
    add("--run-duration", type=_seconds, default=20.0, metavar="SECONDS", help="how long a run takes")
    add("--run-appears-after", type=_seconds, default=2.0, metavar="SECONDS", help="delay until a started run appears")
    add("--timezone", type=_timezone, default="Asia/Shanghai", help="time zone of execution times")
    add(
        "--mail",
        action="append",
        type=_mail,
        metavar="NAME[:OWNER[:MAIL_ID]]",
        help="add a mail task instead of sample ones; may be repeated",
    )
    schedule = parser.add_mutually_exclusive_group()
    schedule.add_argument("--every", type=_positive, metavar="SECONDS", help="run each mail task at this interval")
    schedule.add_argument("--cron", type=_cron, metavar="LINE", help="run each mail task at these times: '30 8 * * *'")
    add("--quiet", action="store_true", help="do not print the calls")
    return parser.parse_args(arguments)


def _add_mails(quickbi: LocalQuickBI, mails: Sequence[tuple[str, str, str]] | None) -> None:
    if not mails:
        add_demo_data(quickbi)
    for name, owner, mail_id in mails or ():
        quickbi.add_mail_task(name, owner=owner or "owner", mail_id=mail_id or None)


def _introduce(quickbi: LocalQuickBI, title: str) -> None:
    limits = ", ".join(f"{action} {rate:g}" for action, rate in quickbi.calls_per_second.items())
    print(f"Quick BI simulator on {quickbi.url}{title} (Ctrl-C stops it)")
    print(f"Calls per second: {limits or 'no limits'}\n")
    for mail in quickbi.mail_tasks():
        paused = ", paused" if mail["paused"] else ""
        print(f"  {mail['mail_id']}  {mail['name']} ({mail['owner']}{paused})")
    print(f"\nexport AIRFLOW_CONN_QUICKBI_DEFAULT={shlex.quote(quickbi.connection_json())}", flush=True)


def _port(text: str) -> int:
    if not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("a port must be between 0 and 65535")
    return int(text)


def _seconds(text: str) -> float:
    if not float(text) >= 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return float(text)


def _positive(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return float(text)


def _cron(text: str) -> str:
    try:
        cron_times(text, datetime.now(UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _timezone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time zone such as Asia/Shanghai") from None
    return text


def _mail(text: str) -> tuple[str, str, str]:
    name, _, rest = text.partition(":")
    owner, _, mail_id = rest.partition(":")
    if not name:
        raise argparse.ArgumentTypeError("a mail task needs a name")
    return name, owner, mail_id


if __name__ == "__main__":
    sys.exit(main())
