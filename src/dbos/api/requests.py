"""What management calls are asked for, checked: nothing is written for a call whose arguments have no meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..error import DBOSException
from ..serialization import check_text
from ..types import INTERNAL_QUEUE_NAME, Fork, Rewind
from .options import encode_attributes
from .runtime import check_ids, check_unsharded

# Step ids are below; beyond it everything is copied, or nothing is taken back.
LARGEST_STEP = 2**31 - 1


def checked_ids(workflow_ids: object, shard_key: str | None) -> list[str]:
    """The ids, each once, in their order."""
    check_unsharded(shard_key)
    if isinstance(workflow_ids, (str, bytes)) or not isinstance(workflow_ids, (Sequence, set, frozenset)):
        raise DBOSException(f"Several workflows are given as a list of their ids, not as {workflow_ids!r}")
    found: list[Any] = list(dict.fromkeys(workflow_ids))
    check_ids(*found)
    return found


def checked_id(workflow_id: str, shard_key: str | None) -> str:
    check_unsharded(shard_key)
    check_ids(workflow_id)
    return workflow_id


def checked_flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise DBOSException(f"{name} is True or False, not {value!r}")
    return value


def checked_queue(queue_name: object) -> str | None:
    """None for no name, and for an empty one."""
    return _checked_text(queue_name, "queue name") or None


def fork_request(
    workflow_id: str,
    start_step: object,
    *,
    creator_token: str,
    owner: str | None,
    application_version: object,
    queue_name: object,
    queue_partition_key: object,
    replacement_children: object,
    timeout_seconds: object,
    shard_key: str | None,
) -> Fork:
    """A fork without an id yet. `owner` is the application that gets it when nobody owns its source."""
    return Fork(
        "",
        checked_id(workflow_id, shard_key),
        _checked_step(start_step),
        creator_token,
        owner,
        _checked_text(application_version, "application version") or None,
        checked_queue(queue_name) or INTERNAL_QUEUE_NAME,
        _checked_text(queue_partition_key, "queue partition key"),
        _checked_replacements(replacement_children),
        _checked_timeout_ms(timeout_seconds),
    )


def rewind_request(
    workflow_id: str,
    start_step: object,
    *,
    application_version: object,
    queue_name: object,
    queue_partition_key: object,
    shard_key: str | None,
) -> Rewind:
    step = 1 if start_step is None else _checked_step(start_step)
    if step < 1:
        raise ValueError(f"A workflow is rewound to a step from 1 on, not to {start_step!r}")
    return Rewind(
        checked_id(workflow_id, shard_key),
        step,
        _checked_text(application_version, "application version") or None,
        checked_queue(queue_name) or INTERNAL_QUEUE_NAME,
        _checked_text(queue_partition_key, "queue partition key"),
    )


def checked_due_ms(now_ms: int, delay_seconds: object, delay_until_epoch_ms: object) -> int:
    """When a delayed workflow is to start, in epoch ms."""
    if (delay_seconds is None) == (delay_until_epoch_ms is None):
        raise DBOSException("set_workflow_delay needs exactly one of delay_seconds and delay_until_epoch_ms")
    given = delay_until_epoch_ms if delay_seconds is None else delay_seconds
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given < 2**63:
        raise DBOSException(f"The delay must be a number from 0 on, not {given!r}")
    due_ms = int(given) if delay_seconds is None else now_ms + int(given * 1000)
    if due_ms >= 2**63:
        raise DBOSException(f"The delay ends too far away: {given!r}")
    return due_ms


def checked_attributes(attributes: object, merge: bool) -> str | None:
    """Attributes as they are stored: None for none."""
    checked_flag(merge, "merge")
    if attributes is None:
        if merge:
            raise DBOSException(
                "None with merge=True has no meaning: give the attributes to change, or leave merge out to remove all"
            )
        return None
    text = encode_attributes(attributes)
    return text if attributes or merge else None


def _checked_step(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DBOSException(f"start_step is the number of a step, not {value!r}")
    return max(-LARGEST_STEP, min(value, LARGEST_STEP))


def _checked_text(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise DBOSException(f"The {what} is a text, not {value!r}")
    check_text(value, what)
    return value


def _checked_replacements(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise DBOSException(
            f"replacement_children is a dictionary from ids of children to ids that replace them, not {value!r}"
        )
    found: dict[str, str] = dict(value)
    check_ids(*found, *found.values())
    return found


def _checked_timeout_ms(value: object) -> int | None:
    if value is None:
        return None
    number = not isinstance(value, bool) and isinstance(value, (int, float)) and not math.isnan(value)
    milliseconds = min(value * 1000, 2**63 - 1) if isinstance(value, (int, float)) and number else 0
    if milliseconds < 1:
        raise DBOSException(f"timeout_seconds is a number of seconds, at least one millisecond, not {value!r}")
    return int(milliseconds)
