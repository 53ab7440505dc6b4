"""Workflows as methods (02 section 17)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID
from dbos.error import DBOSConflictingWorkflowError
from tests.helpers import make_pending, relaunch, replay, rows, status_row, step_names, wait_until

Config = dict[str, Any]


def test_every_kind_of_method_writes_its_columns_and_is_recovered(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 section 17: the table; R34: arguments without self and cls."""

    @DBOS.dbos_class()
    class Mailer(DBOSConfiguredInstance):
        def __init__(self, region: str) -> None:
            super().__init__(config_name=region)
            self.region = region

        @DBOS.workflow()
        def instance_wf(self, value: int, *, more: int = 0) -> str:
            return f"{self.region} {value} {more}"

        @classmethod
        @DBOS.workflow()
        def class_wf(cls, value: int) -> str:
            return f"{cls.__name__} {value}"

        @staticmethod
        @DBOS.workflow()
        def static_wf(value: int) -> str:
            return f"static {value}"

        @DBOS.workflow()
        async def async_wf(self, value: int) -> str:
            return f"async {self.region} {value}"

    eu, us = Mailer("eu"), Mailer("us")
    name = Mailer.__qualname__
    cases: dict[str, tuple[Any, str, str | None, str | None]] = {
        "eu": (lambda: eu.instance_wf(1, more=2), "eu 1 2", name, "eu"),
        "us": (lambda: DBOS.start_workflow(us.instance_wf, 1).get_result(), "us 1 0", name, "us"),
        "unbound": (lambda: DBOS.start_workflow(Mailer.instance_wf, us, 3).get_result(), "us 3 0", name, "us"),
        "class": (lambda: Mailer.class_wf(4), "Mailer 4", name, None),
        "class started": (lambda: DBOS.start_workflow(Mailer.class_wf, 5).get_result(), "Mailer 5", name, None),
        "via instance": (lambda: DBOS.start_workflow(eu.class_wf, 6).get_result(), "Mailer 6", name, None),
        "static": (lambda: Mailer.static_wf(7), "static 7", None, None),
        "static started": (lambda: DBOS.start_workflow(Mailer.static_wf, 8).get_result(), "static 8", None, None),
        "async": (lambda: DBOS.start_workflow(eu.async_wf, 9).get_result(), "async eu 9", name, "eu"),
    }
    for workflow_id, (call, expected, class_name, config_name) in cases.items():
        with SetWorkflowID(workflow_id):
            assert call() == expected
        row = status_row(database_url, workflow_id)
        assert (row["class_name"], row["config_name"]) == (class_name, config_name)
        make_pending(database_url, workflow_id)
    assert DBOS.retrieve_workflow("eu").get_status().input == {"args": (1,), "kwargs": {"more": 2}}
    relaunch(config)
    for workflow_id, (_, expected, _, _) in cases.items():
        assert DBOS.retrieve_workflow(workflow_id).get_result() == expected


def test_a_class_may_have_a_name_of_its_own(app: type[DBOS], database_url: str) -> None:
    """02 R173."""

    @DBOS.dbos_class("Renamed")
    class Original:
        @classmethod
        @DBOS.workflow()
        def wf(cls) -> None: ...

    with SetWorkflowID("w"):
        Original.wf()
    assert status_row(database_url, "w")["class_name"] == "Renamed"


def test_a_class_name_is_unique_and_registering_the_same_class_again_does_nothing() -> None:
    """02 R173."""

    class First: ...

    class Second: ...

    DBOS.dbos_class("same")(First)
    DBOS.dbos_class("same")(First)
    with pytest.raises(Exception, match="same"):
        DBOS.dbos_class("same")(Second)


def test_the_config_name_is_unique_within_a_class(app: type[DBOS]) -> None:
    """02 R176."""

    @DBOS.dbos_class()
    class One(DBOSConfiguredInstance): ...

    @DBOS.dbos_class()
    class Two(DBOSConfiguredInstance): ...

    One("a")
    Two("a")
    with pytest.raises(Exception, match="'a'"):
        One("a")


