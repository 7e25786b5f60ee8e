"""What the button Test of the connection form says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quickbi.hooks.quickbi import QuickBIHook
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

from .reading import free_port, without_airflows_own_warnings


def test_a_connection_that_works_says_what_was_reached_as_whom(
    hook: QuickBIHook, quickbi: LocalQuickBI, connection: Callable[..., None]
):
    quickbi.add_mail_task("a")
    quickbi.add_mail_task("b")
    quickbi.add_account("LTAI5tExampleKey", "secret")
    connection(login="LTAI5tExampleKey", password="secret")
    assert hook.test_connection() == (
        True,
        f"Reached Quick BI at 127.0.0.1:{quickbi.port} as access_key LTAI***eKey; mail tasks visible: 2.",
    )


def test_a_short_accesskey_is_hidden_too(hook: QuickBIHook, quickbi: LocalQuickBI, connection: Callable[..., None]):
    quickbi.add_account("LTAI5", "secret")
    connection(login="LTAI5", password="secret")
    assert "as access_key ***; " in hook.test_connection()[1]


def test_a_service_that_counts_nothing_still_works(hook: QuickBIHook, quickbi: LocalQuickBI):
    quickbi.register("GetMailTaskList", lambda params: {"Data": []})
    assert hook.test_connection()[0]
    assert hook.test_connection()[1].endswith("; mail tasks visible: unknown.")


REGION = "Also check the region: an AccessKey is valid only for organisations in its own region."


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (
            lambda quickbi, connection: quickbi.deny("Access.Forbidden"),
            ["rejected the request: ", "Code Access.Forbidden", "Professional edition", "administrator", REGION],
        ),
        (
            lambda quickbi, connection: quickbi.deny("Forbidden.RAM"),
            ["rejected the request: ", "Code Forbidden.RAM", "Check the RAM policy", REGION],
        ),
        (
            lambda quickbi, connection: connection(login="LTAIunknownKey"),
            [
                "LTAI***nKey rejected the request: ",
                "Code InvalidAccessKeyId.NotFound",
                "Check the AccessKey ID",
                REGION,
            ],
        ),
        (
            lambda quickbi, connection: connection(password="wrong"),
            ["rejected the request: ", "Code SignatureDoesNotMatch", "Check the AccessKey Secret", REGION],
        ),
        (
            lambda quickbi, connection: setattr(quickbi.clock, "skew", 3600),
            ["rejected the request: ", "Code InvalidTimeStamp.Expired", "Check this machine's clock"],
        ),
        (
            lambda quickbi, connection: connection(port=free_port()),
            [
                "cannot be reached: ",
                "no connection to 127.0.0.1:",
                "Check region, network, endpoint, proxies and the route",
            ],
        ),
        (
            lambda quickbi, connection: quickbi.fail(None, Fault.html_503(), times=None),
            ["cannot be reached: ", "not a JSON object", "Check region, network, endpoint, proxies and the route"],
        ),
        (
            lambda quickbi, connection: quickbi.fail(None, Fault.redirect("https://login.example/x"), times=None),
            ["rejected the request: ", "redirects to https://login.example", "Check the endpoint's host"],
        ),
        (
            lambda quickbi, connection: connection(extra={"timezone": "Mars"}),
            ["Connection 'quickbi_default': timezone is 'Mars'. It must be an IANA name"],
        ),
    ],
    ids=["denied", "ram", "unknown key", "wrong secret", "clock", "no route", "broken", "redirect", "field"],
)
def test_a_connection_that_does_not_work_says_why_and_what_to_do(
    hook: QuickBIHook,
    quickbi: LocalQuickBI,
    connection: Callable[..., None],
    prepare: Callable[..., Any],
    said: list[str],
):
    prepare(quickbi, connection)
    works, sentence = hook.test_connection()
    assert not works
    assert [part for part in said if part not in sentence] == [], sentence
    assert (REGION in sentence) == (REGION in said), sentence
    assert ".." not in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert quickbi.access_key_secret not in sentence


@without_airflows_own_warnings
def test_a_connection_that_is_not_there_says_so(quickbi: LocalQuickBI):
    works, sentence = QuickBIHook("nowhere").test_connection()
    assert not works
    assert sentence.startswith("Connection 'nowhere' does not exist")


def test_testing_a_connection_leaves_nothing_open(hook: QuickBIHook, quickbi: LocalQuickBI):
    hook.test_connection()
    assert hook._client is not None
    assert hook._client._transport._session is None
