"""What a results database is made of, for the audit: columns and keys of its tables, and whatever else is in it."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any, TypeAlias

import sqlalchemy as sa

from harness.results import tables

Object: TypeAlias = tuple[str, str, str]
"""Kind (table, index, trigger, view), name, and the table that it belongs to."""

_IN_SQLITE = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_IN_POSTGRESQL = """
SELECT 'trigger', t.tgname, c.relname, pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace
UNION ALL SELECT 'view', relname, relname, pg_get_viewdef(oid) FROM pg_class
 WHERE relkind IN ('v', 'm') AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT 'rule', rulename, tablename, definition FROM pg_rules WHERE schemaname = current_schema()
"""


def shape(connection: sa.Connection) -> dict[str, Any]:
    """Columns, keys and references of all tables, for comparison; what SQLAlchemy cannot make out is left out."""
    inspector = sa.inspect(connection)
    with warnings.catch_warnings(action="ignore", category=sa.exc.SAWarning):
        return {name: _definition(inspector, name) for name in inspector.get_table_names()}


def objects(connection: sa.Connection) -> dict[Object, str]:
    """Everything that SQLite keeps in `sqlite_master`, with the text that made it, spaces and quotes aside.

    A trigger changes what is written, and a view what is read; neither is in `shape`. The planner's statistics, which
    ``ANALYZE`` makes, are left out. Of PostgreSQL, triggers, views and rules.
    """
    query = _IN_POSTGRESQL if connection.dialect.name == "postgresql" else _IN_SQLITE
    rows = connection.exec_driver_sql(query)
    found = {(str(kind), str(name), str(table)): _plain(sql) for kind, name, table, sql in rows}
    return {each: sql for each, sql in found.items() if not each[1].startswith("sqlite_stat")}


@cache
def wanted(version: int = tables.SCHEMA) -> tuple[dict[str, Any], dict[Object, str]]:
    """`shape` and `objects` of a database as a version made it."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        for added, table in tables.LATER.items():
            if added > version:
                table.drop(connection)
        made = shape(connection), objects(connection)
    engine.dispose()
    return made


def _definition(inspector: sa.Inspector, name: str) -> dict[str, Any]:
    return {
        "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
        "key": inspector.get_pk_constraint(name)["constrained_columns"],
        "unique": sorted(u["column_names"] for u in inspector.get_unique_constraints(name)),
        "references": sorted(
            (f["constrained_columns"], f["referred_table"], f["referred_columns"])
            for f in inspector.get_foreign_keys(name)
        ),
        "indexes": sorted((i["name"] or "", i["column_names"]) for i in inspector.get_indexes(name)),
    }


def _plain(sql: object) -> str:
    return re.sub(r"[\s\"]+", "", str(sql or "")).lower()
