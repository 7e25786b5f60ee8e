"""Each broken set-up is named in one line: the one that failed, or that warns, and no other."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_quickbi._check.report import Finding, Level, Report
from airflow_provider_quickbi.api.credentials import CredentialSpec
from airflow_provider_quickbi.api.settings import Endpoint
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

Check = Callable[..., Report]

MAIL = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Setup:
    """One thing that is wrong.

    :param line: the line of the report that names it.
    :param says: words of that line.
    :param breaks: what is wrong with the service.
    :param settings: what is wrong with the connection, made from the simulator.
    """

    line: str
    says: tuple[str, ...]
    breaks: Callable[[LocalQuickBI], object] = lambda _: None
    settings: Callable[[LocalQuickBI], dict[str, Any]] = lambda _: {}
    options: dict[str, Any] = field(default_factory=dict)
    level: Level = Level.FAILED
    tls: bool = False


def unresolvable(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def key(identifier: str, secret: str, **more: str) -> dict[str, Any]:
    kind = "sts" if more else "access_key"
    return {"credentials": CredentialSpec.of(kind, access_key_id=identifier, access_key_secret=secret, **more)}


def own_key(quickbi: LocalQuickBI, secret: str, **more: str) -> dict[str, Any]:
    return key(quickbi.access_key_id, secret, **more)


def refuse(code: str, action: str | None = None) -> Callable[[LocalQuickBI], object]:
    return lambda quickbi: quickbi.deny(code, action=action)


def answer(fault: Fault, action: str | None = None) -> Callable[[LocalQuickBI], object]:
    return lambda quickbi: quickbi.fail(action, fault, times=None)


SETUPS: dict[str, Setup] = {
    "the name does not resolve": Setup("dns", ("does not resolve", "region"), options={"resolve": unresolvable}),
    "nothing listens": Setup(
        "tcp", ("no connection", "network=vpc"), settings=lambda q: {"endpoint": Endpoint(q.host, "http", free_port())}
    ),
    "the certificate is not trusted": Setup("tls", ("not trusted", "Set verify"), tls=True),
    "https to a port of http": Setup(
        "tls", ("does not use TLS", "schema"), settings=lambda q: {"endpoint": Endpoint(q.host, "https", q.port)}
    ),
    "the certificate is not verified": Setup(
        "tls", ("not verified", "Set verify"), settings=lambda _: {"verify": False}, level=Level.WARNING, tls=True
    ),
    "the proxy does not listen": Setup(
        "proxy",
        ("no connection to the proxy", "Check proxies"),
        settings=lambda _: {"proxies": (("all", f"http://127.0.0.1:{free_port()}"),)},
    ),
    "the proxy opens no tunnel": Setup(
        "proxy",
        ("opens no tunnel", "CONNECT"),
        settings=lambda q: {"endpoint": Endpoint("quickbi.example"), "proxies": (("all", q.url),)},
    ),
    "this clock is 20 minutes ahead": Setup(
        "clock",
        ("ahead of", "NTP"),
        breaks=lambda q: setattr(q.clock, "skew", -1200),
        options={"ahead": 1200.0},
    ),
    "this clock is 5 minutes behind": Setup(
        "clock", ("behind", "clock_skew"), options={"ahead": -300.0}, level=Level.WARNING
    ),
    "the AccessKey is unknown": Setup(
        "credentials", ("InvalidAccessKeyId.NotFound", "region"), settings=lambda _: key("nobody-knows-it", "x")
    ),
    "the AccessKey is disabled": Setup(
        "credentials",
        ("InvalidAccessKeyId.Inactive", "enable it"),
        breaks=lambda q: q.change_account(q.access_key_id, active=False),
    ),
    "the secret is wrong": Setup(
        "credentials", ("SignatureDoesNotMatch", "AccessKey Secret"), settings=lambda q: own_key(q, "wrong")
    ),
    "the security token is wrong": Setup(
        "credentials",
        ("InvalidSecurityToken", "security_token"),
        breaks=lambda q: q.change_account(q.access_key_id, security_token="right"),
        settings=lambda q: own_key(q, q.access_key_secret, security_token="wrong"),
    ),
    "the owner is no administrator": Setup(
        "GetMailTaskList", ("Access.Forbidden", "administrator"), breaks=refuse("Access.Forbidden")
    ),
    "the owner is in no organisation": Setup(
        "GetMailTaskList", ("User.Not.In.Organization", "log on"), breaks=refuse("User.Not.In.Organization")
    ),
    "RAM denies reading": Setup(
        "GetMailTaskStatus",
        ("Forbidden.RAM", "quickbi-public:GetMailTaskStatus"),
        breaks=refuse("Forbidden.RAM", "GetMailTaskStatus"),
    ),
    "RAM denies starting": Setup(
        "ManualRunMailTask",
        ("Forbidden.RAM", "quickbi-public:ManualRunMailTask"),
        breaks=refuse("Forbidden.RAM", "ManualRunMailTask"),
        options={"send": True, "mail_id": MAIL},
    ),
    "RAM denies starting, seen without a start": Setup(
        "ManualRunMailTask",
        ("Forbidden.RAM", "quickbi-public:ManualRunMailTask"),
        breaks=refuse("Forbidden.RAM", "ManualRunMailTask"),
        options={"probe_send": True},
    ),
    "the mail task is not visible": Setup(
        "GetMailTaskStatus", ("not visible", "Mail.Not.Found"), options={"mail_id": "no-such-mail-task"}
    ),
    "no mail task is visible": Setup(
        "region",
        ("no mail task is visible", "Check region"),
        breaks=lambda q: q.remove_mail_task(MAIL),
        level=Level.WARNING,
    ),
    "the endpoint is another product": Setup(
        "region",
        ("not the Quick BI OpenAPI", "region"),
        breaks=answer(Fault.error("InvalidAction.NotFound", status=404)),
    ),
    "the endpoint redirects": Setup(
        "region", ("redirects", "not Quick BI"), breaks=answer(Fault.redirect("https://login.example/"))
    ),
    "a web page responds": Setup(
        "region", ("not Quick BI", "proxy"), breaks=answer(Fault.custom(200, "<html>Log in</html>"))
    ),
    "the instance has expired": Setup("service", ("Instance.Expired", "renew"), breaks=refuse("Instance.Expired")),
    "the service is down": Setup("service", ("HTTP 503", "later"), breaks=answer(Fault.html_503())),
    "the responses are different": Setup(
        "response fields", ("exectime", "--record"), breaks=answer(Fault.wrong_types(), "GetMailTaskStatus")
    ),
    "the configured rate is too high": Setup(
        "rate",
        ("throttled at the configured 1000", "status_calls_per_second to 1"),
        breaks=lambda q: q.when_called(
            "GetMailTaskStatus", lambda call: Fault.throttled() if q.count("GetMailTaskStatus") > 1 else None
        ),
        level=Level.WARNING,
    ),
    "the time zone is wrong": Setup(
        "timezone",
        ("in the future", "timezone"),
        breaks=lambda q: q.add_run(MAIL),
        settings=lambda _: {"timezone": "America/New_York"},
    ),
    "starts are limited": Setup(
        "start limit",
        ("MailApi.Beyond.ScheduleLimit", "30 minute"),
        breaks=lambda q: q.limit_manual_starts(MAIL, minutes=30),
        options={"send": True, "mail_id": MAIL},
        level=Level.WARNING,
    ),
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def servers(authority: trustme.CA) -> Iterator[Callable[[bool], LocalQuickBI]]:
    with ExitStack() as stack:

        def serve(tls: bool) -> LocalQuickBI:
            context = None
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                authority.issue_cert("127.0.0.1").configure_cert(context)
            return stack.enter_context(LocalQuickBI(ssl_context=context))

        yield serve


def remarkable(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.level in (Level.FAILED, Level.WARNING)]


def prepare(quickbi: LocalQuickBI) -> None:
    quickbi.add_mail_task("Daily sales", mail_id=MAIL, owner="Wang Fang")
    quickbi.add_run(MAIL, exec_time=quickbi.clock.now().replace(year=2020))


@pytest.mark.parametrize("name", SETUPS)
def test_a_broken_set_up_is_named_in_one_line(
    name: str, servers: Callable[[bool], LocalQuickBI], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = SETUPS[name]
    quickbi = servers(setup.tls)
    prepare(quickbi)
    setup.breaks(quickbi)
    report = check(quickbi, **setup.settings(quickbi), **setup.options)
    lines = remarkable(report)
    assert [found.name for found in lines] == [setup.line], lines
    (line,) = lines
    assert (line.name, line.level) == (setup.line, setup.level)
    text = f"{line.seen} {line.remedy}"
    assert [words for words in setup.says if words not in text] == []
    assert "\n" not in text
    for secret in (MAIL, "Daily sales", "Wang Fang", quickbi.access_key_secret):
        assert secret not in "".join(f"{finding.seen}{finding.remedy}" for finding in report.findings)


def test_a_working_set_up_has_nothing_to_remark(servers: Callable[[bool], LocalQuickBI], check: Check) -> None:
    quickbi = servers(False)
    prepare(quickbi)
    report = check(quickbi, mail_id=MAIL)
    assert remarkable(report) == []
    assert quickbi.starts(MAIL) == 0
    assert quickbi.count("ManualRunMailTask") == 0


def test_the_certificate_of_a_ca_of_ones_own_is_trusted_if_verify_names_it(
    servers: Callable[[bool], LocalQuickBI], check: Check, authority: trustme.CA, tmp_path: Path
) -> None:
    quickbi = servers(True)
    prepare(quickbi)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert remarkable(check(quickbi, verify=str(tmp_path / "ca.pem"))) == []


def test_sending_starts_the_mail_task_once_and_learns_from_its_run(
    servers: Callable[[bool], LocalQuickBI], check: Check
) -> None:
    quickbi = servers(False)
    prepare(quickbi)
    quickbi.set_manual_start(MAIL, duration=60, appears_after=20)
    report = check(quickbi, mail_id=MAIL, send=True)
    assert remarkable(report) == []
    assert quickbi.starts(MAIL) == 1
    behaviour = report.behaviour
    assert behaviour.timezone == "+08:00"
    assert behaviour.start_delay == pytest.approx(20, abs=3)
    assert behaviour.run_duration == pytest.approx(60, abs=12)
    assert (behaviour.outcome, behaviour.keeps_runs) == ("SENT", True)


def test_checking_the_grant_to_start_starts_nothing(servers: Callable[[bool], LocalQuickBI], check: Check) -> None:
    quickbi = servers(False)
    prepare(quickbi)
    report = check(quickbi, probe_send=True)
    (line,) = (finding for finding in report.findings if finding.name == "ManualRunMailTask")
    assert line.level is Level.OK
    assert quickbi.count("ManualRunMailTask", "Mail.Not.Found") == 1
    assert quickbi.starts(MAIL) == 0
