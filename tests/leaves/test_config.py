"""Configuration: defaults, precedence, and what is refused."""

import json
import math
import pickle
import typing
from pathlib import Path

import pytest

from dbos.config import DBOSConfig, resolve
from dbos.error import DBOSInitializationError
from dbos.serialization import DBOSPortableJSONSerializer

SURFACE = json.loads((Path(__file__).parent.parent / "data" / "surface-3.4.0.json").read_text())
POSTGRES = "postgresql://u:secret@h/d"


def settings(environ=None, **config):
    return resolve({"name": "my-app", **config}, environ=environ or {})


def refusal(kind=DBOSInitializationError, environ=None, **config) -> str:
    with pytest.raises(kind) as caught:
        settings(environ, **config)
    assert isinstance(caught.value, DBOSInitializationError)
    assert caught.value.dbos_error_code == 3
    return str(caught.value)


# --- keys


def test_the_keys_are_the_published_ones_and_none_is_required():
    ours = {"portable_serializer", "unpickle_only"}
    assert set(DBOSConfig.__annotations__) - ours == set(SURFACE["typed_dicts"]["DBOSConfig"]["keys"])
    assert DBOSConfig.__required_keys__ == frozenset()


def test_the_annotations_can_be_evaluated_without_optional_packages():
    assert typing.get_type_hints(DBOSConfig)["name"] is str


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    assert "Did you mean system_database_url?" in refusal(sytem_database_url="x")


def test_an_unknown_key_that_resembles_none_is_refused_with_all_known_ones():
    assert "executor_id" in refusal(zzz=None)


@pytest.mark.parametrize("key", ["database_url", "application_database_url"])
def test_a_removed_key_points_to_its_successor_unless_it_is_empty(key):
    assert "system_database_url" in refusal(**{key: "postgresql://h/d"})
    assert settings(**{key: None}) == settings(**{key: ""}) == settings()


@pytest.mark.parametrize("key", [key for key in DBOSConfig.__annotations__ if key != "name"])
def test_none_is_as_good_as_absent(key):
    assert settings(**{key: None}) == settings()


WRONG = {
    "name": 5,
    "otlp_traces_endpoints": "http://h",
    "otlp_logs_endpoints": [1],
    "otlp_attributes": {"a": None},
}


@pytest.mark.parametrize("key", DBOSConfig.__annotations__)
def test_a_wrong_type_is_a_type_error_that_names_the_key(key):
    assert key in refusal(TypeError, **{key: WRONG.get(key, b"x")})


@pytest.mark.parametrize(
    "key",
    [
        "sys_db_pool_size",
        "max_executor_threads",
        "notification_coalesce_sec",
        "scheduler_polling_interval_sec",
    ],
)
def test_true_is_not_a_number(key):
    assert "bool" in refusal(TypeError, **{key: True})


@pytest.mark.parametrize("config", [None, "my-app", [("name", "my-app")]])
def test_a_configuration_that_is_no_mapping_is_a_type_error(config):
    with pytest.raises(TypeError, match="DBOSConfig"):
        resolve(config)


def test_a_secret_of_the_wrong_type_is_not_shown():
    assert "hunter2" not in refusal(TypeError, conductor_key=b"hunter2")
    assert "hunter2" not in refusal(TypeError, db_engine_kwargs=["hunter2"])


# --- names


@pytest.mark.parametrize("name", ["abc", "my-app_2", "a" * 256, "9abc"])
def test_a_good_name_is_kept(name):
    assert settings(name=name).name == name


@pytest.mark.parametrize("name", ["ab", "a" * 257, "My-app", "my app", "my-app\n", "äpp", ""])
def test_a_bad_name_is_refused_with_the_rule(name):
    assert "3 to 256 characters" in refusal(name=name)


def test_a_missing_name_is_refused():
    with pytest.raises(DBOSInitializationError, match="name"):
        resolve({}, environ={})


# --- database


def test_without_url_the_state_is_in_a_file_named_after_the_application():
    assert settings().database_url == settings(system_database_url="").database_url == "sqlite:///my_app.sqlite"
    assert settings().backend == "sqlite"


def test_the_connection_variable_is_not_read_from_the_environment():
    assert settings({"DBOS_SYSTEM_DATABASE_URL": POSTGRES}).backend == "sqlite"


def test_a_postgres_url_must_name_a_database():
    assert "Database name must be specified" in refusal(system_database_url="postgresql://h")


def test_postgres_defaults():
    value = settings(system_database_url=POSTGRES)
    assert value.backend == "postgres"
    assert (value.schema, value.pool_size, value.polling_concurrency, value.pool_timeout_seconds) == (
        "dbos",
        20,
        10,
        30,
    )
    assert value.connect_args == {"application_name": "dbos_transact", "connect_timeout": 10}
    assert (value.idle_transaction_timeout_seconds, value.observability_query_timeout_seconds) == (60, 30)
    assert value.use_listen_notify
    assert value.run_migrations


