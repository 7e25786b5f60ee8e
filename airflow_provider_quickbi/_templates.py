"""What the task classes have in common: which arguments are a task's own, and what a template cannot render."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import BaseOperator
from jinja2 import Undefined, UndefinedError, nodes

from airflow_provider_quickbi._options import how_to_take
from airflow_provider_quickbi.exceptions import QuickBIArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Arguments that are datetimes, and variables that a DAG run without a logical date lacks: datetimes, and texts of
#: which each has a filter of its name.
_TIMES = ("executed_after", "executed_before", "deadline")
_DATETIMES = ("data_interval_end", "data_interval_start", "logical_date")
_DATE_TEXTS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")


class TemplatedTask(BaseOperator):
    """Knows its own arguments, and renders them with :func:`render`."""

    #: Names of the arguments that the task was called with; Airflow calls a mapped one with those of its partial, too.
    called_with: frozenset[str]

    def __new__(cls, *_: Any, **arguments: Any) -> Self:
        """Note which arguments are given, before Airflow adds those of ``default_args``.

        :raises QuickBIArgumentError: if they are a whole listed mail task, as ``.expand_kwargs(listed.output)`` gives.
        """
        if {"mail_id", "biz_owner_user_id"} <= arguments.keys():
            problem = "expand_kwargs() received whole mail tasks, whose fields are not arguments"
            raise QuickBIArgumentError(f"{arguments.get('task_id')}: {problem}{how_to_take('mail_id', arguments)}")
        task = super().__new__(cls)
        vars(task)["called_with"] = frozenset(arguments)  # Airflow's __setattr__ needs __init__ first
        return task

    def render_template(self, content: Any, context: Any, jinja_env: Any = None, seen_oids: Any = None) -> Any:
        """Render a template, see :func:`render`.

        :param content: the value of an argument, or a part of it.
        :param context: of the task.
        :param jinja_env: Jinja's environment.
        :param seen_oids: what is rendered already.
        :raises QuickBIArgumentError: if a variable is not defined; the task is not retried.
        """
        jinja_env = jinja_env or self.get_template_env()
        return render(self, super().render_template, content, context, jinja_env, seen_oids)


def render(
    owner: Any, render_template: Callable[..., Any], content: Any, context: Any, jinja_env: Any, seen_oids: Any
) -> Any:
    """Render as Airflow does; name the argument and the variable if a template uses one that the DAG run does not have.

    :param owner: the task or notifier.
    :param render_template: Airflow's.
    :param content: the value of an argument, or a part of it.
    :param context: of the task or callback.
    :param jinja_env: Jinja's environment.
    :param seen_oids: what is rendered already.
    :raises QuickBIArgumentError: if a variable is not defined.
    """
    try:
        rendered = render_template(content, context, jinja_env, seen_oids)
        for item in rendered if isinstance(rendered, (list, tuple)) else [rendered]:
            if isinstance(item, Undefined):  # left by native rendering
                item._fail_with_undefined_error()  # noqa: SLF001 - documented for subclasses
    except UndefinedError as error:
        names = [name for name in owner.template_fields if _uses(getattr(owner, name, None), content)]
        due = "dag_run.run_after" if hasattr(context.get("dag_run"), "run_after") else "data_interval_end"
        problem = _sentence(names[0] if names else "an argument", content, jinja_env.parse(content), str(error), due)
        task = f"{owner.task_id}: " if isinstance(owner, BaseOperator) else ""
        raise QuickBIArgumentError(f"{task}{problem}") from None
    return rendered


def _uses(value: Any, content: Any) -> bool:
    return value == content or (isinstance(value, (list, tuple)) and content in value)


def _sentence(name: str, template: str, parsed: nodes.Template, error: str, due: str) -> str:
    """Return what is wrong with a template, and what to write instead.

    :param name: of the argument.
    :param template: its value, or an item of it.
    :param parsed: the same.
    :param error: Jinja's.
    :param due: what gives the time at which every DAG run is due.
    """
    missing, rest = _find_missing(parsed, error)
    if missing in _DATE_TEXTS:
        default = f"{due} | {missing}"
    else:
        default = due if name in _TIMES or missing in _DATETIMES else f"'<{name.replace('_', ' ')}>'"
    remedy = f"{missing or '...'} | default({default}, true)"
    if "(" in rest:
        remedy = f"({remedy}){rest}"
    elif rest:
        remedy = f"({missing} | default({{}})){rest} | default({default}, true)"
    window = ', use window="day" or "schedule" instead' if name.startswith("executed_") else ""
    return (
        f"{name} uses {missing or template}, which is not defined in this DAG run. "
        f"Correct the name{window}, or write {{{{ {remedy} }}}}"
    )


def _find_missing(parsed: nodes.Template, error: str) -> tuple[str, str]:
    """Return the expression that is not defined, and how the template goes on after it; empty if it is not found."""
    defaulted = [id(filtered.node) for filtered in parsed.find_all(nodes.Filter) if filtered.name in ("default", "d")]
    for node in parsed.find_all((nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Call)):  # the longest first
        steps = _steps(node)
        texts = [text for _, text in steps]
        for position, (name, _) in enumerate(steps, 1):
            if (position < len(steps) or id(node) not in defaulted) and (
                error == f"{name!r} is undefined"
                if position == 1
                else error.endswith((f" attribute {name!r}", f" element {name!r}"))
            ):
                return "".join(texts[:position]), "".join(texts[position:])
    return "", ""


def _steps(node: nodes.Node) -> list[tuple[Any, str]]:
    """Return the names that lead to a value, each with its text."""
    match node:
        case nodes.Name():
            return [(node.name, node.name)]
        case nodes.Getattr():
            return [*_steps(node.node), (node.attr, f".{node.attr}")]
        case nodes.Getitem(arg=nodes.Const(value=value)):
            return [*_steps(node.node), (value, f"[{value!r}]")]
        case nodes.Call():
            return [*_steps(node.node), (None, "(...)")]
        case _:
            return [(None, "(...)")]
