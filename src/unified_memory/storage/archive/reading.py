"""Reading archives, damaged ones as well."""

from array import array
from collections.abc import Iterator

from msgspec import Struct

from unified_memory.model.errors import StorageCorruptError, StorageError
from unified_memory.storage.archive import codec
from unified_memory.storage.archive.files import Files
from unified_memory.storage.archive.format import (
    HEAD_BYTES,
    MAGIC,
    TRAILER_BYTES,
    VERSION,
    Head,
    Kind,
    MalformedError,
    Records,
    Trailer,
    payload_of,
    unpack_head,
    unpack_header,
    unpack_index,
    unpack_trailer,
    version_of,
)

# The end of a file, in which nearly always are its trailer, index and dictionary: so opening one needs one read.
_TAIL_BYTES = 128 * 1024
_WINDOW_BYTES = 2**20
_NAMES = {Kind.HEADER: "header", Kind.INDEX: "index", Kind.TRAILER: "trailer"}


class Damage(Struct, frozen=True):
    """Something in an archive that cannot be read: a block, or where that is None the file's header, index, dictionary or
    trailer, or bytes that are none of these.
    """

    archive: str
    block: int | None
    detail: str


class Block(Struct, frozen=True):
    """A block that is whole, and the ids of its memories by slot."""

    number: int
    ids: list[int]


class Places:
    """Where blocks begin and end, by number; a block that begins at 0 is none."""

    def __init__(self, begins: "array[int]", ends: "array[int]") -> None:
        self._begins = begins
        self._ends = ends

    def get(self, number: int) -> tuple[int, int] | None:
        """Where that block begins and ends; None where there is none."""
        if not 0 <= number < len(self._begins) or self._begins[number] == 0:
            return None
        return self._begins[number], self._ends[number]


class Opened(Struct, frozen=True):
    """What is needed to read any block: where it lies, and the dictionary (None: there is none, or none whole).

    `mark`: of the file's sections; None where none is whole.
    """

    mark: bytes | None
    places: Places
    dictionary: codec.Dictionary | None


class View:
    """A file, read through a window: what lies near to what was read is at hand."""

    def __init__(self, files: Files, name: str) -> None:
        self.name = name
        self.size = files.size(name)
        self._files = files
        self._begin = max(self.size - _TAIL_BYTES, 0)
        self._window = files.read(name, self._begin, self.size - self._begin)

    def read(self, start: int, length: int) -> bytes:
        """As `Files.read`."""
        skip = start - self._begin
        if skip >= 0 and skip + length <= len(self._window):
            return self._window[skip : skip + length]
        length = min(length, self.size - start)
        if length <= 0:
            return b""
        if length > _WINDOW_BYTES:
            return self._files.read(self.name, start, length)
        self._window = self._files.read(self.name, start, min(_WINDOW_BYTES, self.size - start))
        self._begin = start
        return self._window[:length]

    def head(self, at: int, mark: bytes | None) -> Head | None:
        """The head of a section there that ends within the file and bears the mark (None: any); None where there is none."""
        head = unpack_head(self.read(at, HEAD_BYTES), at)
        if head is None or head.end > self.size or mark not in {None, head.mark}:
            return None
        return head

    def payload(self, head: Head) -> bytes:
        """The payload of a section. Raises MalformedError where it is damaged."""
        return payload_of(self.read(head.at, head.end - head.at))

    def walk(self, mark: bytes | None) -> Iterator[Head | tuple[int, int]]:
        """All sections in order, their payloads unread, and between them the stretches (begin, end) that are none."""
        at = 0
        while at < self.size:
            head = self.head(at, mark)
            if head:
                mark = head.mark
                yield head
                at = head.end
            else:
                end = self._next(at + 1, mark)
                yield at, end
                at = end

    def _next(self, start: int, mark: bytes | None) -> int:
        """Where the next section begins; the file's size where none does."""
        pattern = MAGIC + (mark or b"")
        while start + HEAD_BYTES <= self.size:
            data = self.read(start, min(_WINDOW_BYTES, self.size - start))
            found = data.find(pattern)
            if found < 0:
                # The pattern may begin here and end in what is read next.
                start += max(len(data) - len(pattern) + 1, 1)
            elif self.head(start + found, mark):
                return start + found
            else:
                start += found + 1
        return self.size


