"""Rebuilds ACS3-HMAC-SHA256 signatures from the request as it arrived, the way Alibaba Cloud's gateway does.

Specification: https://help.aliyun.com/zh/sdk/product-overview/v3-request-structure-and-signature
It is written from there, so that it shares no mistake with the signer of the provider's client.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote

from airflow_provider_quickbi.testing.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALGORITHM: Final = "ACS3-HMAC-SHA256"
_AUTHORIZATION: Final = re.compile(
    rf"{ALGORITHM} +Credential=(?P<key>[^,\s]+) *, *"
    r"SignedHeaders=(?P<headers>[^,\s]+) *, *Signature=(?P<mac>[0-9a-fA-F]{64})"
)
_REQUIRED: Final = ("host", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of an HTTP request that a signature covers; the headers as :func:`collect_headers` returns them."""

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes = b""

    def hash_body(self) -> str:
        """Return the SHA-256 of the body in hexadecimal digits."""
        return hashlib.sha256(self.body).hexdigest()

    def named(self, header: str, parameter: str) -> str | None:
        """Return what a header says, or else a parameter of the query."""
        return self.headers.get(header) or dict(parse_query(self.raw_query)).get(parameter)


def collect_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers in the form in which they are signed: the values of a repeated one sorted and joined."""
    collected: dict[str, list[str]] = {}
    for name, value in pairs:
        collected.setdefault(name.lower(), []).append(value.strip())
    return {name: ",".join(sorted(values)) for name, values in collected.items()}


def parse_query(raw_query: str) -> list[tuple[str, str]]:
    """Decode a query into its parameters, in the order in which they were sent."""
    return parse_qsl(raw_query, keep_blank_values=True)


def canonical_query(raw_query: str) -> str:
    """Decode a query, encode it again as RFC 3986 asks for, and sort it by name."""
    encoded = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in parse_query(raw_query))
    return "&".join(f"{name}={value}" for name, value in encoded)


def canonical_request(request: SignedRequest, signed_headers: Iterable[str]) -> str:
    """Rebuild the canonical request that a client has to sign."""
    names = sorted(signed_headers)
    path = quote(unquote(request.path), safe="/~") or "/"
    headers = "".join(f"{name}:{request.headers.get(name, '')}\n" for name in names)
    return "\n".join(
        (request.method, path, canonical_query(request.raw_query), headers, ";".join(names), request.hash_body())
    )


def string_to_sign(canonical: str) -> str:
    """Return the two lines that are signed: the algorithm and the hash of the canonical request."""
    return f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def sign(text: str, secret: str) -> str:
    """Sign text with a secret."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def read_authorization(request: SignedRequest) -> tuple[str, list[str], str]:
    """Return the AccessKey id, the names of the signed headers and the signature, or refuse an incomplete one."""
    match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise _incomplete("There is no Authorization of the form 'Credential=...,SignedHeaders=...,Signature=...'.")
    signed = [name for name in match["headers"].lower().split(";") if name]
    for name in _REQUIRED:
        if not request.headers.get(name):
            raise _incomplete(f"The request has no {name} header.")
    for name in request.headers:
        # HTTP libraries add an unsigned content-type to an empty body: that one is accepted.
        must = name.startswith("x-acs-") or name == "host" or (name == "content-type" and request.body)
        if must and name not in signed:
            raise _incomplete(f"The header {name} is sent but not named in SignedHeaders.")
    for name in signed:
        if name not in request.headers:
            raise _incomplete(f"The header {name} is named in SignedHeaders but not sent.")
    return match["key"], signed, match["mac"].lower()


def check_signature(request: SignedRequest, signed_headers: Iterable[str], signature: str, secret: str) -> None:
    """Refuse a signature that is not the one over this request, showing what was expected as the gateway does."""
    canonical = canonical_request(request, signed_headers)
    to_sign = string_to_sign(canonical)
    same_body = request.headers["x-acs-content-sha256"].lower() == request.hash_body()
    if same_body and hmac.compare_digest(sign(to_sign, secret), signature):
        return
    token = request.headers.get("x-acs-security-token")
    raise Refusal(
        "SignatureDoesNotMatch",
        "Specified signature is not matched with our calculation. "
        f"server string to sign is:{to_sign} server canonical request is:"
        f"{canonical.replace(token, '***') if token else canonical}",
    )


def _incomplete(reason: str) -> Refusal:
    return Refusal("IncompleteSignature", f"The request signature does not conform to Aliyun standards. {reason}")