def test_sqlite_has_no_notifications_and_no_postgres_parameters():
    value = settings(use_listen_notify=True, db_engine_kwargs={"connect_args": {"connect_timeout": 3, "timeout": 1}})
    assert not value.use_listen_notify
    assert value.connect_args == {"timeout": 1}
    assert value.idle_transaction_timeout_seconds is None


def test_engine_parameters_are_merged_and_the_dictionary_of_the_user_stays_as_it_was():
    kwargs = {"pool_size": 7, "pool_timeout": 5, "connect_args": {"sslmode": "require"}}
    before = json.dumps(kwargs)
    value = settings(system_database_url=POSTGRES, db_engine_kwargs=kwargs)
    assert (value.pool_size, value.pool_timeout_seconds) == (7, 5)
    assert value.connect_args == {
        "sslmode": "require",
        "application_name": "dbos_transact",
        "connect_timeout": 10,
    }
    assert value.engine_kwargs["max_overflow"] == 0
    assert json.dumps(kwargs) == before


def test_the_pool_size_key_wins_over_the_engine_parameters():
    value = settings(system_database_url=POSTGRES, sys_db_pool_size=4, db_engine_kwargs={"pool_size": 7})
    assert (value.pool_size, value.engine_kwargs["pool_size"], value.polling_concurrency) == (4, 4, 2)


@pytest.mark.parametrize("size", [1, 0, -1])
def test_a_postgres_pool_needs_two_connections(size):
    message = refusal(system_database_url=POSTGRES, sys_db_pool_size=size)
    assert "at least 2" in message
    assert "at least 2" in refusal(system_database_url=POSTGRES, db_engine_kwargs={"pool_size": size})


def test_a_pool_of_one_is_enough_for_sqlite():
    assert settings(sys_db_pool_size=1).polling_concurrency == 1


@pytest.mark.parametrize("kwargs", [{"pool_size": "7"}, {"pool_timeout": "x"}, {"connect_args": 1}])
def test_engine_parameters_of_the_wrong_type_are_type_errors(kwargs):
    assert next(iter(kwargs)) in refusal(TypeError, system_database_url=POSTGRES, db_engine_kwargs=kwargs)


def test_without_a_pool_the_pool_defaults_are_left_out():
    null_pool = type("NullPool", (), {})
    value = settings(system_database_url=POSTGRES, db_engine_kwargs={"poolclass": null_pool})
    assert set(value.engine_kwargs) == {"poolclass", "connect_args"}
    assert value.pool_size == 20


def test_engine_parameters_without_effect_are_named_in_a_warning():
    value = settings(system_database_url=POSTGRES, db_engine_kwargs={"echo": True, "pool_size": 3})
    assert len(value.warnings) == 1
    assert "echo" in value.warnings[0]
    assert "pool_size" not in value.warnings[0]


@pytest.mark.parametrize(("query", "seconds"), [("25", 25), ("0", 10), ("x", 10), ("", 10)])
def test_a_connect_timeout_in_the_url_counts_if_it_is_a_number(query, seconds):
    value = settings(system_database_url=f"{POSTGRES}?connect_timeout={query}")
    assert value.connect_args["connect_timeout"] == seconds


def test_connect_arguments_win_over_the_url():
    url = f"{POSTGRES}?connect_timeout=25"
    value = settings(system_database_url=url, db_engine_kwargs={"connect_args": {"connect_timeout": 3}})
    assert value.connect_args["connect_timeout"] == 3


def test_a_connect_timeout_given_twice_is_refused_without_showing_the_password():
    url = f"{POSTGRES}?connect_timeout=1&connect_timeout=2"
    assert "secret" not in refusal(AssertionError, system_database_url=url)


def test_an_application_name_in_the_url_is_kept():
    value = settings(system_database_url=f"{POSTGRES}?application_name=mine")
    assert "application_name" not in value.connect_args


@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_zero_and_less_switch_limits_off(value):
    resolved = settings(
        system_database_url=POSTGRES,
        sys_db_idle_transaction_timeout_sec=value,
        observability_query_timeout_sec=value,
        sys_db_polling_concurrency=int(value) or -1,
    )
    assert resolved.idle_transaction_timeout_seconds is None
    assert resolved.observability_query_timeout_seconds is None
    assert resolved.polling_concurrency is None


def test_an_idle_timeout_that_the_user_sets_for_the_server_is_left_alone():
    option = "-c idle_in_transaction_session_timeout=5"
    by_arguments = {"connect_args": {"options": option}}
    by_url = f"{POSTGRES}?options={option.replace(' ', '%20')}"
    assert (
        settings(system_database_url=POSTGRES, db_engine_kwargs=by_arguments).idle_transaction_timeout_seconds is None
    )
    assert settings(system_database_url=by_url).idle_transaction_timeout_seconds is None


