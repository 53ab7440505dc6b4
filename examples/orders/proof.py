"""The claims of the demo, each checked against what is on record."""

from collections import Counter
from datetime import datetime
from typing import NamedTuple

import orders
from evidence import Evidence
from timeline import Kill
from world import CATALOGUE_CENTS

# As the application promises.
START_LIMIT, START_PERIOD_SECONDS = 50, 0.5
# As the demo asks for.
REPORT_SECONDS = 2


class Claim(NamedTuple):
    """One sentence, whether it holds, and the figures behind it."""

    text: str
    holds: bool
    figures: str


def claims(evidence: Evidence, kills: list[Kill]) -> list[Claim]:
    return [
        *claims_about_orders(evidence, kills),
        *claims_about_charges(evidence),
        *claims_about_steps(evidence),
        *claims_about_queue_mails_and_reports(evidence),
    ]


def claims_about_orders(evidence: Evidence, kills: list[Kill]) -> list[Claim]:
    ordered = orders.load()
    invalid = {order["order_id"] for order in ordered if not orders.is_valid(order, CATALOGUE_CENTS)}
    shipped, rejected = evidence.ended("SUCCESS"), evidence.ended("ERROR")
    unfinished = len(evidence.workflows) - len(shipped) - len(rejected)
    cut_off = set().union(*(kill.cut_off for kill in kills))
    recovered = {workflow.order_id for workflow in evidence.workflows if workflow.attempts > 1}
    often = sum(workflow.attempts > 2 for workflow in evidence.workflows)
    return [
        Claim(
            "Every order finished once",
            sorted(shipped + rejected) == sorted(order["order_id"] for order in ordered),
            f"{len(ordered):,} ordered: {len(shipped)} shipped, {len(rejected)} rejected, {unfinished} open",
        ),
        Claim(
            "Only invalid orders rejected",
            sorted(rejected) == sorted(invalid),
            f"{len(rejected)} rejected, {len(invalid)} invalid in the file",
        ),
        Claim(
            "Every cut-off order recovered",
            recovered == cut_off,
            f"{len(cut_off)} cut off by kills, {len(recovered)} recovered, {often} of them more than once",
        ),
    ]


def claims_about_charges(evidence: Evidence) -> list[Claim]:
    shipped = evidence.ended("SUCCESS")
    booked = [order_id for order_id, _ in evidence.charges_cents]
    charged_cents = sum(cents for _, cents in evidence.charges_cents)
    owed_cents = sum(orders.total_cents(order) for order in orders.load() if order["order_id"] in set(shipped))
    recorded = len(evidence.charge_checkpoints)
    return [
        Claim(
            "No charge recorded twice",
            sorted(evidence.charge_checkpoints) == sorted(shipped) == sorted(booked),
            f"{len(shipped)} shipped, {recorded} checkpoints, {len(booked)} at the payment provider",
        ),
        Claim(
            "The money adds up",
            charged_cents == owed_cents,
            f"€{charged_cents / 100:,.2f} charged, €{owed_cents / 100:,.2f} shipped",
        ),
    ]


def claims_about_steps(evidence: Evidence) -> list[Claim]:
    recorded = Counter(evidence.checkpoints)
    effects = Counter(request.key for request in evidence.requests if request.answer == "done")
    completed = Counter((request.run, request.key) for request in evidence.requests if request.answer != "refused")
    return [
        Claim(
            "No step recorded twice",
            max(recorded.values()) == 1,
            f"{recorded.total():,} checkpoints of {len(recorded):,} steps",
        ),
        Claim(
            "Every effect is on record",
            recorded == effects,
            f"{effects.total():,} effects in the outside world, {recorded.total():,} checkpoints",
        ),
        Claim(
            "No step ran twice but for a kill",
            max(completed.values()) == 1,
            f"{completed.total() - len(completed)} repeated within one run of the application",
        ),
    ]


def claims_about_queue_mails_and_reports(evidence: Evidence) -> list[Claim]:
    starts = sorted(workflow.started_at_ms for workflow in evidence.workflows if workflow.started_at_ms is not None)
    window_ms = int(START_PERIOD_SECONDS * 1000)
    most = max(sum(start <= other < start + window_ms for other in starts) for start in starts)
    shipped = evidence.ended("SUCCESS")
    last_mails = dict(subject.split(" ") for subject in evidence.mails)
    ticks = [int(datetime.fromisoformat(text).timestamp()) for text in evidence.reports]
    missing = set(range(ticks[0], ticks[-1] + 1, REPORT_SECONDS)) - set(ticks)
    return [
        Claim(
            "The rate limit holds",
            most <= START_LIMIT,
            f"at most {most} starts in any {START_PERIOD_SECONDS} s, {START_LIMIT} allowed",
        ),
        Claim(
            "Every customer knows",
            all(last_mails.get(order_id) == "shipped" for order_id in shipped) and set(last_mails) == set(shipped),
            f"{2 * len(shipped):,} changes of status, {len(evidence.mails):,} mails, the last: shipped",
        ),
        Claim(
            "Every report written once",
            not missing and len(ticks) == len(set(ticks)),
            f"{len(ticks)} ticks of the schedule, {len(ticks)} reports",
        ),
    ]


def step_figures(evidence: Evidence) -> list[tuple[int, str]]:
    """How often steps were executed and how often they were not, because their checkpoint was there."""
    answers = Counter(request.answer for request in evidence.requests)
    repeated = Counter(request.step for request in evidence.requests if request.answer == "repeated")
    return [
        (len(evidence.replayed()), "step results taken from checkpoints instead of executing again"),
        (answers.total(), "step bodies executed:"),
        (answers["done"], "  took effect, and were recorded once"),
        (answers["refused"], "  met a payment provider that said no, and were tried again"),
        (answers["repeated"], "  came again, because a kill fell between body and record; of these"),
        (
            repeated["charge"],
            "    charges: the payment provider knew their idempotency keys and took no money",
        ),
    ]
