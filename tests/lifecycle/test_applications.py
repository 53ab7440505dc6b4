"""Several applications and versions on one database; restricted roles (01 R36-R37, R70-R78, 02 section 20)."""

from __future__ import annotations

import threading
import uuid
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID, run_dbos_database_migrations
from dbos.error import DBOSException, DBOSInitializationError
from dbos.storage.migrate import SCHEMA_VERSION
from tests.databases import new_database_name, server_url, url_of
from tests.helpers import make_pending, relaunch, rows, status_row, step_rows


def launched(config: dict[str, Any]) -> None:
    DBOS(config=config)
    DBOS.launch()


def version_names() -> list[str]:
    return [version["version_name"] for version in DBOS.list_application_versions()]


# --- ownership by applications


def test_everything_an_application_writes_carries_its_name(app: type[DBOS], database_url: str) -> None:
    # 01 R8, R70, R71
    @DBOS.step()
    def step() -> None: ...

    @DBOS.workflow()
    def work() -> None:
        step()

    with SetWorkflowID("mine"):
        work()
    assert status_row(database_url, "mine")["application_name"] == "test-app"
    assert [row["application_name"] for row in step_rows(database_url, "mine")] == ["test-app"]
    assert rows(database_url, "SELECT application_name FROM application_versions") == [{"application_name": "test-app"}]


def test_two_applications_do_not_recover_each_others_work(app: type[DBOS], config: dict[str, Any]) -> None:
    # 01 R71
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> int:
        return 1

    with SetWorkflowID("of-the-first"):
        work()
    make_pending(url, "of-the-first")
    # the same executor id and version string would match; the version belongs to the first, so another is needed
    DBOS.destroy()
    launched({**config, "name": "second-app", "application_version": "second-v1"})
    rows(url, "UPDATE workflow_status SET application_version = 'second-v1'")
    assert DBOS._recover_pending_workflows(["test"]) == []
    assert status_row(url, "of-the-first")["status"] == "PENDING"
    # reads by id are never scoped
    assert DBOS.retrieve_workflow("of-the-first").get_status().application_name == "test-app"
    DBOS.destroy()
    rows(url, "UPDATE workflow_status SET application_version = 'v1'")
    launched(config)
    assert DBOS.retrieve_workflow("of-the-first").get_result() == 1


def test_a_version_of_another_application_fails_the_launch_with_both_remedies(
    app: type[DBOS], config: dict[str, Any]
) -> None:
    # 05 R19, R100, 01 R36, 15.2 number 17
    DBOS.destroy()
    DBOS(config={**config, "name": "second-app", "log_level": "CRITICAL"})
    with pytest.raises(DBOSException, match="already registered by application 'test-app'") as raised:
        DBOS.launch()
    assert "application_version" in str(raised.value)
    assert "rename-application" in str(raised.value)


def test_an_unowned_version_is_claimed_and_keeps_its_timestamp(config: dict[str, Any]) -> None:
    # 05 R100, 01 R36
    url = config["system_database_url"]
    DBOS.migrate(url)
    rows(
        url,
        "INSERT INTO application_versions (version_id, version_name, version_timestamp, created_at) "
        "VALUES (%s, 'v1', 1000, 1000)",
        str(uuid.uuid4()),
    )
    launched(config)
    (version,) = DBOS.list_application_versions()
    DBOS.destroy()
    assert (version["application_name"], version["version_timestamp"]) == ("test-app", 1000)


# --- versions


