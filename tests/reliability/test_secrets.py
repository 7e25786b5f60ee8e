"""No secret and no signature is in anything that comes out, whatever way it takes."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_quickbi.api.client import QuickBIClient
from airflow_provider_quickbi.api.credentials import AUTH_TYPES, CredentialSpec
from airflow_provider_quickbi.api.errors import CODES, PermanentError
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint

from .marks import MARKS, search, secret
from .spilling import SIGNATURES

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds that a process may take on a machine that is very busy.
BOUND = 300.0


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python and return what it said."""
    path = os.pathsep.join([str(ROOT), *(entry for entry in sys.path if entry)])
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        timeout=BOUND,
        check=False,
    )


# That the search finds what is there


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        json.dumps,
        quote,
        lambda text: json.dumps(json.dumps(text)),
        lambda text: text[10:],
        lambda text: text[:-10],
        lambda text: text[::-1],
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(b"u:" + text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(b"user:" + text.encode()).decode(),
        lambda text: text.encode().hex(),
    ],
)
def test_the_search_finds_a_secret_in_any_form(name: str, write: Callable[[str], str]) -> None:
    (found,) = search(f"\n== this way\nso {write(secret(name))} it is".encode())
    assert found.startswith(f"{name} as ")
    assert "'this way'" in found


def test_the_search_finds_signatures_and_nothing_where_nothing_is() -> None:
    signature = "0123456789abcdef" * 4
    assert search(b"nothing") == []
    assert len(search(f"x {signature} y".encode(), signatures=(signature,))) == 1
    assert len(search(b"Credential=id,Signature=fedcba9876543210fedcba")) == 1


# That nothing is there


@pytest.fixture(scope="module")
def spilt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Everything that came out on every way, by where it was."""
    home = tmp_path_factory.mktemp("spilt") / "airflow"
    home.mkdir()
    signatures = home.parent / "signatures"
    done = run(
        *("-m", "tests.reliability.spilling", str(home)),
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__FERNET_KEY="",  # so that the database holds everything in plain text
        AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
        **{SIGNATURES: str(signatures)},
    )
    assert done.returncode == 0, (done.stdout[-2000:] + done.stderr[-4000:]).decode(errors="replace")
    files = {str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()}
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        files["database as text"] = "\n".join(database.iterdump()).encode()
    return {"stdout": done.stdout, "stderr": done.stderr, "signatures": signatures.read_bytes(), **files}


def test_no_secret_and_no_signature_comes_out_on_any_way(spilt: dict[str, bytes], tried: Counter[str]) -> None:
    signatures = tuple(spilt["signatures"].decode().split())
    assert len(signatures) > 100
    assert all(len(signature) == 64 for signature in signatures)
    found = []
    for where, data in spilt.items():
        if where != "signatures":
            tried["bytes searched for secrets"] += len(data)
            found += [f"{where}: {leak}" for leak in search(data, signatures=signatures)]
    tried["signatures searched for"] += len(signatures)
    assert found == []


def test_every_way_was_gone(spilt: dict[str, bytes], tried: Counter[str]) -> None:
    out = spilt["stdout"].decode(errors="replace")
    ways = {line.removeprefix("== ") for line in out.splitlines() if line.startswith("== ")}
    tried["ways gone"] += len(ways)
    for auth_type in (*AUTH_TYPES, "proxied"):
        for kind in ("sensor, poke", "sensor, deferred", "send, held", "send, deferred", "list"):
            assert f"{auth_type}: {kind}: left behind" in ways
    for pattern, _, _ in CODES:
        code = pattern.replace("*", "Any")
        assert {f"sts, {code}: sensor, deferred", f"sts, {code}: send, held", f"sts, {code}: test"} <= ways
    # What should come out did, and what was quoted was taken out and not merely never there.
    assert out.count("Reached Quick BI at") >= len(AUTH_TYPES)
    assert "string to sign" not in out
    assert "Mail.Not.Found: *** ***" in out
    assert out.count("DEBUG urllib3.connectionpool") > 20
    assert b"QuickBIMailTaskFailed" in spilt["stdout"]
    assert "task_instance" in spilt["database as text"].decode()


# What vendors and the provider say by themselves

_IMPORT_AND_SIGN = """
import logging
before = {name: logging.getLogger(name).level for name in ("alibabacloud-tea", "darabonba-core", "credentials")}
import airflow_provider_quickbi.api.client
from airflow_provider_quickbi.api import settings, signing, vendor
from airflow_provider_quickbi.api.credentials import Credentials, CredentialSource, CredentialSpec
signing.sign("A", {"b": "c"}, endpoint=settings.Endpoint("h"), credentials=Credentials("id", "secret"))
CredentialSource(CredentialSpec.of("access_key", access_key_id="id", access_key_secret="secret")).get()
vendor.credentials()
vendors = ("tea", "darabonba", "alibaba", "credentials")
for name in ["root", *logging.root.manager.loggerDict]:
    logger = logging.getLogger(None if name == "root" else name)
    assert not (any(vendor in name.lower() for vendor in vendors) and logger.handlers), (name, logger.handlers)
    if name in before:
        assert logger.level == before[name], (name, logger.level)
