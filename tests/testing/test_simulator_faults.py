"""Every fault as plain HTTP clients get to see it."""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_quickbi.testing import Call, Fault, LocalQuickBI

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Caller

STATUS, START, LIST = "GetMailTaskStatus", "ManualRunMailTask", "GetMailTaskList"


@pytest.fixture
def mail_id(quickbi: LocalQuickBI) -> str:
    return quickbi.add_mail_task("m")


# Answers that are refusals


@pytest.mark.parametrize("code", ["Throttling", "Throttling.User", "Throttling.Api"])
def test_throttled_is_a_400_with_its_code(quickbi: LocalQuickBI, call: Caller, code: str) -> None:
    quickbi.fail(LIST, Fault.throttled(code))
    response = call.send(LIST)
    assert (response.status_code, response.json()["Code"]) == (400, code)
    assert "x-acs-retry-after" not in response.headers
    assert call(LIST)["TotalNum"] == 0
    assert quickbi.count(LIST, code=code) == 1


def test_throttled_may_announce_when_to_come_back(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(None, Fault.throttled(retry_after_ms=1500))
    assert call.send(LIST).headers["x-acs-retry-after"] == "1500"


def test_an_internal_error_is_a_400(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.error("Internal.System.Error"))
    response = call.send(LIST)
    assert (response.status_code, response.json()["Code"]) == (400, "Internal.System.Error")


def test_any_error_can_be_answered(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.error("Brand.New", "Never seen", status=418))
    response = call.send(LIST)
    assert response.status_code == 418
    assert response.json()["Message"] == "Never seen"


def test_a_success_that_is_none_is_a_200(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.unsuccessful(), Fault.unsuccessful("Mail.Not.Found", "没有"))
    bare, coded = call.send(LIST), call.send(LIST)
    assert (bare.status_code, coded.status_code) == (200, 200)
    assert (bare.json()["Success"], bare.json().get("Code")) == (False, None)
    assert (coded.json()["Code"], coded.json()["Message"]) == ("Mail.Not.Found", "没有")


# Answers that are none of Quick BI


def test_a_503_comes_as_html_and_a_502_is_empty(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.html_503(), Fault.empty_502())
    unavailable, bad_gateway = call.send(LIST), call.send(LIST)
    assert (unavailable.status_code, unavailable.headers["Content-Type"]) == (503, "text/html")
    assert "<html>" in unavailable.text
    assert (bad_gateway.status_code, bad_gateway.content) == (502, b"")


def test_a_redirection_names_its_target(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.redirect("http://127.0.0.1:9/login", 307))
    response = call.send(LIST, allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (307, "http://127.0.0.1:9/login")


def test_anything_can_be_answered(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    quickbi.fail(LIST, Fault.custom(299, "text", {"x-more": "1"}), Fault.custom(body={"a": "日"}), Fault.custom(204))
    text, json_body, empty = call.send(LIST), call.send(LIST), call.send(LIST)
    assert (text.status_code, text.text, text.headers["x-more"]) == (299, "text", "1")
    assert json_body.json() == {"a": "日"}
    assert (empty.status_code, empty.content) == (204, b"")
    quickbi.fail(START, Fault.custom(500, b"\xff\xfe", processed=True))
    assert call.send(START, {"MailId": mail_id}).content == b"\xff\xfe"
    assert quickbi.starts(mail_id) == 1


def test_half_of_the_json_is_a_complete_answer(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    quickbi.fail(START, Fault.half_json())
    response = call.send(START, {"MailId": mail_id})
    assert response.status_code == 200
    assert int(response.headers["Content-Length"]) == len(response.content)
    with pytest.raises(requests.JSONDecodeError):
        response.json()
    assert quickbi.starts(mail_id) == 1


def test_wrong_types_are_json_that_nobody_expects(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    quickbi.add_run(mail_id)
    quickbi.fail(None, Fault.wrong_types(), times=None)
    listed, status, started = (
        call.send(LIST),
        call.send(STATUS, {"MailId": mail_id}),
        call.send(START, {"MailId": mail_id}),
    )
    assert isinstance(listed.json()["Result"], list)
    assert isinstance(status.json()["Result"], dict)
    assert isinstance(started.json()["Result"], dict)
    assert all(answer.json()["Success"] == "yes" for answer in (listed, status, started))


def test_an_oversized_answer_has_as_many_bytes_as_asked_for(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.oversized(3_000_000))
    response = call.send(LIST)
    assert len(response.content) == 3_000_000
    assert response.json()["Success"] is True


def test_a_client_may_hang_up_on_an_oversized_answer(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.oversized(50_000_000))
    with call.send(LIST, stream=True) as response:
        assert response.raw.read(100).startswith(b'{"RequestId":"AAAA')
    assert call(LIST)["TotalNum"] == 0


# Connections that break


def test_a_reset_is_a_reset(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    quickbi.fail(START, Fault.reset())
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        call.send(START, {"MailId": mail_id})
    assert quickbi.starts(mail_id) == 0
    seen = quickbi.calls[-1]
    assert (seen.http_status, seen.code, seen.fault) == (None, "reset", "reset")
    assert call(START, MailId=mail_id) is True


def test_a_hang_lasts_until_the_client_gives_up_and_hangs_nobody_else(
    quickbi: LocalQuickBI, call: Caller, mail_id: str
) -> None:
    quickbi.fail(START, Fault.hang())
    with pytest.raises(requests.ReadTimeout):
        call.send(START, {"MailId": mail_id}, timeout=0.2)
    assert quickbi.starts(mail_id) == 0
    assert call(LIST)["TotalNum"] == 1


def test_a_hang_does_not_keep_the_server_from_stopping(make_caller: Callable[..., Caller]) -> None:
    outcome: list[object] = []
    with LocalQuickBI() as quickbi:
        call = make_caller(quickbi)
        quickbi.fail(LIST, Fault.hang())

        def ask() -> None:
            try:
                call.send(LIST, timeout=30)
            except requests.ConnectionError as error:
                outcome.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while quickbi.count(LIST, code="hang") == 0:
            time.sleep(0.005)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    thread.join(5)
    assert len(outcome) == 1


def test_half_a_body_is_shorter_than_announced(
    quickbi: LocalQuickBI, sign: Callable[..., dict[str, str]], mail_id: str
) -> None:
    quickbi.fail(START, Fault.half_body())
    signed = sign(
        f"{quickbi.host}:{quickbi.port}",
        START,
        {"MailId": mail_id},
        access_key_id=quickbi.access_key_id,
        access_key_secret=quickbi.access_key_secret,
    )
    connection = http.client.HTTPConnection(quickbi.host, quickbi.port, timeout=5)
    try:
        connection.request("POST", f"/?MailId={mail_id}", headers=signed)
        response = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as cut:
            response.read()
    finally:
        connection.close()
    assert response.status == 200
    assert cut.value.partial.startswith(b'{"RequestId":')
    assert quickbi.starts(mail_id) == 1


@pytest.mark.parametrize(
    ("how", "error"), [("reset", requests.ConnectionError), ("hang", requests.ReadTimeout), ("unavailable", None)]
)
def test_a_lost_answer_leaves_the_mail_started(
    quickbi: LocalQuickBI, call: Caller, mail_id: str, how: str, error: type[Exception] | None
) -> None:
    quickbi.fail(START, Fault.answer_lost(how))  # type: ignore[arg-type]
    if error is None:
        assert call.send(START, {"MailId": mail_id}).status_code == 503
    else:
        with pytest.raises(error):
            call.send(START, {"MailId": mail_id}, timeout=0.3)
    assert (quickbi.starts(mail_id), quickbi.mails_sent(mail_id)) == (1, 1)
    seen = quickbi.calls[-1]
    assert (seen.code, seen.fault) == ("OK", "answer_lost")


def test_a_lost_answer_of_a_refused_call_starts_nothing(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(START, Fault.answer_lost())
    with pytest.raises(requests.ConnectionError):
        call.send(START, {"MailId": "nowhere"})
    assert quickbi.calls[-1].code == "Mail.Not.Found"


def test_dropped_connections_are_opened_anew(quickbi: LocalQuickBI, call: Caller) -> None:
    call(LIST)
    assert quickbi.drop_connections() == 1
    assert quickbi.drop_connections() == 0
    assert call(LIST)["TotalNum"] == 0
    assert quickbi.connections_opened == 2


# Answers that are late


def test_a_delayed_call_is_carried_out_late(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    quickbi.fail(START, Fault.delay(0.15))
    begin = time.monotonic()
    assert call(START, MailId=mail_id) is True
    assert time.monotonic() - begin >= 0.15
    assert (quickbi.calls[-1].code, quickbi.calls[-1].fault) == ("OK", "delay")


def test_a_delayed_answer_comes_after_the_call_was_carried_out(
    quickbi: LocalQuickBI, call: Caller, mail_id: str
) -> None:
    quickbi.fail(START, Fault.delay(5, processed=True))
    with pytest.raises(requests.ReadTimeout):
        call.send(START, {"MailId": mail_id}, timeout=0.2)
    assert quickbi.starts(mail_id) == 1


def test_a_client_that_gives_up_on_a_delayed_call_has_started_nothing(
    quickbi: LocalQuickBI, call: Caller, mail_id: str
) -> None:
    quickbi.fail(START, Fault.delay(5))
    with pytest.raises(requests.ReadTimeout):
        call.send(START, {"MailId": mail_id}, timeout=0.2)
    assert quickbi.starts(mail_id) == 0


# Which calls are hit


def test_faults_come_in_turn_and_as_often_as_asked_for(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(LIST, Fault.empty_502(), Fault.html_503(), times=2)
    assert [call.send(LIST).status_code for _ in range(5)] == [502, 503, 502, 503, 200]
    with pytest.raises(ValueError, match="at least one fault"):
        quickbi.fail(LIST)


def test_a_fault_hits_its_operation_and_its_mail_only(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    quickbi.fail(STATUS, Fault.empty_502(), mail_id=mail_id)
    assert call.send(LIST).status_code == 200
    assert call.send(STATUS, {"MailId": quickbi.add_mail_task("other")}).status_code == 200
    assert call.send(STATUS, {"MailId": mail_id}).status_code == 502


def test_a_fault_for_ever_lasts_until_it_is_cleared(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.fail(None, Fault.empty_502(), times=None)
    assert {call.send(LIST).status_code for _ in range(10)} == {502}
    quickbi.clear_faults()
    assert call.send(LIST).status_code == 200


def test_a_callable_chooses_by_looking_at_the_call(quickbi: LocalQuickBI, call: Caller) -> None:
    def choose(seen: Call) -> Fault | None:
        return Fault.empty_502() if seen.params.get("PageNum") == "2" else None

    quickbi.fail(LIST, choose, times=None)
    assert [call.send(LIST, {"PageNum": page}).status_code for page in "123"] == [200, 502, 200]


# Acting at an exact call


def test_a_callback_acts_before_the_nth_call_is_looked_at(quickbi: LocalQuickBI, call: Caller, mail_id: str) -> None:
    seen: list[Call] = []

    def act(at: Call) -> None:
        seen.append(at)
        quickbi.add_run(mail_id)

    quickbi.when_called(STATUS, act, nth=3)
    assert [len(call(STATUS, MailId=mail_id)) for _ in range(4)] == [0, 0, 1, 1]
    assert [(at.action, at.mail_id) for at in seen] == [(STATUS, mail_id)]


def test_a_callback_may_return_a_fault(quickbi: LocalQuickBI, call: Caller) -> None:
    quickbi.when_called(None, lambda at: Fault.empty_502())
    assert {call.send(LIST).status_code for _ in range(2)} == {502}


def test_a_callback_that_waits_holds_its_own_call_only(
    quickbi: LocalQuickBI, call: Caller, make_caller: Callable[..., Caller], mail_id: str
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(at: Call) -> None:
        reached.set()
        go_on.wait(5)

    quickbi.when_called(START, wait)
    held = threading.Thread(target=call, args=(START,), kwargs={"MailId": mail_id})
    held.start()
    assert reached.wait(5)
    assert make_caller(quickbi)(LIST)["TotalNum"] == 1
    assert quickbi.starts(mail_id) == 0
    go_on.set()
    held.join(5)
    assert quickbi.starts(mail_id) == 1


def test_what_a_callback_raises_fails_the_call_and_the_test(make_caller: Callable[..., Caller]) -> None:
    def fail(at: Call) -> None:
        raise AssertionError("not this call")

    def run() -> None:
        with LocalQuickBI() as quickbi:
            quickbi.when_called(LIST, fail)
            response = make_caller(quickbi).send(LIST)
            assert (response.status_code, response.json()["Code"]) == (500, "InternalError")

    with pytest.raises(AssertionError, match="not this call"):
        run()


def test_a_callback_that_never_returns_does_not_keep_the_server_from_stopping(
    make_caller: Callable[..., Caller],
) -> None:
    never = threading.Event()

    def block(call: Any) -> None:
        never.wait(30)

    with LocalQuickBI() as quickbi:
        quickbi.when_called(LIST, block)
        with pytest.raises(requests.ReadTimeout):
            make_caller(quickbi).send(LIST, timeout=0.1)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    never.set()
