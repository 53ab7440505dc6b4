"""The judge of the campaign sees what it is there for."""

from __future__ import annotations

from tests.queues.campaign import Limits, Task, judge


def task(began: int, ended: int, executor_id: str = "a", partition: str = "p", attempts: int = 1) -> Task:
    return Task(executor_id, partition, began, ended, began, ended, attempts)


def found(tasks: list[Task], binding: str, value: object, expected: int | None = None) -> list[str]:
    limits = Limits("one", binding, {binding: value})
    return judge(tasks, limits, len(tasks) if expected is None else expected).violations


def test_who_begins_when_another_ends_is_not_beside_it() -> None:
    assert found([task(0, 50), task(50, 100)], "global_concurrency", 1) == []


def test_one_too_many_at_an_instant_is_found() -> None:
    assert found([task(0, 50), task(49, 100)], "global_concurrency", 1) == [
        "global_concurrency of 'mail' is 1, and there were 2"
    ]


def test_limits_of_workers_and_partitions_count_among_their_own() -> None:
    tasks = [task(0, 50), task(10, 60, executor_id="b"), task(20, 70, partition="q")]
    assert found(tasks[:2], "worker_concurrency", 1) == []
    assert len(found(tasks, "worker_concurrency", 1)) == 1
    assert len(found(tasks, "partition_concurrency", 1)) == 1
    assert found(tasks, "partition_worker_concurrency", 1) == []


def test_one_start_too_many_in_a_window_is_found() -> None:
    rate = {"limit": 2, "period": 0.1}
    assert found([task(0, 1), task(50, 51), task(100, 101)], "limiter", rate) == []
    assert len(found([task(0, 1), task(50, 51), task(99, 100)], "limiter", rate)) == 1


def test_lost_and_repeated_tasks_are_found() -> None:
    assert found([task(0, 50)], "global_concurrency", 1, expected=2) == ["1 tasks ended with SUCCESS, not 2"]
    assert found([task(0, 50, attempts=2)], "global_concurrency", 1) == ["1 tasks were started more than once"]


def test_utilisation_is_the_share_of_the_slots_that_was_filled() -> None:
    limits = Limits("one", "global_concurrency", {"global_concurrency": 2})
    # Until the last one begins, at 100: 100 of one slot, 50 of the other.
    assert judge([task(0, 50), task(0, 100), task(100, 150)], limits, 3).utilisation == 0.75


def test_utilisation_of_a_rate_is_the_share_of_the_starts_it_allows() -> None:
    limits = Limits("one", "limiter", {"limiter": {"limit": 2, "period": 0.1}})
    tasks = [task(0, 1), task(0, 1), task(100, 101), task(100, 101), task(300, 301), task(300, 301)]
    # Four of the six that three windows allow before the last one begins.
    assert abs(judge(tasks, limits, 6).utilisation - 4 / 6) < 1e-9
