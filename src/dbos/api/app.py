"""The `DBOS` class: construct, launch, destroy; everything else it offers is defined by topic beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config import DBOSConfig, resolve
from ..database_url import database_name, postgres_conninfo, sqlite_path
from ..engine.context import Identity, current_context, current_workflow_id
from ..engine.operations import misuse
from ..engine.registry import Registry
from ..error import DBOSException, DBOSInitializationError
from ..logs import configure_logging, install_record_attributes, logger, remove_record_attributes
from ..storage.store import StoreUnavailable
from ..types import StepStatus
from . import decorators
from .bulk import BulkCalls
from .calls import WorkflowCalls
from .enqueueing import EnqueueCalls
from .events import EventCalls
from .kafka import KafkaCalls
from .listing import ListingCalls
from .management import ManagementCalls
from .messages import MessageCalls
from .queues import QueueCalls
from .results import ResultCalls
from .runtime import classproperty, in_fresh_thread, state
from .schedules import ScheduleCalls
from .starting import StartCalls
from .steps import StepCalls
from .streams import StreamCalls
from .versions import VersionCalls

if TYPE_CHECKING:
    from ..engine.engine import Engine


class DBOS(
    StartCalls,
    StepCalls,
    WorkflowCalls,
    ResultCalls,
    ListingCalls,
    ManagementCalls,
    VersionCalls,
    EnqueueCalls,
    BulkCalls,
    QueueCalls,
    KafkaCalls,
    ScheduleCalls,
    EventCalls,
    StreamCalls,
    MessageCalls,
):
    """The durable-workflow application of this process.

    Construct it once with its configuration, decorate functions as workflows and steps, then launch:

        DBOS(config={"name": "my-app"})
        DBOS.launch()

    Without a `system_database_url` the state lives in a SQLite file named after the application.

    Args:
        config: See DBOSConfig.
        conductor_url, conductor_key: Accepted for compatibility; a control plane is not supported.

    Raises:
        DBOSInitializationError: the configuration is wrong; the message names the key and the value.
    """

    engine: Engine | None
    listens_to: frozenset[str] | None

    def __new__(
        cls, *, config: DBOSConfig | None, conductor_url: str | None = None, conductor_key: str | None = None
    ) -> DBOS:
        if state.instance is not None:
            if config is not None and config.get("name") != state.instance.settings.name:
                logger.warning(
                    "DBOS is constructed already for application %r; this configuration (%r) is ignored. Call "
                    "DBOS.destroy() first to replace it",
                    state.instance.settings.name,
                    config.get("name"),
                )
            return state.instance
        if config is None:
            raise TypeError("DBOS() needs its configuration: DBOS(config={'name': 'my-app'})")
        instance = super().__new__(cls)
        instance._configure(config, conductor_url, conductor_key)
        state.instance = instance
        return instance

    def __init__(
        self, *, config: DBOSConfig, conductor_url: str | None = None, conductor_key: str | None = None
    ) -> None:
        # All work is in __new__, which returns the instance that exists, if one does.
        pass

    def _configure(self, config: DBOSConfig, conductor_url: str | None, conductor_key: str | None) -> None:
        self.settings = resolve(config, conductor_url=conductor_url, conductor_key=conductor_key)
        self.engine = None
        self.listens_to = None
        _Identity.application_version = self.settings.application_version
        _Identity.executor_id = self.settings.executor_id
        configure_logging(self.settings)
        install_record_attributes(lambda: (_Identity.application_version, _Identity.executor_id), current_workflow_id)
        logger.info("Initializing DBOS (v%s)", _library_version())

    def __repr__(self) -> str:
        return f"DBOS({self.settings.name!r}, {'launched' if self.engine else 'not launched'})"

    # --- life

    @classmethod
    def launch(cls) -> None:
        """Connect to the system database, recover what this executor left pending, and start working.

        The schema is created or upgraded first (unless `run_migrations` is False). Returns before any recovered
        workflow has run. A failed launch leaves nothing behind and may be repeated.

        Raises:
            DBOSException: no DBOS was constructed, or another application owns this application version.
            DBOSInitializationError: the database cannot be used, or its schema is too old.
        """
        instance = state.instance
        if instance is None:
            raise DBOSException("No DBOS was created yet. Construct it with DBOS(config=...) before DBOS.launch().")
        if instance.engine is not None:
            logger.warning("DBOS is launched already; this call has no effect")
            return
        try:
            instance._launch()
        except Exception:
            logger.exception("DBOS failed to launch")
            raise

    def _launch(self) -> None:
        # Only now: importing the package stays quick.
        from ..engine.engine import Engine
        from ..storage.opening import open_store

        settings = self.settings
        version = settings.application_version or state.registry.compute_version(settings.name)
        _Identity.application_version = version
        logger.info("Executor ID: %s", settings.executor_id)
        logger.info("Application version: %s", version)
        store = open_store(settings)
        engine = Engine(settings, state.registry, store, application_version=version, executor_id=settings.executor_id)
        engine.dispatcher.listens_to = self.listens_to
        try:
            store.register_version(version, settings.name, engine.clock.now_ms())
            latest = store.list_versions(settings.name, 1)[0]["version_name"]
            if latest != version:
                logger.warning(
                    "This process runs application version %s, but the latest is %s. Workflows without a version go "
                    "to the latest; promote this one with DBOS.set_latest_application_version",
                    version,
                    latest,
                )
            self.engine = engine
            engine.start()
        except StoreUnavailable as error:
            self.engine = None
            engine.stop(0)
            raise DBOSInitializationError(
                f"The system database {settings.masked_database_url} does not answer: {error}. Launch again when it "
                f"does."
            ) from error
        except BaseException:
            self.engine = None
            engine.stop(0)
            raise
        state.registry.launched = True
        logger.info("DBOS launched!")

    @classmethod
    def destroy(cls, *, destroy_registry: bool = False, workflow_completion_timeout_sec: int = 0) -> None:
        """Stop working and close the database. Harmless without an instance.

        Args:
            destroy_registry: Also forget every decorated function; for tests that decorate in their own body.
            workflow_completion_timeout_sec: How long to let running workflows finish, in seconds, directly called
                ones included. What is cut off stays PENDING and continues at the next launch.
        """
        instance = state.instance
        if instance is not None and instance.engine is not None:
            # New calls meet "no DBOS" or run on; the workflows that run know their engine.
            instance.engine.stop(float(workflow_completion_timeout_sec))
            instance.engine = None
        state.instance = None
        state.registry.launched = False
        if destroy_registry:
            state.registry = Registry()
        if instance is not None:
            logger.info("DBOS successfully shut down")
        remove_record_attributes()

    @classmethod
    async def destroy_async(cls, *, destroy_registry: bool = False, workflow_completion_timeout_sec: int = 0) -> None:
        """As `destroy`, without blocking the event loop: async workflows that run on it can finish meanwhile."""
        await in_fresh_thread(
            lambda: cls.destroy(
                destroy_registry=destroy_registry, workflow_completion_timeout_sec=workflow_completion_timeout_sec
            )
        )

    @staticmethod
    def migrate(
        system_database_url: str,
        *,
        schema: str = "dbos",
        application_role: str | None = None,
        sharding: bool = False,
    ) -> None:
        """Create or upgrade the system database with a privileged role, without launching anything.

        Args:
            system_database_url: The database; it is created when missing.
            schema: The Postgres schema of the system tables.
            application_role: A role that gets the rights an application needs; Postgres only.
            sharding: Not supported.
        """
        from .migration import migrate

        migrate(system_database_url, schema=schema, application_role=application_role, sharding=sharding)

    @classmethod
    def reset_system_database(
        cls, *, system_database_url: str | None = None, schema: str | None = None, truncate: bool = False
    ) -> None:
        """Throw the system database away; for tests.

        Args:
            system_database_url: Default the configured one.
            schema: Default the configured one.
            truncate: True deletes the rows of the library's tables; False drops the database or deletes the file.

        Raises:
            DBOSException: DBOS is launched.
        """
        instance = state.instance
        if instance is not None and instance.engine is not None:
            raise misuse("reset_system_database cannot be called while DBOS is launched. Call DBOS.destroy() first.")
        settings = instance.settings if instance is not None else None
        url = system_database_url or (settings.database_url if settings is not None else None)
        if url is None:
            logger.warning("reset_system_database does nothing: there is no DBOS object, and no URL was given")
            return
        from ..storage.reset import reset_postgres, reset_sqlite

        if url.startswith("sqlite"):
            reset_sqlite(sqlite_path(url), truncate=truncate)
            return
        reset_postgres(
            postgres_conninfo(url),
            database_name(url),
            schema=schema or (settings.schema if settings is not None else "dbos"),
            truncate=truncate,
            connect_kwargs=settings.connect_args if settings is not None else {},
        )

    # --- who runs

    @classproperty
    def logger(cls) -> logging.Logger:
        """The logger of the library, for applications too."""
        return logger

    @classproperty
    def application_version(cls) -> str:
        """The version stamped on the workflows of this process."""
        return _Identity.application_version

    @classproperty
    def executor_id(cls) -> str:
        """The identity of this process."""
        return _Identity.executor_id

    @classproperty
    def workflow_id(cls) -> str | None:
        """The id of the running workflow, in workflow and step code; else None."""
        return current_workflow_id()

    @classproperty
    def step_id(cls) -> int | None:
        """The id of the running step, in step code; else None."""
        status = cls.step_status
        return status.step_id if status is not None else None

    @classproperty
    def step_status(cls) -> StepStatus | None:
        """What the running step may know about itself, in step code; else None."""
        context = current_context()
        return context.step_status if context is not None else None

    @classproperty
    def shard_key(cls) -> str | None:
        """Always None: the system database is not sharded."""
        return None

    @classproperty
    def authenticated_user(cls) -> str | None:
        """The user of the identity in force."""
        return _identity().user

    @classproperty
    def authenticated_roles(cls) -> list[str] | None:
        """The roles of the identity in force."""
        return _identity().roles

    @classproperty
    def assumed_role(cls) -> str | None:
        """The role that the last role check has chosen."""
        return _identity().assumed_role

    @classmethod
    def set_authentication(cls, authenticated_user: str | None, authenticated_roles: list[str] | None) -> None:
        """Change the identity of the innermost DBOSContextSetAuth block, else of the running workflow or step."""
        identity = _identity()
        identity.user = authenticated_user
        identity.roles = None if authenticated_roles is None else list(authenticated_roles)

    # --- by topic

    workflow = staticmethod(decorators.workflow)
    step = staticmethod(decorators.step)
    dbos_class = staticmethod(decorators.dbos_class)
    required_roles = staticmethod(decorators.required_roles)
    default_required_roles = staticmethod(decorators.default_required_roles)

    @classmethod
    def _recover_pending_workflows(cls, executor_ids: Sequence[str] = ("local",)) -> list[Any]:
        """Recovery on demand, for recovery services (02 R157)."""
        from .migration import recover_executors

        return recover_executors(executor_ids)


class _Identity:
    """What `DBOS.application_version` and `DBOS.executor_id` say; the last values stay after destroy."""

    application_version: str = ""
    executor_id: str = "local"


def _identity() -> Identity:
    context = current_context()
    if context is None:
        raise misuse(
            "There is no identity here: call this in a workflow or step, or inside `with DBOSContextSetAuth(...)`"
        )
    return context.identity


def _library_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dbos")
    except PackageNotFoundError:
        return "unknown"
