"""The story of one recovered workflow, put together from what is on record."""

from collections import Counter
from typing import NamedTuple

from evidence import Evidence, Request, Workflow

LONGEST = 18


class Event(NamedTuple):
    at: float
    run: int | None
    step: str
    happened: str
    seconds: float | None = None


class Kill(NamedTuple):
    """One SIGKILL of the demo, and the unfinished workflows it left behind."""

    run: int
    at: float
    cut_off: frozenset[str]


def most_eventful(evidence: Evidence) -> Workflow | None:
    """The recovered workflow with most to tell, that still fits on a screen."""
    runs = Counter(order_id for order_id, _ in {(result.order_id, result.run) for result in evidence.results})
    replays = Counter(result.order_id for result in evidence.replayed())
    answers = Counter((request.order_id, request.answer) for request in evidence.requests)
    results = Counter(result.order_id for result in evidence.results)

    def score(workflow: Workflow) -> tuple[bool, int, int, int]:
        order_id = workflow.order_id
        fits = results[order_id] + answers[order_id, "refused"] + runs[order_id] < LONGEST
        return fits, min(answers[order_id, "repeated"], 1), replays[order_id], answers[order_id, "refused"]

    recovered = [workflow for workflow in evidence.workflows if workflow.attempts > 1]
    return max(recovered, key=score, default=None)


def events(evidence: Evidence, workflow: Workflow, kills: list[Kill]) -> list[Event]:
    order_id = workflow.order_id
    requests = [request for request in evidence.requests if request.order_id == order_id]
    results = {result[:3]: result for result in evidence.results if result.order_id == order_id}
    replayed = [result for result in evidence.replayed() if result.order_id == order_id]
    story = [Event(workflow.created_at_ms / 1000, None, "", "placed on the queue")]
    for result in replayed:
        duration = result.ended_at - result.started_at
        story.append(Event(result.ended_at, result.run, result.step, "from checkpoint", duration))
    for request in requests:
        received = results.get(request[:3])
        if request.answer == "refused":
            story.append(Event(request.at, request.run, request.step, "refused, to be tried again"))
        elif received:
            happened = "executed" if request.answer == "done" else "executed again, recognised by its key"
            duration = received.ended_at - received.started_at
            story.append(Event(received.ended_at, request.run, request.step, happened, duration))
        else:
            story.append(Event(request.at, request.run, request.step, _cut_off(request, requests)))
    # The database may round its own times, so the last step may seem to end after the workflow.
    ended_at = max((workflow.completed_at_ms or 0) / 1000, *(event.at for event in story))
    story += [Event(kill.at, kill.run, "", "SIGKILL") for kill in kills if order_id in kill.cut_off]
    story.append(Event(ended_at, None, "", f"workflow ended: {workflow.status}"))
    return sorted(story, key=lambda event: event.at)


def _cut_off(request: Request, requests: list[Request]) -> str:
    """What became of an executed step whose result the workflow never got: the kill came first."""
    again = any(later.key == request.key and later.run > request.run for later in requests)
    return "executed, killed before its record" if again else "executed and recorded, then killed"
