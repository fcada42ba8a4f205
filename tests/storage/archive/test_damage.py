"""What is damaged is told, and everything else is still read."""

import random
import tracemalloc
from collections.abc import Callable

import pytest
from msgspec import Struct

from tests.storage.archive.samples import Held, damages, noise, read_all, sentences
from unified_memory.model.errors import StorageCorruptError, StorageError
from unified_memory.storage.archive import Archive, Block, Damage, Record, Written, codec, reading, writing
from unified_memory.storage.archive import format as formats
from unified_memory.storage.archive.format import (
    HEAD_BYTES,
    MAX_RAW_BYTES,
    Head,
    Header,
    Kind,
    MalformedError,
    Records,
    Trailer,
    pack_header,
    pack_index,
    pack_records,
    pack_section,
    pack_trailer,
    unpack_head,
)
from unified_memory.storage.archive.reading import View

NAME = "a.zar"


class Small(Struct):
    """A small archive of all kinds of sections, and where they lie."""

    data: bytes
    written: Written
    values: list[bytes]
    heads: list[Head]

    def read(self, data: bytes) -> tuple[Archive, dict[int, StorageError]]:
        """Reads all values of a damaged copy, compares those that are read, and tells what the others raised, by block."""
        files = Held()
        files.held[NAME] = data
        archive = Archive(files)
        raised: dict[int, StorageError] = {}
        for place, value in zip(self.written.places, self.values, strict=True):
            try:
                assert archive.read(NAME, place.block, place.slot, place.id) == value
            except StorageCorruptError as error:
                raised[place.block] = error
        assert all(error.facts == {"archive": NAME, "block": block} for block, error in raised.items())
        return archive, raised

    def head(self, kind: Kind, number: int = 0) -> Head:
        return next(head for head in self.heads if (head.kind, head.number) == (kind, number))

    def hurt(self, *heads: Head, at: int = 0) -> bytes:
        """A copy in which a byte of these sections is another."""
        data = bytearray(self.data)
        for head in heads:
            data[head.at + at] ^= 0x55
        return bytes(data)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setattr(writing, "BLOCK_BYTES", 700)
    monkeypatch.setattr(codec, "_MIN_DICTIONARY_BYTES", 256)
    monkeypatch.setattr(codec, "_MIN_SAMPLES", 20)
    monkeypatch.setattr(codec, "_SAMPLE_TO_DICTIONARY", 16)
    files = Held()
    archive = Archive(files)
    shared = random.Random(1).randbytes(250)
    rng = random.Random(2)
    records = [Record(each.id, each.seq, shared + each.value) for each in sentences(36, rng, words=2)]
    written = archive.write(NAME, records)
    heads = [head for head in View(files, NAME).walk(None) if isinstance(head, Head)]
    assert {head.kind for head in heads} == set(Kind)
    return Small(files.held[NAME], written, [each.value for each in records], heads)


def test_one_flipped_byte_anywhere_is_told_and_costs_no_more_than_its_block(small: Small) -> None:
    rng = random.Random(3)
    blocks = {head.number for head in small.heads if head.kind == Kind.BLOCK}
    assert len(blocks) > 9
    for head in small.heads:
        for at in range(head.at, head.end):
            data = bytearray(small.data)
            data[at] ^= rng.randrange(1, 256)
            archive, raised = small.read(bytes(data))
            hurt = {head.number} if head.kind == Kind.BLOCK else set()
            assert set(raised) == hurt, at
            found = list(archive.verify(NAME))
            told = [each.block for each in found if isinstance(each, Damage)]
            assert told == ([head.number] if hurt else [None]), at
            assert {each.number for each in found if isinstance(each, Block)} == blocks - hurt


def test_of_a_file_that_was_cut_what_is_there_is_read(small: Small) -> None:
    for length in range(len(small.data)):
        archive, raised = small.read(small.data[:length])
        whole = {head.number for head in small.heads if head.kind == Kind.BLOCK and head.end <= length}
        assert set(raised) == {place.block for place in small.written.places} - whole
        assert damages(archive, NAME), length


