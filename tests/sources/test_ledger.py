"""What the ledger keeps, for several processes at once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import SchemaTooNewError, StorageCorruptError, StorageError
from unified_memory.sources.base import Options
from unified_memory.sources.ledger import (
    SILENCE_SECONDS,
    TRANSITION_SECONDS,
    BackNote,
    Ledger,
    Notice,
    Phase,
    Renumbered,
    Row,
)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: SettableClock) -> Iterator[Ledger]:
    found = Ledger(tmp_path / "migration" / "ledger.db", clock)
    found.open()
    yield found
    found.close()


def row(origin: str = "a", *, source: int = 1, key: str = "k", version: int = 1) -> Row:
    return Row(source, origin, "projects/web", key, b"digest", version)


def test_there_is_none_until_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "migration" / "ledger.db"
    assert not Ledger.exists(path)
    one = Ledger(path)
    with pytest.raises(StorageError, match="closed"):
        one.phase()
    one.open()
    one.open()
    assert Ledger.exists(path)
    assert one.phase() is Phase.NONE
    one.close()
    one.close()


def test_a_phase_stays_until_another_one(ledger: Ledger, tmp_path: Path) -> None:
    ledger.set_phase(Phase.SHADOW, by="me")
    assert ledger.get("phase")["by"] == "me"
    other = Ledger(tmp_path / "migration" / "ledger.db")
    other.open()
    assert other.phase() is Phase.SHADOW
    other.set_phase(Phase.SWITCHED)
    assert ledger.phase() is Phase.SWITCHED
    other.close()


@pytest.mark.parametrize(("phase", "before"), [(Phase.SWITCHING, Phase.SHADOW), (Phase.RETURNING, Phase.SWITCHED)])
def test_a_phase_that_lasts_a_moment_holds_as_long_as_it_is_renewed(
    phase: Phase, before: Phase, ledger: Ledger, clock: SettableClock
) -> None:
    ledger.set_phase(phase)
    clock.advance(TRANSITION_SECONDS - 1)
    assert ledger.renew_phase(phase)
    clock.advance(TRANSITION_SECONDS - 1)
    assert ledger.phase() is phase
    clock.advance(1)
    assert ledger.phase() is before


def test_what_has_ended_is_not_renewed(ledger: Ledger) -> None:
    assert not ledger.renew_phase(Phase.SWITCHING)
    ledger.set_phase(Phase.SWITCHING)
    ledger.set_phase(Phase.SWITCHED)
    assert not ledger.renew_phase(Phase.SWITCHING)
    assert ledger.phase() is Phase.SWITCHED


def test_the_same_source_is_the_same(ledger: Ledger) -> None:
    first = ledger.add_source("a", "x", Options())
    second = ledger.add_source("b", "x", Options(prefix="p"))
    again = ledger.add_source("a", "x", Options(keep_ttl=True))
    assert (again.id, again.options.keep_ttl) == (first.id, True)
    assert ledger.sources() == [again, second]


def test_rows_are_found_by_origin_and_by_place(ledger: Ledger) -> None:
    ledger.put_rows([row("a"), row("b", key="l"), row("a", source=2)])
    found = ledger.row(1, "a")
    assert found is not None
    assert (found.namespace, found.key, found.digest, found.version, found.mark) == (
        "projects/web",
        "k",
        b"digest",
        1,
        None,
    )
    assert set(ledger.rows(1, ["a", "b", "c"])) == {"a", "b"}
    assert [(one.source, one.origin) for one in ledger.by_place("projects/web", "k")] == [(1, "a"), (2, "a")]
    assert ledger.by_place("elsewhere", "k") == []
    assert (ledger.count(1), ledger.count(2), ledger.count(3)) == (2, 1, 0)


def test_a_row_that_is_noted_again_keeps_its_number(ledger: Ledger) -> None:
    ledger.put_rows([row("a"), row("b")])
    before = ledger.row(1, "a")
    ledger.put_rows([row("a", version=2)])
    after = ledger.row(1, "a")
    assert before is not None
    assert after is not None
    assert (after.number, after.version) == (before.number, 2)


def test_a_dropped_number_is_not_used_again(ledger: Ledger) -> None:
    ledger.put_rows([row("a"), row("b")])
    ledger.drop(1, ["b"])
    assert ledger.row(1, "b") is None
    ledger.put_rows([row("c")])
    assert ledger.last_number() == 3
    assert [one.origin for one in ledger.page(1, 0, 9)] == ["a", "c"]
    assert [one.origin for one in ledger.page(1, 1, 9)] == ["c"]


def test_a_label_stays_with_the_first_who_took_it(ledger: Ledger) -> None:
    ledger.put_rows([], labels=[("12", 1, "a"), ("12", 2, "b"), ('"x"', 0, "")])
    assert ledger.labels(["12", '"x"', "13"]) == {"12": (1, "a"), '"x"': (0, "")}


def test_notices_are_those_of_the_last_pass(ledger: Ledger) -> None:
    ref = ledger.add_source("a", "x", Options())
    first = ledger.begin_pass(ref.id)
    ledger.put_rows([], notices=[notice("a"), notice("b", stored=True)], source=ref.id, turn=first)
    second = ledger.begin_pass(ref.id)
    assert second > first
    ledger.put_rows([], notices=[notice("b", stored=True)], source=ref.id, turn=second)
    ledger.end_pass(ref.id, second)
    assert [(source.kind, one) for source, one in ledger.notices("quarantine")] == [("a", notice("b", stored=True))]
    assert ledger.notice_count(ref.id, "quarantine") == 1
    assert ledger.notice_count(ref.id, "conflict") == 0
    assert not ledger.is_quarantined(ref.id, "b")


def notice(origin: str, *, stored: bool = False) -> Notice:
    return Notice("quarantine", origin, "nan", "why", stored, b"\xff")


def test_more_notices_than_a_page_are_all_told(ledger: Ledger) -> None:
    ref = ledger.add_source("a", "x", Options())
    ledger.put_rows([], notices=[notice(f"{number:04}") for number in range(250)], source=ref.id, turn=1)
    assert [one.origin for _, one in ledger.notices("quarantine")] == [f"{number:04}" for number in range(250)]


def test_what_was_written_back_is_told_once_for_each_memory(ledger: Ledger) -> None:
    ledger.put_returned([BackNote(1, "n", "k", "a", ()), BackNote(1, "n", "l", "b", ("tags",))])
    ledger.put_returned([BackNote(1, "n", "k", None, ())])
    assert ledger.returned() == [BackNote(1, "n", "k", None, ()), BackNote(1, "n", "l", "b", ("tags",))]
    assert ledger.returned((1, "n", "k")) == [BackNote(1, "n", "l", "b", ("tags",))]
    assert ledger.returned_count() == 2


def test_a_proxy_that_is_silent_is_taken_for_dead(ledger: Ledger, clock: SettableClock) -> None:
    ledger.join("p", "extended-memory", 7, clock.now())
    ledger.beat("q", Phase.SHADOW, clock.now())
    (member,) = ledger.members(clock.now())
    assert (member.service, member.pid, member.phase) == ("extended-memory", 7, None)
    ledger.beat("p", Phase.SWITCHING, clock.now())
    assert ledger.members(clock.now())[0].phase is Phase.SWITCHING
    assert ledger.members(clock.now() + SILENCE_SECONDS * SECOND) == []
    ledger.leave("p")
    assert ledger.members(clock.now()) == []


def test_comparisons_are_counted(ledger: Ledger) -> None:
    for same, sample in ((True, None), (False, "was x"), (True, None)):
        ledger.compare_note("s", "load", same, sample)
    (told,) = ledger.comparisons()
    assert (told.same, told.other, told.sample) == (2, 1, "was x")


def test_what_is_cleared_is_forgotten_but_for_the_sources(ledger: Ledger) -> None:
    ledger.add_source("a", "x", Options())
    ledger.put_rows([row()], labels=[("1", 1, "a")], renumbered=[Renumbered(1, "a", "1", 9)], notices=[notice("a")])
    ledger.clear()
    assert (ledger.count(1), ledger.labels(["1"]), ledger.renumbered()) == (0, {}, [])
    assert len(ledger.sources()) == 1


def test_many_threads_and_processes_write_at_once(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "migration" / "ledger.db")
    other.open()

    def write(one: Ledger, name: str) -> None:
        for number in range(25):
            one.put_rows([row(f"{name}{number}", key=f"{name}{number}")])

    threads = [
        threading.Thread(target=write, args=(one, name)) for one, name in ((ledger, "a"), (ledger, "b"), (other, "c"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.count(1) == 75
    other.close()


def test_what_fails_in_the_middle_is_not_noted(ledger: Ledger) -> None:
    with pytest.raises(StorageError):
        ledger.put_rows([row("a"), Row(1, "b", "n", "k", None, 1)])  # type: ignore[arg-type]  # as a fault of ours would
    assert ledger.count(1) == 0
    ledger.put_rows([row("a")])


def test_a_ledger_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SchemaTooNewError):
        Ledger(path).open()


def test_what_is_no_ledger_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database, but some text of enough bytes" * 100)
    with pytest.raises(StorageCorruptError):
        Ledger(path).open()
