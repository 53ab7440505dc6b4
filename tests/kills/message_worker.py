"""A process in which workflows send each other messages, to be killed; or the one who enqueues those workflows.

    python message_worker.py <database url> <side log> <executor id>

It imports, then waits for one JSON command on its standard input:

    {"action": "fill", "pairs": 10, "messages": 1000, "share": 8}   register the queue, enqueue, end
    {"action": "work"}                                              launch, serve the queue until killed or told to end
    {"action": "read", "pairs": 10}                                 print what each receiver has got, end

There are as many senders as receivers, and each sender sends to every receiver, under two topics: a third of them one
message after the other, a third many with one call, a third from steps, which a kill repeats, with keys.
"""

from __future__ import annotations

import asyncio
from typing import Any

from obeying import obey, say, work

from dbos import DBOS, EnqueueItem, SendMessage

QUEUE = "mail"
BULK = 10
PATIENCE_SECONDS = 3600


def topic_of(turn: int) -> str:
    return f"topic-{turn % 2}"


def mail(sender: int, pairs: int, count: int) -> list[SendMessage]:
    """What a sender sends: in each turn one message to every receiver, numbered."""
    found = []
    for number in range(count):
        turn, receiver = divmod(number, pairs)
        found.append(SendMessage(f"receiver-{receiver}", [sender, number], topic_of(turn), f"{sender}-{number}"))
    return found


@DBOS.step()
def send_in_step(messages: list[list[Any]]) -> None:
    for destination_id, message, topic, key in messages:
        DBOS.send(destination_id, message, topic, idempotency_key=key)


@DBOS.workflow()
def send(sender: int, pairs: int, count: int) -> None:
    messages = mail(sender, pairs, count)
    for first in range(0, count, BULK):
        part = messages[first : first + BULK]
        if sender % 3 == 0:
            for message in part:
                DBOS.send(message.destination_id, message.message, message.topic)
        elif sender % 3 == 1:
            DBOS.send_bulk([SendMessage(m.destination_id, m.message, m.topic) for m in part])
        else:
            send_in_step([[m.destination_id, m.message, m.topic, m.idempotency_key] for m in part])


@DBOS.workflow()
def receive(turns: int, senders: int) -> list[Any]:
    return [DBOS.recv(topic_of(turn), PATIENCE_SECONDS) for turn in range(turns) for _ in range(senders)]


@DBOS.workflow()
async def receive_async(turns: int, senders: int) -> list[Any]:
    return [await DBOS.recv_async(topic_of(turn), PATIENCE_SECONDS) for turn in range(turns) for _ in range(senders)]


async def enqueue(pairs: int, messages: int, share: int) -> None:
    turns = messages // pairs // pairs
    await DBOS.register_queue_async(QUEUE, worker_concurrency=share)
    items = []
    for number in range(pairs):
        receiver = receive_async if number % 2 else receive
        items.append(EnqueueItem(receiver, turns, pairs).with_options(workflow_id=f"receiver-{number}"))
    for number in range(pairs):
        items.append(EnqueueItem(send, number, pairs, turns * pairs).with_options(workflow_id=f"sender-{number}"))
    await DBOS.enqueue_workflows_async(QUEUE, items)


def fill(pairs: int, messages: int, share: int) -> None:
    asyncio.run(enqueue(pairs, messages, share))
    say("filled")


def read(pairs: int) -> None:
    say([DBOS.retrieve_workflow(f"receiver-{number}").get_result() for number in range(pairs)])


if __name__ == "__main__":
    obey({"fill": fill, "work": work, "read": read}, idle=("fill", "read"))
