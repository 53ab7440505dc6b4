"""The engine's tests with a real store use the one of the storage tests."""

from tests.storage.conftest import open_backend, opened, store

__all__ = ["open_backend", "opened", "store"]
