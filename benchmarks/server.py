"""A local Quick BI in a process of its own, so that its work is not counted as the client's."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from airflow_provider_quickbi.testing import LocalQuickBI, RemoteQuickBI

_STOP_TIMEOUT = 20.0
_LONG = 30 * 24 * 3600.0


def mail_ids(number: int) -> list[str]:
    """Return the ids of the mail tasks that a server has.

    :param number: how many.
    """
    return [f"mail-{index:05d}" for index in range(number)]


class Server:
    """A process with a local Quick BI; every mail task has one run.

    :param mails: number of mail tasks.
    :param durations: what their runs take, in seconds; by default they are active until :meth:`end_all_runs`.
    :param settings: of :class:`~airflow_provider_quickbi.testing.LocalQuickBI`.
    :param tls: whether it speaks TLS.
    """

    def __init__(
        self, mails: int = 0, *, durations: Sequence[float] | None = None, tls: bool = False, **settings: Any
    ) -> None:
        self._order: dict[str, Any] = {"mails": mails, "durations": durations or [_LONG] * mails, "settings": settings}
        self._tls = tls
        self._ended = 0
        self._stack = ExitStack()
        self.ca_bundle: Path | None = None
        self.remote: RemoteQuickBI
        self.started_at: list[float]

    def __enter__(self) -> Self:
        if self._tls:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="quickbi-benchmark-")))
            self._order["certificate"] = self._make_certificate(folder)
        # The argument is this package's own module.
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", json.dumps(self._order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(self._stop, process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("The local Quick BI did not start.")
        context = ssl.create_default_context(cafile=self.ca_bundle) if self.ca_bundle else None
        notice = json.loads(line)
        self.started_at = notice["started_at"]
        self.remote = RemoteQuickBI(notice["url"], timeout=30, ssl_context=context)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def connection(self, **extra: Any) -> str:
        """Return the Airflow connection as JSON.

        :param extra: fields of its extra.
        """
        if self.ca_bundle is not None:
            extra["verify"] = str(self.ca_bundle)
        return self.remote.connection_json(**extra)

    def end_all_runs(self) -> None:
        """Let every active run be ``SENT`` from now on."""
        self.remote.clock.advance(2 * _LONG)
        self._ended += 1

    def restart_runs(self) -> None:
        """Let every mail task have another run, which is active until :meth:`end_all_runs`."""
        for mail_id in mail_ids(self._order["mails"]):  # the server's clock is ahead since the last ones ended
            self.remote.add_run(
                mail_id, exec_time=datetime.now(UTC), status="PROCESSING", duration=(1 + 2 * self._ended) * _LONG
            )

    def status_calls(self) -> tuple[int, int]:
        """Return how many status calls there were, and how many of them were throttled."""
        outcomes = self.remote.counters().get("GetMailTaskStatus", {})
        throttled = sum(number for code, number in outcomes.items() if code.startswith("Throttling"))
        return sum(outcomes.values()), throttled

    def _make_certificate(self, folder: Path) -> str:
        """Write a certificate and, as production has it, a bundle of all public CAs with the one that issued it."""
        import certifi
        import trustme

        authority = trustme.CA()
        certificate = folder / "server.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        self.ca_bundle = folder / "bundle.pem"
        self.ca_bundle.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
        return str(certificate)

    @staticmethod
    def _stop(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_TIMEOUT)
        process.stdout.close()


def main() -> None:
    """Serve until the standard input ends, as it does with the process that started this one."""
    order = json.loads(sys.argv[1])
    context = None
    if "certificate" in order:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(order["certificate"])
    with LocalQuickBI(ssl_context=context, calls_kept=100, **order["settings"]) as quickbi:
        started_at = []
        for number, mail_id in enumerate(mail_ids(order["mails"])):
            quickbi.add_mail_task(f"Report {number}", mail_id=mail_id, owner=f"owner {number % 50}")
            started_at.append(time.time())
            quickbi.add_run(mail_id, status="PROCESSING", duration=order["durations"][number])
        print(json.dumps({"url": quickbi.url, "started_at": started_at}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