@pytest.mark.parametrize("seed", range(8))
def test_however_a_file_is_damaged_no_value_is_read_wrong(small: Small, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        data = bytearray(small.data)
        for _ in range(rng.randrange(1, 9)):
            begin, other = rng.randrange(len(data)), rng.randrange(len(data))
            length = rng.choice([1, 10, 300])
            match rng.randrange(4):
                case 0:
                    data[begin : begin + length] = rng.randbytes(length)
                case 1:
                    del data[begin : begin + length]
                case 2:
                    data[begin:begin] = rng.randbytes(length)
                case _:
                    data[begin : begin + length] = data[other : other + length]
        archive, _ = small.read(bytes(data))
        assert bytes(data) == small.data or damages(archive, NAME)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"x",
        lambda data: b"x" + data,
        lambda data: data + bytes(5000),
        lambda data: data + data,
        lambda data: data[:1500] + b"inserted" + data[1500:],
    ],
    ids=["appended", "put before", "many appended", "twice", "inserted"],
)
def test_bytes_that_are_too_many_are_told(small: Small, change: Callable[[bytes], bytes]) -> None:
    archive, raised = small.read(change(small.data))
    assert len(raised) <= 1
    assert damages(archive, NAME)


def test_with_header_index_trailer_and_a_dictionary_damaged_all_values_are_read(small: Small) -> None:
    hurt = [
        small.head(Kind.HEADER),
        small.head(Kind.INDEX),
        small.head(Kind.TRAILER),
        small.head(Kind.DICTIONARY, 1),
    ]
    for at in (0, HEAD_BYTES):
        archive, raised = small.read(small.hurt(*hurt, at=at))
        assert raised == {}
        assert [each.block for each in damages(archive, NAME)] == [None] * 4


def test_without_both_dictionaries_the_error_says_so(small: Small) -> None:
    archive, raised = small.read(
        small.hurt(small.head(Kind.DICTIONARY, 0), small.head(Kind.DICTIONARY, 1), at=HEAD_BYTES + 3)
    )
    assert "dictionary" in raised[0].detail
    assert len(raised) == len({place.block for place in small.written.places})
    assert [each.block for each in damages(archive, NAME)].count(None) == 2


def test_damaged_neighbours_are_all_told(small: Small) -> None:
    archive, raised = small.read(small.hurt(*(small.head(Kind.BLOCK, number) for number in (3, 4, 5, 9))))
    assert set(raised) == {3, 4, 5, 9}
    assert [each.block for each in damages(archive, NAME)] == [3, 4, 5, 9]


@pytest.mark.parametrize("window", range(53, 75))
def test_sections_after_a_damaged_one_are_found_wherever_reads_end(
    small: Small, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_WINDOW_BYTES", window)
    monkeypatch.setattr(reading, "_TAIL_BYTES", window)
    hurt = [
        small.head(Kind.HEADER),
        small.head(Kind.TRAILER),
        *(small.head(Kind.BLOCK, number) for number in (0, 4, 8)),
    ]
    archive, raised = small.read(small.hurt(*hurt))
    assert set(raised) == {0, 4, 8}
    assert {each.block for each in damages(archive, NAME)} == {None, 0, 4, 8}


def test_a_file_under_the_name_of_another_is_told(small: Small) -> None:
    files = Held()
    files.held["b.zar"] = small.data
    archive = Archive(files)
    assert [each.detail for each in damages(archive, "b.zar")] == [f"it was written as the archive {NAME}"]


def test_a_value_that_looks_like_a_block_is_not_taken_for_one() -> None:
    files = Held()
    archive = Archive(files)
    fake = pack_section(
        bytes(8), Kind.BLOCK, codec.compress(pack_records([1], [1], [b"fake"]), None), number=0, count=1, raw=26
    )
    rng = random.Random(4)
    records = [Record(1, 1, rng.randbytes(70_000) + fake + rng.randbytes(70_000)), *noise(3, rng)]
    written = archive.write(NAME, records)
    data = bytearray(files.held[NAME])
    assert fake in data
    first = next(head for head in View(files, NAME).walk(None) if isinstance(head, Head) and head.kind == Kind.BLOCK)
    for at in (first.at, len(data) - 1):
        data[at] ^= 1
    files.held[NAME] = bytes(data)
    archive = Archive(files)
    with pytest.raises(StorageCorruptError, match="Block 0"):
        archive.read(NAME, 0, 0, 1)
    assert [archive.read(NAME, each.block, each.slot, each.id) for each in written.places[1:]] == [
        each.value for each in records[1:]
    ]
    assert {each.block for each in damages(archive, NAME)} == {0, None}


def test_a_block_of_another_archive_is_not_taken_for_ones_own() -> None:
    files = Held()
    archive = Archive(files)
    for seed, name in enumerate((NAME, "b.zar")):
        archive.write(name, noise(3, random.Random(seed)))
    first, second = (
        next(head for head in View(files, name).walk(None) if isinstance(head, Head) and head.kind == Kind.BLOCK)
        for name in (NAME, "b.zar")
    )
    assert (first.end - first.at) == (second.end - second.at)
    theirs, own = files.held["b.zar"], files.held[NAME]
    files.held[NAME] = own[: first.at] + theirs[second.at : second.end] + own[first.end :]
    with pytest.raises(StorageCorruptError, match="Block 0"):
        archive.read(NAME, 0, 0, 1)
    assert [each.block for each in damages(archive, NAME)] == [0]


def test_no_more_is_decompressed_than_was_promised() -> None:
    bomb = codec.compress(bytes(200_000_000), None)
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(MalformedError, match="does not hold 1000 bytes"):
        codec.decompress(bomb, 1000, None)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("frame", [codec.compress(b"abcd", None), codec.compress(b"abcde", None) + b"x", b"", b"noise"])
def test_a_frame_that_holds_something_else_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedError):
        codec.decompress(frame, 5, None)


