"""Texts: ids and names, one or several."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_quickbi import _options
from airflow_provider_quickbi._options import OptionError


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (" m-1 ", "m-1"), (7, "7"), ("日报", "日报"), ("a b", "a b")]
)
def test_text_is_stripped(value: Any, expected: str | None):
    assert _options.text("mail_id", value) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "mail_id is empty (rendered to ''"),
        ("  ", "mail_id is empty"),
        ("None", "mail_id is empty (rendered to 'None'"),
        ("x" * 257, "mail_id has 257 characters, more than 256"),
        ("a\nb", "mail_id has a line break or another control character"),
        ("a\x7fb", "mail_id has a line break or another control character"),
        ("\ud800", "mail_id is not valid Unicode text"),
        (1.5, "mail_id must be text, not float"),
        (True, "mail_id must be text, not bool"),
        ([], "mail_id must be text, not list"),
        (b"m", "mail_id must be text, not bytes"),
    ],
)
def test_what_is_no_text_is_refused(value: Any, said: str):
    with pytest.raises(OptionError) as caught:
        _options.text("mail_id", value)
    assert str(caught.value).startswith(said)


def test_optional_text_may_render_to_nothing():
    assert _options.optional_text("mail_owner", " None ") is None
    assert _options.optional_text("mail_owner", "") is None
    assert _options.optional_text("mail_owner", " Wang ") == "Wang"
    with pytest.raises(OptionError, match="mail_owner must be text"):
        _options.optional_text("mail_owner", 1.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ("m-1", ("m-1",)),
        (["m-1", " m-2 "], ("m-1", "m-2")),
        (("m-1",), ("m-1",)),
        ([1, "2"], ("1", "2")),
        ("['m-1', 'm-2']", ("['m-1', 'm-2']",)),
        ("[2024]", ("[2024]",)),
        ("[]", ("[]",)),
    ],
)
def test_one_text_or_several_may_be_given(value: Any, expected: tuple[str, ...]):
    assert _options.texts("mail_id", value) == expected
    several = _options.as_list(value, rendered=False)
    assert (several is not None) == isinstance(value, (list, tuple))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("['m-1', 'm-2']", ["m-1", "m-2"]),
        (' ["m-1"] ', ["m-1"]),
        ('["\\u65e5\\u62a5"]', ["日报"]),
        (["m-1"], ["m-1"]),
        (("m-1", "m-2"), ("m-1", "m-2")),
        ("m-1", None),
        ("[EMEA] weekly", None),
        ("[日报] 销售", None),
        ("[2024]", None),
        ("['m-1', 2]", None),
        ("[['m-1']]", None),
        ("[not python", None),
        ("[a, b]", None),
        ("('m-1', 'm-2')", None),
        ("[" * 100_000, None),
        (7, None),
        (None, None),
    ],
)
def test_what_a_template_gave_is_a_list_only_if_it_is_one_of_texts(value: Any, expected: Any):
    assert _options.as_list(value, rendered=True) == expected
    if expected:
        assert _options.texts("mail_id", value, rendered=True) == tuple(expected)
    elif isinstance(value, str) and len(value) < 100:
        assert _options.texts("mail_id", value, rendered=True) == (value,)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "mail_id is an empty list"),
        ([None], "mail_id has an empty item"),
        (["m-1", None], "mail_id has an empty item"),
        (["a", " a"], "mail_id lists .a. twice"),
        (["a", ""], "mail_id is empty"),
        ([["a"]], "mail_id must be text, not list"),
        ({"a": 1}, "mail_id must be text, not dict"),
    ],
)
def test_lists_that_cannot_be_right_are_refused(value: Any, said: str):
    with pytest.raises(OptionError, match=said):
        _options.texts("mail_id", value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[]", "is an empty list"),
        ("[None]", "has an empty item"),
        ("['m-1', None]", "has an empty item"),
        ("[null]", "has an empty item"),
    ],
)
def test_a_template_that_rendered_to_a_list_of_nothing_is_refused(value: str, said: str):
    with pytest.raises(OptionError, match=f"^mail_id {said}"):
        _options.texts("mail_id", value, rendered=True)
