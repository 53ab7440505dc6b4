"""A database made by one implementation is the other's as well."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from interop.conftest import Databases, Side
from interop.program_ids import CHILD_IDS, HOLDING_IDS
from tests.databases import path_of
from tests.storage.introspection import comparable, read_postgres, read_sqlite