def test_launching_a_known_version_again_does_not_renew_it(
    app: type[DBOS], config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 05 R100, 01 R36, R37, 02 R207
    (first,) = DBOS.list_application_versions()
    relaunch({**config, "application_version": "v2"})
    assert version_names() == ["v2", "v1"]
    assert "but the latest is" not in caplog.text
    relaunch(config)
    assert version_names() == ["v2", "v1"]
    assert "runs application version v1, but the latest is v2" in caplog.text
    assert DBOS.list_application_versions()[1] == first
    assert len(rows(config["system_database_url"], "SELECT 1 AS x FROM application_versions")) == 2


def test_versions_have_the_documented_fields(app: type[DBOS]) -> None:
    # 05 R100, 02 section 20.3
    (version,) = DBOS.list_application_versions()
    assert set(version) == {"version_id", "version_name", "version_timestamp", "created_at", "application_name"}
    assert uuid.UUID(version["version_id"])
    assert version["version_timestamp"] > 1_700_000_000_000
    assert version["created_at"] > 1_700_000_000_000
    assert DBOS.get_latest_application_version() == version


def test_promoting_an_older_version_makes_it_the_latest(app: type[DBOS], config: dict[str, Any]) -> None:
    # 05 R101, 01 R37
    relaunch({**config, "application_version": "v2"})
    DBOS.set_latest_application_version("v1")
    assert DBOS.get_latest_application_version()["version_name"] == "v1"
    assert version_names() == ["v1", "v2"]


async def test_the_async_forms_of_the_version_calls_do_the_same(app: type[DBOS]) -> None:
    # 05 R101
    assert [v["version_name"] for v in await DBOS.list_application_versions_async()] == ["v1"]
    await DBOS.set_latest_application_version_async("v1")
    assert (await DBOS.get_latest_application_version_async())["version_name"] == "v1"


def test_promoting_an_unknown_version_is_an_error_that_lists_the_known_ones(app: type[DBOS]) -> None:
    # 05 R101 in ours, 02 R254, R274: silent elsewhere
    with pytest.raises(DBOSException, match=r"'v9' is not registered.*v1"):
        DBOS.set_latest_application_version("v9")


def test_versions_of_other_applications_are_neither_listed_nor_promoted(
    app: type[DBOS], config: dict[str, Any]
) -> None:
    # 05 R101, 01 R37, R72, 02 R208
    relaunch({**config, "name": "second-app", "application_version": "second-v1"})
    assert version_names() == ["second-v1"]
    with pytest.raises(DBOSException, match="test-app"):
        DBOS.set_latest_application_version("v1")
    DBOS.set_latest_application_version("v1", application_name="test-app")


def test_no_version_at_all_is_an_error_for_the_latest(app: type[DBOS], database_url: str) -> None:
    # 05 R101, 01 3.3
    rows(database_url, "DELETE FROM application_versions")
    assert DBOS.list_application_versions() == []
    with pytest.raises(DBOSException, match="version"):
        DBOS.get_latest_application_version()


def test_work_without_a_version_goes_to_the_latest_only(app: type[DBOS], config: dict[str, Any]) -> None:
    # 05 R102, 01 R38, 02 R206
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> str:
        return DBOS.application_version

    with SetWorkflowID("unversioned"):
        work()
    relaunch({**config, "application_version": "v2"})
    DBOS.destroy()
    make_pending(url, "unversioned")
    rows(
        url,
        "UPDATE workflow_status SET status = 'ENQUEUED', queue_name = '_dbos_internal_queue', "
        "application_version = NULL WHERE workflow_uuid = 'unversioned'",
    )
    launched(config)
    # A younger workflow of its own version goes through the same queue: when it is done, the other was passed over.
    with SetWorkflowID("marker"):
        work()
    rows(url, "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'marker'")
    assert DBOS.resume_workflow("marker").get_result() == "v1"
    assert status_row(url, "unversioned")["status"] == "ENQUEUED"
    relaunch({**config, "application_version": "v2"})
    assert DBOS.retrieve_workflow("unversioned").get_result() == "v2"
    assert status_row(url, "unversioned")["application_version"] == "v2"


def test_a_start_may_carry_another_version(app: type[DBOS], database_url: str) -> None:
    # 02 R47
    gate = threading.Event()

    @DBOS.workflow()
    def work() -> None:
        gate.wait(60)

    with SetWorkflowID("stamped"), SetEnqueueOptions(app_version="v0"):
        handle = DBOS.start_workflow(work)
    assert status_row(database_url, "stamped")["application_version"] == "v0"
    gate.set()
    handle.get_result()


# --- migrating, privileges


def with_credentials(url: str, role: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{host}"))


@pytest.mark.empty_database
def test_migrating_creates_the_database_and_can_be_repeated(database_url: str) -> None:
    # 01 R75
    for _ in range(2):
        DBOS.migrate(database_url)
    run_dbos_database_migrations(database_url)
    assert rows(database_url, "SELECT version FROM dbos_migrations") == [{"version": SCHEMA_VERSION}]


def test_a_restricted_role_runs_the_application_without_migrations() -> None:
    # 01 R76, R77
    url = url_of(new_database_name())
    role = f'app "{uuid.uuid4().hex[:8]}'
    schema = 'Odd "schema"'
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(role)),
        )
    for _ in range(2):  # granting is repeatable
        DBOS.migrate(url, schema=schema, application_role=role)
    restricted = with_credentials(url, role.replace(" ", "%20").replace('"', "%22"), "secret")
    config = {
        "name": "test-app",
        "application_version": "v1",
        "executor_id": "test",
        "log_level": "WARNING",
        "dbos_system_schema": schema,
        "system_database_url": restricted,
    }

    @DBOS.step()
    def step() -> int:
        return 1

    @DBOS.workflow()
    def work() -> int:
        return step() + DBOS.start_workflow(child).get_result()

    @DBOS.workflow()
    def child() -> int:
        return 2

    @DBOS.workflow()
    def sleeps() -> None:
        DBOS.sleep(3600)

    try:
        # with migrations too: the schema is current, so nothing has to be changed
        for run_migrations in (False, True):
            launched({**config, "run_migrations": run_migrations})
            assert work() == 3
            with SetWorkflowID(f"sleeps-{run_migrations}"):
                handle = DBOS.start_workflow(sleeps)
            DBOS.cancel_workflow(handle.workflow_id)
            with pytest.raises(DBOSException, match="cancelled"):
                handle.get_result()
            assert version_names() == ["v1"]
            DBOS.destroy()
        with psycopg.connect(restricted, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute('CREATE TABLE "Odd ""schema""".mine (value text)')
    finally:
        DBOS.destroy()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_restricted_role_cannot_migrate_an_empty_database() -> None:
    # 01 R77
    url = url_of(new_database_name())
    role = f"app_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(role)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(urlsplit(url).path[1:])))
    try:
        DBOS(
            config={
                "name": "test-app",
                "system_database_url": with_credentials(url, role, "secret"),
                "log_level": "CRITICAL",
            }
        )
        with pytest.raises((psycopg.errors.InsufficientPrivilege, DBOSInitializationError)):
            DBOS.launch()
        DBOS.migrate(url)
        rows(url, "SELECT 1 AS x")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, DBOSException)):
            DBOS.launch()
    finally:
        with psycopg.connect(server_url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_sqlite_has_no_roles(tmp_path: Any) -> None:
    # 01 R76: refused before anything is done
    with pytest.raises(DBOSException, match="roles"):
        DBOS.migrate(f"sqlite:///{tmp_path}/a.sqlite", application_role="app")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_migration_script_prints_and_exits_with_one(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    # 01 section 5
    with pytest.raises(SystemExit) as raised:
        run_dbos_database_migrations(f"sqlite:///{tmp_path}/no/such/a.sqlite")
    assert raised.value.code == 1
    assert capsys.readouterr().out.startswith("DBOS migrations failed: ")


def test_a_sharded_database_is_refused() -> None:
    # 01 R74
    with pytest.raises(DBOSInitializationError, match="not supported"):
        DBOS.migrate("postgresql://x/y", sharding=True)
    url = url_of(new_database_name())
    DBOS.migrate(url)
    rows(url, "ALTER TABLE workflow_status ADD COLUMN shard_key text")
    with pytest.raises(DBOSException, match=r"[Ss]harded"):
        DBOS.migrate(url)


def test_migrating_works_in_every_state_and_disturbs_nobody(app: type[DBOS], database_url: str) -> None:
    # 01 R75, R78
    @DBOS.workflow()
    def work() -> int:
        return 1

    handle = DBOS.start_workflow(work)
    DBOS.migrate(database_url)
    assert handle.get_result() == 1
    assert work() == 1
    assert version_names() == ["v1"]
