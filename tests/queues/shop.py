"""A class whose methods are workflows, each kind of method once."""

from __future__ import annotations

from typing import Any

from dbos import DBOS, DBOSConfiguredInstance


def declare_shop() -> Any:
    @DBOS.dbos_class("Shop")
    class Shop(DBOSConfiguredInstance):
        def __init__(self, name: str) -> None:
            self.label = name
            super().__init__(config_name=name)

        @DBOS.workflow(name="instance_work")
        def instance_work(self, value: int) -> str:
            return f"{self.label}:{value}"

        @classmethod
        @DBOS.workflow(name="class_work")
        def class_work(cls, value: int) -> str:
            return f"{cls.__name__}:{value}"

        @staticmethod
        @DBOS.workflow(name="static_work")
        def static_work(value: int) -> str:
            return f"static:{value}"

    return Shop
