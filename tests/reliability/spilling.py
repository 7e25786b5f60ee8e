"""Goes every way that a secret could come out with marked credentials: ``python -m tests.reliability.spilling HOME``.

Everything that a person, a log or a database may get to see goes to the two standard streams or into ``HOME``, which
is Airflow's: whoever started this searches it all. Nothing is masked by Airflow here. The signatures that were sent go
into a file of their own, so that they can be searched for, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_quickbi._wait import aio
from airflow_provider_quickbi._wait.subject import MailTaskSubject

from .leaving import first_event, run_task, tasks
from .marked import CONN_ID, Quiet, Services, served, with_connection
from .marks import secret
from .saying import say, tried

#: Names the file in which each signature is recorded that is sent.
SIGNATURES = "QUICKBI_SIGNATURES"


# The ways


def go_well(services: Services, auth_type: str) -> None:
    """Do everything with one credential type, and give out every object that holds something."""
    from airflow_provider_quickbi.api import signing
    from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
    from airflow_provider_quickbi.api.credentials import CredentialSource
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
    from airflow_provider_quickbi.triggers.quickbi import QuickBIMailTaskEventTrigger

    quickbi = services.quickbi
    quickbi.add_run("report", status="SENT")
    with with_connection(services.connection(auth_type)):
        hook = QuickBIHook(CONN_ID)
        tried(f"{auth_type}: hook", hook.test_connection)
        known = hook.quickbi_connection
        settings = known.settings
        source = CredentialSource(settings.credentials)
        credentials = source.get()
        request = signing.sign("GetMailTaskList", {}, endpoint=settings.endpoint, credentials=credentials)
        say(f"{auth_type}: objects", hook, known, settings, settings.credentials, settings.account, source)
        say(f"{auth_type}: objects", credentials, request, QuickBIClient(settings), AsyncQuickBIClient(settings))
        say(f"{auth_type}: objects", settings.credentials.identity, settings.endpoint, hook.get_conn(), request.url)
        for name, make in tasks().items():
            run_task(f"{auth_type}: {name}", make)
        trigger = QuickBIMailTaskEventTrigger(mail_id="report", poll_interval=0.02, quickbi_conn_id=CONN_ID)
        say(f"{auth_type}: watcher", trigger.serialize(), trigger)
        if auth_type == "access_key":
            say("watcher: event", asyncio.run(_watch(trigger, quickbi)))


async def _watch(trigger: Any, quickbi: Any) -> Any:
    run = quickbi.add_run("report", status="PROCESSING")
    before = quickbi.count("GetMailTaskStatus")
    event = asyncio.create_task(first_event(trigger))
    while quickbi.count("GetMailTaskStatus") == before and not event.done():
        await asyncio.sleep(0.005)
    quickbi.finish_run(run)
    return await event


def go_wrong(services: Services) -> None:
    """Let everything fail in every way, with responses that quote the request."""
    from airflow_provider_quickbi.api import rate_limit
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

    made = tasks()
    for auth_type, sent, names in (
        ("sts", ("AccessKey secret", "security token"), ("sensor, deferred", "send, held")),
        ("bearer", ("bearer token",), ("sensor, poke",)),
    ):
        with with_connection(services.connection(auth_type, read_timeout=0.02)):
            for what, fault in _faults(" ".join(map(secret, sent)), secret(sent[-1])).items():
                services.quickbi.fail(None, fault, times=None)
                rate_limit.forget_rate_limiters()  # throttling would slow down all that follows
                hook = QuickBIHook(CONN_ID)
                tried(f"{auth_type}, {what}: test", hook.test_connection)
                with hook:
                    tried(f"{auth_type}, {what}: hook", partial(hook.get_mail_task_status, "report"))
                for name in names:
                    run_task(f"{auth_type}, {what}: {name}", made[name])
                services.quickbi.clear_faults()


def _faults(quoted: str, token: str) -> dict[str, Any]:
    """Return every way in which a response can be bad.

    :param quoted: what the responses quote: a service can quote what it was sent, and nothing else.
    :param token: part of it.
    """
    from airflow_provider_quickbi.api.errors import CODES
    from airflow_provider_quickbi.testing import Fault

    faults = {
        pattern.replace("*", "Any"): Fault.error(pattern.replace("*", "Any"), f"{pattern}: {quoted}")
        for pattern, _, _ in CODES
    }
    return faults | {
        "Unknown.Code": Fault.error("Unknown.Code", quoted),
        "what was signed": Fault.error("SignatureDoesNotMatch", f"no. server string to sign is: {quoted}"),
        "HTML": Fault.custom(502, quoted),
        "HTML that starts with it": Fault.custom(502, token),
        "code": Fault.custom(400, {"Code": token, "Message": "m", "RequestId": quoted}),
        "no code": Fault.custom(500, {"Message": quoted}),
        "odd run": Fault.custom(200, {"Success": True, "Result": [{"taskId": token, "status": quoted}]}),
        "redirect": Fault.redirect(f"http://{token[6:22]}.example/{quote(quoted)}"),
        **{fault.kind: fault for fault in (Fault.reset(), Fault.hang(), Fault.half_json(), Fault.wrong_types())},
    }


def echo(services: Services) -> None:
    """Call a gateway that responds with the request's own headers, the signature among them."""
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

    class Echo(Quiet):
        def do_POST(self) -> None:  # noqa: N802 - the base class names it
            notified = " ".join(self.headers.get(name, "") for name in ("authorization", "x-acs-security-token"))
            notified = f"{notified[-400:]} {self.headers.get('x-acs-bearer-token')}"
            body = json.dumps(
                {"Code": "IncompleteSignature", "Message": notified, "RequestId": notified[-100:]}
            ).encode()
            self.give(400, body)

    with served(Echo) as port:
        for auth_type in ("access_key", "sts", "bearer"):
            whole = json.loads(services.connection(auth_type)) | {"port": port}
            with with_connection(json.dumps(whole)):
                hook = QuickBIHook(CONN_ID)
                with hook:
                    tried(f"echo, {auth_type}", partial(hook.get_mail_task_status, "report"))
                run_task(f"echo, {auth_type}: sensor", tasks()["sensor, deferred"])


