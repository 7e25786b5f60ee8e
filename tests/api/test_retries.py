"""When a call is retried, and after which delay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_quickbi.api import operations
from airflow_provider_quickbi.api.client import AsyncQuickBIClient, QuickBIClient
from airflow_provider_quickbi.api.clock import Clock
from airflow_provider_quickbi.api.credentials import Credentials
from airflow_provider_quickbi.api.errors import QuickBIError, ThrottledError, TransientError
from airflow_provider_quickbi.api.flow import AcquireSlot, GetCredentials, Pause, Report, Send, call_flow
from airflow_provider_quickbi.api.rate_limit import RateLimiter
from airflow_provider_quickbi.api.responses import MAX_RETRY_AFTER
from airflow_provider_quickbi.api.retry import RetryPolicy
from airflow_provider_quickbi.api.settings import Endpoint
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

#: Status, headers and body.
Response = tuple[int, dict[str, str], bytes]

OK: Response = (200, {}, b'{"Success": true, "Result": [], "RequestId": "R"}')
BUSY: Response = (503, {}, b"")


def played(
    responses: list[Any], operation: Any = None, retries: RetryPolicy | None = None, limiter: RateLimiter | None = None
) -> tuple[list[Any], Any]:
    """Carry out the steps of a call with canned responses; return the steps and the result or error."""
    operation = operation or operations.any_operation("GetSomething", {}, repeatable=True)
    steps = call_flow(operation, Endpoint("quickbi.example"), limiter or RateLimiter(50), retries or RetryPolicy())
    taken: list[Any] = []
    response: Any = None
    left = iter(responses)
    try:
        step = next(steps)
        while True:
            taken.append(step)
            if isinstance(step, Send):
                response = next(left)
            elif isinstance(step, GetCredentials):
                response = Credentials("id", "secret")
            else:
                response = None
            step = steps.throw(response) if isinstance(response, QuickBIError) else steps.send(response)
    except StopIteration as end:
        return taken, end.value
    except QuickBIError as error:
        return taken, error


def pauses(steps: list[Any]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Pause)]


def test_a_call_is_credentials_slot_request_report():
    steps, result = played([OK])
    assert [type(step) for step in steps] == [GetCredentials, AcquireSlot, Send, Report]
    assert result == []


def test_every_attempt_acquires_a_slot_and_is_reported():
    steps, _ = played([BUSY, BUSY, OK])
    assert [type(step) for step in steps] == [
        *[GetCredentials, AcquireSlot, Send, Report, Pause] * 2,
        *[GetCredentials, AcquireSlot, Send, Report],
    ]
    assert [step.result for step in steps if isinstance(step, Report)] == ["transient", "transient", "ok"]


def test_delays_double_up_to_a_maximum_and_jitter_only_shortens_them():
    for _ in range(50):
        steps, error = played([BUSY] * 8, retries=RetryPolicy(attempts=8, first_delay=0.5, max_delay=8.0))
        assert isinstance(error, TransientError)
        delays = pauses(steps)
        assert len(delays) == 7
        for delay, longest in zip(delays, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
            assert longest / 2 <= delay <= longest


def test_delays_differ_so_that_callers_do_not_retry_together():
    assert len({RetryPolicy().delay(3, None) for _ in range(20)}) > 1


def test_retry_after_is_the_minimum_delay():
    assert RetryPolicy().delay(1, 30.0) == 30.0
    assert RetryPolicy(first_delay=8.0).delay(1, 0.001) >= 4.0


def test_the_last_attempts_error_is_raised(quickbi: LocalQuickBI, connect: Callable[..., Any]):
    client = connect(retries=RetryPolicy(attempts=3))
    quickbi.fail("GetMailTaskStatus", Fault.html_503(), Fault.reset(), Fault.error("Internal.System.Error"))
    with pytest.raises(TransientError) as caught:
        client.get_mail_task_status("m")
    assert caught.value.code == "Internal.System.Error"
    assert quickbi.count() == 3
    assert len(client.pauses) == 2


@pytest.mark.parametrize("code", ["Throttling", "Throttling.User", "Throttling.Api"])
def test_a_throttled_read_is_retried(quickbi: LocalQuickBI, client: Any, code: str):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.throttled(code), times=3)
    assert client.get_mail_task_status(mail_id) == ()
    assert quickbi.count("GetMailTaskStatus") == 4


def test_a_read_that_stays_throttled_raises_throttled_error(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", Fault.throttled(), times=None)
    with pytest.raises(ThrottledError):
        client.get_mail_task_status("m")
    assert quickbi.count() == 5


def test_a_retry_after_of_the_service_is_waited_for(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.throttled(retry_after_ms=12_500))
    client.get_mail_task_status(mail_id)
    assert client.pauses == [12.5]


@pytest.mark.parametrize("status", [400, 429, 503])
def test_retry_after_is_honoured_at_any_http_status(quickbi: LocalQuickBI, client: Any, status: int):
    mail_id = quickbi.add_mail_task("Daily sales")
    body = {"Code": "Throttling", "Message": "slow", "RequestId": "R"}
    quickbi.fail("GetMailTaskStatus", Fault.custom(status, body, {"X-ACS-Retry-After": " 2000 "}))
    client.get_mail_task_status(mail_id)
    assert client.pauses == [2.0]


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "0", "1.5", "1e9", "0x10", "9" * 13, "١٢٣", "Wed, 21 Oct 2026 07:28:00 GMT", "inf", "nan"],
)
def test_an_invalid_retry_after_counts_as_absent(quickbi: LocalQuickBI, client: Any, value: str):
    mail_id = quickbi.add_mail_task("Daily sales")
    body = {"Code": "Throttling", "Message": "slow", "RequestId": "R"}
    quickbi.fail("GetMailTaskStatus", Fault.custom(400, body, {"x-acs-retry-after": value}))
    client.get_mail_task_status(mail_id)
    assert len(client.pauses) == 1
    assert client.pauses[0] <= 0.5


def test_a_retry_after_of_days_is_capped(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", Fault.throttled(retry_after_ms=7 * 86_400_000), times=None)
    with pytest.raises(ThrottledError) as caught:
        client.get_mail_task_status("m")
    assert caught.value.retry_after == MAX_RETRY_AFTER
    assert max(client.pauses) == MAX_RETRY_AFTER


def test_an_operation_that_is_not_repeatable_makes_one_attempt():
    operation = operations.manual_run_mail_task("m")
    response: Any
    for response in (BUSY, TransientError("reset"), (400, {}, b'{"Code": "Throttling", "Message": "slow"}')):
        steps, error = played([response], operation)
        assert isinstance(error, QuickBIError)
        assert [type(step) for step in steps] == [GetCredentials, AcquireSlot, Send, Report]


def test_the_rate_limiter_is_notified_of_throttling_and_success_only():
    reported: list[Any] = []

    class Recording(RateLimiter):
        def succeeded(self) -> None:
            reported.append("ok")

        def throttled(self, retry_after: float | None = None) -> None:
            reported.append(("throttled", retry_after))

    throttled = (400, {"x-acs-retry-after": "1500"}, b'{"Code": "Throttling.User", "Message": "slow"}')
    refused: Response = (400, {}, b'{"Code": "Mail.Not.Found", "Message": "no"}')
    played([throttled, BUSY, OK], limiter=Recording(50))
    played([BUSY, refused], limiter=Recording(50))
    assert reported == [("throttled", 1.5), "ok"]


def test_both_clients_sleep_by_their_clock(quickbi: LocalQuickBI, settings_of: Callable[..., Any], kind: str):
    slept: list[float] = []
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=2)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def main() -> None:
        async with AsyncQuickBIClient(settings_of(quickbi), clock=Clock(sleep_async=sleep)) as client:
            await client.get_mail_task_status(mail_id)

    if kind == "asyncio":
        asyncio.run(main())
    else:
        with QuickBIClient(settings_of(quickbi), clock=Clock(sleep=slept.append)) as client:
            client.get_mail_task_status(mail_id)
    backoff = [seconds for seconds in slept if seconds > 0.1]
    assert len(backoff) == 2
    assert 0.25 <= backoff[0] <= 0.5 <= backoff[1] <= 1.0
