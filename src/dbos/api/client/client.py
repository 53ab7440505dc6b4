"""`DBOSClient`: connect, check, destroy; everything else it offers is defined by topic beside it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from ...client_config import check_application_name, client_settings
from ...error import DBOSException
from ...serialization import DBOSPortableJSONSerializer, Serializer
from ..runtime import in_fresh_thread
from .applications import ApplicationMethods
from .communication import CommunicationMethods
from .enqueueing import EnqueueMethods
from .management import ManagementMethods
from .queues import QueueMethods
from .schedules import ScheduleMethods
from .session import Session, warn_on_loop
from .workflows import WorkflowMethods

if TYPE_CHECKING:
    from sqlalchemy import Engine


class _DefaultSerializer:
    """Stands for the serializer that applications have by default."""

    def __repr__(self) -> str:
        return "<default pickle serializer>"


DEFAULT_SERIALIZER: Serializer = cast(Any, _DefaultSerializer())


class DBOSClient(
    WorkflowMethods,
    ManagementMethods,
    EnqueueMethods,
    CommunicationMethods,
    QueueMethods,
    ScheduleMethods,
    ApplicationMethods,
):
    """An application's system database, used from another process: enqueue workflows, look at them, manage them.

    It runs no workflows, knows no functions, and neither creates nor migrates the database. Use it as a context manager
    (`with` or `async with`), or call `destroy` at the end:

        with DBOSClient(system_database_url=url, application_name="shop") as client:
            handle = client.enqueue({"workflow_name": "fulfil", "queue_name": "orders"}, order_id)
            print(handle.get_result())

    Its calls belong to no workflow: made in workflow code they are not recorded, and a replay does them again. All
    methods may be called from several threads and event loops. Without retries switched off they wait for a database
    that does not answer.

    Args:
        system_database_url: The database of the application; required unless an engine is given.
        system_database_engine: A SQLAlchemy engine to take the connections from; it is not disposed.
        dbos_system_schema: The Postgres schema of the system tables. Default "dbos".
        serializer: How values are stored; it must be that of the application. Default pickle.
        portable_serializer, unpickle_only: As in the configuration of an application.
        system_database_pool_size: The most connections, at least 2. Default 5.
        system_database_polling_concurrency: The most reads that waiting calls make at a time. Default half of the pool.
        use_listen_notify: Learn at once what other processes do, on a further connection (Postgres). Default False:
            what is waited for is looked at once per `polling_interval_sec`. On SQLite it is seen within milliseconds.
        application_name: Whose workflows, queues and schedules these are: the owner of what the client creates, and by
            default only its own and unowned ones are listed. Default none: what it creates is for any application, and
            everything is listed.
        lazy: Connect at the first call. Default False. In async code True keeps the loop from waiting for it.
        retry_connection_errors: False raises the driver's error when the database does not answer. Default True.
        observability_query_timeout_sec: The longest a listing may take on Postgres, in seconds. Default 30.
        sys_db_idle_transaction_timeout_sec: After this many seconds the server ends a transaction that does nothing; 0
            or less leaves the server's setting. Default 60.
        sharding: Not supported.
        polling_interval_sec: Seconds between looks at what is waited for, where nothing announces it. Default 1.

    Raises:
        DBOSException: there is neither a URL nor an engine, or the arguments contradict each other.
        DBOSInitializationError: there is no system database at this place, it is of an older release, or an argument
            is wrong.
        psycopg.Error: Postgres cannot be reached.
    """

    def __init__(
        self,
        *,
        system_database_url: str | None = None,
        system_database_engine: Engine | None = None,
        dbos_system_schema: str | None = "dbos",
        serializer: Serializer = DEFAULT_SERIALIZER,
        system_database_pool_size: int | None = None,
        system_database_polling_concurrency: int | None = None,
        use_listen_notify: bool = False,
        application_name: str | None = None,
        lazy: bool = False,
        retry_connection_errors: bool = True,
        observability_query_timeout_sec: float | None = None,
        sys_db_idle_transaction_timeout_sec: float | None = None,
        sharding: bool = False,
        polling_interval_sec: float = 1.0,
        portable_serializer: DBOSPortableJSONSerializer | None = None,
        unpickle_only: list[str] | None = None,
    ) -> None:
        if lazy and use_listen_notify:
            raise DBOSException("A lazy DBOSClient cannot listen for notifications. Leave out one of the two")
        settings = client_settings(
            system_database_url=system_database_url,
            system_database_engine=system_database_engine,
            dbos_system_schema=dbos_system_schema,
            serializer=None if serializer is DEFAULT_SERIALIZER else serializer,
            portable_serializer=portable_serializer,
            unpickle_only=unpickle_only,
            system_database_pool_size=system_database_pool_size,
            system_database_polling_concurrency=system_database_polling_concurrency,
            use_listen_notify=use_listen_notify,
            observability_query_timeout_sec=observability_query_timeout_sec,
            sys_db_idle_transaction_timeout_sec=sys_db_idle_transaction_timeout_sec,
            polling_interval_sec=polling_interval_sec,
            sharding=sharding,
        )
        self._session = Session(
            settings,
            check_application_name(application_name),
            retry_connection_errors=retry_connection_errors,
            lazy=lazy,
        )

    def __repr__(self) -> str:
        return f"DBOSClient({self._session.settings.masked_database_url!r})"

    # --- life

    def check_connection(self) -> None:
        """Raise what is wrong with the connection, if anything is; asks once, on a connection of its own.

        Raises:
            psycopg.Error: Postgres cannot be reached.
            DBOSInitializationError, DBOSException: as for the constructor.
        """
        warn_on_loop("check_connection")
        self._check_connection()

    async def check_connection_async(self) -> None:
        """As `check_connection`, from async code."""
        await self._session.in_thread(self._check_connection)

    def _check_connection(self) -> None:
        from ...storage.opening import check_existing

        self._session.check()
        check_existing(self._session.settings)

    def destroy(self) -> None:
        """Close the connections. Calls that wait end with a DBOSException, as do later ones. May be repeated."""
        self._session.destroy()

    async def destroy_async(self) -> None:
        """As `destroy`, from async code."""
        await in_fresh_thread(self._session.destroy)

    def __enter__(self) -> DBOSClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.destroy()

    async def __aenter__(self) -> DBOSClient:
        await self._session.open_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.destroy_async()