def open_archive(view: View) -> Opened:
    """By its trailer and index; where they are damaged, by looking at every section.

    Raises StorageError where it is of another version of the format.
    """
    mark, trailer = _trailer(view)
    if trailer is None:
        version = version_of(view.read(0, HEAD_BYTES))
        if version not in {None, VERSION}:
            raise StorageError(
                f"The archive {view.name} has version {version} of the format; this program knows {VERSION}",
                archive=view.name,
            )
        return _surveyed(view, mark or _header_mark(view))
    places = _index(view, trailer, mark)
    if places is None:
        return _surveyed(view, mark)
    dictionary = None
    if trailer.dictionary_id:
        dictionary = _dictionary(view, trailer.second_dictionary_at, mark) or _dictionary(
            view, trailer.first_dictionary_at, mark
        )
    return Opened(mark, places, dictionary)


def require_own(view: View, mark: bytes | None) -> None:
    """Raises StorageCorruptError where the file was written as another archive: its ids may be the same, its values older."""
    head = view.head(0, mark)
    if head is None or head.kind != Kind.HEADER:
        return
    try:
        written_as = unpack_header(view.payload(head)).name
    except MalformedError:
        return
    if written_as != view.name:
        raise StorageCorruptError(
            f"The file of the archive {view.name} is that of {written_as}", archive=view.name, file_of=written_as
        )


def read_records(data: bytes, head: Head | None, dictionary: codec.Dictionary | None) -> Records:
    """The records of the block that a section holds. Raises MalformedError."""
    if head is None:
        raise MalformedError("its head is damaged")
    frame = payload_of(data)
    if dictionary is None and codec.needs_dictionary(frame):
        raise MalformedError("both copies of its dictionary are damaged")
    return Records(codec.decompress(frame, head.raw, dictionary), head.count)


def read_block(files: Files, name: str, opened: Opened, number: int) -> Records:
    """A block's records. Raises StorageCorruptError naming it, ArchiveMissingError."""
    place = opened.places.get(number)
    if place is None:
        raise corrupt(name, number, "there is none of that number whose head is whole")
    begin, end = place
    data = files.read(name, begin, end - begin)
    try:
        head = unpack_head(data, begin)
        records = read_records(data, head, opened.dictionary)
    except MalformedError as error:
        raise corrupt(name, number, str(error)) from error
    if head and (head.kind, head.number, head.mark) != (Kind.BLOCK, number, opened.mark):
        raise corrupt(name, number, "another section lies in its place")
    return records


def corrupt(archive: str, block: int, detail: str) -> StorageCorruptError:
    """The error that names an archive's block."""
    return StorageCorruptError(f"Block {block} of the archive {archive}: {detail}", archive=archive, block=block)


def verify(view: View) -> Iterator[Damage | Block]:
    """Every block that is whole, and a Damage for everything that is not, reading the whole file one section at a time."""
    opened = open_archive(view)
    seen: set[tuple[Kind, int]] = set()
    gap: tuple[int, int] | None = None
    found = False
    trailer: Trailer | None = None
    has_dictionary = opened.dictionary is not None
    for head in view.walk(opened.mark):
        if isinstance(head, tuple):
            gap = gap or head
            continue
        block = head.number if head.kind == Kind.BLOCK else None
        if (head.kind, head.number) in seen:
            found = True
            yield Damage(view.name, block, f"there is another {_name(head)}, at byte {head.at}")
            continue
        seen.add((head.kind, head.number))
        try:
            if head.kind == Kind.BLOCK:
                yield _checked(view, head, opened)
            else:
                payload = view.payload(head)
                if head.kind == Kind.HEADER:
                    header = unpack_header(payload)
                    has_dictionary |= header.dictionary_id != 0
                    if header.name != view.name:
                        found = True
                        yield Damage(view.name, None, f"it was written as the archive {header.name}")
                elif head.kind == Kind.TRAILER:
                    trailer = unpack_trailer(payload)
                    has_dictionary |= trailer.dictionary_id != 0
                elif head.kind == Kind.DICTIONARY:
                    codec.unpack_dictionary(payload, head.raw)
        except MalformedError as error:
            found = True
            yield Damage(view.name, block, f"the {_name(head)} is damaged: {error}")
    for damage in _missing(view, seen, trailer, has_dictionary=has_dictionary):
        found = True
        yield damage
    if gap and not found:
        yield Damage(view.name, None, f"the bytes {gap[0]} to {gap[1] - 1} are of no section")


