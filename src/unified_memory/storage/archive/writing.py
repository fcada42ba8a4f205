"""Writing an archive, in one pass."""

import secrets
from collections.abc import Iterable, Iterator

from msgspec import Struct

from unified_memory.model.errors import StorageError
from unified_memory.storage.archive import codec
from unified_memory.storage.archive.format import (
    MARK_BYTES,
    MAX_RAW_BYTES,
    Header,
    Kind,
    Trailer,
    pack_header,
    pack_index,
    pack_records,
    pack_section,
    pack_trailer,
)
from unified_memory.storage.warm import Place

# Of LoCoMo's turns (144 bytes on average), blocks of 16, 32 and 64 KiB make 0.38, 0.35 and 0.33 of their bytes without a
# dictionary, and are decompressed in 30, 50 and 70 microseconds; 128 KiB would make 0.32.
BLOCK_BYTES = 64 * 1024
# What a record takes beside its value, at most: so that blocks of empty values end, too.
_RECORD_BYTES = 20
# What a dictionary is trained on: the beginning of the file, held in memory until then.
SAMPLE_BYTES = 2 * 2**20


class Record(Struct, frozen=True):
    """The value of the memory `id`, as it was at `seq` in the commit order."""

    id: int
    seq: int
    value: bytes


class _Raw(Struct, frozen=True):
    """A block that is to be compressed."""

    number: int
    count: int
    data: bytes


class Writer:
    """Makes the bytes of an archive out of records. After `sections` has come to its end, the rest says what was made."""

    def __init__(self, name: str, records: Iterable[Record]) -> None:
        self.places: list[Place] = []
        self.bytes_raw = 0
        self._name = name
        self._records = records
        self._mark = secrets.token_bytes(MARK_BYTES)
        self._blocks = 0
        self._at = 0

    def sections(self) -> Iterator[bytes]:
        """The file's bytes, section by section. Raises StorageError where a value is too large for an archive."""
        blocks = self._raw_blocks()
        sample: list[_Raw] = []
        held = 0
        values: list[bytes] = []
        for block, taken in blocks:
            sample.append(block)
            values += taken
            held += len(block.data)
            if held >= SAMPLE_BYTES:
                break
        dictionary, packed, frames = _choose(sample, values)
        del values
        identity = dictionary.dict_id if dictionary else 0
        yield self._section(Kind.HEADER, pack_header(Header(identity, self._name)))
        first_dictionary_at = self._at if dictionary else 0
        if dictionary:
            yield self._section(Kind.DICTIONARY, packed, raw=len(dictionary.dict_content))
        begins: list[int] = []
        for block, frame in zip(sample, frames, strict=True):
            begins.append(self._at)
            yield self._block(block, frame)
        del sample, frames
        for block, _ in blocks:
            begins.append(self._at)
            yield self._block(block, codec.compress(block.data, dictionary))
        index_at = self._at
        yield self._section(Kind.INDEX, pack_index([*begins, index_at]))
        second_dictionary_at = self._at if dictionary else 0
        if dictionary:
            yield self._section(Kind.DICTIONARY, packed, number=1, raw=len(dictionary.dict_content))
        trailer = Trailer(
            index_at,
            first_dictionary_at,
            second_dictionary_at,
            identity,
            len(begins),
            len(self.places),
            self.bytes_raw,
        )
        yield self._section(Kind.TRAILER, pack_trailer(trailer))

    def _raw_blocks(self) -> Iterator[tuple[_Raw, list[bytes]]]:
        """Each block with its values."""
        group: list[Record] = []
        size = 0
        for record in self._records:
            length = len(record.value) + _RECORD_BYTES
            if length > MAX_RAW_BYTES // 2:
                raise StorageError(
                    f"A value of {len(record.value)} bytes is too large for an archive", memory_id=record.id
                )
            if length > BLOCK_BYTES:
                # A block of its own, so that its neighbours are read without it.
                if group:
                    yield self._raw(group)
                yield self._raw([record])
                group, size = [], 0
                continue
            group.append(record)
            size += length
            if size >= BLOCK_BYTES:
                yield self._raw(group)
                group, size = [], 0
        if group:
            yield self._raw(group)

    def _raw(self, group: list[Record]) -> tuple[_Raw, list[bytes]]:
        number = self._blocks
        self._blocks += 1
        # In the order of their ids, which then need fewer bytes; the places stay in the order of the records.
        ordered = sorted(range(len(group)), key=lambda at: group[at].id)
        slots = [0] * len(group)
        for slot, at in enumerate(ordered):
            slots[at] = slot
        self.places += [Place(each.id, each.seq, number, slot) for each, slot in zip(group, slots, strict=True)]
        group = [group[at] for at in ordered]
        values = [each.value for each in group]
        self.bytes_raw += sum(map(len, values))
        data = pack_records([each.id for each in group], [each.seq for each in group], values)
        return _Raw(number, len(group), data), values

    def _block(self, block: _Raw, frame: bytes) -> bytes:
        return self._section(Kind.BLOCK, frame, number=block.number, count=block.count, raw=len(block.data))

    def _section(self, kind: Kind, payload: bytes, *, number: int = 0, count: int = 0, raw: int | None = None) -> bytes:
        section = pack_section(self._mark, kind, payload, number=number, count=count, raw=raw)
        self._at += len(section)
        return section


def _choose(sample: list[_Raw], values: list[bytes]) -> tuple[codec.Dictionary | None, bytes, list[bytes]]:
    """The dictionary if it pays for its two copies within the sample already, as it lies in the file, and the frames."""
    plain = [codec.compress(block.data, None) for block in sample]
    dictionary = codec.train(values)
    if dictionary is None:
        return None, b"", plain
    packed = codec.pack_dictionary(dictionary)
    frames = [codec.compress(block.data, dictionary) for block in sample]
    if sum(map(len, frames)) + 2 * len(packed) < sum(map(len, plain)):
        return dictionary, packed, frames
    return None, b"", plain
