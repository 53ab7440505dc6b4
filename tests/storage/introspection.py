"""Read a schema back from a database, in the form of tests/data/schema-125.json."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

Facts = dict[str, Any]

NOW_MS = {
    "((EXTRACT(epoch FROM now()) * 1000.0))::bigint",
    "((EXTRACT(epoch FROM now()) * (1000)::numeric))::bigint",
    "strftime('%s','now') * 1000",
    "unixepoch('subsec') * 1000",
}


def comparable(facts: Facts) -> Facts:
    """What counts when two schemas are compared: not the physical order, not which text says "now"."""

    def plain(column: Facts) -> Facts:
        kept = {key: column.get(key) for key in ("name", "type", "nullable", "default")}
        if column.get("default_kind") == "now_ms" or column["default"] in NOW_MS:
            kept["default"] = "now_ms"
        return kept

    def by_name(rows: list[Facts]) -> list[Facts]:
        return sorted(rows, key=lambda row: (row["name"] or "", row["columns"]))

    tables = {
        name: {
            "columns": sorted((plain(column) for column in table["columns"]), key=lambda column: column["name"]),
            "primary_key": table["primary_key"],
            "unique": by_name(table["unique"]),
            "foreign_keys": by_name(table["foreign_keys"]),
            "checks": table["checks"],
        }
        for name, table in facts["tables"].items()
    }
    functions = {
        name: {key: value for key, value in function.items() if key != "meaning"}
        for name, function in facts["functions"].items()
    }
    triggers = {
        name: {key: value for key, value in trigger.items() if key != "only_with"}
        for name, trigger in facts["triggers"].items()
    }
    return {
        "tables": tables,
        "indexes": facts["indexes"],
        "functions": functions,
        "triggers": triggers,
        "views": facts["views"],
        "initial_rows": facts["initial_rows"],
    }


def read_sqlite(connection: sqlite3.Connection) -> Facts:
    tables: Facts = {}
    indexes: Facts = {}
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    for table in names:
        columns = connection.execute(f'PRAGMA table_xinfo("{table}")').fetchall()
        unique: list[Facts] = []
        for _, index, is_unique, origin, _partial in connection.execute(f'PRAGMA index_list("{table}")').fetchall():
            keys = [row for row in connection.execute(f'PRAGMA index_xinfo("{index}")').fetchall() if row[5]]
            if origin == "u":
                unique.append({"name": None, "columns": [key[2] for key in keys]})
            if origin != "c":
                continue
            sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (index,)).fetchone()[0]
            where = re.search(r"\bWHERE\b(.*)", sql, re.DOTALL)
            indexes[index] = {
                "table": table,
                "unique": bool(is_unique),
                "primary": False,
                "method": "btree",
                "columns": [key[2] for key in keys],
                "descending": [key[2] for key in keys if key[3]],
                "include": [],
                "predicate": " ".join(where[1].split()) if where else None,
            }
        foreign_keys = [
            {
                "name": None,
                "columns": [row[3]],
                "references_table": row[2],
                "references_columns": [row[4]],
                "on_update": row[5],
                "on_delete": row[6],
                "deferrable": False,
            }
            for row in connection.execute(f'PRAGMA foreign_key_list("{table}")')
        ]
        tables[table] = {
            "columns": [{"name": row[1], "type": row[2], "nullable": not row[3], "default": row[4]} for row in columns],
            "primary_key": {
                "name": None,
                "columns": [row[1] for row in sorted(columns, key=lambda row: row[5]) if row[5]],
            },
            "unique": unique,
            "foreign_keys": foreign_keys,
            "checks": [],
        }
    others = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchall()
    versions = [{"version": version} for (version,) in connection.execute("SELECT version FROM dbos_migrations")]
    return {
        "tables": tables,
        "indexes": indexes,
        "functions": {},
        "triggers": {name: {} for kind, name in others if kind == "trigger"},
        "views": [name for kind, name in others if kind == "view"],
        "initial_rows": {"dbos_migrations": versions},
    }


ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def read_postgres(connection: Any, schema: str = "dbos") -> Facts:
    """`connection` is a psycopg connection."""

    def rows(query: str, *parameters: Any) -> list[Any]:
        return list(connection.execute(query, parameters or None).fetchall())

    quoted = '"' + schema.replace('"', '""') + '"'
    tables: Facts = {}
    for oid, table in rows(
        "SELECT c.oid, c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = %s)",
        schema,
    ):
        columns = [
            {"name": name, "type": type_, "nullable": not not_null, "default": default}
            for name, type_, not_null, default in rows(
                "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, "
                "pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a "
                "LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
                "WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                oid,
            )
        ]
        constraints = rows(
            "SELECT k.contype::text, k.conname, "
            "(SELECT array_agg(a.attname::text ORDER BY o) FROM unnest(k.conkey) WITH ORDINALITY AS u(n, o) "
            " JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n), "
            "(SELECT relname FROM pg_class WHERE oid = k.confrelid), "
            "(SELECT array_agg(a.attname::text ORDER BY o) FROM unnest(k.confkey) WITH ORDINALITY AS u(n, o) "
            " JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n), "
            "k.confupdtype::text, k.confdeltype::text, k.condeferrable, pg_get_constraintdef(k.oid) "
            "FROM pg_constraint k WHERE k.conrelid = %s",
            oid,
        )
        tables[table] = {
            "columns": columns,
            "primary_key": next(({"name": k[1], "columns": k[2]} for k in constraints if k[0] == "p"), None),
            "unique": [{"name": k[1], "columns": k[2]} for k in constraints if k[0] == "u"],
            "foreign_keys": [
                {
                    "name": k[1],
                    "columns": k[2],
                    "references_table": k[3],
                    "references_columns": k[4],
                    "on_update": ACTIONS[k[5]],
                    "on_delete": ACTIONS[k[6]],
                    "deferrable": k[7],
                }
                for k in constraints
                if k[0] == "f"
            ],
            "checks": [k[8] for k in constraints if k[0] == "c"],
        }
    return {
        "tables": tables,
        "indexes": _postgres_indexes(rows, schema),
        "functions": _postgres_functions(rows, schema),
        "triggers": _postgres_triggers(rows, schema),
        "views": [name for (name,) in rows("SELECT viewname FROM pg_views WHERE schemaname = %s", schema)],
        "initial_rows": {
            "dbos_migrations": [
                {"version": version} for (version,) in rows(f"SELECT version FROM {quoted}.dbos_migrations")
            ]
        },
    }


def _postgres_indexes(rows: Any, schema: str) -> Facts:
    indexes: Facts = {}
    for name, table, unique, primary, method, keys, descending, include, predicate, valid in rows(
        "SELECT c.relname, t.relname, i.indisunique, i.indisprimary, m.amname, "
        "(SELECT array_agg(pg_get_indexdef(i.indexrelid, n, true) ORDER BY n) "
        "   FROM generate_series(1, i.indnkeyatts) n), "
        "(SELECT array_agg(pg_get_indexdef(i.indexrelid, n, true) ORDER BY n) "
        "   FROM generate_series(1, i.indnkeyatts) n WHERE i.indoption[n - 1] & 1 = 1), "
        "(SELECT array_agg(pg_get_indexdef(i.indexrelid, n, true) ORDER BY n) "
        "   FROM generate_series(i.indnkeyatts + 1, i.indnatts) n), "
        "pg_get_expr(i.indpred, i.indrelid), i.indisvalid "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid "
        "JOIN pg_am m ON m.oid = c.relam JOIN pg_namespace s ON s.oid = t.relnamespace WHERE s.nspname = %s",
        schema,
    ):
        assert valid, f"index {name} is INVALID"
        indexes[name] = {
            "table": table,
            "unique": unique,
            "primary": primary,
            "method": method,
            "columns": [key.strip('"') for key in keys],
            "descending": descending or [],
            "include": include or [],
            "predicate": predicate,
        }
    return indexes


def _postgres_functions(rows: Any, schema: str) -> Facts:
    functions: Facts = {}
    for oid, name, count, defaults, returns, language, volatility, strict, definer, settings in rows(
        "SELECT p.oid, p.proname, p.pronargs, p.pronargdefaults, format_type(p.prorettype, NULL), l.lanname, "
        "p.provolatile::text, p.proisstrict, p.prosecdef, p.proconfig "
        "FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = "
        "p.pronamespace WHERE n.nspname = %s",
        schema,
    ):
        assert name not in functions, f"two functions are named {name}"
        arguments = rows(
            "SELECT p.proargnames[k], format_type(p.proargtypes[k - 1], NULL), "
            "pg_get_function_arg_default(p.oid, k) FROM pg_proc p, generate_series(1, p.pronargs) k "
            "WHERE p.oid = %s ORDER BY k",
            oid,
        )
        functions[name] = {
            "arguments": [
                {"name": arg, "type": type_, "default": default, "has_default": number >= count - defaults}
                for number, (arg, type_, default) in enumerate(arguments)
            ],
            "returns": returns,
            "language": language,
            "volatility": {"v": "volatile", "s": "stable", "i": "immutable"}[volatility],
            "strict": strict,
            "security_definer": definer,
            "settings": settings,
        }
    return functions


def _postgres_triggers(rows: Any, schema: str) -> Facts:
    triggers: Facts = {}
    for name, table, kind, function, condition in rows(
        "SELECT g.tgname, t.relname, g.tgtype, p.proname, pg_get_expr(g.tgqual, g.tgrelid) FROM pg_trigger g "
        "JOIN pg_class t ON t.oid = g.tgrelid JOIN pg_proc p ON p.oid = g.tgfoid "
        "JOIN pg_namespace s ON s.oid = t.relnamespace WHERE s.nspname = %s AND NOT g.tgisinternal",
        schema,
    ):
        triggers[name] = {
            "table": table,
            "timing": "BEFORE" if kind & 2 else "INSTEAD OF" if kind & 64 else "AFTER",
            "events": [
                event for bit, event in ((4, "INSERT"), (8, "DELETE"), (16, "UPDATE"), (32, "TRUNCATE")) if kind & bit
            ],
            "for_each": "ROW" if kind & 1 else "STATEMENT",
            "function": function,
            "condition": condition,
        }
    return triggers