def _checked(view: View, head: Head, opened: Opened) -> Block:
    records = read_records(view.read(head.at, head.end - head.at), head, opened.dictionary)
    if opened.places.get(head.number) != (head.at, head.end):
        raise MalformedError("the index does not lead to it")
    return Block(head.number, records.ids())


def _missing(
    view: View, seen: set[tuple[Kind, int]], trailer: Trailer | None, *, has_dictionary: bool
) -> Iterator[Damage]:
    wanted = [(Kind.HEADER, 0), (Kind.INDEX, 0), (Kind.TRAILER, 0)]
    if has_dictionary:
        wanted += [(Kind.DICTIONARY, 0), (Kind.DICTIONARY, 1)]
    for kind, number in wanted:
        if (kind, number) not in seen:
            name = _NAMES.get(kind) or f"copy {number} of the dictionary"
            yield Damage(view.name, None, f"the {name} is not there, or its head is damaged")
    # No more blocks than have room, whatever a damaged file says.
    last = max((number for kind, number in seen if kind == Kind.BLOCK), default=-1)
    blocks = min(trailer.blocks if trailer else last + 1, view.size // HEAD_BYTES)
    for number in range(blocks):
        if (Kind.BLOCK, number) not in seen:
            yield Damage(view.name, number, "the block is not there, or its head is damaged")


def _name(head: Head) -> str:
    if head.kind == Kind.BLOCK:
        return "block"
    return _NAMES.get(head.kind) or f"copy {head.number} of the dictionary"


def _trailer(view: View) -> tuple[bytes | None, Trailer | None]:
    """The mark and what the trailer says; None where it is damaged."""
    head = view.head(view.size - TRAILER_BYTES, None) if view.size >= TRAILER_BYTES else None
    if head is None or head.kind != Kind.TRAILER:
        return None, None
    try:
        return head.mark, unpack_trailer(view.payload(head))
    except MalformedError:
        return head.mark, None


def _header_mark(view: View) -> bytes | None:
    head = view.head(0, None)
    return head.mark if head else None


def _index(view: View, trailer: Trailer, mark: bytes | None) -> Places | None:
    head = view.head(trailer.index_at, mark)
    if head is None or head.kind != Kind.INDEX:
        return None
    try:
        ends = unpack_index(view.payload(head), trailer.blocks)
    except MalformedError:
        return None
    return Places(ends[:-1], ends[1:]) if ends[-1] <= view.size else None


def _dictionary(view: View, at: int, mark: bytes | None) -> codec.Dictionary | None:
    head = view.head(at, mark)
    if head is None or head.kind != Kind.DICTIONARY:
        return None
    try:
        return codec.unpack_dictionary(view.payload(head), head.raw)
    except MalformedError:
        return None


def _surveyed(view: View, mark: bytes | None) -> Opened:
    found: dict[int, Head] = {}
    dictionary: codec.Dictionary | None = None
    for head in view.walk(mark):
        if isinstance(head, tuple):
            continue
        mark = head.mark
        # No more blocks than have room, whatever a damaged file says.
        if head.kind == Kind.BLOCK and head.number < view.size // HEAD_BYTES:
            found.setdefault(head.number, head)
        elif head.kind == Kind.DICTIONARY and dictionary is None:
            dictionary = _dictionary(view, head.at, mark)
    begins = array("Q", bytes(8 * (max(found, default=-1) + 1)))
    ends = begins[:]
    for number, head in found.items():
        begins[number], ends[number] = head.at, head.end
    return Opened(mark, Places(begins, ends), dictionary)
