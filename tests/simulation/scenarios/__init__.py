"""The workflows under simulation: every operation there is, each in a shape whose outcome does not depend on timing."""

from . import basics, concurrency, debouncing, events, listing, management, messages, queues, schedules, streams
from .declaring import SCENARIOS

__all__ = [
    "SCENARIOS",
    "basics",
    "concurrency",
    "debouncing",
    "events",
    "listing",
    "management",
    "messages",
    "queues",
    "schedules",
    "streams",
]
