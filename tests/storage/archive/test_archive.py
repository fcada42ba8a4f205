"""What is written is read."""

import json
import random
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.archive.samples import Held, damages, noise, read_all, sentences, values
from unified_memory.model.errors import AlreadyExistsError, ArchiveMissingError, StorageCorruptError
from unified_memory.storage.archive import (
    Archive,
    Block,
    Directory,
    Files,
    Record,
    new_name,
)
from unified_memory.storage.archive.codec import needs_dictionary
from unified_memory.storage.archive.format import HEAD_BYTES, Kind
from unified_memory.storage.archive.reading import View
from unified_memory.storage.archive.writing import BLOCK_BYTES
from unified_memory.storage.warm import ColdValues, Place

NUMBERS = st.integers(0, 2**64 - 1)
RECORDS = st.lists(
    st.builds(Record, NUMBERS, NUMBERS, st.binary() | st.binary(max_size=4).map(lambda data: data * 30_000)),
    max_size=30,
)


@given(RECORDS)
def test_any_records_are_read_as_they_were_written(records: list[Record]) -> None:
    archive = Archive(Held())
    written = archive.write("a.zar", records)
    assert read_all(archive, written) == values(records)
    assert [(each.id, each.seq) for each in written.places] == [(each.id, each.seq) for each in records]
    assert written.memories == len(records)
    assert written.bytes_raw == sum(map(len, values(records)))
    assert written.bytes_stored == archive.total()
    assert damages(archive, "a.zar") == []


def test_an_archive_keeps_the_contract_of_cold_values(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    cold: ColdValues = Archive(directory)
    directory.put("empty.zar", [])
    with pytest.raises(StorageCorruptError, match=r"Block 0 of the archive empty\.zar"):
        cold.read("empty.zar", 0, 0, 1)
    with pytest.raises(ArchiveMissingError, match=r"none\.zar"):
        cold.read("none.zar", 0, 0, 1)


def test_many_small_values_share_a_dictionary_and_take_less_than_half() -> None:
    files = Held()
    archive = Archive(files)
    records = sentences(12_000, random.Random(1), words=8)
    written = archive.write("a.zar", records)
    assert _kinds(files, "a.zar").count(Kind.DICTIONARY) == 2
    assert written.bytes_stored < 0.4 * written.bytes_raw
    assert read_all(archive, written) == values(records)
    assert max(each.block for each in written.places) > 5


@pytest.mark.parametrize(
    "records",
    [sentences(50, random.Random(2)), noise(4000, random.Random(2)), noise(3, random.Random(2), 1_000_000)],
    ids=["few", "random", "large"],
)
def test_a_file_that_a_dictionary_would_not_make_smaller_has_none(records: list[Record]) -> None:
    files = Held()
    archive = Archive(files)
    written = archive.write("a.zar", records)
    assert Kind.DICTIONARY not in _kinds(files, "a.zar")
    assert read_all(archive, written) == values(records)


def test_a_value_larger_than_a_block_is_a_block_of_its_own() -> None:
    rng = random.Random(3)
    large = Record(5, 5, json.dumps(rng.choices(WORDS, k=3_000_000)).encode())
    assert len(large.value) > 16 * 2**20
    records = [*noise(2, rng), large, *noise(2, rng)]
    archive = Archive(Held())
    written = archive.write("a.zar", records)
    assert [(each.block, each.slot) for each in written.places] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
    assert read_all(archive, written) == values(records)


WORDS = ["green", "yellow", "blue"]


def test_blocks_have_no_more_than_their_size_of_small_values() -> None:
    archive = Archive(Held())
    written = archive.write("a.zar", noise(2000, random.Random(4), 300))
    held: dict[int, int] = {}
    for place in written.places:
        held[place.block] = held.get(place.block, 0) + 300
    assert max(held.values()) <= BLOCK_BYTES
    assert min(list(held.values())[:-1]) > BLOCK_BYTES * 0.9


def test_empty_values_do_not_make_a_block_endless() -> None:
    archive = Archive(Held())
    written = archive.write("a.zar", (Record(i, i, b"") for i in range(10_000)))
    assert written.places[-1].block > 0
    assert set(read_all(archive, written)) == {b""}


@pytest.mark.parametrize(
    ("block", "slot", "number"),
    [(0, 0, 2), (0, 5, 1), (0, -1, 3), (1, 0, 1), (-1, 0, 1)],
    ids=["another memory", "no slot", "slot below", "no block", "block below"],
)
def test_a_wrong_place_is_an_error_that_names_the_block(block: int, slot: int, number: int) -> None:
    archive = Archive(Held())
    archive.write("a.zar", noise(3, random.Random(5)))
    with pytest.raises(StorageCorruptError) as refused:
        archive.read("a.zar", block, slot, number)
    assert (refused.value.facts["archive"], refused.value.facts["block"]) == ("a.zar", block)


def test_verify_tells_the_ids_of_each_block_by_slot() -> None:
    archive = Archive(Held())
    written = archive.write("a.zar", sentences(3000, random.Random(6)))
    found = list(archive.verify("a.zar"))
    told = [
        Place(number, 0, block.number, slot)
        for block in found
        if isinstance(block, Block)
        for slot, number in enumerate(block.ids)
    ]
    assert told == [Place(each.id, 0, each.block, each.slot) for each in written.places]


def test_places_are_in_the_order_of_the_records_whatever_their_ids() -> None:
    records = sentences(3000, random.Random(15))
    random.Random(16).shuffle(records)
    archive = Archive(Held())
    written = archive.write("a.zar", records)
    assert [(each.id, each.seq) for each in written.places] == [(each.id, each.seq) for each in records]
    assert read_all(archive, written) == values(records)
    assert written.bytes_stored < 0.55 * written.bytes_raw


def test_a_name_that_is_taken_is_refused_and_the_archive_stays() -> None:
    archive = Archive(Held())
    written = archive.write("a.zar", noise(3, random.Random(7)))
    with pytest.raises(AlreadyExistsError):
        archive.write("a.zar", [])
    assert len(read_all(archive, written)) == 3


def test_names_tell_the_second_and_are_never_the_same() -> None:
    names = {new_name(1_795_444_965_999_999) for _ in range(100)}
    assert len(names) == 100
    assert {name[:17] for name in names} == {"20261123T144245Z-"}
    assert {name[33:] for name in names} == {".zar"}


def test_a_block_that_was_read_is_not_read_again() -> None:
    files = Held()
    archive = Archive(files)
    written = archive.write("a.zar", noise(1000, random.Random(8)))
    first = read_all(archive, written)
    files.reads = 0
    assert read_all(archive, written) == first
    assert files.reads == 0
    archive.forget("a.zar")
    assert read_all(archive, written) == first
    assert files.reads > 0


def test_the_cache_holds_no_more_than_its_bytes() -> None:
    files = Held()
    written = Archive(files).write("a.zar", noise(5000, random.Random(9)))
    blocks = written.places[-1].block + 1
    archive = Archive(files, cache_bytes=BLOCK_BYTES * 6)
    read_all(archive, written)
    files.reads = 0
    # The last blocks are still there; one after the other, those that were read first are not.
    read_all(archive, written)
    assert files.reads == blocks
    assert blocks > 12


def test_an_archive_that_is_removed_is_missing_even_if_it_was_cached() -> None:
    archive = Archive(Held())
    written = archive.write("a.zar", noise(10, random.Random(10)))
    read_all(archive, written)
    archive.remove("a.zar")
    archive.remove("a.zar")
    with pytest.raises(ArchiveMissingError):
        read_all(archive, written)
    assert archive.names() == []
    with pytest.raises(ArchiveMissingError):
        damages(archive, "a.zar")


def test_once_an_archive_was_missed_nothing_of_it_is_read_from_memory() -> None:
    files = Held()
    archive = Archive(files)
    written = archive.write("a.zar", noise(1000, random.Random(17)))
    first, last = written.places[0], written.places[-1]
    archive.read("a.zar", first.block, first.slot, first.id)
    files.remove("a.zar")
    for place in (last, first):
        with pytest.raises(ArchiveMissingError):
            archive.read("a.zar", place.block, place.slot, place.id)


def test_a_slow_read_holds_up_no_other() -> None:
    slow, entered, go_on = Held(), threading.Event(), threading.Event()

    class Slow(Held):
        def read(self, name: str, start: int, length: int) -> bytes:
            if name == "slow.zar":
                entered.set()
                assert go_on.wait(30)
            return super().read(name, start, length)

    slow = Slow()
    archive = Archive(slow)
    rng = random.Random(11)
    quick, other = archive.write("quick.zar", noise(10, rng)), archive.write("slow.zar", noise(10, rng))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_all, archive, other)
        assert entered.wait(30)
        assert len(read_all(archive, quick)) == 10
        go_on.set()
        assert len(reading.result(30)) == 10