def refuse_credentials(services: Services) -> None:
    """Let the services that give credentials respond with nothing useful, but with secrets."""
    from airflow_provider_quickbi.api import credentials

    responses = {
        "denied": (403, json.dumps({"Code": "NoPermission", "Message": secret("fetched secret")})),
        "broken": (500, secret("fetched secret")),
        "half": (200, json.dumps({"Code": "Success", "AccessKeyId": "x", "SecurityToken": secret("fetched token")})),
    }
    for what, response in responses.items():
        services.stand_in.response = response
        for auth_type in ("ram_role_arn", "ecs_ram_role", "oidc_role_arn", "credentials_uri"):
            credentials._providers.clear()
            with with_connection(services.connection(auth_type)):
                run_task(f"{auth_type}, {what}", tasks()["sensor, deferred"])
    services.stand_in.response = None
    credentials._providers.clear()


def refuse_connections(services: Services) -> None:
    """Use connections of which one field is wrong, and a proxy, an address or a certificate that is not to be had."""
    from airflow_provider_quickbi.hooks.quickbi import QuickBIHook

    whole = json.loads(services.connection("sts"))
    password = quote(secret("proxy password"), safe="")
    wrong: dict[str, dict[str, Any]] = {
        "region": {"extra": {**whole["extra"], "region": "cn-nowhere"}},
        "unknown field": {"extra": {**whole["extra"], "acces_key": "x"}},
        "number": {"extra": {**whole["extra"], "read_timeout": "soon"}},
        "time zone": {"extra": {**whole["extra"], "timezone": "Mars"}},
        "proxies": {"extra": {**whole["extra"], "proxies": {"ftp": f"http://u:{password}@p:1"}}},
        "proxies as text": {"extra": {**whole["extra"], "proxies": f"socks5://u:{password}@p:1"}},
        "proxies, broken JSON": {"extra": {**whole["extra"], "proxies": f'{{"http": "http://u:{password}@p:1"'}},
        "proxy away": {"extra": {**whole["extra"], "proxies": f"http://u:{password}@127.0.0.1:9"}},
        "console": {"extra": {**whole["extra"], "console_url": f"https://u:{password}@bi.example.com/"}},
        "host": {"host": f"user:{password}@quickbi.example", "port": None, "schema": None},
        "port": {"port": 99_999},
        "schema": {"schema": "file"},
        "no extra": {"extra": [secret("security token")]},
        "extra is no JSON": {"extra": f'{{"security_token": "{secret("security token")}"'},
        "login": {"login": "a\nb"},
        "password": {"password": f"{secret('AccessKey secret')}\n"[:-1] + "\x01"},
        "characters": {"password": f"{secret('AccessKey secret')}é"},
        "token": {"extra": {**whole["extra"], "security_token": [secret("security token")]}},
        "away": {"port": 9},
        "TLS": {"schema": "https"},
        "no CA": {"schema": "https", "extra": {**whole["extra"], "verify": str(services.token_file)}},
    }
    for what, change in wrong.items():
        with with_connection(json.dumps(whole | change)):
            tried(f"wrong connection, {what}", QuickBIHook(CONN_ID).test_connection)
            run_task(f"wrong connection, {what}", tasks()["sensor, deferred"])
            run_task(f"wrong connection, {what}", tasks()["list"])


