"""What workflows publish, read through a client."""

from __future__ import annotations

from ..events import event_lookup, events_lookup
from .session import Session, blocking, twin


class CommunicationMethods:
    """`DBOSClient.get_event` and `get_all_events`."""

    _session: Session

    get_event = blocking("get_event", event_lookup)
    get_event_async = twin("get_event", event_lookup)
    get_all_events = blocking("get_all_events", events_lookup)
    get_all_events_async = twin("get_all_events", events_lookup)
