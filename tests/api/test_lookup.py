"""A mail task is found by its name, or the error lists the candidates."""

from __future__ import annotations

import pytest

from airflow_provider_quickbi.api.errors import ErrorKind, PermanentError
from airflow_provider_quickbi.api.lookup import find_by_name, matches
from airflow_provider_quickbi.api.models import MailTask

TASKS = [
    MailTask("m-1", "Daily sales", False, "u-1", "Wang Fang"),
    MailTask("m-2", "Daily sales", False, "u-2", "Li Na"),
    MailTask("m-3", "Weekly [EMEA]", False, "u-1", "Wang Fang"),
    MailTask("m-4", "Nobody's", False),
    MailTask("m-5", "Nobody's", True),
    MailTask("m-6", "daily sales", False, "u-2", "Li Na"),
]


@pytest.mark.parametrize(
    ("name", "owner", "mail_id"),
    [
        ("Weekly [EMEA]", None, "m-3"),
        (" Weekly [EMEA] ", None, "m-3"),
        ("Daily sales", "Li Na", "m-2"),
        ("Daily sales", "u-1", "m-1"),
        ("daily sales", None, "m-6"),
    ],
)
def test_an_exact_name_is_found(name: str, owner: str | None, mail_id: str):
    assert find_by_name(iter(TASKS), name, owner).mail_id == mail_id


@pytest.mark.parametrize(
    ("name", "owner", "said"),
    [
        ("Daily sales", None, "2 mail tasks are named 'Daily sales': MailId m-1 of Wang Fang, MailId m-2 of Li Na"),
        ("Nobody's", None, "MailId m-4 of an unnamed owner, MailId m-5 of an unnamed owner"),
        (
            "Weekly [EMEA]",
            "Li Na",
            "no mail task of 'Li Na' is named 'Weekly [EMEA]'; found MailId m-3 of Wang Fang",
        ),
        ("Dailysales", None, "none of the 6 mail tasks visible to this AccessKey is named 'Dailysales'"),
        ("Daily*", None, "is named 'Daily*'"),
    ],
)
def test_a_name_without_a_unique_match_is_an_error_that_lists_the_candidates(name: str, owner: str | None, said: str):
    with pytest.raises(PermanentError) as caught:
        find_by_name(TASKS, name, owner)
    assert said in str(caught.value)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.hint


def test_a_long_list_of_candidates_is_truncated():
    many = [MailTask(f"m-{number}", "Same", False, "u", "Wang Fang") for number in range(1000)]
    with pytest.raises(PermanentError, match=r"1000 mail tasks are named 'Same'.*, 980 more") as caught:
        find_by_name(many, "Same")
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("Daily sales", ["m-1", "m-2"]),
        ("Daily*", ["m-1", "m-2"]),
        ("*aily sales", ["m-1", "m-2", "m-6"]),
        ("[Dd]aily ?ales", ["m-1", "m-2", "m-6"]),
        ("Weekly [EMEA]", ["m-3"]),
        ("*", ["m-1", "m-2", "m-3", "m-4", "m-5", "m-6"]),
        ("Daily", []),
    ],
)
def test_a_glob_matches_names_and_a_name_matches_itself(pattern: str, found: list[str]):
    assert [task.mail_id for task in TASKS if matches(task, pattern)] == found
