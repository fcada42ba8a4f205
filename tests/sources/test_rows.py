"""Columns as other programs fill them."""

from typing import Any

import apsw
import pytest

from unified_memory.model.clock import SECOND, from_rfc3339
from unified_memory.sources.rows import MILLISECONDS, SECONDS, Row, Table, instant, parsed, rows

THINGS = Table(
    "things",
    "SELECT rowid, * FROM things WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM things WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM things",
)


@pytest.mark.parametrize(
    ("cell", "unit", "expected"),
    [
        ("2026-01-02 03:04:05", SECONDS, from_rfc3339("2026-01-02T03:04:05Z")),
        ("2026-01-02T03:04:05.250+01:00", SECONDS, from_rfc3339("2026-01-02T02:04:05.25Z")),
        (1_700_000_000, SECONDS, 1_700_000_000 * SECOND),
        (1_700_000_000_123, MILLISECONDS, 1_700_000_000_123_000),
        (1.5, SECONDS, 1_500_000),
        ("yesterday", SECONDS, None),
        (float("nan"), SECONDS, None),
        (float("inf"), SECONDS, None),
        (2**62, SECONDS, None),
        (True, SECONDS, None),
        (None, SECONDS, None),
    ],
)
def test_instants(cell: Any, unit: int, expected: int | None) -> None:
    assert instant(cell, unit) == expected


@pytest.mark.parametrize("text", ["no JSON", "[1", "1" * 30, "[" * 5000 + "]" * 5000, '"\\ud800"'])
def test_what_no_metadata_can_hold_stays_a_text(text: str) -> None:
    assert parsed(text) == text


def test_json_is_parsed() -> None:
    assert parsed('{"a": [1, null]}') == {"a": [1, None]}


def test_rows_of_any_columns_page_by_page() -> None:
    connection = apsw.Connection(":memory:")
    assert list(rows(connection, THINGS)) == []
    connection.execute("CREATE TABLE things (name TEXT PRIMARY KEY, size INTEGER, twice AS (size * 2))")
    connection.executemany("INSERT INTO things VALUES (?, ?)", [(f"n{number}", number) for number in range(1200)])
    found = list(rows(connection, THINGS))
    assert [row["name"] for row in found] == [f"n{number}" for number in range(1200)]
    assert (found[7]["twice"], found[7]["colour"]) == (14, None)


def test_a_text_that_is_no_utf8_is_its_bytes() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(
        "CREATE TABLE things (name TEXT, size INTEGER, note TEXT);"
        "INSERT INTO things VALUES ('a', 1, NULL), (CAST(x'FF' AS TEXT), 2, 'Ü'), ('c', 3, NULL)"
    )
    found: list[Row] = list(rows(connection, THINGS))
    assert [row["name"] for row in found] == ["a", b"\xff", "c"]
    assert found[1]["note"] == "Ü"
    assert found[1].binary() == ["name"]