@pytest.mark.parametrize("schema", ["dbos2", 'odd "name"', "%s"])
def test_any_schema_name_is_accepted(schema):
    assert settings(dbos_system_schema=schema).schema == schema


@pytest.mark.parametrize("schema", ["", "a\0"])
def test_a_schema_that_cannot_exist_is_refused(schema):
    assert "dbos_system_schema" in refusal(dbos_system_schema=schema)


def test_cockroachdb_needs_polling():
    url = "cockroachdb://h/d"
    assert "use_listen_notify=False" in refusal(system_database_url=url)
    assert not settings(system_database_url=url, use_listen_notify=False).use_listen_notify


class FakeEngine:
    """What this module looks at in a SQLAlchemy engine."""

    class dialect:
        name = "postgresql"

    class pool:
        @staticmethod
        def size():
            return 6

    class url:
        @staticmethod
        def render_as_string(hide_password):
            return "postgresql+psycopg://u:***@h/d" if hide_password else "postgresql+psycopg://u:secret@h/d"

    def connect(self):
        raise NotImplementedError


def test_an_engine_decides_backend_and_pool_size_when_there_is_no_url():
    engine = FakeEngine()
    value = settings(system_database_engine=engine)
    assert value.engine is engine
    assert (value.backend, value.pool_size, value.polling_concurrency) == ("postgres", 6, 3)
    assert value.database_url == "postgresql+psycopg://u:secret@h/d"
    assert (value.connect_args, value.idle_transaction_timeout_seconds) == ({}, None)


def test_beside_an_engine_the_url_decides_the_backend():
    assert settings(system_database_engine=FakeEngine(), system_database_url="sqlite://").backend == "sqlite"


def test_an_async_engine_is_refused():
    engine = FakeEngine()
    engine.sync_engine = None
    assert "AsyncEngine" in refusal(TypeError, system_database_engine=engine)


def test_the_repr_shows_no_password():
    value = settings(system_database_url=POSTGRES, db_engine_kwargs={"connect_args": {"password": "secret"}})
    assert "secret" not in repr(value)
    assert value.masked_database_url == "postgresql://u:***@h/d"


# --- numbers


INTERVALS = (
    "notification_listener_polling_interval_sec",
    "notification_coalesce_sec",
    "kafka_queue_polling_interval_sec",
)


@pytest.mark.parametrize("value", [0, -1.0, 0.0009, math.nan, math.inf])
@pytest.mark.parametrize("key", INTERVALS)
def test_an_interval_out_of_range_is_refused_with_key_and_value(key, value):
    message = refusal(**{key: value})
    assert key in message
    assert repr(value) in message


@pytest.mark.parametrize("key", INTERVALS)
def test_the_shortest_interval_is_accepted(key):
    assert settings(**{key: 0.001}) != settings()


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 0.0001])
def test_a_scheduler_interval_out_of_range_is_refused(value):
    assert "scheduler_polling_interval_sec" in refusal(scheduler_polling_interval_sec=value)


def test_a_scheduler_interval_of_zero_is_the_default():
    assert settings(scheduler_polling_interval_sec=0).scheduler_polling_interval_seconds == 30
    assert settings(scheduler_polling_interval_sec=2).scheduler_polling_interval_seconds == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["sys_db_idle_transaction_timeout_sec", "observability_query_timeout_sec"])
def test_a_timeout_that_is_not_finite_is_refused(key, value):
    assert key in refusal(**{key: value})


def test_threads_are_unlimited_by_default_and_never_negative():
    assert settings().max_executor_threads is None
    assert settings(max_executor_threads=0).max_executor_threads is None
    assert settings(max_executor_threads=3).max_executor_threads == 3
    assert "max_executor_threads" in refusal(ValueError, max_executor_threads=-1)


# --- identity


@pytest.mark.parametrize(
    ("environ", "config", "version"),
    [
        ({}, {}, ""),
        ({"DBOS__APPVERSION": "env"}, {}, "env"),
        ({"DBOS__APPVERSION": "env"}, {"enable_patching": True}, "PATCHING_ENABLED"),
        ({"DBOS__APPVERSION": "env"}, {"enable_patching": True, "application_version": "mine"}, "mine"),
        ({"DBOS__APPVERSION": "env"}, {"application_version": ""}, ""),
        ({"DBOS__APPVERSION": "env"}, {"application_version": None}, "env"),
    ],
)
def test_the_version_comes_from_the_key_then_patching_then_the_environment(environ, config, version):
    assert settings(environ, **config).application_version == version


