"""How the demo tells a replayed step from an executed one. An application of your own does not need this."""

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from dbos import DBOS

from world import World

P = ParamSpec("P")
R = TypeVar("R")


def watch(world: World) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a step from outside: note each result that the workflow gets, also one read from a checkpoint.

    An executed body makes a request to the outside world. A result without a request in the same run of the
    application therefore came from a checkpoint.
    """

    def decorate(step: Callable[P, R]) -> Callable[P, R]:
        @wraps(step)
        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            started_at = time.time()
            try:
                return step(*args, **kwargs)
            finally:
                world.note_result(str(DBOS.workflow_id), step.__name__, started_at)

        return watched

    return decorate
