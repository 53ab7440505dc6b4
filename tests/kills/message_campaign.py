"""Senders and receivers in four processes, killed one after the other: each message is received once, and in order."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.kills.processes import PATIENCE_SECONDS, Observer, SideLog, Worker

PROGRAM = Path(__file__).with_name("message_worker.py")
WORKERS = 4
FEWEST_KILLS = 4


class MessageCampaign:
    """Messages between as many senders as receivers, while one of the processes after the other is killed.

    Args:
        url: An empty database.
        directory: Where the log of the processes goes.
        seed: Chooses who is killed, and when.
        pairs: How many senders, and how many receivers.
        messages: How many in all; each sender sends the same number to each receiver.
        pause_seconds: The shortest and the longest time between two kills.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        seed: int,
        pairs: int,
        messages: int,
        pause_seconds: tuple[float, float] = (0.5, 1.5),
    ) -> None:
        self._url = url
        self._log = SideLog(directory / f"messages-{seed}.log")
        self._observer = Observer(url)
        self._random = random.Random(seed)
        self._pairs = pairs
        self._turns = messages // pairs // pairs
        self.messages = self._turns * pairs * pairs
        self._pause_seconds = pause_seconds
        self._ids = itertools.count(1)
        self._workers: list[Worker] = []
        self._received = -1
        self._moved_at = time.monotonic()
        self.kills = 0
        self.seconds = 0.0

    def run(self) -> None:
        """Enqueue all, kill until everything is finished, check what was received."""
        with self._make_worker("fill") as filler:
            # Those that are alive can always take everything: a receiver never waits for a sender that waits.
            share = 2 * self._pairs // (WORKERS - 1) + 1
            filler.command("fill", pairs=self._pairs, messages=self.messages, share=share)
            filler.expect("launched")
            filler.expect("filled")
            filler.wait()
        began = time.monotonic()
        try:
            for _ in range(WORKERS):
                self._add_worker()
            while self._wait_for_the_next_kill():
                self._workers.pop(self._random.randrange(len(self._workers))).kill()
                self.kills += 1
                self._add_worker()
        finally:
            for worker in self._workers:
                worker.kill()
        self.seconds = time.monotonic() - began
        self._check()

    def _make_worker(self, executor: str) -> Worker:
        return Worker(self._url, self._log, executor=executor, program=PROGRAM)

    def _add_worker(self) -> None:
        worker = self._make_worker(f"executor-{next(self._ids)}")
        self._workers.append(worker)
        worker.command("work")

    def _wait_for_the_next_kill(self) -> bool:
        """False when all are finished. However fast the machine is, some kills come before."""
        kill_at = time.monotonic() + self._random.uniform(*self._pause_seconds)
        # In the first half, so that none comes too late.
        kill_when_received = self.messages * (self.kills + 1) // (2 * FEWEST_KILLS)
        while not self._is_finished():
            received = self._count("notifications WHERE consumed")
            if received != self._received:
                self._moved_at, self._received = time.monotonic(), received
            assert time.monotonic() < self._moved_at + PATIENCE_SECONDS, f"stands still after {received} messages"
            if time.monotonic() >= kill_at or received >= kill_when_received:
                return True
            time.sleep(0.02)
        return False

    def _is_finished(self) -> bool:
        assert self._count("workflow_status WHERE status = 'ERROR'") == 0, "a workflow has failed"
        return self._count("workflow_status WHERE status = 'SUCCESS'") == 2 * self._pairs

    def _count(self, what: str) -> int:
        count: int = self._observer.query(f"SELECT COUNT(*) FROM {{}}{what}")[0][0]
        return count

    def _check(self) -> None:
        with self._make_worker("reader") as reader:
            reader.command("read", pairs=self._pairs)
            reader.expect("launched")
            results: list[list[Any]] = reader.next_message()
            reader.wait()
        for receiver, result in enumerate(results):
            by_queue = defaultdict(list)
            for sender, number in result:
                turn = number // self._pairs
                by_queue[sender, turn % 2].append(number)
            for sender, topic in itertools.product(range(self._pairs), range(2)):
                expected = [turn * self._pairs + receiver for turn in range(topic, self._turns, 2)]
                found = by_queue[sender, topic]
                assert found == expected, f"receiver {receiver} has {found} from sender {sender}, topic {topic}"
            assert len(result) == self._pairs * self._turns
        assert self._count("notifications") == self.messages, "a message was sent twice"
        assert self._count("notifications WHERE consumed") == self.messages
        steps = self._observer.query(
            "SELECT COUNT(*), COUNT(DISTINCT destination_uuid || ' ' || consumed_by_function_id) FROM {}notifications"
        )
        assert steps == [(self.messages, self.messages)], "two messages were received by one step"

    def report(self) -> str:
        figures = {
            "messages": self.messages,
            "senders": self._pairs,
            "receivers": self._pairs,
            "kills": self.kills,
            "seconds": round(self.seconds, 1),
            "messages per second": round(self.messages / self.seconds),
        }
        return json.dumps(figures)
