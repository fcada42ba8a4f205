"""Routes of backups."""

from typing import Any

import msgspec

from unified_memory.model.clock import SECOND, to_rfc3339
from unified_memory.model.value import encode
from unified_memory.rest.exchange import Answer, Call, decode, patience
from unified_memory.rest.memories import page
from unified_memory.rest.work import absolutely, long_work
from unified_memory.service.backups import Backup, BackupState, Restored
from unified_memory.service.jobs import Running
from unified_memory.service.requests import BackupRequest, RestoreRequest
from unified_memory.service.service import Service
from unified_memory.storage.backup import Verified

_backup = msgspec.json.Decoder(BackupRequest)
_restore = msgspec.json.Decoder(RestoreRequest)


# ---- what is told of one
def verified_fields(verified: Verified | None) -> dict[str, Any] | None:
    """What a verification came to, as JSON-ready facts."""
    return None if verified is None else msgspec.structs.asdict(verified)


def backup_fields(backup: Backup, *, parts: bool = False) -> dict[str, Any]:
    """A backup as JSON-ready facts. `parts`: with its files."""
    manifest = backup.manifest
    told = {
        "id": manifest.id,
        "created_at": manifest.created_at,
        "kind": manifest.kind,
        "parent": manifest.parent,
        "reason": manifest.reason,
        "note": manifest.note,
        "memories": manifest.memories,
        "bytes": backup.bytes,
        "raw_bytes": manifest.bytes,
        "seq": manifest.seq,
        "store": manifest.store,
        "schema": manifest.schema,
        "program": manifest.program,
        "encrypted": manifest.encryption is not None,
        "namespaces": manifest.namespaces,
        "verified": verified_fields(backup.verified),
    }
    return {**told, "parts": [msgspec.structs.asdict(part) for part in manifest.parts]} if parts else told


def _restored_fields(restored: Restored) -> dict[str, Any]:
    differences = [msgspec.structs.asdict(difference) for difference in restored.differences]
    return {**msgspec.structs.asdict(restored), "differences": differences}


def state_fields(state: BackupState) -> dict[str, Any]:
    """What health tells of backups."""
    return {
        "last_at": None if state.last_at is None else to_rfc3339(state.last_at),
        "verified_at": None if state.verified_at is None else to_rfc3339(state.verified_at),
        "verified_ok": state.verified_ok,
    }


def age_seconds(instant: int | None, now: int) -> int | None:
    """Whole seconds since then, None where there is no such instant."""
    return None if instant is None else max(0, now - instant) // SECOND


# ---- routes
async def create_backup(service: Service, call: Call) -> Answer:
    """POST /backup."""
    seconds = patience(call.query("wait"))
    request = decode(_backup, call.body) if call.body else BackupRequest()

    async def work(running: Running) -> dict[str, Any]:
        return backup_fields(await service.backups.create(call.principal, request, advance=absolutely(running)))

    return await long_work(service, call, "backup", "", work, seconds=seconds)


async def list_backups(service: Service, call: Call) -> Answer:
    """GET /backups."""
    call.query()
    backups = await service.backups.list_all(call.principal)
    return page("backups", (encode(backup_fields(backup)) for backup in backups), None)


async def get_backup(service: Service, call: Call) -> Answer:
    """GET /backups/{id}."""
    call.query()
    return Answer(encode(backup_fields(await service.backups.get(call.principal, call.tail), parts=True)))


async def verify_backup(service: Service, call: Call) -> Answer:
    """POST /backups/{id}/verify."""
    seconds = patience(call.query("wait"))
    # A slip of the pen is told at once, and not as a job that failed.
    await service.backups.get(call.principal, call.tail)

    async def work(running: Running) -> dict[str, Any]:
        verified = await service.backups.verify(call.principal, call.tail, absolutely(running))
        return {"backup_id": call.tail, **msgspec.structs.asdict(verified)}

    return await long_work(service, call, "verify_backup", "", work, seconds=seconds)


async def delete_backup(service: Service, call: Call) -> Answer:
    """DELETE /backups/{id}."""
    call.query()
    return Answer(encode(backup_fields(await service.backups.delete(call.principal, call.tail))))


async def restore(service: Service, call: Call) -> Answer:
    """POST /restore."""
    seconds = patience(call.query("wait"))
    request = decode(_restore, call.body)

    async def work(running: Running) -> dict[str, Any]:
        return _restored_fields(await service.backups.restore(call.principal, request, absolutely(running)))

    return await long_work(service, call, "restore", request.namespace or "", work, seconds=seconds)
