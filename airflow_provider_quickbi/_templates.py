"""Template variables that a DAG run does not have: a sentence instead of Jinja's error, and no retry."""

from __future__ import annotations

import re
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator
from jinja2.exceptions import UndefinedError

from airflow_provider_quickbi._options import undefined_variable
from airflow_provider_quickbi.exceptions import QuickBIArgumentError


class TemplatedTask(BaseOperator):
    """Names the argument and the variable if a template uses one that this DAG run does not have."""

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
