"""Templates of a sensor that starts in the triggerer: which ones can be rendered there, and rendering them."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_quickbi._options import is_template

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variables available to a template in the triggerer: they come with the DAG run, without a request to Airflow.
VARIABLES = frozenset(
    {
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "macros",
        "partition_date",
        "partition_key",
        "run_id",
        "task_instance_key_str",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)
#: Of these variables, what is the same in the triggerer as on a worker.
ATTRIBUTES = {
    "dag_run": frozenset(
        {
            "conf",
            "dag_id",
            "data_interval_end",
            "data_interval_start",
            "logical_date",
            "partition_key",
            "run_after",
            "run_id",
            "start_date",
        }
    ),
    "macros": frozenset(
        {
            "datetime",
            "datetime_diff_for_humans",
            "dateutil",
            "ds_add",
            "ds_format",
            "ds_format_locale",
            "json",
            "random",
            "time",
            "timedelta",
            "uuid",
        }
    ),
}


def needs_worker(value: Any, task: Any) -> bool:
    """Whether only a worker can render the value of an argument."""
    if isinstance(value, (list, tuple)):
        return any(needs_worker(item, task) for item in value)
    if not isinstance(value, str):
        return value is not None and not isinstance(value, (int, float, datetime, timedelta))
    return is_template(value) and (_has_own_names(task) or not _uses_only_the_dag_run(value))


def written(value: Any) -> Any:
    """Return an argument's value as plain JSON that reads back as the same value.

    :param value: one that needs no worker.
    """
    if isinstance(value, (list, tuple)):
        return [written(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value


def render(arguments: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Render arguments in the triggerer.

    :param arguments: as :func:`written` returns them.
    :raises jinja2.TemplateError: if a variable is not defined in this DAG run, or a template is wrong.
    """
    from airflow.providers.common.compat.sdk import DAG

    environment = DAG("quickbi", schedule=None).get_template_env()
    variables = {name: context[name] for name in VARIABLES if name in context}

    def rendered(value: Any) -> Any:
        if isinstance(value, list):
            return [rendered(item) for item in value]
        if not (isinstance(value, str) and is_template(value)):
            return value
        return environment.from_string(value).render(variables)

    return {name: rendered(value) for name, value in arguments.items()}


def has_own_environment(task: Any) -> bool:
    """Whether text is rendered in a way that the triggerer does not know, even without Jinja's usual marks."""
    dag = task.dag if task.has_dag() else None
    native = getattr(task, "render_template_as_native_obj", None)
    if native is None and dag is not None:
        native = dag.render_template_as_native_obj
    return bool(native or (dag is not None and dag.jinja_environment_kwargs))


def _has_own_names(task: Any) -> bool:
    """Whether the DAG sets macros, filters or ``template_undefined``, which the triggerer does not have."""
    from jinja2 import StrictUndefined

    dag = task.dag if task.has_dag() else None
    return (
        dag is None
        or bool(dag.user_defined_macros or dag.user_defined_filters)
        or dag.template_undefined is not StrictUndefined
    )


@lru_cache(maxsize=256)
def _uses_only_the_dag_run(template: str) -> bool:
    from jinja2 import Environment, TemplateError, meta, nodes

    try:
        parsed = Environment(autoescape=True).parse(template)
    except TemplateError:
        return False
    allowed = {
        id(access.node)
        for access in parsed.find_all(nodes.Getattr)
        if isinstance(access.node, nodes.Name) and access.attr in ATTRIBUTES.get(access.node.name, ())
    }
    return (
        meta.find_undeclared_variables(parsed) <= VARIABLES
        and not list(meta.find_referenced_templates(parsed))
        and all(id(name) in allowed for name in parsed.find_all(nodes.Name) if name.name in ATTRIBUTES)
    )