assert logging.root.handlers == []
"""


def test_the_vendors_packages_get_no_handler_and_say_nothing() -> None:
    done = run("-W", "default", "-c", _IMPORT_AND_SIGN, DEBUG="sdk")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


_WITHOUT_TLS = """
import logging, sys, threading, warnings
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s", stream=sys.stdout)
logging.captureWarnings(True)
from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.settings import ClientSettings, Endpoint
spec = CredentialSpec.of("access_key", access_key_id="id", access_key_secret="secret")
for endpoint, verify in (
    (Endpoint("one.example", "http"), True),
    (Endpoint("two.example"), False),
    (Endpoint("three.example"), True),
):
    for kind in (QuickBIClient, AsyncQuickBIClient) * 10:
        kind(ClientSettings(endpoint, spec, verify=verify))
"""


def test_tls_is_not_switched_off_silently_and_not_lamented_more_than_once() -> None:
    done = run("-c", _WITHOUT_TLS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line for line in done.stdout.decode().splitlines() if "WARNING" in line] == [
        "WARNING Quick BI at http://one.example/: no TLS; requests and responses can be read in transit",
        "WARNING Quick BI at https://two.example/: TLS certificates are not verified (verify=False)",
    ]


def test_the_local_quick_bi_says_nothing_of_the_caller(tried: Counter[str]) -> None:
    """It prints a connection for the secret that it was given, which protects nothing; it must not print another's."""
    command = [sys.executable, "-m", "airflow_provider_quickbi.testing", "--port", "0", "--no-limits"]
    others = json.dumps({"conn_type": "quickbi", "login": "id", "password": secret("AccessKey secret")})
    environment = {**os.environ, "AIRFLOW_CONN_QUICKBI_DEFAULT": others, "PYTHONUNBUFFERED": "1"}
    said: list[bytes] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        watchdog = threading.Timer(BOUND, process.kill)
        watchdog.start()
        try:
            while not said or not said[-1].startswith(b"export AIRFLOW_CONN_QUICKBI_DEFAULT="):
                said.append(process.stdout.readline())
                assert said[-1], b"".join(said)
            known = json.loads(said[-1].decode().partition("=")[2].strip().strip("'"))
            endpoint = Endpoint(known["host"], known["schema"], known["port"])
            for auth_type, fields in {
                "access_key": {"access_key_id": known["login"], "access_key_secret": secret("AccessKey secret")},
                "sts": {"access_key_id": "x", "access_key_secret": "y", "security_token": secret("security token")},
                "bearer": {"bearer_token": secret("bearer token")},
            }.items():
                settings = ClientSettings(endpoint, CredentialSpec.of(auth_type, **fields))
                with QuickBIClient(settings) as client, pytest.raises(PermanentError):
                    client.get_mail_task_list()
        finally:
            process.terminate()
            said.append(process.stdout.read())
            watchdog.cancel()
    output = b"".join(said)
    tried["bytes searched for secrets"] += len(output)
    assert output.count(b"GetMailTaskList") == 3
    assert search(output) == []
