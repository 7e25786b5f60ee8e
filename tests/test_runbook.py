"""The lines that the runbook tells people to search for are those that come out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from airflow_provider_quickbi import exceptions
from airflow_provider_quickbi._wait.subject import DatasetSubject, MailTaskSubject, Words

ROOT = Path(__file__).resolve().parent.parent
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
PLACEHOLDER = re.compile(r"%(?:\.\d)?[sdrf]")
#: Methods of a logger with which something is said that a person may have to do something about.
LOUD = {"warning", "error", "exception", "critical"}


@cache
def nodes() -> list[ast.AST]:
    """Return the syntax of the package, but for what is there for tests."""
    files = (file for file in (ROOT / "airflow_provider_quickbi").rglob("*.py") if "testing" not in file.parts)
    return [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]


def filled(node: ast.AST, words: Words) -> str | None:
    """Return what an expression stands for if it is one of the words for a subject, ``None`` if it is not."""
    match node:
        case ast.Attribute(value=holder, attr=attr) if ast.unparse(holder).endswith("words"):
            return str(getattr(words, attr))
        case ast.Name(id="noun"):
            return words.run
        case ast.Call(func=ast.Attribute(value=word, attr="capitalize")):
            return None if (found := filled(word, words)) is None else found.capitalize()
    return None


def written(node: ast.AST, words: Words = MailTaskSubject.words) -> str:
    """Return a text with the words for a subject, and an ellipsis for what else is filled in; empty if it is none."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(
            str(part.value) if isinstance(part, ast.Constant) else filled(part.value, words) or "…"
            for part in node.values
            if isinstance(part, (ast.Constant, ast.FormattedValue))
        )
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        arguments = iter([filled(argument, words) or "…" for argument in node.args[1:]])
        text = PLACEHOLDER.sub(lambda _: next(arguments, "…"), str(node.args[0].value))
    else:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return re.sub(r"…+", "…", PLACEHOLDER.sub("…", text))


def fragments(line: str) -> list[str]:
    """Return what is the same in each case, where it says anything."""
    return [part for part in (part.strip(" ()") for part in line.split("…")) if re.search(r"\w{2}", part)]


def test_every_line_that_is_quoted_stands_in_the_code() -> None:
    docstrings = {
        id(node.body[0].value)
        for node in nodes()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and isinstance(node.body[0], ast.Expr)
    }
    kinds = (MailTaskSubject.words, DatasetSubject.words)
    known = "\n".join({written(node, words) for node in nodes() if id(node) not in docstrings for words in kinds})
    quoted = [line for line in re.findall(r"`([^`]+)`", RUNBOOK) if line.count(" ") >= 3]
    assert len(quoted) > 60
    assert [part for line in quoted for part in fragments(line) if part not in known] == []


def test_every_warning_is_in_the_runbook() -> None:
    warnings = {
        written(node)
        for node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LOUD
        and node.args
        and ast.unparse(node.func.value).endswith("log")
    }
    assert len(warnings) > 8
    assert [line for line in warnings if not any(part in RUNBOOK for part in fragments(line))] == []


def test_every_error_that_a_task_can_raise_is_in_the_runbook() -> None:
    raised = [
        name
        for name, cls in vars(exceptions).items()
        if isinstance(cls, type) and issubclass(cls, BaseException) and cls.__module__ == exceptions.__name__
        if not name.startswith("_")
    ]
    assert len(raised) >= 6
    assert [name for name in raised if f"`{name}`" not in RUNBOOK] == []
