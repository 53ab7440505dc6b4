"""Listings: from a filter to a statement.

The text is `list_workflows` of `sql/<backend>/listing.sql`, which has a line for every filter there is. A line that
ends in `-- if name` stays only when that is asked for, one that ends in `-- unless name` only when not, and one that
ends in both only when both hold; the number in such a line stands for the value of the first name. So a listing pays
for its own filters only, and its plan can use their indexes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..types import ACTIVE_STATUSES, WorkflowFilter

# More than any database holds, and no overflow when an offset is added.
ALL = 2**31 - 1

_MARK = re.compile(r"\s*-- ((?:if|unless) \w+(?: (?:if|unless) \w+)*)$")
_PLACE = re.compile(r"(?<=[$?])\d+")

# The partial indexes on the status, by what they are called in the statement.
_INDEXED_STATUSES = {
    "pending": frozenset({"PENDING"}),
    "delayed": frozenset({"DELAYED"}),
    "in_flight": frozenset({"ENQUEUED", "PENDING"}),
    "unsuccessful": frozenset({"ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}),
}

# What only some of the filters mean that have an index. If they find few workflows, those are taken from there and
# sorted; if many, a page of them is soon found in the order of all.
_SELECTIVE = frozenset({"pending", "delayed", "in_flight", "forks_only", "workflow_id_prefixes"}) | {
    "completed_from_ms",
    "completed_until_ms",
    "started_from_ms",
    "started_until_ms",
}
FEW = 5_000
# Workflows begin and end about in the order in which they were created. What was completed last comes last in that
# order, so of a listing that begins with the oldest more are taken from the index; and the other way round.
LATE, EARLY = {"completed_from_ms", "started_from_ms"}, {"completed_until_ms", "started_until_ms"}
FEW_AT_THE_END = 100_000

_LISTS = (
    "workflow_ids",
    "workflow_id_prefixes",
    "statuses",
    "queue_names",
    "names",
    "app_versions",
    "users",
    "executor_ids",
    "forked_from",
    "parent_workflow_ids",
    "schedule_names",
    "application_names",
)
_VALUES = (
    "created_from_ms",
    "created_until_ms",
    "completed_from_ms",
    "completed_until_ms",
    "started_from_ms",
    "started_until_ms",
    "was_forked_from",
    "is_fork",
    "has_parent",
)
_FLAGS = ("queues_only", "load_input", "load_output")


def listing(wanted: WorkflowFilter) -> tuple[str, tuple[int, int], dict[str, Any]]:
    """The name of the statement, its first parameters, and what is asked for with its value."""
    asked: dict[str, Any] = {flag: True for flag in _FLAGS if getattr(wanted, flag)}
    asked |= {name: getattr(wanted, name) for name in _VALUES if getattr(wanted, name) is not None}
    for name in _LISTS:
        values: Sequence[str] | None = getattr(wanted, name)
        if values is not None:
            asked[name] = json.dumps(list(values))
    if wanted.workflow_id_prefixes is not None and len(wanted.workflow_id_prefixes) == 1:
        asked["one_prefix"] = True
    if wanted.statuses is not None and len(wanted.statuses) == 1:
        asked["status"] = wanted.statuses[0]
    if wanted.after is not None:
        asked["before" if wanted.newest_first else "after"] = json.dumps(wanted.after)
    if wanted.is_fork:
        asked["forks_only"] = True
    if wanted.attributes is not None:
        asked["attributes"] = json.dumps(wanted.attributes)
    if wanted.statuses is not None:
        asked |= {name: True for name, indexed in _INDEXED_STATUSES.items() if indexed.issuperset(wanted.statuses)}
        if wanted.queues_only and frozenset(wanted.statuses) == ACTIVE_STATUSES:
            asked["active"] = True
    name = "list_newest_workflows" if wanted.newest_first else "list_workflows"
    return name, (ALL if wanted.limit is None else wanted.limit, wanted.offset), asked


def most_to_sort(asked: Mapping[str, Any], *, newest_first: bool) -> int:
    """How many workflows, found by an index, are sorted sooner than found in their order; 0 when none has to be."""
    if _SELECTIVE.isdisjoint(asked) or "workflow_ids" in asked:
        return 0
    return FEW if (EARLY if newest_first else LATE).isdisjoint(asked) else FEW_AT_THE_END


def choose_lines(text: str, first: Sequence[Any], asked: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """The statement with the lines that `asked` calls for, and its parameters behind the `first` ones."""
    lines: list[str] = []
    parameters = list(first)
    for line in text.splitlines():
        mark = _MARK.search(line)
        if mark is None:
            lines.append(line)
            continue
        words = mark[1].split()
        if any((name in asked) != (condition == "if") for condition, name in zip(words[::2], words[1::2])):
            continue
        line = line[: mark.start()]
        if _PLACE.search(line):
            parameters.append(asked[words[1]])
            line = _PLACE.sub(str(len(parameters)), line)
        lines.append(line)
    return "\n".join(lines), tuple(parameters)


def json_contains(stored: str | None, wanted: str) -> bool:
    """Whether stored attributes contain the wanted ones, as `@>` of Postgres has it; for statements of SQLite."""
    try:
        return stored is not None and _contains(json.loads(stored), json.loads(wanted))
    except ValueError:
        return False


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(_contains(item, wanted) for item in whole) for wanted in part)
    # True is no 1 in JSON, as it is in Python.
    return isinstance(whole, bool) == isinstance(part, bool) and bool(whole == part)