def test_a_section_that_promises_too_much_is_none() -> None:
    assert unpack_head(pack_section(bytes(8), Kind.BLOCK, b"", raw=MAX_RAW_BYTES), 0) is not None
    assert unpack_head(pack_section(bytes(8), Kind.BLOCK, b"", raw=MAX_RAW_BYTES + 1), 0) is None


def test_a_file_of_a_later_format_is_refused_and_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    files = Held()
    with monkeypatch.context() as later:
        later.setattr(formats, "VERSION", 2)
        Archive(files).write(NAME, noise(3, random.Random(5)))
    for ask in (lambda: Archive(files).read(NAME, 0, 0, 1), lambda: damages(Archive(files), NAME)):
        with pytest.raises(StorageError, match="version 2 of the format") as refused:
            ask()
        assert not isinstance(refused.value, StorageCorruptError)


@pytest.mark.parametrize("length", range(40))
def test_records_that_are_cut_are_refused(length: int) -> None:
    data = pack_records([1, 2], [3, 4], [b"first value", b"second"])
    assert len(data) == 42
    with pytest.raises(MalformedError):
        Records(data[:length], 2)


@pytest.mark.parametrize("width", [0, 3, 16, 255])
def test_records_of_an_unknown_width_are_refused(width: int) -> None:
    data = bytearray(pack_records([1], [1], [b"value"]))
    data[16] = width
    with pytest.raises(MalformedError, match="width"):
        Records(bytes(data), 1)


def test_an_empty_file_and_one_of_noise_are_told() -> None:
    files = Held()
    files.held |= {"empty.zar": b"", "noise.zar": random.Random(6).randbytes(300_000)}
    for name in files.held:
        archive = Archive(files)
        assert len(damages(archive, name)) == 3
        with pytest.raises(StorageCorruptError, match="Block 0"):
            archive.read(name, 0, 0, 1)


def test_a_file_that_was_put_back_is_read_though_it_lies_otherwise_than_before() -> None:
    files = Held()
    archive = Archive(files, cache_bytes=0)
    records = noise(900, random.Random(7))
    written = archive.write(NAME, records)
    archive.write("b.zar", noise(3, random.Random(8)))
    files.held["a"], files.held[NAME] = files.held[NAME], files.held["b.zar"]
    with pytest.raises(StorageCorruptError):
        archive.read(NAME, 2, 0, written.places[-1].id)
    files.held[NAME] = files.held["a"]
    assert read_all(archive, written) == [each.value for each in records]


@pytest.mark.parametrize("beyond", [2**40, 2**64 - 1])
def test_an_index_that_leads_out_of_the_file_is_not_followed(beyond: int) -> None:
    mark = bytes(8)
    header = pack_section(mark, Kind.HEADER, pack_header(Header(0, NAME)))
    frame = codec.compress(pack_records([1], [1], [b"value"]), None)
    data = header + pack_section(mark, Kind.BLOCK, frame, count=1, raw=27)
    index_at = len(data)
    data += pack_section(mark, Kind.INDEX, pack_index([len(header), beyond]))
    files = Held()
    for at in (index_at, beyond):
        trailer = pack_trailer(Trailer(at, 0, 0, 0, 1, 1, 5))
        files.held[NAME] = data + pack_section(mark, Kind.TRAILER, trailer)
        assert Archive(files).read(NAME, 0, 0, 1) == b"value"


def test_read_all_reads_what_was_written_after_damage_was_mended(small: Small) -> None:
    files = Held()
    files.held[NAME] = small.hurt(small.head(Kind.BLOCK, 2))
    archive = Archive(files)
    with pytest.raises(StorageCorruptError, match="Block 2"):
        read_all(archive, small.written)
    files.held[NAME] = small.data
    archive.forget(NAME)
    assert read_all(archive, small.written) == small.values