@pytest.mark.parametrize(
    ("environ", "config", "executor"),
    [
        ({}, {}, "local"),
        ({"DBOS__VMID": ""}, {}, "local"),
        ({"DBOS__VMID": "vm"}, {}, "vm"),
        ({"DBOS__VMID": "vm"}, {"executor_id": "mine"}, "mine"),
        ({"DBOS__VMID": "vm"}, {"executor_id": ""}, ""),
    ],
)
def test_the_executor_id_comes_from_the_key_then_the_environment(environ, config, executor):
    assert settings(environ, **config).executor_id == executor


@pytest.mark.parametrize("key", ["application_version", "executor_id"])
def test_an_identity_that_cannot_be_stored_is_refused(key):
    assert key in refusal(**{key: "a\0b"})


def test_the_application_id_comes_from_the_environment():
    assert settings().app_id == ""
    assert settings({"DBOS__APPID": "app"}).app_id == "app"


# --- logs, traces, serializer


def test_the_levels_follow_the_first_one():
    value = settings(log_level="WARNING")
    assert (value.log_level, value.console_log_level, value.otlp_log_level) == ("WARNING",) * 3
    assert settings(log_level="").log_level == "INFO"
    assert settings(console_log_level="ERROR").console_log_level == "ERROR"


@pytest.mark.parametrize("key", ["log_level", "console_log_level", "otlp_log_level"])
@pytest.mark.parametrize("level", ["info", "VERBOSE"])
def test_an_unknown_level_is_a_value_error(key, level):
    message = refusal(ValueError, **{key: level})
    assert key in message
    assert level in message


def test_telemetry_keys_are_kept():
    value = settings(
        enable_otlp=True,
        otlp_traces_endpoints=["http://t"],
        otlp_logs_endpoints=["http://l"],
        otlp_attributes={"team": "x"},
        otel_attribute_format="semconv",
    )
    assert value.enable_otlp
    assert (value.otlp_traces_endpoints, value.otlp_logs_endpoints) == (("http://t",), ("http://l",))
    assert (value.otlp_attributes, value.otel_attribute_format) == ({"team": "x"}, "semconv")


def test_an_unknown_attribute_format_is_refused():
    assert "semconv" in refusal(ValueError, otel_attribute_format="modern")


def test_a_serializer_is_an_instance():
    serializer = DBOSPortableJSONSerializer()
    assert settings(serializer=serializer).serializer is serializer
    assert "instance" in refusal(TypeError, serializer=DBOSPortableJSONSerializer)


# --- what is not offered


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conductor_key", "k"),
        ("conductor_url", "wss://h"),
        ("conductor_executor_metadata", {"a": 1}),
        ("conductor_metadata_only_mode", True),
        ("transact_enterprise_key", "k"),
        ("sharding", True),
        ("auto_upgrade_interval_sec", 5.0),
        ("auto_upgrade_grace_sec", 5.0),
    ],
)
def test_a_key_of_the_licensed_product_is_refused_by_name(key, value):
    message = refusal(**{key: value})
    assert "not supported by this implementation" in message
    assert key in message


def test_keys_of_the_licensed_product_that_switch_nothing_on_are_accepted():
    off = {
        "conductor_key": "",
        "sharding": False,
        "conductor_metadata_only_mode": False,
        "auto_upgrade_grace_sec": 0.0,
    }
    assert settings(**off) == settings()


def test_the_control_plane_arguments_are_refused_like_the_keys():
    with pytest.raises(DBOSInitializationError, match="conductor_key, conductor_url"):
        resolve({"name": "my-app"}, conductor_url="u", conductor_key="k", environ={})


def test_a_key_wins_over_the_control_plane_argument():
    config: DBOSConfig = {"name": "my-app", "conductor_key": ""}
    assert resolve(config, conductor_key="k", environ={}) == settings()


def test_automatic_upgrade_is_accepted_with_one_warning():
    value = settings(auto_upgrade=True)
    assert value.auto_upgrade
    assert len(value.warnings) == 1
    assert "auto_upgrade" in value.warnings[0]


def test_the_patching_flag_gives_a_deprecation_warning():
    assert "deprecated" in settings(enable_patching=True).warnings[0]


def test_a_plain_configuration_warns_about_nothing():
    assert settings().warnings == settings(system_database_url=POSTGRES).warnings == ()


def test_the_hosted_platform_is_refused():
    assert "DBOS__CLOUD" in refusal(environ={"DBOS__CLOUD": "true"})
    assert settings({"DBOS__CLOUD": "false"}) == settings()


def test_a_refusal_survives_pickling():
    with pytest.raises(DBOSInitializationError) as caught:
        settings(max_executor_threads=-1)
    restored = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(restored, ValueError)
    assert str(restored) == str(caught.value)
