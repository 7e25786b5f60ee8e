"""Every error of the service becomes the exception that a caller acts on; the Code decides, not the HTTP status."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.api.errors import (
    CODES,
    AlreadyRunningError,
    ErrorKind,
    NotStartedError,
    PermanentError,
    QuickBIError,
    ThrottledError,
    TransientError,
    error_for,
    error_from_dict,
    minutes_to_wait,
)
from airflow_provider_quickbi.api.responses import read_response
from airflow_provider_quickbi.api.retry import NO_RETRY
from airflow_provider_quickbi.testing import Fault, LocalQuickBI

GRANT = "Open Platform > access control"

#: Written from the documentation of the service, not from the provider's own table.
EXPECTED = [
    ("Throttling", ThrottledError, ErrorKind.THROTTLED, ""),
    ("Throttling.User", ThrottledError, ErrorKind.THROTTLED, ""),
    ("Throttling.Api", ThrottledError, ErrorKind.THROTTLED, ""),
    ("ServiceUnavailable", TransientError, ErrorKind.TRANSIENT, ""),
    ("InternalError", TransientError, ErrorKind.TRANSIENT, ""),
    ("Internal.System.Error", TransientError, ErrorKind.TRANSIENT, ""),
    ("SignatureNonceUsed", TransientError, ErrorKind.TRANSIENT, ""),
    ("MailApi.Beyond.ScheduleLimit", NotStartedError, ErrorKind.NOT_STARTED, ""),
    ("Timer.Schedule.Task", NotStartedError, ErrorKind.NOT_STARTED, ""),
    ("MailTask.Already.Running", AlreadyRunningError, ErrorKind.CONFLICT, ""),
    ("Mail.Not.Found", PermanentError, ErrorKind.NOT_FOUND, "not visible to this AccessKey"),
    ("Repeat.Running.Job", AlreadyRunningError, ErrorKind.CONFLICT, ""),
    ("Cube.Not.Exist", PermanentError, ErrorKind.NOT_FOUND, "not visible to this AccessKey"),
    ("Quick.Job.NotExist", PermanentError, ErrorKind.NOT_FOUND, "no extraction into the Quick engine"),
    ("Last.Job.Failed", PermanentError, ErrorKind.BAD_REQUEST, "in the Quick BI console"),
    ("OrgAdminOrPermissionAdmin.CannotChangeTo.Viewer", PermanentError, ErrorKind.DENIED, GRANT),
    ("Mail.Forbidden.Access", PermanentError, ErrorKind.DENIED, GRANT),
    ("Access.Forbidden", PermanentError, ErrorKind.DENIED, "Professional edition"),
    ("UserRoleConfig.NotContain.Function", PermanentError, ErrorKind.DENIED, GRANT),
    ("User.OperationPermission.Error", PermanentError, ErrorKind.DENIED, GRANT),
    ("User.Not.In.Organization", PermanentError, ErrorKind.DENIED, GRANT),
    ("Invalid.Organization", PermanentError, ErrorKind.DENIED, GRANT),
    ("Forbidden.RAM", PermanentError, ErrorKind.DENIED, "quickbi-public:GetMailTaskStatus"),
    ("Forbidden.Unlisted", PermanentError, ErrorKind.DENIED, "RAM policy"),
    ("NoPermission", PermanentError, ErrorKind.DENIED, "RAM policy"),
    ("InvalidAccessKeyId.NotFound", PermanentError, ErrorKind.CREDENTIALS, "AccessKey ID"),
    ("InvalidAccessKeyId.Inactive", PermanentError, ErrorKind.CREDENTIALS, "disabled"),
    ("SignatureDoesNotMatch", PermanentError, ErrorKind.CREDENTIALS, "AccessKey Secret"),
    ("IncompleteSignature", PermanentError, ErrorKind.CREDENTIALS, "AccessKey Secret"),
    ("InvalidTimeStamp.Expired", PermanentError, ErrorKind.CREDENTIALS, "clock"),
    ("InvalidTimeStamp.Format", PermanentError, ErrorKind.CREDENTIALS, "clock"),
    ("InvalidSecurityToken.Expired", PermanentError, ErrorKind.CREDENTIALS, "security_token"),
    ("InvalidSecurityToken.Malformed", PermanentError, ErrorKind.CREDENTIALS, "security_token"),
    ("InvalidSecurityToken.MismatchWithAccessKey", PermanentError, ErrorKind.CREDENTIALS, "security_token"),
    ("Invalid.Parameter", PermanentError, ErrorKind.BAD_REQUEST, "parameters"),
    ("Invalid.Parameter.PageSize", PermanentError, ErrorKind.BAD_REQUEST, "parameters"),
    ("Invalid.Param.Error", PermanentError, ErrorKind.BAD_REQUEST, "parameters"),
    ("MailId.Is.Null", PermanentError, ErrorKind.BAD_REQUEST, "mail_id"),
    ("MissingMailId", PermanentError, ErrorKind.BAD_REQUEST, "parameters"),
    ("Mail.Subject.Error", PermanentError, ErrorKind.BAD_REQUEST, "subject"),
    ("InvalidApi.NotFound", PermanentError, ErrorKind.BAD_REQUEST, "endpoint"),
    ("InvalidAction.NotFound", PermanentError, ErrorKind.BAD_REQUEST, "endpoint"),
    ("InvalidProduct.NotFound", PermanentError, ErrorKind.BAD_REQUEST, "endpoint"),
    ("InvalidVersion", PermanentError, ErrorKind.BAD_REQUEST, "endpoint"),
    ("Instance.Expired", PermanentError, ErrorKind.BAD_REQUEST, "expired"),
    ("Instance.Not.Exist", PermanentError, ErrorKind.BAD_REQUEST, "does not exist"),
    ("Something.Brand.New", PermanentError, ErrorKind.UNKNOWN, ""),
]
RETRIED = (ThrottledError, TransientError)


@pytest.mark.parametrize(("code", "cls", "kind_of_error", "hint"), EXPECTED)
def test_each_code_becomes_its_exception_with_what_to_do(
    quickbi: LocalQuickBI, client: Any, code: str, cls: type[QuickBIError], kind_of_error: ErrorKind, hint: str
):
    quickbi.fail(None, Fault.error(code, "The service's own words."), times=None)
    with pytest.raises(QuickBIError) as caught:
        client.get_mail_task_list()
    error = caught.value
    assert type(error) is cls
    assert (error.kind, error.code, error.action) == (kind_of_error, code, "GetMailTaskList")
    assert error.message == "The service's own words"
    assert len(error.request_id) == 36
    assert hint in error.hint
    assert bool(error.hint) == bool(hint)
    assert str(error).startswith(
        f"GetMailTaskList: The service's own words (Code {code}, RequestId {error.request_id})"
    )
    assert str(error).endswith(hint and error.hint)
    assert quickbi.count() == (5 if cls in RETRIED else 1)


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        ("Throttling.User", ThrottledError),
        ("Internal.System.Error", TransientError),
        ("Mail.Not.Found", PermanentError),
        ("MailTask.Already.Running", AlreadyRunningError),
        ("SignatureDoesNotMatch", PermanentError),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500, 503])
def test_the_code_decides_whatever_the_http_status(status: int, code: str, cls: type[QuickBIError]):
    body = json.dumps({"RequestId": "R-1", "Code": code, "Message": "m"}).encode()
    with pytest.raises(QuickBIError) as caught:
        read_response("GetMailTaskStatus", status, {}, body)
    assert type(caught.value) is cls
    assert caught.value.http_status == status


@pytest.mark.parametrize(
    ("status", "cls"), [(400, PermanentError), (404, PermanentError), (429, TransientError), (500, TransientError)]
)
def test_an_unknown_code_is_permanent_unless_the_http_status_is_transient(status: int, cls: type[QuickBIError]):
    body = json.dumps({"RequestId": "R-1", "Code": "Brand.New", "Message": "m"}).encode()
    with pytest.raises(QuickBIError, match=r"Brand.New") as caught:
        read_response("GetMailTaskStatus", status, {}, body)
    assert type(caught.value) is cls


def test_an_unknown_code_is_shown_with_message_and_request_id(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", Fault.error("Brand.New", "What nobody expected"))
    with pytest.raises(PermanentError, match=r"What nobody expected \(Code Brand\.New, RequestId [0-9A-F-]{36}\)$"):
        client.get_mail_task_status("m")


@pytest.mark.parametrize(
    ("fault", "cls", "said"),
    [
        (Fault.unsuccessful(), TransientError, "neither Success: true nor a Code"),
        (Fault.unsuccessful(message="It failed"), TransientError, "It failed"),
        (Fault.unsuccessful("Mail.Not.Found", "gone"), PermanentError, "gone"),
        (Fault.unsuccessful("Throttling.User", "slow"), ThrottledError, "slow"),
        (Fault.unsuccessful("Internal.System.Error", "oops"), TransientError, "oops"),
    ],
)
def test_a_200_with_success_false_is_an_error(
    quickbi: LocalQuickBI, client: Any, fault: Fault, cls: type[QuickBIError], said: str
):
    quickbi.fail("GetMailTaskStatus", fault, times=None)
    with pytest.raises(cls, match=said):
        client.get_mail_task_status("m")


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (200, {"Success": "true", "Result": []}, TransientError),
        (200, {"Success": 1, "Result": []}, TransientError),
        (200, {"Result": []}, TransientError),
        (200, {}, TransientError),
        (200, [], TransientError),
        (200, "null", TransientError),
        (200, "7", TransientError),
        (200, "true", TransientError),
        (400, {"Success": True, "Result": []}, TransientError),
        (400, {"Message": "no"}, TransientError),
        (500, {"Message": "no"}, TransientError),
        (429, {"Message": "no"}, TransientError),
        (503, {"Success": True, "Result": []}, TransientError),
        (400, {"Code": 7, "Message": ["x"]}, PermanentError),
        (400, {"Code": None, "Message": None}, TransientError),
        (400, {"Code": {"a": 1}}, TransientError),
        (400, {"code": "Mail.Not.Found", "message": "lower case"}, PermanentError),
        (404, "<html>not here</html>", TransientError),
    ],
)
def test_anything_without_success_true_is_an_error(status: int, body: Any, cls: type[QuickBIError]):
    raw = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(QuickBIError) as caught:
        read_response("GetMailTaskStatus", status, {}, raw.encode())
    assert type(caught.value) is cls


@given(status=st.integers(100, 599), body=st.binary(max_size=60))
def test_any_bytes_give_a_result_or_a_quickbi_error(status: int, body: bytes):
    try:
        read_response("GetMailTaskStatus", status, {"X-Acs-Retry-After": "1"}, body)
    except QuickBIError as error:
        said = str(error)
    else:
        return
    assert said


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    status=st.sampled_from([200, 400, 500]),
    body=st.fixed_dictionaries(
        {}, optional={"Success": _json, "Result": _json, "Code": _json, "Message": _json, "RequestId": _json}
    ),
)
def test_any_json_gives_a_result_or_an_error_that_survives_json(status: int, body: dict[str, Any]):
    try:
        read_response("GetMailTaskStatus", status, {}, json.dumps(body).encode())
    except QuickBIError as error:
        kept = error.as_dict()
    else:
        return
    assert error_from_dict(json.loads(json.dumps(kept))).as_dict() == kept


def test_service_messages_are_shown_on_one_line_of_bounded_length():
    body = json.dumps({"Code": "Brand.New", "Message": "a\r\nb\tc " + "x" * 100_000}).encode()
    with pytest.raises(PermanentError) as caught:
        read_response("GetMailTaskStatus", 400, {}, body)
    assert "a b c x" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize(
    ("message", "minutes"),
    [
        ("The Mail Task Requests Are Frequent. Please Try Again In 5 Minutes.", 5),
        ("please try again in 1 minute", 1),
        ("邮件任务请求频繁，请30分钟后重试。", 30),  # noqa: RUF001 - as the service writes it
        ("邮件任务请求频繁，请 30 分钟后重试。", 30),  # noqa: RUF001 - as the service writes it
        ("Please Try Again In %s Minutes.", None),
        ("Please Try Again In 99999999999999 Minutes.", None),
        ("", None),
    ],
)
def test_the_minutes_to_wait_are_read_from_the_message(message: str, minutes: int | None):
    assert minutes_to_wait(message) == minutes
    error = error_for("MailApi.Beyond.ScheduleLimit", message, action="ManualRunMailTask")
    assert error.retry_after == (None if minutes is None else minutes * 60.0)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_start_over_the_schedule_limit_says_when_to_retry(quickbi: LocalQuickBI, client: Any, language: str):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.limit_manual_starts(mail_id, calls=1, announced_minutes=7, language=language)
    with pytest.raises(NotStartedError) as caught:
        client.manual_run_mail_task(mail_id)
    assert caught.value.retry_after == 420.0
    assert quickbi.starts(mail_id) == 0


def test_a_start_while_a_run_is_in_progress_says_so(quickbi: LocalQuickBI, client: Any):
    mail_id = quickbi.add_mail_task("Daily sales")
    quickbi.add_run(mail_id, duration=600, status="PROCESSING")
    with pytest.raises(AlreadyRunningError):
        client.manual_run_mail_task(mail_id)
    assert quickbi.starts(mail_id) == 0


def test_refusals_of_the_service_are_distinguished(quickbi: LocalQuickBI, connect: Any, settings_of: Any):
    from airflow_provider_quickbi.api.credentials import CredentialSpec

    def refusal(identity: str, secret: str) -> PermanentError:
        spec = CredentialSpec.of("access_key", access_key_id=identity, access_key_secret=secret)
        with pytest.raises(PermanentError) as caught:
            connect(credentials=spec).get_mail_task_list()
        return caught.value

    quickbi.add_account("inactive", "secret", active=False)
    assert refusal("nobody", "secret").code == "InvalidAccessKeyId.NotFound"
    assert refusal("inactive", "secret").code == "InvalidAccessKeyId.Inactive"
    assert refusal(quickbi.access_key_id, "wrong").code == "SignatureDoesNotMatch"
    quickbi.clock.skew = 3600
    assert "clock" in refusal(quickbi.access_key_id, quickbi.access_key_secret).hint


def test_an_unknown_mail_task_says_that_it_may_not_be_visible(quickbi: LocalQuickBI, client: Any):
    with pytest.raises(PermanentError, match="not visible to this AccessKey") as caught:
        client.get_mail_task_status("unknown")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_every_pattern_of_the_table_is_reached_by_a_code_of_its_own():
    codes = [pattern.replace("*", "X") for pattern, _, _ in CODES]
    matched = {pattern for code in codes for pattern, _, _ in CODES if _first(code) == pattern}
    assert matched == {pattern for pattern, _, _ in CODES}


def _first(code: str) -> str:
    from fnmatch import fnmatchcase

    return next(pattern for pattern, _, _ in CODES if fnmatchcase(code, pattern))


ERRORS = [
    ThrottledError("slow", action="A", kind=ErrorKind.THROTTLED, code="Throttling", retry_after=2.5),
    TransientError("broke", action="A", kind=ErrorKind.TRANSIENT, http_status=503),
    TransientError("refused", action="A", kind=ErrorKind.TRANSIENT, may_have_arrived=False),
    NotStartedError("later", action="A", kind=ErrorKind.NOT_STARTED, code="Timer.Schedule.Task", retry_after=60.0),
    AlreadyRunningError("busy", action="A", kind=ErrorKind.CONFLICT, code="MailTask.Already.Running"),
    PermanentError("no", action="A", kind=ErrorKind.DENIED, code="Forbidden.RAM", request_id="R", hint="Do this"),
    PermanentError("new", kind=ErrorKind.UNKNOWN, code="Brand.New"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.message)
def test_an_error_survives_pickle_and_json(error: QuickBIError):
    for copy in (pickle.loads(pickle.dumps(error)), error_from_dict(json.loads(json.dumps(error.as_dict())))):  # noqa: S301 - made just before
        assert type(copy) is type(error)
        assert (str(copy), copy.as_dict(), copy.args) == (str(error), error.as_dict(), error.args)
        assert getattr(copy, "may_have_arrived", None) == getattr(error, "may_have_arrived", None)


def test_an_error_stored_by_an_earlier_release_is_read():
    written = {"message": "broke", "action": "A", "kind": "transient", "code": "", "request_id": "", "hint": ""}
    error = error_from_dict({**written, "http_status": None, "retry_after": None})
    assert isinstance(error, TransientError)
    assert error.may_have_arrived


def test_permanent_errors_are_raised_at_once(quickbi: LocalQuickBI, client: Any):
    quickbi.deny("Access.Forbidden")
    with pytest.raises(PermanentError):
        client.get_mail_task_status("m")
    assert (quickbi.count(), client.pauses) == (1, [])


def test_no_retry_makes_one_attempt(quickbi: LocalQuickBI, client: Any):
    quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=None)
    with pytest.raises(TransientError):
        client.get_mail_task_status("m", retries=NO_RETRY)
    assert (quickbi.count(), client.pauses) == (1, [])
