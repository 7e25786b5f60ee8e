"""The verifier of signatures, as a pure function."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from alibabacloud_tea_openapi.utils import Utils
from darabonba.request import DaraRequest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quickbi.testing import Refusal
from airflow_provider_quickbi.testing.accounts import Accounts
from airflow_provider_quickbi.testing.signature import (
    SignedRequest,
    canonical_query,
    canonical_request,
    collect_headers,
    sign,
    string_to_sign,
)

SECRET = "YourAccessKeySecret"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
PUBLISHED_AT = datetime(2023, 10, 26, 10, 22, 32, tzinfo=UTC).timestamp()
PUBLISHED_HEADERS = {
    "host": "ecs.cn-shanghai.aliyuncs.com",
    "x-acs-action": "RunInstances",
    "x-acs-content-sha256": EMPTY_SHA256,
    "x-acs-date": "2023-10-26T10:22:32Z",
    "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
    "x-acs-version": "2014-05-26",
}
PUBLISHED_QUERY = "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"
PUBLISHED_SIGNATURE = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"


def authorization(signature: str, names: str = ";".join(PUBLISHED_HEADERS), key: str = "YourAccessKeyId") -> str:
    return f"ACS3-HMAC-SHA256 Credential={key},SignedHeaders={names},Signature={signature}"


def published(**headers: str | None) -> SignedRequest:
    """The published request, with some headers replaced, added (with underscores for hyphens) or left out."""
    merged = PUBLISHED_HEADERS | {"authorization": authorization(PUBLISHED_SIGNATURE)}
    for name, value in headers.items():
        merged[name.replace("_", "-")] = value  # type: ignore[assignment]
    pairs = [(name, value) for name, value in merged.items() if value is not None]
    return SignedRequest("POST", "/", PUBLISHED_QUERY, collect_headers(pairs))


def signed_again(request: SignedRequest, secret: str = SECRET) -> SignedRequest:
    """The request with a right signature over every header it has."""
    names = sorted(name for name in request.headers if name != "authorization")
    digest = sign(string_to_sign(canonical_request(request, names)), secret)
    headers = {**request.headers, "authorization": authorization(digest, ";".join(names))}
    return replace(request, headers=headers)


def check(request: SignedRequest, *, now: float = PUBLISHED_AT, accounts: Accounts | None = None, **fields: Any) -> str:
    accounts = accounts or Accounts()
    accounts.add_account("YourAccessKeyId", **{"access_key_secret": SECRET, **fields})
    return accounts.authenticate(request, now)


def refusal_of(request: SignedRequest, **options: object) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check(request, **options)  # type: ignore[arg-type]
    return refused.value


def test_the_published_request_has_the_published_hash_and_signature() -> None:
    canonical = canonical_request(published(), PUBLISHED_HEADERS)
    to_sign = string_to_sign(canonical)
    assert to_sign == "ACS3-HMAC-SHA256\n7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
    assert sign(to_sign, "YourAccessKeySecret") == PUBLISHED_SIGNATURE


def test_the_published_request_is_let_in() -> None:
    assert check(published()) == "YourAccessKeyId"


def test_no_authorization_is_an_incomplete_signature() -> None:
    assert refusal_of(published(authorization=None)).code == "IncompleteSignature"


@pytest.mark.parametrize(
    "value",
    [
        "Basic abc",
        "ACS3-HMAC-SHA256",
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,Signature=" + "0" * 64,
        authorization("zz"),
        authorization(PUBLISHED_SIGNATURE, key=""),
        "ACS4-HMAC-SHA256 " + authorization(PUBLISHED_SIGNATURE).partition(" ")[2],
    ],
)
def test_an_authorization_of_another_form_is_an_incomplete_signature(value: str) -> None:
    assert refusal_of(published(authorization=value)).code == "IncompleteSignature"


@pytest.mark.parametrize("name", ["host", "x-acs-date", "x-acs-content-sha256", "x-acs-signature-nonce"])
def test_a_header_that_every_request_needs_must_be_there(name: str) -> None:
    refused = refusal_of(published(**{name: None}))
    assert refused.code == "IncompleteSignature"
    assert name in refused.message


@pytest.mark.parametrize("name", ["host", "x-acs-action", "x-acs-version", "x-acs-date"])
def test_a_header_that_is_sent_but_not_signed_is_an_incomplete_signature(name: str) -> None:
    names = ";".join(other for other in PUBLISHED_HEADERS if other != name)
    refused = refusal_of(published(authorization=authorization(PUBLISHED_SIGNATURE, names)))
    assert refused.code == "IncompleteSignature"
    assert name in refused.message


def test_a_header_that_is_signed_but_not_sent_is_an_incomplete_signature() -> None:
    names = ";".join([*PUBLISHED_HEADERS, "x-acs-gone"])
    refused = refusal_of(published(authorization=authorization(PUBLISHED_SIGNATURE, names)))
    assert (refused.code, "x-acs-gone" in refused.message) == ("IncompleteSignature", True)


def test_the_content_type_of_a_body_must_be_signed() -> None:
    request = replace(published(content_type="application/json"), body=b"{}")
    assert refusal_of(request).code == "IncompleteSignature"


def test_the_content_type_of_an_empty_body_need_not_be_signed() -> None:
    assert check(published(content_type="application/octet-stream")) == "YourAccessKeyId"


def test_an_unknown_access_key_is_not_found() -> None:
    refused = refusal_of(published(authorization=authorization(PUBLISHED_SIGNATURE, key="Somebody")))
    assert (refused.code, refused.http_status) == ("InvalidAccessKeyId.NotFound", 404)


def test_a_disabled_access_key_is_inactive() -> None:
    assert refusal_of(published(), active=False).code == "InvalidAccessKeyId.Inactive"


def test_a_wrong_secret_does_not_match_and_is_not_shown() -> None:
    refused = refusal_of(published(), access_key_secret="another-secret")
    assert (refused.code, refused.http_status) == ("SignatureDoesNotMatch", 400)
    assert "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259" in refused.message
    assert "another-secret" not in refused.message


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"path": "/other"},
        {"raw_query": PUBLISHED_QUERY.replace("shanghai", "beijing")},
        {"raw_query": PUBLISHED_QUERY + "&More=1"},
        {"raw_query": ""},
        {"headers": published(x_acs_action="StopInstances").headers},
        {"headers": published(host="elsewhere.aliyuncs.com").headers},
        {"body": b"not empty"},
    ],
)
def test_whatever_is_changed_after_signing_does_not_match(changes: dict[str, object]) -> None:
    assert refusal_of(replace(published(), **changes)).code == "SignatureDoesNotMatch"  # type: ignore[arg-type]


def test_a_body_hash_that_is_not_the_hash_of_the_body_does_not_match() -> None:
    request = signed_again(published(x_acs_content_sha256=hashlib.sha256(b"another body").hexdigest()))
    assert refusal_of(request).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("value", ["2023-10-26 10:22:32", "2023-10-26T10:22:32", "2023-13-26T10:22:32Z", "yesterday"])
def test_a_date_of_another_form_is_refused(value: str) -> None:
    assert refusal_of(signed_again(published(x_acs_date=value))).code == "InvalidTimeStamp.Format"


@pytest.mark.parametrize("seconds", [-901, 901])
def test_a_date_more_than_15_minutes_off_is_expired(seconds: float) -> None:
    assert refusal_of(published(), now=PUBLISHED_AT + seconds).code == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize("seconds", [-900, 900])
def test_a_date_15_minutes_off_is_let_in(seconds: float) -> None:
    assert check(published(), now=PUBLISHED_AT + seconds)


def test_the_same_request_cannot_be_sent_twice() -> None:
    accounts = Accounts()
    check(published(), accounts=accounts)
    assert refusal_of(published(), accounts=accounts).code == "SignatureNonceUsed"


def test_a_refused_request_does_not_use_up_its_nonce() -> None:
    accounts = Accounts()
    refusal_of(published(), accounts=accounts, access_key_secret="another")
    assert check(published(), accounts=accounts)


def with_token(token: str | None, key_id: str | None = "YourAccessKeyId") -> SignedRequest:
    return signed_again(published(x_acs_security_token=token, x_acs_accesskey_id=key_id))


def test_a_temporary_key_with_its_token_is_let_in() -> None:
    assert check(with_token("token"), security_token="token") == "YourAccessKeyId"


@pytest.mark.parametrize(
    ("request_", "fields", "code"),
    [
        (with_token(None, None), {"security_token": "token"}, "InvalidSecurityToken.Malformed"),
        (with_token("wrong"), {"security_token": "token"}, "InvalidSecurityToken.MismatchWithAccessKey"),
        (with_token("token"), {"security_token": None}, "InvalidSecurityToken.MismatchWithAccessKey"),
        (with_token("token", "Other"), {"security_token": "token"}, "InvalidSecurityToken.MismatchWithAccessKey"),
        (
            with_token("token"),
            {"security_token": "token", "security_token_expires_at": PUBLISHED_AT},
            "InvalidSecurityToken.Expired",
        ),
    ],
)
def test_a_security_token_that_is_missing_wrong_or_over_is_refused(
    request_: SignedRequest, fields: dict[str, object], code: str
) -> None:
    assert refusal_of(request_, **fields).code == code


def test_a_security_token_is_not_shown_when_the_signature_does_not_match() -> None:
    refused = refusal_of(with_token("s3cr3t-token"), access_key_secret="another", security_token="s3cr3t-token")
    assert refused.code == "SignatureDoesNotMatch"
    assert "s3cr3t-token" not in refused.message


def test_a_query_is_decoded_encoded_again_and_sorted() -> None:
    assert canonical_query("b=2&a=x%20y&a=1%2B1&c=%E6%97%A5&d=~*") == "a=1%2B1&a=x%20y&b=2&c=%E6%97%A5&d=~%2A"
    assert canonical_query("a=x+y&b") == "a=x%20y&b="
    assert canonical_query("") == ""


def test_a_repeated_header_is_signed_as_its_sorted_values_joined_by_commas() -> None:
    headers = collect_headers([("X-Acs-Tag", " b "), ("x-acs-other", "1"), ("x-acs-tag", "c"), ("X-ACS-TAG", "a")])
    assert headers == {"x-acs-tag": "a,b,c", "x-acs-other": "1"}


names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", min_size=1, max_size=12)


@given(params=st.dictionaries(names, st.text(max_size=30).filter(lambda text: text.isprintable()), max_size=6))
@pytest.mark.parametrize("encode", [quote, quote_plus])
def test_whatever_the_official_signer_signs_is_let_in(encode: object, params: dict[str, str]) -> None:
    request = DaraRequest()
    request.method, request.pathname, request.query, request.headers = "POST", "/", params, dict(PUBLISHED_HEADERS)
    request.headers["user-agent"] = "signed as well"
    signed = Utils.get_authorization(
        request, "ACS3-HMAC-SHA256", EMPTY_SHA256, "YourAccessKeyId", "YourAccessKeySecret"
    )
    raw_query = "&".join(f"{name}={encode(value, safe='')}" for name, value in params.items())  # type: ignore[operator]
    headers = collect_headers([*request.headers.items(), ("Authorization", signed), ("Accept-Encoding", "gzip")])
    assert check(SignedRequest("POST", "/", raw_query, headers)) == "YourAccessKeyId"
