"""The spool by itself: what is kept, in which order, within which limits, and whose turn it is."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from unified_memory.client import Spool, SpoolError, SpoolFullError, protocol
from unified_memory.client.errors import EntryNotFoundError
from unified_memory.client.protocol import Call
from unified_memory.client.resilience import with_key
from unified_memory.client.spool import KEY_SECONDS, LEASE_SECONDS
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import ConflictError


def write(key: str = "k", value: Any = 1, namespace: str = "demo") -> Call[Any]:
    return with_key(protocol.store(key, value, namespace))


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def spool(tmp_path: Path, clock: SettableClock) -> Iterator[Spool]:
    with Spool(tmp_path / "spool.db", max_entries=5, max_bytes=4096, clock=clock) as made:
        yield made


def test_a_write_is_kept_byte_for_byte(spool: Spool, clock: SettableClock) -> None:
    call = with_key(protocol.store("a/ü", {"big": 2**70, "f": 1.5}, "demo", metadata={"tags": ["x"]}))
    entry = spool.add("store", call)
    assert spool.get(entry.id) == entry
    again = entry.call
    assert (again.method, again.target, again.headers, again.content) == (
        call.method,
        call.target,
        call.headers,
        call.content,
    )
    assert entry.body["value"] == {"big": 2**70, "f": 1.5}
    assert (entry.made_at, entry.state, entry.in_fallback, entry.error) == (clock.now(), "waiting", False, None)


def test_writes_are_there_in_order_when_it_is_opened_again(spool: Spool) -> None:
    for key in ("b", "a", "b"):
        spool.add("store", write(key))
    with Spool(spool.path) as other:
        assert [entry.key for entry in other.entries("waiting")] == ["b", "a", "b"]
        assert [entry.id for entry in other.waiting(("demo", "b"))] == [1, 3]
        assert other.waits(("demo", "a"))
        assert not other.waits(("elsewhere", "a"))


def test_it_is_for_its_owner_only(spool: Spool) -> None:
    spool.add("store", write())
    for name in ("spool.db", "spool.db-wal", "spool.db-shm"):
        assert stat.S_IMODE((spool.path.parent / name).stat().st_mode) == 0o600


def test_a_full_spool_refuses_with_its_limits(spool: Spool) -> None:
    for _ in range(5):
        spool.add("store", write())
    with pytest.raises(SpoolFullError) as told:
        spool.add("store", write())
    assert told.value.facts["entries"] == told.value.facts["max_entries"] == 5
    assert "5 writes of 5" in told.value.detail
    assert spool.totals().waiting == 5


def test_bytes_are_bounded_and_freed(spool: Spool) -> None:
    entry = spool.add("store", write(value="x" * 3000))
    with pytest.raises(SpoolFullError) as told:
        spool.add("store", write(value="x" * 3000))
    assert told.value.facts["bytes"] == spool.totals().bytes > 3000
    spool.done(entry, 1, "me")
    assert spool.totals().bytes == 0
    spool.add("store", write(value="x" * 3000))


def test_one_holder_has_the_turn_until_it_gives_it_back(spool: Spool, clock: SettableClock) -> None:
    with Spool(spool.path, clock=clock) as other:
        assert spool.take("one")
        assert spool.take("one")
        assert not other.take("two")
        other.release("two")
        assert not other.take("two")
        spool.release("one")
        assert other.take("two")


def test_a_turn_that_is_not_used_lapses(spool: Spool, clock: SettableClock) -> None:
    assert spool.take("one")
    clock.advance(LEASE_SECONDS / 2)
    spool.done(spool.add("store", write()), 1, "one")
    clock.advance(LEASE_SECONDS - 1)
    assert not spool.take("two")
    clock.advance(2)
    assert spool.take("two")


def test_a_process_that_is_gone_has_no_turn(spool: Spool) -> None:
    code = f"import sys; from unified_memory.client import Spool; assert Spool({str(spool.path)!r}).take('gone')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert spool.take("one")


def test_what_failed_is_set_aside_and_may_wait_again(spool: Spool) -> None:
    first, second = spool.add("store", write()), spool.add("store", write())
    spool.fail(first, ConflictError("No", hint="why", n=1), "me")
    assert [entry.id for entry in spool.waiting(("demo", "k"))] == [second.id]
    (failed,) = spool.entries("failed")
    assert failed.error == {"code": "conflict", "detail": "No", "hint": "why", "facts": {"n": 1}}
    assert (spool.totals().waiting, spool.totals().failed) == (1, 1)
    assert spool.retry() == 1
    assert [entry.id for entry in spool.entries("waiting")] == [first.id, second.id]


def test_a_write_can_be_dropped_once(spool: Spool) -> None:
    entry = spool.add("store", write())
    assert spool.drop(entry.id) == entry
    with pytest.raises(EntryNotFoundError):
        spool.drop(entry.id)


def test_a_key_that_the_service_may_have_forgotten_is_outdated(spool: Spool, clock: SettableClock) -> None:
    entry = spool.add("store", write())
    clock.advance(KEY_SECONDS)
    assert not spool.outdated(entry)
    clock.advance(1)
    assert spool.outdated(entry)
    assert not spool.outdated(spool.rekey(entry, write()))


def test_the_version_of_the_last_write_is_known_while_others_wait(spool: Spool) -> None:
    first, second = spool.add("store", write()), spool.add("store", write())
    spool.done(first, 7, "me")
    assert spool.written(("demo", "k")) == 7
    spool.done(second, 8, "me")
    assert spool.written(("demo", "k")) is None


def test_the_version_is_forgotten_with_the_last_write_that_waits(spool: Spool) -> None:
    for end in (lambda entry: spool.fail(entry, ConflictError("No"), "me"), lambda entry: spool.drop(entry.id)):
        first, second = spool.add("store", write()), spool.add("store", write())
        spool.done(first, 7, "me")
        end(second)
        assert spool.written(("demo", "k")) is None


def test_what_is_due_has_nothing_of_its_memory_before_it(spool: Spool) -> None:
    entries = [spool.add("store", write(key)) for key in ("a", "a", "b")]
    first, second, other = (entry.id for entry in entries)

    def due(after: int, *place: str) -> int | None:
        found = spool.due(("demo", place[0]) if place else None, after=after)
        return None if found is None else found.id

    assert (due(0), due(first), due(other)) == (first, other, None)
    assert (due(0, "a"), due(first, "a"), due(0, "b")) == (first, None, other)
    spool.fail(entries[0], ConflictError("No"), "me")
    assert due(first) == second


def test_a_turn_taken_before_the_clock_was_put_back_lapses(spool: Spool, clock: SettableClock) -> None:
    assert spool.take("one")
    clock.advance(-3600)
    assert spool.take("two")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_not_there_any_more_keeps_nothing(spool: Spool, *, replaced: bool) -> None:
    spool.path.unlink()
    if replaced:
        spool.path.touch()
    with pytest.raises(SpoolError, match="removed or replaced"):
        spool.add("store", write())
    assert spool.totals().waiting == 0


def test_a_damaged_write_is_told(spool: Spool) -> None:
    entry = spool.add("store", write())
    database = apsw.Connection(str(spool.path))
    database.execute("UPDATE entries SET request = x'00'")
    database.close()
    for read in (spool.due, spool.entries, lambda: spool.get(entry.id), lambda: spool.waiting(("demo", "k"))):
        with pytest.raises(SpoolError, match="Write 1 of the spool is damaged"):
            read()


def test_a_forked_process_has_to_open_it_itself(spool: Spool) -> None:
    code = f"""
import os, sys
from unified_memory.client import Spool, SpoolError
spool = Spool({str(spool.path)!r})
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    spool.waits()
except SpoolError:
    os._exit(0)
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_file_is_no_spool(tmp_path: Path) -> None:
    database = apsw.Connection(str(tmp_path / "other.db"))
    database.execute("CREATE TABLE t (x)")
    database.close()
    (tmp_path / "text").write_text("nothing of the kind, and long enough to be looked at" * 10, encoding="utf-8")
    for name in ("other.db", "text", "missing/spool.db"):
        with pytest.raises(SpoolError):
            Spool(tmp_path / name)
    with pytest.raises(SpoolError, match="directory"):
        Spool(tmp_path)
    # It is left as it was.
    database = apsw.Connection(str(tmp_path / "other.db"))
    assert database.pragma("journal_mode") == "delete"
    database.close()


def test_a_newer_spool_is_left_alone(spool: Spool) -> None:
    database = apsw.Connection(str(spool.path))
    database.pragma("user_version", 99)
    database.close()
    with pytest.raises(SpoolError, match="schema 99"):
        Spool(spool.path)
