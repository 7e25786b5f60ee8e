"""What a distributed Airflow loses when its Redis, a triggerer and a worker go away: no wait, and no mail twice."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_quickbi.testing import Fault, LocalQuickBI
from tests.api.shared.conftest import Redis
from tests.distributed import services
from tests.distributed.cluster import TRIGGERER_CAPACITY, TRIGGERERS, WORKER_SLOTS, WORKERS, Cluster
from tests.live.runs import Run, start_calls

WAITS = 60
SENDS = 6


def throttled_share(quickbi: LocalQuickBI) -> float:
    """Return the share of all status calls so far that were throttled."""
    outcomes = quickbi.counters()["GetMailTaskStatus"]
    return sum(count for code, count in outcomes.items() if code.startswith("Throttling")) / sum(outcomes.values())


def test_waits_end_and_mails_go_out_once_although_redis_a_triggerer_and_a_worker_go_away(
    cluster: Cluster, quickbi: LocalQuickBI, pacing: Redis, notify: Callable[[str], None]
) -> None:
    since = datetime.now(UTC).replace(microsecond=0)
    counts = {}
    for number in range(WAITS):
        waited = quickbi.add_mail_task(f"Waited for {number}", mail_id=f"waited-{number}")
        quickbi.add_run(waited, exec_time=since - timedelta(days=1))
        counts[waited] = quickbi.add_run(waited, status="PROCESSING")
    sent = [
        quickbi.add_mail_task(f"Sent {number}", mail_id=f"sent-{number}", run_duration=3) for number in range(SENDS)
    ]
    third = WAITS // 3
    assert third < WAITS - TRIGGERER_CAPACITY  # so that both triggerers still hold some when a third has ended
    before, meanwhile, after = (list(counts)[begin : begin + third] for begin in (0, third, 2 * third))
    api = cluster.api()
    cluster.until(lambda: cluster.query("SELECT count(*) FROM serialized_dag") == [(2,)], "the DAGs are parsed")

    waiting = Run.triggered(cluster, api, "distributed_waits", {"since": since.isoformat()})
    cluster.until(lambda: cluster.states("distributed_waits", "wait") == {"deferred": WAITS}, "all waits are deferred")
    cluster.until(lambda: None not in cluster.triggers(), "every trigger has a triggerer")
    notify(f"{WAITS} waits are deferred: {cluster.triggers()}")
    for waited in before:
        quickbi.finish_run(counts[waited])
    cluster.until(
        lambda: cluster.states("distributed_waits", "wait") == {"deferred": WAITS - third, "success": third},
        "a third of the waits has ended",
    )

    shared = throttled_share(quickbi)
    assert shared < 0.05  # on a busy machine calls travel unevenly
    pacing.stop()
    calls = quickbi.count("GetMailTaskStatus")
    cluster.until(lambda: quickbi.count("GetMailTaskStatus") >= calls + WAITS - third, "waits poll without Redis")
    pacing.start()
    notify(f"{shared:.1%} of the calls were throttled with Redis; it was taken away and given back")

    quickbi.fail("ManualRunMailTask", *[Fault.hang(processed=True)] * (WORKER_SLOTS * len(WORKERS)))
    sending = Run.triggered(cluster, api, "distributed_sends")
    cluster.until(
        lambda: (
            all(len(cluster.running_on(worker, "distributed_sends")) == WORKER_SLOTS for worker in WORKERS)
            and quickbi.count("ManualRunMailTask") == WORKER_SLOTS * len(WORKERS)
        ),
        "every worker hangs in the calls that start mails",
    )
    held = cluster.triggers()
    assert set(held) == set(TRIGGERERS)
    dead_triggerer, dead_worker = max(TRIGGERERS, key=lambda name: held[name]), WORKERS[0]
    cut_off = cluster.running_on(dead_worker, "distributed_sends")
    cluster.kill(dead_triggerer)
    cluster.kill(dead_worker)
    quickbi.drop_connections()
    notify(f"killed {dead_triggerer} with {held[dead_triggerer]} waits and {dead_worker} while it started {cut_off}")

    for waited in meanwhile:
        quickbi.finish_run(counts[waited])
    cluster.until(lambda: dead_triggerer not in cluster.triggers(), "the triggers are taken over")
    notify(f"the triggers are taken over: {cluster.triggers()}")
    for waited in after:
        quickbi.finish_run(counts[waited])
    cluster.until(lambda: cluster.run_states() == ["success"] * 2, "both DAG runs succeed")
    status_calls = quickbi.counters()["GetMailTaskStatus"]
    notify(f"both DAG runs succeeded; calls for a status: {status_calls}")

    waits = waiting.tasks("wait")
    results = [waiting.xcom("wait", task["map_index"]) for task in waits]
    assert {result["mail_id"]: result["task_id"] for result in results} == counts
    assert {result["status"] for result in results} == {"SENT"}
    assert [(task["state"], task["try_number"]) for task in waits] == [("success", 1)] * WAITS

    sends = sending.tasks("send")
    tries = [task["try_number"] for task in sends]
    assert [task["state"] for task in sends] == ["success"] * SENDS
    assert all(tries[index] > 1 and sends[index]["hostname"] == WORKERS[1] for index in cut_off)
    assert [quickbi.starts(mail_id) for mail_id in sent] == [1] * SENDS
    assert [quickbi.mails_sent(mail_id) for mail_id in sent] == [1] * SENDS
    assert [len(start_calls(quickbi, mail_id)) for mail_id in sent] == [1] * SENDS
    assert [sending.xcom("send", index)["task_id"] for index in range(SENDS)] == [
        quickbi.runs(mail_id)[0]["task_id"] for mail_id in sent
    ]
    notify(f"{WAITS} of {WAITS} waits ended at the first try; {SENDS} mails went out once each, with {tries} tries")
    api.close()


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and not listening: no service here
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(services.POSTGRES_VARIABLE, f"postgresql://somebody:secret@{nobody}/postgres")
        monkeypatch.setenv(services.REDIS_VARIABLE, f"redis://{nobody}")
        sentence = services.refusal()

    postgres, broker = f"postgresql://somebody:***@{nobody}/postgres", f"redis://{nobody}"
    assert sentence == (
        f"The distributed tests need PostgreSQL at {postgres} (Connection refused) and Redis at {broker} "
        f"(Error 111 connecting to {nobody}. Connection refused): start what is missing, or give another address "
        f"through the environment, as in QUICKBI_TEST_POSTGRES={postgres} QUICKBI_TEST_REDIS={broker}."
    )