def test_many_threads_read_many_archives_right(tmp_path: Path) -> None:
    archive = Archive(Directory(tmp_path / "cold"), cache_bytes=8 * BLOCK_BYTES)
    rng = random.Random(12)
    kept = {
        (written.name, place.block, place.slot, place.id): record.value
        for number in range(90)
        for records in [noise(300, rng, 300) if number < 5 else noise(3, rng)]
        for written in [archive.write(f"{number}.zar", records)]
        for place, record in zip(written.places, records, strict=True)
    }

    def read(seed: int) -> bool:
        chosen = random.Random(seed).choices(list(kept), k=400)
        return all(archive.read(*place) == kept[place] for place in chosen)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(24)))
    archive.close()


def test_writing_holds_little_of_the_file_in_memory(tmp_path: Path) -> None:
    rng = random.Random(13)

    def records() -> Iterator[Record]:
        for number in range(8000):
            yield Record(number, number, rng.randbytes(4096))

    archive = Archive(Directory(tmp_path))
    tracemalloc.start()
    written = archive.write("a.zar", records())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written.bytes_raw == 8000 * 4096
    assert peak < 12 * 2**20


def test_what_the_records_raise_leaves_no_file(tmp_path: Path) -> None:
    def records() -> Iterator[Record]:
        yield from noise(2000, random.Random(14), 2000)
        raise ZeroDivisionError

    archive = Archive(Directory(tmp_path))
    with pytest.raises(ZeroDivisionError):
        archive.write("a.zar", records())
    assert list(tmp_path.iterdir()) == []


def _kinds(files: Files, name: str) -> list[Kind]:
    heads = [head for head in View(files, name).walk(None) if not isinstance(head, tuple)]
    assert heads[-1].end == files.size(name)
    for head in heads:
        if head.kind == Kind.BLOCK:
            frame = files.read(name, head.at + HEAD_BYTES, head.stored)
            assert needs_dictionary(frame) == any(each.kind == Kind.DICTIONARY for each in heads)
    return [head.kind for head in heads]
