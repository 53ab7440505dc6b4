"""Several processes on one queue: what a killed one had is finished by the others, and its place is free at once."""

from __future__ import annotations

import time
from pathlib import Path

from tests.helpers import rows, wait_until
from tests.kills.processes import PATIENCE_SECONDS, Observer, SideLog, Worker
from tests.kills.queue_campaign import PROGRAM, QueueCampaign

JOBS = 1500
SEED = 1


def test_workers_killed_at_random_and_never_restarted_lose_no_job_and_repeat_no_recorded_step(
    database_url: str, tmp_path: Path
) -> None:
    if database_url.startswith("postgres"):
        # In its first 5 s a server judges nobody, and this one may have been started for this test.
        age = "SELECT 1 WHERE clock_timestamp() > pg_postmaster_start_time() + interval '6 s'"
        wait_until(lambda: rows(database_url, age))
    campaign = QueueCampaign(database_url, tmp_path, SEED, JOBS)
    campaign.run()
    print(campaign.report())
    assert campaign.kills >= 3
    assert campaign.taken_over > campaign.kills, "the kills caught nobody at work"


def test_the_only_place_of_a_queue_is_free_soon_after_its_holder_was_killed(database_url: str, tmp_path: Path) -> None:
    log, observer = SideLog(tmp_path / "side.log"), Observer(database_url)
    with (
        Worker(database_url, log, executor="first", program=PROGRAM) as first,
        Worker(database_url, log, executor="second", program=PROGRAM) as second,
    ):
        first.command("hold", id="held")
        first.expect("launched")
        first.expect("holding")
        second.command("work")
        second.expect("launched")
        assert observer.query("SELECT status, executor_id FROM {}workflow_status") == [("PENDING", "first")]
        first.kill()
        killed_at = time.monotonic()
        while observer.statuses() != {"held": "SUCCESS"}:
            assert time.monotonic() < killed_at + PATIENCE_SECONDS, "nobody took the workflow over"
            time.sleep(0.005)
        print(f"finished {time.monotonic() - killed_at:.3f} s after the kill")
        assert [pid for pid, _ in log.executions()] == [first.pid, second.pid]