def say_what_never_changes() -> None:
    """Return what Airflow knows about the provider."""
    from airflow_provider_quickbi._wait.selector import RunSelector
    from airflow_provider_quickbi._wait.state import WaitGroup, WaitState
    from airflow_provider_quickbi.connection import RawConnection, form_fields
    from airflow_provider_quickbi.get_provider_info import get_provider_info

    raw = RawConnection("c", login="id", password=secret("AccessKey secret"), extra={"x": secret("security token")})
    group = WaitGroup.of([replace(WaitState(subject=MailTaskSubject("m"), selector=RunSelector(), since=time.time()))])
    say("provider info", get_provider_info(), form_fields(), raw, group)


# Whole DAG runs


def run_dags(services: Services, home: Path) -> None:
    """Run DAGs in Airflow: what they store stays in its home."""
    from airflow.utils import db

    from tests.airflow import dags as cases

    db.initdb()
    sys.modules[cases.CASE.__name__] = cases.CASE
    airflow = cases.Airflow(home / "dags")
    quickbi = services.quickbi
    quickbi.add_mail_task("failed", mail_id="failed")
    quickbi.add_run("failed", status="FAILED")
    quickbi.add_run("report", status="SENT")

    def make() -> None:
        from airflow_provider_quickbi.assets.quickbi import mail_task_asset
        from airflow_provider_quickbi.operators.quickbi import QuickBIListMailTasksOperator, QuickBIRunMailTaskOperator
        from airflow_provider_quickbi.sensors.quickbi import QuickBIMailTaskSensor

        given: dict[str, Any] = {"quickbi_conn_id": CONN_ID, "poke_interval": 0.05, "timeout": 20}
        for mode, how in cases.MODES.items():
            for mail_id in ("report", "failed", "nowhere"):
                outlets = [mail_task_asset(mail_id)]
                QuickBIMailTaskSensor(task_id=f"{mode}-{mail_id}", mail_id=mail_id, outlets=outlets, **given, **how)
        QuickBIListMailTasksOperator(task_id="list", quickbi_conn_id=CONN_ID)
        QuickBIRunMailTaskOperator(
            task_id="send", mail_id="{{ 'report' }}", quickbi_conn_id=CONN_ID, poll_interval=0.05
        )

    with with_connection(services.connection("sts", read_timeout=5)):
        ran = airflow.run(make, retries=0)
    say("DAG run: states", ran.states, ran.xcoms(), ran.xcoms("quickbi_console_url"), ran.asset_extras())
    states = {state: sorted(task for task in ran.states if ran.states[task] == state) for state in ran.states.values()}
    assert len(states["success"]) == 5, states
    assert len(states["failed"]) == 6, states
    for task_id, errors in ran.errors.items():
        for error in errors:
            say(f"DAG run: {task_id}", error)


