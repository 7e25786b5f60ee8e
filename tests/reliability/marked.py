"""A Quick BI, credential services and a proxy with marked secrets, and connections that use them."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .marks import secret

#: Seconds that anything here may take on a machine that is very busy.
BOUND = 60.0
CONN_ID = "quickbi_marked"
_VARIABLE = f"AIRFLOW_CONN_{CONN_ID.upper()}"


class Quiet(BaseHTTPRequestHandler):
    """Responds without a word in the log."""

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""

    def give(self, status: int, body: bytes) -> None:
        """Respond."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Proxy(Quiet):
    """Passes on what is sent to it, if the password is right."""

    def do_POST(self) -> None:
        """Pass one request on."""
        user, _, password = (
            base64.b64decode(self.headers["proxy-authorization"].partition(" ")[2]).decode().partition(":")
        )
        assert (user, password) == ("user", secret("proxy password"))
        target = urlsplit(self.path)
        passed = HTTPConnection(target.hostname or "", target.port, timeout=BOUND)
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        passed.request("POST", f"/?{target.query}", headers=headers)
        with passed.getresponse() as response:
            self.give(response.status, response.read())
        passed.close()


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve, and give the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(BOUND)


class Services:
    """The services to call, each with marked secrets."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        from airflow_provider_quickbi.testing import LocalQuickBI
        from tests.api.conftest import StandIn, expiration

        self.quickbi = stack.enter_context(LocalQuickBI())
        fetched = {
            "AccessKeyId": "fetched-id",
            "AccessKeySecret": secret("fetched secret"),
            "SecurityToken": secret("fetched token"),
            "Expiration": expiration(),
        }
        responses = {
            "PUT": secret("metadata token"),
            "AssumeRole": json.dumps({"RequestId": "R", "Credentials": fetched}),
            "": json.dumps({"Code": "Success", **fetched}),
        }

        class Marked(StandIn):
            def regular(self, method: str, path: str, query: dict[str, str]) -> str:
                return responses.get(method) or responses["AssumeRole" if "Action" in query else ""]

        self.stand_in = Marked()
        stack.callback(self.stand_in.close)
        self.proxy = f"127.0.0.1:{stack.enter_context(served(_Proxy))}"
        self.token_file = home.parent / f"{home.name}-oidc-token"
        self.token_file.write_text(secret("OIDC token"))
        self.quickbi.add_account("own-id", secret("AccessKey secret"))
        self.quickbi.add_account("sts-id", secret("AccessKey secret"), security_token=secret("security token"))
        self.quickbi.add_account("fetched-id", secret("fetched secret"), security_token=secret("fetched token"))
        self.quickbi.add_bearer_token(secret("bearer token"))
        self.quickbi.add_mail_task("Daily sales", mail_id="report", owner="Wang Fang")

    def connection(self, auth_type: str, **extra: Any) -> str:
        """Return a connection of a type as JSON; ``proxied`` is one through a proxy with a password."""
        role = {"role_arn": "acs:ram::1:role/report", "sts_endpoint": self.stand_in.url}
        key = {"login": "own-id", "password": secret("AccessKey secret")}
        url = self.stand_in.url.replace("://", f"://user:{quote(secret('URI password'), safe='')}@")
        password = quote(secret("proxy password"), safe="")
        fields: dict[str, dict[str, Any]] = {
            "access_key": key,
            "sts": {"login": "sts-id", "password": key["password"], "security_token": secret("security token")},
            "ram_role_arn": {**key, **role, "security_token": secret("security token")},
            "ecs_ram_role": {"role_name": "the-role", "disable_imds_v1": True},
            "oidc_role_arn": {
                **role,
                "oidc_provider_arn": "acs:ram::1:oidc-provider/k8s",
                "oidc_token_file_path": str(self.token_file),
            },
            "credentials_uri": {"credentials_uri": f"{url}/credentials?password={quote(secret('URI password'))}"},
            "bearer": {"bearer_token": secret("bearer token")},
            "default": {},
            "proxied": {**key, "proxies": {"http": f"http://user:{password}@{self.proxy}"}},
        }
        given = fields[auth_type]
        more = {name: value for name, value in given.items() if name not in ("login", "password")}
        options = {"auth_type": "access_key" if auth_type == "proxied" else auth_type, "status_calls_per_second": 1000}
        host = {"host": self.quickbi.host, "port": self.quickbi.port, "schema": "http"}
        whole = {"conn_type": "quickbi", **host, "extra": {**options, "read_timeout": 0.3, **more, **extra}}
        return json.dumps({**whole, **{name: given[name] for name in ("login", "password") if name in given}})


@contextmanager
def with_connection(value: str) -> Iterator[None]:
    """Let tasks use a connection."""
    os.environ[_VARIABLE] = value
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
