"""Values that a DAG author could give."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

SHANGHAI = ZoneInfo("Asia/Shanghai")

DAY = datetime(2026, 7, 1, 20, 0, tzinfo=UTC)  # the 2nd in Shanghai

WITHOUT_ZONE = datetime.fromisoformat("2026-07-01T09:00")

DIGITS_OF_ANOTHER_SCRIPT = "\u0660\u0669:\u0660\u0660 UTC"

ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.datetimes()
    | st.timedeltas()
    | st.lists(st.text(max_size=3) | st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
    | st.sampled_from(["None", "", " ", "true", "[1, 2]", "['a']", "[", "nan", "inf", "1e400", "09:00 UTC", "\ud800"])
    | st.sampled_from([10**400, -(10**400), float("nan"), float("inf"), object()])
)