def test_a_config_name_is_stored_as_text(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R176."""

    @DBOS.dbos_class()
    class Numbered(DBOSConfiguredInstance):
        @DBOS.workflow()
        def wf(self) -> str:
            return str(self.config_name)

    instance = Numbered(7)  # type: ignore[arg-type]
    with SetWorkflowID("w"):
        assert instance.wf() == "7"
    assert status_row(database_url, "w")["config_name"] == "7"
    assert replay(config, "w") == "7"


def test_one_id_of_two_instances_conflicts(app: type[DBOS]) -> None:
    """02 R38: the config name is compared too."""

    @DBOS.dbos_class()
    class C(DBOSConfiguredInstance):
        @DBOS.workflow()
        def wf(self) -> None: ...

    first, second = C("first"), C("second")
    with SetWorkflowID("w"):
        first.wf()
    with SetWorkflowID("w"), pytest.raises(DBOSConflictingWorkflowError) as conflict:
        second.wf()
    assert "first" in str(conflict.value)
    assert "second" in str(conflict.value)


def test_a_workflow_of_a_missing_instance_stays_pending_until_it_is_there(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R159 (f), R160, R177."""

    @DBOS.dbos_class()
    class C(DBOSConfiguredInstance):
        @DBOS.workflow()
        def wf(self) -> str:
            return f"of {self.config_name}"

    there = C("there")
    with SetWorkflowID("w"):
        there.wf()
    make_pending(database_url, "w")
    rows(database_url, "UPDATE workflow_status SET config_name = 'later'")
    relaunch(config)
    wait_until(lambda: status_row(database_url, "w")["recovery_attempts"] == 2)
    wait_until(lambda: status_row(database_url, "w")["status"] == "PENDING")
    C("later")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == "of later"


def test_methods_of_unregistered_classes_and_instances_are_refused(app: type[DBOS]) -> None:
    """02 R177, R179: each a plain Exception that says what to do."""

    class Unregistered:
        @DBOS.workflow()
        def method(self, value: int) -> None: ...

    @DBOS.dbos_class()
    class WithoutName:
        @DBOS.workflow()
        def method(self) -> None: ...

    with pytest.raises(Exception, match="dbos_class"):
        Unregistered().method(1)
    with pytest.raises(Exception, match="config_name"):
        WithoutName().method()


def test_a_plain_workflow_may_get_a_class_as_its_first_argument(app: type[DBOS]) -> None:
    """02 R273 in place of R179."""

    @DBOS.workflow()
    def wf(kind: type) -> str:
        return kind.__name__

    assert wf(int) == "int"
    assert DBOS.start_workflow(wf, dict).get_result() == "dict"


def test_an_undecorated_subclass_runs_inherited_workflows_under_the_parents_name(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R175."""

    @DBOS.dbos_class()
    class Parent(DBOSConfiguredInstance):
        @DBOS.workflow()
        def wf(self) -> str:
            return self.word()

        def word(self) -> str:
            return "parent"

    class Child(Parent):
        def word(self) -> str:
            return "child"

    child = Child("c")
    with SetWorkflowID("w"):
        assert child.wf() == "child"
    assert status_row(database_url, "w")["class_name"] == Parent.__qualname__
    assert replay(config, "w") == "child"


def test_a_decorated_subclass_of_a_decorated_class_works(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R273 in place of R175, R245: under its own name, with inherited and own workflows."""

    @DBOS.dbos_class()
    class Parent(DBOSConfiguredInstance):
        @DBOS.workflow()
        def inherited(self) -> str:
            return f"{type(self).__name__} {self.config_name}"

        @classmethod
        @DBOS.workflow()
        def of_class(cls) -> str:
            return cls.__name__

    @DBOS.dbos_class()
    class Child(Parent):
        @DBOS.workflow()
        def own(self) -> str:
            return f"own {self.config_name}"

    child, parent = Child("same name"), Parent("same name")
    expected = {"a": "Child same name", "b": "own same name", "c": "Parent same name", "d": "Child", "e": "Parent"}
    calls = {"a": child.inherited, "b": child.own, "c": parent.inherited, "d": Child.of_class, "e": Parent.of_class}
    for workflow_id, call in calls.items():
        with SetWorkflowID(workflow_id):
            assert call() == expected[workflow_id]
        make_pending(database_url, workflow_id)
    names = {"a": Child, "b": Child, "c": Parent, "d": Child, "e": Parent}
    for workflow_id, cls in names.items():
        assert status_row(database_url, workflow_id)["class_name"] == cls.__qualname__
    relaunch(config)
    for workflow_id, value in expected.items():
        assert DBOS.retrieve_workflow(workflow_id).get_result() == value


def test_steps_may_be_methods_of_any_object(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R178: self is not stored."""
    runs: list[str] = []

    class Tool:
        def __init__(self, word: str) -> None:
            self.word = word
            self.unpicklable = lambda: None

        @DBOS.step(name="use")
        def use(self, value: int) -> str:
            runs.append(self.word)
            return f"{self.word} {value}"

        @classmethod
        @DBOS.step(name="make")
        def make(cls) -> str:
            return cls.__name__

        @staticmethod
        @DBOS.step(name="stay")
        def stay(value: int) -> int:
            return value

    @DBOS.workflow()
    def wf() -> list[Any]:
        return [Tool("hammer").use(3), Tool.make(), Tool.stay(4)]

    with SetWorkflowID("w"):
        assert wf() == ["hammer 3", "Tool", 4]
    assert step_names(database_url, "w") == {1: "use", 2: "make", 3: "stay"}
    assert replay(config, "w") == ["hammer 3", "Tool", 4]
    assert runs == ["hammer"]


def test_the_decorators_of_static_and_class_methods_may_stand_in_either_order(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R246: in the reference this order fails as soon as there are arguments."""

    @DBOS.dbos_class()
    class C:
        @DBOS.workflow()  # type: ignore[arg-type]
        @staticmethod
        def static(value: int) -> int:
            return C.step(value)

        @DBOS.workflow()  # type: ignore[arg-type]
        @classmethod
        def of_class(cls, value: int) -> str:
            return f"{cls.__name__} {value}"

        @DBOS.step(name="s")  # type: ignore[arg-type]
        @staticmethod
        def step(value: int) -> int:
            return value + 1

    calls: dict[str, Any] = {"a": lambda: C.static(1), "b": lambda: C.of_class(2), "c": lambda: C().static(3)}
    expected = {"a": 2, "b": "C 2", "c": 4}
    for workflow_id, call in calls.items():
        with SetWorkflowID(workflow_id):
            assert call() == expected[workflow_id]
        make_pending(database_url, workflow_id)
    assert status_row(database_url, "a")["class_name"] is None
    assert status_row(database_url, "b")["class_name"] == C.__qualname__
    assert step_names(database_url, "a") == {1: "s"}
    relaunch(config)
    for workflow_id, value in expected.items():
        assert DBOS.retrieve_workflow(workflow_id).get_result() == value
