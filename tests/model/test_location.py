"""Passwords are not shown."""

import pytest

from unified_memory.model.errors import SourceError, SourceUnavailableError
from unified_memory.model.location import without_password


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://me:sec@ret/x@host/0", "rediss://me:***@host/0"),
        ("redis://host/0?db=1&password=secret&x=1", "redis://host/0?db=1&password=***&x=1"),
        ("run --store redis://:secret@host/0 --other", "run --store redis://:***@host/0 --other"),
        ("http://host:8080/path", "http://host:8080/path"),
        ("http://host:8080/a:b@c", "http://host:8080/a:b@c"),
        ("/srv/a:b@c/memory.db", "/srv/a:b@c/memory.db"),
    ],
)
def test_a_location_is_shown_without_its_password(location: str, shown: str) -> None:
    assert without_password(location) == shown


@pytest.mark.parametrize("error", [SourceError, SourceUnavailableError])
def test_an_error_of_a_source_does_not_tell_its_password(error: type[SourceError]) -> None:
    told = error("extended-memory-redis", "redis://:secret@host", "It does not answer")
    assert "secret" not in repr(told.facts)
    assert told.facts["location"] == "redis://:***@host"
