"""The module path under which stored pickles name the error classes. Import `dbos.error` instead."""

from .error import *  # noqa: F403
