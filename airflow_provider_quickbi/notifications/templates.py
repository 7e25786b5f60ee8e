"""Texts about late and failed reports, as Jinja templates for the notifiers of other providers.

Where a notifier takes a templated text, such as ``SlackNotifier(text=...)`` or ``SmtpNotifier(subject=...,
html_content=...)``, pass one of these. They need nothing but the context that Airflow gives to callbacks.
"""

from __future__ import annotations

_WHERE = "{{ dag.dag_id }}{% if ti %}.{{ ti.task_id }}{% endif %}"
_RUN = "DAG run {{ run_id }}"
_LOG = "{% if ti and ti.log_url %} Log: {{ ti.log_url }}{% endif %}"

#: Subject for ``on_failure_callback`` and ``on_retry_callback``.
FAILED_SUBJECT = f"{_WHERE}: the report was not sent"
#: Text for ``on_failure_callback`` and ``on_retry_callback``, of a task or a DAG: what it raised, and where the log is.
FAILED_TEXT = f"{_WHERE}: {{{{ exception or reason or 'failed' }}}} ({_RUN}){_LOG}"
#: Subject for ``on_late_callback``.
LATE_SUBJECT = f"{_WHERE}: the report is late"
#: Text for ``on_late_callback``: what the wait knows; it goes on.
LATE_TEXT = f"{_WHERE}: {{{{ quickbi_late }}}} Still waiting. ({_RUN}){_LOG}"
#: Text for the callback of a ``DeadlineAlert``, which is told of the DAG run and nothing of its tasks.
DEADLINE_TEXT = (
    "{{ dag_run.dag_id }}: not finished by {{ deadline.deadline_time }} (DAG run {{ dag_run.dag_run_id }}, "
    "{{ dag_run.state }})"
)
