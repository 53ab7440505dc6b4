"""Names inside stored pickles: values of these classes were written with this module path (see `types`)."""

from .types import SendMessage, WorkflowStatus, WorkflowStatusString

__all__ = ["SendMessage", "WorkflowStatus", "WorkflowStatusString"]
