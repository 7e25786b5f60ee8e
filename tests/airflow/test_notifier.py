"""The notifier starts a mail once from the callbacks of a real DAG run; texts for other notifiers say what happened."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_quickbi.notifications import templates
from airflow_provider_quickbi.notifications.quickbi import QuickBISendMailNotifier
from airflow_provider_quickbi.testing import Fault

SOON = timedelta(0)


@pytest.fixture
def notice(quickbi):
    """A mail task for failures, which was sent yesterday."""
    mail_id = quickbi.add_mail_task("Something failed", mail_id="notice", run_duration=0)
    quickbi.add_run(mail_id, exec_time=datetime.now(UTC) - timedelta(days=1))
    return mail_id


@pytest.fixture
def failing():
    """Make a task that fails."""

    def make(task_id="work", **arguments):
        from airflow.providers.common.compat.sdk import BaseOperator

        class Work(BaseOperator):
            def execute(self, context):
                raise ValueError("the disk is full")

        return Work(task_id=task_id, **arguments)

    return make


@pytest.fixture
def working():
    """Make a task that succeeds."""

    def make(task_id="work", **arguments):
        from airflow.providers.common.compat.sdk import BaseOperator

        class Work(BaseOperator):
            def execute(self, context):
                """Succeed."""

        return Work(task_id=task_id, **arguments)

    return make


def test_a_task_that_fails_sends_the_mail_once_and_says_so_in_one_line(airflow, quickbi, notice, failing):
    ran = airflow.run(lambda: failing(on_failure_callback=QuickBISendMailNotifier(mail_id=notice)), retries=0)

    assert ran.states == {"work": "failed"}
    assert "the disk is full" in str(ran.error("work"))
    assert quickbi.starts(notice) == 1
    assert len(ran.notified("Mail task notice")) == 1
    assert ran.notified("Mail task notice: started; not waiting for its run.")


def test_a_task_that_succeeds_calls_only_its_success_callback(airflow, quickbi, notice, working):
    quickbi.add_mail_task("It worked", mail_id="worked")

    ran = airflow.run(
        lambda: working(
            on_failure_callback=QuickBISendMailNotifier(mail_id=notice),
            on_success_callback=QuickBISendMailNotifier(mail_id="worked"),
        )
    )

    assert ran.states == {"work": "success"}
    assert (quickbi.starts(notice), quickbi.starts("worked")) == (0, 1)


def test_each_further_try_and_the_failure_send_nothing_again(airflow, quickbi, notice, failing):
    notifier = QuickBISendMailNotifier(mail_id=notice)

    ran = airflow.run(
        lambda: failing(on_retry_callback=notifier, on_failure_callback=notifier), retries=2, retry_delay=SOON
    )

    assert ran.states == {"work": "failed"}
    assert ran.tries == {"work": 3}
    assert quickbi.starts(notice) == 1
    assert len(ran.notified("Mail task notice: nothing was started:")) == 2


def test_tasks_of_a_dag_run_that_fail_one_after_the_other_send_one_mail(airflow, quickbi, notice, failing):
    def make():
        first = failing("first", on_failure_callback=QuickBISendMailNotifier(mail_id=notice))
        second = failing("second", on_failure_callback=QuickBISendMailNotifier(mail_id=notice), trigger_rule="all_done")
        first >> second

    ran = airflow.run(make, retries=0)

    assert ran.states == {"first": "failed", "second": "failed"}
    assert quickbi.starts(notice) == 1
    assert ran.notified("Mail task notice: nothing was started: run", "has started since this DAG run did")


def test_the_next_dag_run_sends_its_own_mail(airflow, quickbi, notice, failing):
    make = lambda: failing(on_failure_callback=QuickBISendMailNotifier(mail_id=notice))  # noqa: E731

    airflow.run(make, retries=0)
    quickbi.clock.advance(2)
    with pytest.MonkeyPatch.context() as patch:
        _start_dag_runs_later(patch, 1)
        airflow.run(make, retries=0)

    assert quickbi.starts(notice) == 2


def _start_dag_runs_later(patch, seconds):
    """Date the start of the next DAG run; a test is faster than the seconds in which Quick BI writes its times."""
    from airflow_provider_quickbi._send import notice as module

    started: Any = vars(module)["run_started"]
    patch.setattr(module, "run_started", lambda context: started(context) + timedelta(seconds=seconds))


@pytest.mark.parametrize("fault", [None, Fault.answer_lost()], ids=["accepted", "response lost"])
def test_a_start_whose_run_is_not_visible_yet_is_not_repeated_where_airflow_keeps_its_record(
    airflow, quickbi, notice, failing, fault, airflow_version
):
    if airflow_version < (3, 3):
        pytest.skip("start records survive on Airflow 3.3 and later")
    quickbi.set_manual_start(notice, appears_after=3600)
    if fault is not None:
        quickbi.fail("ManualRunMailTask", fault)
    notifier = QuickBISendMailNotifier(mail_id=notice)

    ran = airflow.run(lambda: failing(on_failure_callback=[notifier, notifier]), retries=0)

    assert quickbi.starts(notice) == quickbi.count("ManualRunMailTask") == 1
    assert len(ran.notified("Mail task notice: ", "not known")) == (fault is not None)
    assert ran.notified("Mail task notice: nothing was started: this callback started it at")


def _before():
    return datetime.now(UTC) - timedelta(hours=1)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda quickbi: quickbi.add_run("notice", exec_time=_before(), status="PROCESSING"), "is PROCESSING"),
        (lambda quickbi: quickbi.deny("Mail.Forbidden.Access"), "Mail.Forbidden.Access"),
        (lambda quickbi: quickbi.limit_manual_starts("notice", minutes=3), "MailApi.Beyond.ScheduleLimit"),
        (lambda quickbi: quickbi.fail("GetMailTaskStatus", Fault.html_503(), times=9), "503"),
    ],
    ids=["active", "denied", "limited", "unreachable"],
)
def test_what_stands_in_the_way_is_logged_in_one_line_and_changes_no_state(
    airflow, quickbi, notice, failing, prepare, said
):
    prepare(quickbi)

    ran = airflow.run(lambda: failing(on_failure_callback=QuickBISendMailNotifier(mail_id=notice)), retries=0)

    assert ran.states == {"work": "failed"}
    assert "the disk is full" in str(ran.error("work"))
    assert quickbi.starts(notice) == 0
    assert len(ran.notified("Mail task notice: nothing was started:", said)) == 1


def test_a_wrong_time_zone_is_named_and_nothing_is_started(airflow, quickbi, notice, failing, monkeypatch):
    quickbi.add_run(notice, exec_time=_before())
    monkeypatch.setenv("AIRFLOW_CONN_QUICKBI_DEFAULT", quickbi.connection_json(timezone="UTC"))

    ran = airflow.run(lambda: failing(on_failure_callback=QuickBISendMailNotifier(mail_id=notice)), retries=0)

    assert quickbi.starts(notice) == 0
    assert len(ran.notified("Mail task notice: nothing was started:", "in the future", "Set timezone")) == 1


def test_a_start_that_was_refused_is_not_remembered(airflow, quickbi, notice, failing):
    quickbi.fail("ManualRunMailTask", Fault.throttled())
    notifier = QuickBISendMailNotifier(mail_id=notice)

    airflow.run(lambda: failing(on_retry_callback=notifier, on_failure_callback=notifier), retries=1, retry_delay=SOON)

    assert quickbi.starts(notice) == 1


def test_a_missing_connection_and_an_unknown_name_are_logged_and_change_no_state(airflow, quickbi, notice, failing):
    ran = airflow.run(
        lambda: failing(
            on_failure_callback=[
                QuickBISendMailNotifier(mail_id=notice, quickbi_conn_id="no_such_connection"),
                QuickBISendMailNotifier(subscribe_name="No such name"),
            ]
        ),
        retries=0,
    )

    assert ran.states == {"work": "failed"}
    assert ran.notified("Mail task notice: nothing was started: Connection 'no_such_connection' does not exist")
    assert ran.notified("Mail task 'No such name': nothing was started:", "none of the 1 mail tasks visible")


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("template", ["{{ no_such }}", "{{ dag_run.conf.mail }}"])
def test_an_undefined_variable_is_logged_as_a_task_raises_it_and_stops_no_other_callback(
    airflow, quickbi, notice, failing, template, native
):
    ran = airflow.run(
        lambda: failing(
            on_failure_callback=[QuickBISendMailNotifier(mail_id=template), QuickBISendMailNotifier(mail_id=notice)]
        ),
        retries=0,
        render_template_as_native_obj=native,
    )

    assert ran.states == {"work": "failed"}
    said = f"nothing was started: mail_id uses {template.strip('{ }')}, which is not defined in this DAG run"
    assert len(ran.notified(f"Mail task {template}: {said}")) == 1
    assert not ran.notified("UndefinedError", "callback")
    assert quickbi.starts(notice) == 1


def test_a_name_and_templates_find_the_mail_task(airflow, quickbi, notice, working):
    quickbi.add_mail_task("Night shift", mail_id="night", owner="Li Wei")
    quickbi.add_mail_task("Night shift", mail_id="other-night", owner="Wang Fang")

    airflow.run(
        lambda: working(
            "night",
            on_success_callback=[
                QuickBISendMailNotifier(subscribe_name="Night shift", mail_owner="{{ params.owner }}"),
                QuickBISendMailNotifier(mail_id="{{ 'not' }}ice"),
            ],
        ),
        params={"owner": "Li Wei"},
    )

    assert [quickbi.starts(mail_id) for mail_id in ("night", "other-night", notice)] == [1, 0, 1]


def test_a_report_that_is_late_sends_the_mail_and_is_still_waited_for(airflow, quickbi, notice, sensor):
    quickbi.add_mail_task("Report", mail_id="report")
    task_id = quickbi.add_run("report", status="PROCESSING")
    quickbi.when_called("ManualRunMailTask", lambda call: quickbi.finish_run(task_id))

    ran = airflow.run(
        lambda: sensor(
            "report",
            deadline=datetime.now(UTC) - timedelta(hours=1),
            on_late_callback=QuickBISendMailNotifier(mail_id=notice),
        )
    )

    assert ran.states == {"report": "success"}, ran.log
    assert quickbi.starts(notice) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "QuickBISendMailNotifier needs either mail_id or subscribe_name"),
        ({"mail_id": "a", "subscribe_name": "A"}, "not both"),
        ({"mail_id": "a", "mail_owner": "Li Wei"}, "mail_owner applies only to subscribe_name"),
        ({"mail_id": ""}, "mail_id is empty"),
    ],
)
def test_a_notifier_that_cannot_be_right_is_refused_while_the_dag_is_parsed(arguments, said):
    with pytest.raises(ValueError, match=said):
        QuickBISendMailNotifier(**arguments)


# A DeadlineAlert of Airflow 3.1 and later gives the callback JSON.


def _deadline_context(started):
    dag_run = {"dag_id": "etl", "dag_run_id": "manual", "state": "running", "start_date": started.isoformat()}
    return {"dag_run": dag_run, "deadline": {"id": "1", "deadline_time": started}}


def test_the_callback_of_a_deadline_sends_the_mail_once_from_the_triggerer(quickbi, notice, airflow_version, capfd):
    if airflow_version < (3, 1):
        pytest.skip("DeadlineAlert came with Airflow 3.1")
    context = _deadline_context(datetime.now(UTC) - timedelta(minutes=1))

    async def miss():
        await QuickBISendMailNotifier(mail_id=notice, context=context)
        await QuickBISendMailNotifier(subscribe_name="Something failed", context=context)

    asyncio.run(miss())

    assert quickbi.starts(notice) == 1
    assert "has started since this DAG run did" in capfd.readouterr().out


def test_an_undefined_variable_of_an_awaited_callback_is_logged(airflow, quickbi, airflow_version, capfd):
    if airflow_version < (3, 1):
        pytest.skip("DeadlineAlert came with Airflow 3.1")
    from airflow.sdk import DAG

    async def miss():
        context = _deadline_context(datetime.now(UTC)) | {"dag": DAG("etl", schedule=None)}
        await QuickBISendMailNotifier(mail_id="{{ no_such }}", context=context)

    asyncio.run(miss())

    assert "nothing was started: mail_id uses no_such," in capfd.readouterr().out


# Texts for other notifiers


@pytest.fixture
def sent_texts(monkeypatch):
    """Return a notifier of another provider, with the texts that it has sent."""
    from airflow.providers.common.compat.sdk import BaseNotifier

    texts = []

    class Post(BaseNotifier):
        template_fields = ("text",)

        def __init__(self, text):
            super().__init__()
            self.text = text

        def notify(self, context):
            texts.append(self.text)

    return Post, texts


def test_the_texts_of_a_failure_name_the_task_the_report_and_the_log(
    airflow, quickbi, sensor_of, sent_texts, airflow_version
):
    post, texts = sent_texts
    quickbi.add_mail_task("Report", mail_id="report")
    task_id = quickbi.add_run("report", status="FAILED")

    ran = airflow.run(
        lambda: sensor_of(
            "poke", "report", on_failure_callback=[post(templates.FAILED_SUBJECT), post(templates.FAILED_TEXT)]
        )
    )

    subject, text = texts
    assert subject == f"{ran.dag_id}.report: the report was not sent"
    if (3,) <= airflow_version < (3, 2):  # there, dag.test() does not give callbacks what was raised
        assert text.startswith(f"{ran.dag_id}.report: failed")
    else:
        assert text.startswith(f"{ran.dag_id}.report: Mail task report: run {task_id} of ")
        assert "FAILED" in text
    assert f"(DAG run {ran.run_id})" in text
    assert airflow_version == (3, 0) or "Log: http" in text


def test_the_texts_of_a_late_report_say_what_the_wait_knows(
    airflow, quickbi, sensor_of, sent_texts, airflow_version, report, at_poll
):
    post, texts = sent_texts
    at_poll("report", 3, lambda: quickbi.finish_run(report))
    deadline = datetime.now(UTC) - timedelta(hours=1)

    ran = airflow.run(
        lambda: sensor_of(
            "poke",
            "report",
            deadline=deadline,
            on_late_callback=[post(templates.LATE_SUBJECT), post(templates.LATE_TEXT)],
        )
    )

    subject, text = texts
    assert subject == f"{ran.dag_id}.report: the report is late"
    assert text.startswith(f"{ran.dag_id}.report: Late: Mail task report: Run {report} of ")
    assert f"is PROCESSING. Still waiting. (DAG run {ran.run_id})" in text
    assert airflow_version == (3, 0) or "Log: http" in text  # 3.0 knows no address of a log


def test_the_text_of_a_missed_deadline_needs_only_what_airflow_gives_there(sent_texts, airflow_version):
    if airflow_version < (3, 1):
        pytest.skip("DeadlineAlert came with Airflow 3.1")
    post, texts = sent_texts
    started = datetime(2026, 7, 1, 9, tzinfo=UTC)

    post(templates.DEADLINE_TEXT)(_deadline_context(started))

    assert texts == ["etl: not finished by 2026-07-01 09:00:00+00:00 (DAG run manual, running)"]
