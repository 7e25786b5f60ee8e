"""Secrets that can be recognised wherever they turn up, and the search for them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

#: What is secret -> the part of it that no encoding but base64 and hexadecimal changes.
MARKS = {
    "AccessKey secret": "Mk7sEcrQ2accKey9",
    "security token": "Vt4pStsW8tokEn3x",
    "bearer token": "Zr6wBeaRr1toKn5y",
    "proxy password": "Hn2gPrxYq8paSs7d",
    "OIDC token": "Jc9kOidCf3toKe6u",
    "fetched secret": "Lb5mFetCs4seCr2v",
    "fetched token": "Qd8nFetCt6toKe1z",
    "metadata token": "Xg3hMetAv7toKe4b",
    "URI password": "Tf7jUriPk2paSs9c",
}
#: So many characters of a secret already reveal something.
TELLING = 8


def secret(name: str) -> str:
    """Return a secret: its mark, among characters that are written in another way in addresses, JSON and HTML."""
    return f"a/+=&%{MARKS[name]}'\"<b=="


def forms(mark: str) -> Iterator[bytes]:
    """Give the ways in which a mark, or a telling part of it, can be written."""
    for begin in range(len(mark) - TELLING + 1):
        yield mark[begin : begin + TELLING].encode()
    for offset in range(3):
        written = base64.b64encode(b"\0" * offset + mark.encode() + b"\0" * 2)
        # What stands at both ends depends on the neighbours.
        yield written[4 if offset else 0 : len(mark) * 4 // 3 - 2]
    yield mark.encode().hex().encode()
    yield mark[::-1].encode()


def search(data: bytes, marks: dict[str, str] | None = None, signatures: tuple[str, ...] = ()) -> list[str]:
    """Return what is found of secrets, with the way that led to it.

    :param data: what came out.
    :param marks: name -> mark; default :data:`MARKS`.
    :param signatures: that were sent.
    """
    found = []
    wanted = {name: list(forms(mark)) for name, mark in (MARKS if marks is None else marks).items()}
    # A signature has 64 digits of 4 bits; 16 of them do not occur by accident.
    wanted |= {f"signature {number}": [signature[:16].encode()] for number, signature in enumerate(signatures)}
    for name, written in wanted.items():
        for form in written:
            if (place := data.find(form)) >= 0:
                way = data.rfind(b"\n== ", 0, place)
                led = data[way + 4 : data.find(b"\n", way + 1)].decode(errors="replace") if way >= 0 else "no way"
                around = data[max(0, place - 200) : place + 80].decode(errors="replace")
                found.append(f"{name} as {form!r} on the way {led!r}: ...{around}...")
                break
    if any_signature := re.search(rb"Signature=[0-9a-f]{16}", data):
        found.append(f"a signature: {data[max(0, any_signature.start() - 200) : any_signature.end()]!r}")
    return found
