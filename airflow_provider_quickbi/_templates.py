"""What the task classes have in common: which arguments are a task's own, and what a template cannot render."""

from __future__ import annotations

import re
from typing import Any, Self

from airflow.providers.common.compat.sdk import BaseOperator
from jinja2.exceptions import UndefinedError

from airflow_provider_quickbi._options import how_to_take, undefined_variable
from airflow_provider_quickbi.exceptions import QuickBIArgumentError


class TemplatedTask(BaseOperator):
    """Knows its own arguments; names the argument and the variable if a DAG run does not have what a template uses."""

    #: Names of the arguments that the task was called with; Airflow calls a mapped one with those of its partial, too.
    called_with: frozenset[str]

    def __new__(cls, *_: Any, **arguments: Any) -> Self:
        """Note which arguments are given, before Airflow adds those of ``default_args``.

        :raises QuickBIArgumentError: if they are a whole listed mail task, as ``.expand_kwargs(listed.output)`` gives.
        """
        if {"mail_id", "biz_owner_user_id"} <= arguments.keys():
            problem = f"these are the fields of a listed mail task, not arguments of {cls.__name__}"
            raise QuickBIArgumentError(f"{arguments.get('task_id')}: {problem}{how_to_take('mail_id', arguments)}")
        task = super().__new__(cls)
        vars(task)["called_with"] = frozenset(arguments)  # Airflow's __setattr__ needs __init__ first
        return task

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Do as Airflow does.

        :param content: the value of an argument, or a part of it.
        :raises QuickBIArgumentError: if a variable is not defined; the task is not retried.
        """
        try:
            return super().render_template(content, *args, **kwargs)
        except UndefinedError as error:
            quoted = re.search("'([^']+)' is undefined", str(error))
            names = [name for name in self.template_fields if _uses(getattr(self, name, None), content)]
            problem = undefined_variable(names[0] if names else "an argument", quoted[1] if quoted else str(error))
            raise QuickBIArgumentError(f"{self.task_id}: {problem}") from None


def _uses(value: Any, content: Any) -> bool:
    return value == content or (isinstance(value, (list, tuple)) and content in value)
