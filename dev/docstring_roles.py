"""Lets the API reference show Sphinx roles in docstrings, such as :class:`a.b.C`, as plain code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`(~?)([^`]+)`")


class DocstringRoles(Extension):
    """Replaces each role by its target in backticks; ``~`` keeps only the last part."""

    def on_object(self, *, obj: Object, **_other: Any) -> None:
        """Rewrite the docstring of an object that was loaded.

        :param obj: a module, class, function or attribute.
        """
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_as_code, obj.docstring.value)


def _as_code(role: re.Match[str]) -> str:
    target = role[2].rpartition(".")[2] if role[1] else role[2].removeprefix("airflow_provider_quickbi.")
    return f"`{target}`"
