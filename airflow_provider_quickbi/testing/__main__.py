"""Runs the simulator by itself: ``python -m airflow_provider_quickbi.testing``."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow_provider_quickbi.testing.calls import DOCUMENTED_CALLS_PER_SECOND
from airflow_provider_quickbi.testing.exchange import logger
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
    logger.setLevel(logging.INFO)
    quickbi = LocalQuickBI(
        host=options.host,
        port=options.port,
        access_key_id=options.access_key_id,
        access_key_secret=options.access_key_secret,
        calls_per_second=None if options.no_limits else DOCUMENTED_CALLS_PER_SECOND,
        run_duration=options.run_duration,
        run_appears_after=2.0,
        timezone=str(options.timezone),
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
        if prepare is not None:
            prepare(quickbi)
        elif not options.mail:
            add_demo_data(quickbi)
        else:
            for name, owner, mail_id in options.mail:
                quickbi.add_mail_task(name, owner=owner or "owner", mail_id=mail_id or None)
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


def add_demo_data(quickbi: LocalQuickBI) -> None:
    """Add a dataset and mail tasks of each kind, with the ids of the documentation and of the example DAGs.

    Two ran an hour ago, four never ran, one is paused, one runs by itself every 3 minutes, one fails every other time.

    :param quickbi: where to add them; their fixed ids must not be taken.
    """
    for mail_id, name, owner in (
        ("daily-sales", "Daily sales", "王芳"),
        ("daily-stock", "Daily stock levels", "Li Wei"),
        ("weekly-review", "Weekly review", "Li Wei"),
        ("board-report", "董事会月报", "王芳"),
        ("load-failed", "A load failed", "Li Wei"),
        ("frequent-sales", "Sales, every three minutes", "Chen Jie"),
        ("stock-alert", "库存预警 - 已暂停", "王芳"),
        ("flaky-report", "Report that fails every other time", "Chen Jie"),
    ):
        quickbi.add_mail_task(name, mail_id=mail_id, owner=owner, paused=mail_id == "stock-alert")
    for mail_id in ("daily-sales", "daily-stock"):
        quickbi.add_run(mail_id, exec_time=quickbi.clock.now() - timedelta(hours=1))
    quickbi.set_manual_start("flaky-report", outcome=["FAILED", "SENT"] * 500)
    quickbi.add_schedule("frequent-sales", every=180)
    quickbi.datasets.add("Sales", dataset_id="sales-cube")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_quickbi.testing",
        description="Run a local Quick BI to try DAGs without an account.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    port = _checked(int, lambda number: 0 <= number <= 65535, "a port between 0 and 65535")
    seconds = _checked(float, lambda number: 0 < number < inf, "a number of seconds above 0")
    zone = _checked(ZoneInfo, bool, "a time zone such as Asia/Shanghai")
    line = _checked(lambda text: cron_times(text, datetime.now(UTC)) and text, bool, "a cron line such as '30 8 * * *'")
    mail = _checked(lambda text: (*text.split(":", 2), "", "")[:3], lambda parts: parts[0], "NAME[:OWNER[:MAIL_ID]]")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=port, default=8765, help="port to listen on, 0 for any free one")
    add("--access-key-id", default="local-access-key-id", help="of the account")
    add("--access-key-secret", default="local-access-key-secret", help="of the account")
    add("--no-limits", action="store_true", help="allow more calls a second than Quick BI documents")
    add("--run-duration", type=seconds, default=20.0, metavar="SECONDS", help="how long a run takes")
    add("--timezone", type=zone, default="Asia/Shanghai", help="time zone of execution times")
    instead = "add a mail task, instead of sample ones; may be repeated"
    add("--mail", action="append", type=mail, metavar="NAME[:OWNER[:MAIL_ID]]", help=instead)
    schedule = parser.add_mutually_exclusive_group()
    schedule.add_argument("--every", type=seconds, metavar="SECONDS", help="run each mail task at this interval")
    schedule.add_argument("--cron", type=line, metavar="LINE", help="run each mail task at these times: '30 8 * * *'")
    return parser.parse_args(arguments)


def _checked(convert: Callable[[str], Any], holds: Callable[[Any], object], expected: str) -> Callable[[str], Any]:
    """Return a converter of arguments that says what was expected instead of a wrong one."""

    def read(text: str) -> Any:
        with suppress(LookupError, ValueError):
            if holds(value := convert(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")

    return read


def _introduce(quickbi: LocalQuickBI, title: str) -> None:
    limits = ", ".join(f"{action} {rate:g}" for action, rate in quickbi.calls_per_second.items())
    print(f"Quick BI simulator on {quickbi.url}{title} (Ctrl-C stops it)")
    print(f"Calls per second: {limits or 'no limits'}\n")
    for mail in quickbi.mail_tasks():
        paused = ", paused" if mail["paused"] else ""
        print(f"  {mail['mail_id']}  {mail['name']} ({mail['owner']}{paused})")
    print(f"\nexport AIRFLOW_CONN_QUICKBI_DEFAULT={shlex.quote(quickbi.connection_json())}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
