"""Messages about late and failed reports, as Jinja templates for the notifiers of other providers.

Where a notifier takes a templated text, such as ``SlackNotifier(text=...)`` or ``SmtpNotifier(subject=...,
html_content=...)``, pass one of these. They need only the context that Airflow passes to callbacks.
"""

from __future__ import annotations

# DAGs use StrictUndefined unless they say otherwise; not every version and process gives the same context.
_WHERE = "{{ dag.dag_id }}{% if ti is defined %}.{{ ti.task_id }}{% endif %}"
_RUN = "DAG run {{ run_id }}"
_LOG = "{% if ti is defined and ti.log_url is defined %} Log: {{ ti.log_url }}{% endif %}"
_WHAT = "{{ exception | default(reason | default('failed', true), true) }}"

#: Subject for ``on_failure_callback`` and ``on_retry_callback``.
FAILED_SUBJECT = f"{_WHERE}: the report was not sent"
#: Text for ``on_failure_callback`` and ``on_retry_callback``, of a task or a DAG: what it raised, and where the log is.
FAILED_TEXT = f"{_WHERE}: {_WHAT} ({_RUN}){_LOG}"
#: Subject for ``on_late_callback``.
LATE_SUBJECT = f"{_WHERE}: the report is late"
#: Text for ``on_late_callback``: what the wait knows; it goes on.
LATE_TEXT = f"{_WHERE}: {{{{ quickbi_late }}}} Still waiting. ({_RUN}){_LOG}"
#: Text for the callback of a ``DeadlineAlert``, which gets the DAG run but not its tasks.
DEADLINE_TEXT = (
    "{{ dag_run.dag_id }}: not finished by {{ deadline.deadline_time }} (DAG run {{ dag_run.dag_run_id }}, "
    "{{ dag_run.state }})"
)