# The process


def log_everything() -> None:
    """Let every logger write everything to the standard output, whatever its package has set up."""
    os.environ["DEBUG"] = "sdk"  # what Alibaba Cloud's packages look for
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, force=True, format="%(levelname)s %(name)s %(message)s")
    vendors = ("alibabacloud-tea", "darabonba-core", "credentials", "alibabacloud_credentials", "Tea")
    for name in ("urllib3", "aiohttp", "requests", "asyncio", "airflow", "airflow.task", *vendors):
        logging.getLogger(name).setLevel(logging.DEBUG)


@contextmanager
def nothing_masked() -> Iterator[None]:
    """Let Airflow know no secret, so that nothing is hidden by the last line of defence."""
    maskers = {getattr(module, "SecretsMasker", None) for module in list(sys.modules.values())}
    with pytest.MonkeyPatch.context() as patch:
        for masker in maskers:
            if isinstance(masker, type):
                patch.setattr(masker, "add_mask", lambda *args, **kwargs: None)
        yield


def note_signatures() -> None:
    """Write every signature that is sent into a file."""
    from airflow_provider_quickbi.api import flow

    sign = vars(flow)["sign"]
    file = Path(os.environ[SIGNATURES])

    def noted(*args: Any, **kwargs: Any) -> Any:
        request = sign(*args, **kwargs)
        if authorization := request.headers.get("authorization"):
            with file.open("a") as signatures:
                signatures.write(f"{authorization.partition('Signature=')[2]}\n")
        return request

    vars(flow)["sign"] = noted


def main() -> int:
    """Go every way."""
    home = Path(sys.argv[1])
    import airflow.providers.common.compat.sdk  # noqa: F401 - loads the maskers

    log_everything()
    note_signatures()
    from airflow_provider_quickbi.api import rate_limit, retry, vendor
    from airflow_provider_quickbi.api.credentials import AUTH_TYPES
    from airflow_provider_quickbi.hooks import quickbi as hooks

    vendor.credentials()
    from alibabacloud_credentials.provider import ecs_ram_role
    from alibabacloud_credentials.utils import auth_util

    create = ecs_ram_role.EcsRamRoleCredentialsProvider.__init__

    with ExitStack() as stack:
        services = Services(home, stack)

        def look_here(provider: Any, *args: Any, **kwargs: Any) -> None:
            create(provider, *args, **kwargs)
            provider._EcsRamRoleCredentialsProvider__metadata_service_host = services.stand_in.url

        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(ecs_ram_role.EcsRamRoleCredentialsProvider, "__init__", look_here)
        patch.setattr(auth_util, "environment_access_key_id", "own-id")
        patch.setattr(auth_util, "environment_access_key_secret", secret("AccessKey secret"))
        patch.setattr(retry.RetryPolicy.__init__, "__defaults__", (2, 0.001, 0.002))
        patch.setattr(hooks, "_TEST_RETRIES", retry.RetryPolicy(2, 0.001, 0.002))
        patch.setattr(aio, "FRESH_SECONDS", 0.0)
        patch.setattr(aio, "FIRST_POLL_SECONDS", 0.0)
        patch.setitem(rate_limit.CALLS_PER_SECOND, "ManualRunMailTask", 1000.0)
        with nothing_masked():
            say_what_never_changes()
            for auth_type in (*AUTH_TYPES, "proxied"):
                go_well(services, auth_type)
            go_wrong(services)
            echo(services)
            refuse_credentials(services)
            refuse_connections(services)
        # Airflow itself logs at DEBUG what it is to mask.
        run_dags(services, home)
    print("== all ways gone", flush=True)
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a text stream
    sys.exit(main())
