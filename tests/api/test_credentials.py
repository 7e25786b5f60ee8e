"""Every Alibaba Cloud credential type against services that run on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quickbi.api import credentials
from airflow_provider_quickbi.api.client import AsyncQuickBIClient
from airflow_provider_quickbi.api.credentials import AUTH_TYPES, Credentials, CredentialSource, CredentialSpec
from airflow_provider_quickbi.api.errors import PermanentError, TransientError
from airflow_provider_quickbi.api.settings import REGIONS
from airflow_provider_quickbi.testing import LocalQuickBI

BOUND = 20.0


RENEWED = Credentials("id-1", "secret-1", "token-1")
OWN = {
    "access_key": Credentials("own-id", "own-secret"),
    "sts": Credentials("own-id", "own-secret", "own-token"),
    "bearer": Credentials(bearer_token="own-bearer-token"),
    "default": Credentials("own-id", "own-secret"),
}
FETCHED = sorted(set(AUTH_TYPES) - set(OWN))


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_type_returns_the_same_credentials_sync_and_async(spec_of: Callable[..., Any], auth_type: str):
    source = CredentialSource(spec_of(auth_type))
    expected = OWN.get(auth_type, RENEWED)
    assert source.get() == expected
    assert asyncio.run(asyncio.wait_for(source.get_async(), BOUND)) == expected


def test_assuming_a_role_sends_every_configured_field(stand_in: Any, spec_of: Callable[..., Any]):
    CredentialSource(spec_of("ram_role_arn", security_token="own-token")).get()
    [(_, _, query, _)] = stand_in.requests
    expected = {
        "Action": "AssumeRole",
        "RoleArn": "acs:ram::1:role/report",
        "RoleSessionName": "airflow",
        "DurationSeconds": "1200",
        "Policy": '{"Version": "1"}',
        "ExternalId": "external",
        "AccessKeyId": "own-id",
        "SecurityToken": "own-token",
    }
    assert expected.items() <= query.items()


def test_assuming_a_role_with_oidc_sends_the_token_of_the_file(stand_in: Any, spec_of: Callable[..., Any]):
    CredentialSource(spec_of("oidc_role_arn")).get()
    [(_, _, query, _)] = stand_in.requests
    expected = {
        "Action": "AssumeRoleWithOIDC",
        "OIDCProviderArn": "acs:ram::1:oidc-provider/k8s",
        "OIDCToken": "the-oidc-token",
        "RoleArn": "acs:ram::1:role/report",
    }
    assert expected.items() <= query.items()


def test_instance_metadata_is_requested_with_a_session_token(stand_in: Any, spec_of: Callable[..., Any]):
    CredentialSource(spec_of("ecs_ram_role")).get()
    assert [(method, path) for method, path, _, _ in stand_in.requests] == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/ram/security-credentials/the-role"),
    ]
    assert stand_in.requests[-1][3]["x-aliyun-ecs-metadata-token"] == "metadata-token"


def test_the_role_of_the_instance_is_discovered_if_not_configured(stand_in: Any, spec_of: Callable[..., Any]):
    assert CredentialSource(CredentialSpec.of("ecs_ram_role")).get() == RENEWED
    assert "/latest/meta-data/ram/security-credentials/" in [path for _, path, _, _ in stand_in.requests]


@pytest.mark.parametrize("auth_type", AUTH_TYPES)
def test_each_type_signs_requests_that_the_service_accepts(
    quickbi: LocalQuickBI, connect: Callable[..., Any], spec_of: Callable[..., Any], auth_type: str
):
    expected = OWN.get(auth_type, RENEWED)
    if auth_type == "bearer":
        quickbi.add_bearer_token(expected.bearer_token)
    else:
        quickbi.add_account(
            expected.access_key_id, expected.access_key_secret, security_token=expected.security_token or None
        )
    caller = connect(credentials=spec_of(auth_type))
    assert caller.get_mail_task_list().total_num == 0
    assert quickbi.count(code="OK") == quickbi.count() == 1


def test_credentials_are_fetched_once_for_many_calls_and_clients(
    quickbi: LocalQuickBI, stand_in: Any, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    quickbi.add_account("id-1", "secret-1", security_token="token-1")
    spec = spec_of("credentials_uri")
    for caller in (connect(credentials=spec), connect(credentials=spec)):
        for _ in range(5):
            caller.get_mail_task_list()
    assert stand_in.issued == 1


def test_clients_share_one_provider_so_that_none_leaves_a_thread_behind(stand_in: Any, spec_of: Callable[..., Any]):
    for auth_type in ("ecs_ram_role", "default"):
        spec = spec_of(auth_type)
        CredentialSource(spec).get()
        before = threading.active_count()
        for _ in range(5):
            CredentialSource(CredentialSpec(spec.auth_type, spec.fields)).get()
        assert threading.active_count() <= before


def test_concurrent_callers_fetch_once_without_blocking_the_event_loop(stand_in: Any, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))
    stand_in.may_respond.clear()

    async def main() -> list[Credentials]:
        waiting = [asyncio.create_task(source.get_async()) for _ in range(10)]
        while not stand_in.requests:
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        stand_in.may_respond.set()
        return list(await asyncio.gather(*waiting))

    assert set(asyncio.run(asyncio.wait_for(main(), BOUND))) == {RENEWED}
    assert len(stand_in.requests) == 1


def test_cancelling_one_waiter_does_not_cancel_the_others(stand_in: Any, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))
    stand_in.may_respond.clear()

    async def main() -> Credentials:
        impatient = asyncio.create_task(source.get_async())
        patient = asyncio.create_task(source.get_async())
        while not stand_in.requests:
            await asyncio.sleep(0.001)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        stand_in.may_respond.set()
        return await patient

    assert asyncio.run(asyncio.wait_for(main(), BOUND)) == RENEWED
    assert len(stand_in.requests) == 1


def test_a_failed_fetch_is_not_cached(stand_in: Any, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))

    async def main() -> Credentials:
        stand_in.response = (503, "busy")
        with pytest.raises(TransientError):
            await source.get_async()
        stand_in.response = None
        return await source.get_async()

    assert asyncio.run(asyncio.wait_for(main(), BOUND)) == RENEWED


def test_a_source_can_be_used_in_successive_event_loops(stand_in: Any, spec_of: Callable[..., Any]):
    source = CredentialSource(spec_of("credentials_uri"))
    for _ in range(3):
        assert asyncio.run(asyncio.wait_for(source.get_async(), BOUND)) == RENEWED
    assert len(stand_in.requests) == 1


# Credentials that the service refuses as expired


@pytest.fixture
def expired_first(quickbi: LocalQuickBI) -> None:
    """The first credentials of the stand-in have expired, the second have not."""
    quickbi.add_account("id-1", "secret-1", security_token="token-1", security_token_expires_at=1)
    quickbi.add_account("id-2", "secret-2", security_token="token-2")


@pytest.mark.usefixtures("expired_first")
@pytest.mark.parametrize("auth_type", FETCHED)
def test_an_expired_token_is_renewed_once_and_the_call_succeeds(
    quickbi: LocalQuickBI, stand_in: Any, connect: Callable[..., Any], spec_of: Callable[..., Any], auth_type: str
):
    caller = connect(credentials=spec_of(auth_type))
    assert caller.get_mail_task_list().total_num == 0
    assert [call.code for call in quickbi.calls] == ["InvalidSecurityToken.Expired", "OK"]
    assert stand_in.issued == 2
    caller.get_mail_task_list()
    assert stand_in.issued == 2


@pytest.mark.usefixtures("expired_first")
def test_a_start_with_an_expired_token_starts_one_run(
    quickbi: LocalQuickBI, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    mail_id = quickbi.add_mail_task("Daily sales")
    assert connect(credentials=spec_of("credentials_uri")).manual_run_mail_task(mail_id)
    assert quickbi.starts(mail_id) == 1


@pytest.mark.usefixtures("expired_first")
def test_concurrent_calls_with_an_expired_token_renew_it_once(
    quickbi: LocalQuickBI, stand_in: Any, spec_of: Callable[..., Any], settings_of: Callable[..., Any]
):
    async def main() -> None:
        async with AsyncQuickBIClient(settings_of(quickbi, credentials=spec_of("credentials_uri"))) as client:
            await asyncio.gather(*(client.call("GetMailTaskList", repeatable=True) for _ in range(20)))

    asyncio.run(asyncio.wait_for(main(), BOUND))
    assert stand_in.issued == 2


def test_a_token_that_stays_expired_is_renewed_only_once(
    quickbi: LocalQuickBI, stand_in: Any, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    for number in range(1, 9):
        quickbi.add_account(
            f"id-{number}", f"secret-{number}", security_token=f"token-{number}", security_token_expires_at=1
        )
    with pytest.raises(PermanentError) as caught:
        connect(credentials=spec_of("credentials_uri")).get_mail_task_list()
    assert caught.value.code == "InvalidSecurityToken.Expired"
    assert (quickbi.count(), stand_in.issued) == (2, 2)


def test_credentials_that_cannot_be_renewed_are_not_sent_twice(
    quickbi: LocalQuickBI, connect: Callable[..., Any], spec_of: Callable[..., Any]
):
    quickbi.add_account("own-id", "own-secret", security_token="own-token", security_token_expires_at=1)
    with pytest.raises(PermanentError):
        connect(credentials=spec_of("sts")).get_mail_task_list()
    assert quickbi.count() == 1


@pytest.mark.parametrize("region", REGIONS)
def test_a_role_is_assumed_at_the_vpc_endpoint_of_the_region_inside_a_vpc(region: str):
    assert credentials.default_sts_endpoint(region, "vpc") == f"sts-vpc.{region}.aliyuncs.com"
    assert credentials.default_sts_endpoint(region, "public") is None
