"""What a backup says of itself: `manifest.json`, and the sums of all its files in `SHA256SUMS`."""

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from unified_memory.model.clock import from_rfc3339, to_rfc3339
from unified_memory.model.errors import BackupDamagedError, RefusedError

FORMAT = 1
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
IDENTITY = "identity.age"
IDENTITY_KIND = "identity"
# In the order in which they are written and put back.
KINDS = ("spaces", "floors", "buried", "memories", "past", "used", "sessions")

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_SUMS = re.compile(rb"(?:[0-9a-f]{64}  [^\n]+\n)*([0-9a-f]{64})  manifest\.json\n")

Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a backup: `records` rows of one kind in `raw_bytes` of JSON Lines, stored in `bytes`. `sha256` in hexadecimal
    digits, of the file as it is stored. The kind "identity" is a key that is encrypted with the passphrase; it has no rows.
    """

    name: str
    kind: str
    records: Count
    raw_bytes: Count
    bytes: Count
    sha256: Digest


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """A backup, as `manifest.json` has it.

    `created_at`: the instant of the snapshot, RFC 3339. `store`, `seq` and `schema`: those of the snapshot. `parent`: the backup
    whose changes this incremental one goes on from, `parent_sha256` the `sha256` of its manifest. `memories` and `bytes` (of
    values): visible at the instant; `namespaces`: how many in each. Where it is encrypted, namespaces and note are not told.
    `sha256`: of the digests of all parts in hexadecimal digits, one a line, in their order.
    """

    id: str
    created_at: str
    store: str
    seq: Count
    schema: Count
    program: str
    kind: Literal["full", "incremental"]
    parent: str | None
    parent_sha256: Digest | None
    reason: Literal["manual", "scheduled", "safety"]
    note: str | None
    memories: Count
    bytes: Count
    namespaces: dict[str, Count] | None
    encryption: Literal["age"] | None
    parts: list[Part]
    sha256: Digest
    format: int = FORMAT


class _Head(Struct):
    format: int


_decode_head = msgspec.json.Decoder(_Head).decode
_decode = msgspec.json.Decoder(Manifest).decode


def new_id(now: int) -> str:
    """A name for a backup begun at that instant, by which it sorts: `20261123T020000Z-0a1b2c3d`."""
    second = to_rfc3339(now)[:19].replace("-", "").replace(":", "")
    return f"{second}Z-{secrets.token_hex(4)}"


def is_id(backup_id: str) -> bool:
    """Whether that can be the name of a backup; none leads out of where they lie."""
    return _ID.fullmatch(backup_id) is not None


def part_name(kind: str, number: int, *, sealed: bool) -> str:
    """The file of the `number`th part (from 1) of a kind."""
    return f"{kind}-{number:04d}.jsonl.zst{'.age' if sealed else ''}"


def sha256_of_parts(parts: Iterable[Part]) -> str:
    """`Manifest.sha256`."""
    return hashlib.sha256(b"".join(part.sha256.encode() + b"\n" for part in parts)).hexdigest()


def pack_manifest(manifest: Manifest) -> bytes:
    """The text of `manifest.json`."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def pack_sums(parts: Iterable[Part], manifest: bytes) -> bytes:
    """The text of `SHA256SUMS` beside that text of `manifest.json`."""
    lines = [f"{part.sha256}  {part.name}\n" for part in parts]
    lines.append(f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n")
    return "".join(lines).encode()


def unpack(backup_id: str, manifest: bytes, sums: bytes) -> Manifest:
    """The manifest of a backup, out of the text of both files.

    Raises BackupDamagedError naming the one that is damaged, RefusedError where a newer program wrote it.
    """
    listed = _SUMS.fullmatch(sums)
    if listed is None:
        raise BackupDamagedError(backup_id, SUMS, "it is not a list of sums that ends with the manifest's")
    actual = hashlib.sha256(manifest).hexdigest().encode()
    if listed[1] != actual:
        # A digest that is nearly right was itself damaged; that of another text has about 4 of 64 digits in common with it.
        alike = sum(one == other for one, other in zip(listed[1], actual, strict=True))
        damaged = SUMS if alike > len(actual) // 2 else MANIFEST
        raise BackupDamagedError(backup_id, damaged, f"the sha256 of {MANIFEST} is not what {SUMS} lists")
    try:
        found = _decode_head(manifest).format
        if found > FORMAT:
            raise RefusedError(
                f"The backup {backup_id} has format {found}; this program knows up to {FORMAT}",
                hint="Use the newer program",
                found=found,
                known=FORMAT,
            )
        unpacked = _decode(manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BackupDamagedError(backup_id, MANIFEST, str(error)) from error
    if wrong := _wrong(backup_id, unpacked):
        raise BackupDamagedError(backup_id, MANIFEST, wrong)
    if sums != pack_sums(unpacked.parts, manifest):
        raise BackupDamagedError(backup_id, SUMS, f"its sums are not those of {MANIFEST}")
    return unpacked


def _wrong(backup_id: str, manifest: Manifest) -> str | None:
    """What cannot be so, although each member by itself can."""
    if manifest.id != backup_id:
        return f"it is of the backup {manifest.id!r}"
    if manifest.format != FORMAT:
        return f"there is no format {manifest.format}"
    try:
        from_rfc3339(manifest.created_at)
    except ValueError:
        return f"created_at is {manifest.created_at!r}, which is no instant"
    named = manifest.parent is not None and manifest.parent_sha256 is not None and is_id(manifest.parent)
    none = manifest.parent is None and manifest.parent_sha256 is None
    if not (named if manifest.kind == "incremental" else none):
        return f"parent does not go with kind {manifest.kind}"
    sealed = manifest.encryption is not None
    numbers: Counter[str] = Counter()
    for part in manifest.parts:
        numbers[part.kind] += 1
        if part.kind == IDENTITY_KIND:
            expected = IDENTITY if sealed and numbers[part.kind] == 1 else None
        elif part.kind in KINDS:
            expected = part_name(part.kind, numbers[part.kind], sealed=sealed)
        else:
            expected = None
        if part.name != expected:
            return f"{part.name!r} cannot be a part of kind {part.kind!r} there"
    if manifest.sha256 != sha256_of_parts(manifest.parts):
        return "sha256 is not that of the sums of the parts"
    return None
