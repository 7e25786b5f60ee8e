"""The server itself: starting, stopping, addresses, connections, HTTPS and the pytest fixture."""

from __future__ import annotations

import gc
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import trustme

from airflow_provider_quickbi.testing import LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Caller


def test_it_starts_and_stops_again_and_again_without_leaving_anything_behind(
    make_caller: Callable[..., Caller],
) -> None:
    before = set(threading.enumerate())
    for _ in range(10):
        with LocalQuickBI() as quickbi:
            assert make_caller(quickbi)("GetMailTaskList")["TotalNum"] == 0
    gc.collect()  # what was not closed warns now
    assert set(threading.enumerate()) <= before
    assert not quickbi.running


def test_it_may_be_started_again_with_its_state_and_its_port(make_caller: Callable[..., Caller]) -> None:
    quickbi = LocalQuickBI()
    with quickbi:
        port = quickbi.port
        mail_id = quickbi.add_mail_task("m")
        call = make_caller(quickbi)
        call("GetMailTaskList")
    with pytest.raises(requests.ConnectionError):
        call("GetMailTaskList")
    with quickbi:
        assert quickbi.port == port
        assert call("GetMailTaskList")["Data"][0]["MailId"] == mail_id


def test_stopping_what_does_not_run_does_nothing_and_starting_twice_is_a_mistake() -> None:
    quickbi = LocalQuickBI()
    quickbi.stop()
    assert quickbi.drop_connections() == 0
    with quickbi, pytest.raises(RuntimeError, match="running already"):
        quickbi.start()
    assert not quickbi.running


def test_a_port_in_use_is_an_os_error() -> None:
    with LocalQuickBI() as quickbi:
        other = LocalQuickBI(port=quickbi.port)
        with pytest.raises(OSError, match="in use"):
            other.start()
        assert not other.running


def test_it_stops_at_once_with_idle_connections_open(make_caller: Callable[..., Caller]) -> None:
    quickbi = LocalQuickBI().start()
    make_caller(quickbi)("GetMailTaskList")
    idle = socket.create_connection((quickbi.host, quickbi.port))
    begin = time.monotonic()
    quickbi.stop()
    assert time.monotonic() - begin < 1
    idle.close()


def test_two_run_side_by_side(make_caller: Callable[..., Caller]) -> None:
    with LocalQuickBI() as one, LocalQuickBI() as other:
        one.add_mail_task("only here")
        assert make_caller(one)("GetMailTaskList")["TotalNum"] == 1
        assert make_caller(other)("GetMailTaskList")["TotalNum"] == 0


def test_calls_from_many_threads_are_all_counted(quickbi: LocalQuickBI, make_caller: Callable[..., Caller]) -> None:
    mail_id = quickbi.add_mail_task("m")
    callers = [make_caller(quickbi) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda call=call: [call("ManualRunMailTask", MailId=mail_id) for _ in range(25)])
        for call in callers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (
        quickbi.starts(mail_id) == quickbi.mails_sent(mail_id) == quickbi.count("ManualRunMailTask", code="OK") == 200
    )
    assert len({run["task_id"] for run in quickbi.runs(mail_id)}) == 200


def test_connections_are_counted_and_named_in_the_log(
    quickbi: LocalQuickBI, call: Caller, make_caller: Callable[..., Caller]
) -> None:
    for _ in range(3):
        call("GetMailTaskList")
    make_caller(quickbi)("GetMailTaskList")
    assert quickbi.connections_opened == 2
    assert [seen.connection_id for seen in quickbi.calls] == [1, 1, 1, 2]
    assert len({seen.remote_port for seen in quickbi.calls}) == 2


def test_the_connection_is_the_one_airflow_reads(quickbi: LocalQuickBI) -> None:
    assert quickbi.url == f"http://127.0.0.1:{quickbi.port}"
    assert json.loads(quickbi.connection_json(read_timeout=2)) == {
        "conn_type": "quickbi",
        "login": quickbi.access_key_id,
        "password": quickbi.access_key_secret,
        "host": "127.0.0.1",
        "port": quickbi.port,
        "schema": "http",
        "extra": {"read_timeout": 2},
    }


def test_it_speaks_https(tmp_path: Path, make_caller: Callable[..., Caller]) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with LocalQuickBI(ssl_context=server_side) as quickbi:
        assert quickbi.url == f"https://127.0.0.1:{quickbi.port}"
        assert quickbi.connection()["schema"] == "https"
        call = make_caller(quickbi)
        assert call.send("GetMailTaskList", verify=str(bundle)).json()["Success"] is True
        with pytest.raises(requests.exceptions.SSLError):
            make_caller(quickbi).send("GetMailTaskList")


def test_faults_work_over_https_too(tmp_path: Path, make_caller: Callable[..., Caller]) -> None:
    from airflow_provider_quickbi.testing import Fault

    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with LocalQuickBI(ssl_context=server_side) as quickbi:
        quickbi.fail(None, Fault.reset(), Fault.half_body())
        for _ in range(2):
            with pytest.raises(requests.RequestException):
                make_caller(quickbi).send("GetMailTaskList", verify=str(bundle))
        assert make_caller(quickbi).send("GetMailTaskList", verify=str(bundle)).status_code == 200


def test_a_proxy_style_target_is_understood(quickbi: LocalQuickBI, call: Caller) -> None:
    call.session.proxies = {"http": quickbi.url}
    assert call("GetMailTaskList")["TotalNum"] == 0


def test_garbage_does_not_bring_it_down(quickbi: LocalQuickBI, call: Caller) -> None:
    with socket.create_connection((quickbi.host, quickbi.port), timeout=5) as connection:
        connection.sendall(b"\x16\x03\x01 not http at all\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.")
    assert call("GetMailTaskList")["TotalNum"] == 0


def test_importing_it_does_not_import_airflow_pytest_or_the_providers_client() -> None:
    program = (
        "import sys, airflow_provider_quickbi.testing, airflow_provider_quickbi.testing.__main__;"
        "names = ('airflow', 'pytest', 'requests', 'alibabacloud_tea_openapi', 'airflow_provider_quickbi.api');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fixture_points_the_default_connection_at_a_server_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["airflow_provider_quickbi.testing.fixtures"]\n')
    (tmp_path / "test_it.py").write_text(
        "import json, os, threading, pytest\n"
        "from airflow_provider_quickbi import testing\n"
        "seen = set()\n"
        "@pytest.mark.parametrize('number', range(3))\n"
        "def test_it(quickbi, number):\n"
        "    connection = json.loads(os.environ['AIRFLOW_CONN_QUICKBI_DEFAULT'])\n"
        "    assert connection == quickbi.connection()\n"
        "    assert quickbi.mail_tasks() == []\n"
        "    quickbi.add_mail_task('m')\n"
        "    assert len(testing.RemoteQuickBI(quickbi.url).mail_tasks()) == 1\n"
        "def test_nothing_is_left():\n"
        "    assert 'AIRFLOW_CONN_QUICKBI_DEFAULT' not in os.environ\n"
        "    assert [t.name for t in threading.enumerate() if 'quickbi' in t.name] == []\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {"PATH": "", "PYTHONPATH": str(Path(__file__).parents[2]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr
