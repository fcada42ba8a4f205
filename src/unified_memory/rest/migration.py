"""Routes of the migration from other programs."""

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from unified_memory.model.errors import RefusedError, SourceError
from unified_memory.model.value import encode
from unified_memory.rest.exchange import Answer, Call, decode, patience
from unified_memory.rest.work import absolutely, long_work
from unified_memory.service.jobs import Running
from unified_memory.service.mapping import Mapping
from unified_memory.service.migration import RunOptions
from unified_memory.service.replaying import Replay
from unified_memory.service.service import Service
from unified_memory.service.work import Advance
from unified_memory.sources.base import Options
from unified_memory.sources.kinds import kind_of

# What lies at these kinds' locations is no file: something is called, or started.
LIVE = frozenset({"extended-memory-mcp", "memory-bank-mcp", "extended-memory-http"})
MOST_FIRST = 100
MOST_SAMPLES = 10_000
_PASSWORD = re.compile(r"(://[^/?#@:]*):[^/?#]*@")
_HINT = "The command does it on the machine itself: unified-memory migrate"


class Reachable(Struct, frozen=True):
    """Which sources a migration may be given: whatever there is (`anything`), else files and folders below `directory`; without
    it none.
    """

    directory: Path | None = None
    anything: bool = False

    def place(self, kind: str, location: str) -> str:
        """The location as it is opened: of files and folders the whole path. A relative one begins in the directory, or where
        the process works.

        Raises RefusedError where it may not be given, InvalidInputError for a kind that there is not, SourceError where there
        is nothing.
        """
        kind_of(kind)
        live = kind in LIVE or "://" in location
        if self.anything:
            return location if live else _whole(kind, location)
        self.check(live=live)
        directory = (self.directory or Path()).resolve()
        try:
            path = (directory / location).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            # What lies elsewhere is not told, not even that it is not there.
            path = (directory / location).absolute()
            if ".." not in path.parts and path.is_relative_to(directory):
                raise SourceError(kind, location, "There is nothing at that place") from None
            raise _outside() from None
        if not path.is_relative_to(directory):
            raise _outside()
        return str(path)

    def check(self, *, live: bool) -> None:
        """Raises RefusedError where no source may be given, or no live one."""
        if self.anything:
            return
        if self.directory is None:
            raise RefusedError("Without MIGRATION_DIR no source can be named over REST", hint=_HINT)
        if live:
            raise RefusedError("Over REST a source is a file or a folder, not a URL and not a command", hint=_HINT)


def _whole(kind: str, location: str) -> str:
    try:
        return str(Path(location).expanduser().absolute())
    except RuntimeError as error:
        raise SourceError(kind, location, f"There is no such place: {error}") from None


def _outside() -> RefusedError:
    return RefusedError("Over REST only what lies below MIGRATION_DIR can be named", hint=_HINT)


# ---- what is asked
class NamedSource(Struct, forbid_unknown_fields=True):
    """Where memories of another program are."""

    kind: str
    location: str


class PlanMigrationRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What would be copied from where, and what becomes of it. `first`: of how many records of each source that is told."""

    sources: list[NamedSource] = []
    mapping: Mapping | None = None
    namespace_template: str | None = None
    on_conflict: Literal["skip", "replace"] = "skip"
    prefix: str | None = None
    keep_ttl: bool = False
    first: Annotated[int, Meta(ge=0, le=MOST_FIRST)] = 5


class RunMigrationRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is copied from where, and what becomes of it. `follow`: again and again until the switch, every `interval` seconds."""

    sources: list[NamedSource] = []
    mapping: Mapping | None = None
    namespace_template: str | None = None
    on_conflict: Literal["skip", "replace"] = "skip"
    prefix: str | None = None
    keep_ttl: bool = False
    follow: bool = False
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 2.0
    dry_run: bool = False
    rollback_point: bool = True


class VerifyMigrationRequest(Struct, forbid_unknown_fields=True):
    """How what was copied is compared with its sources. `older`: the command or the URL of the older service, of which so many
    reads (`samples`) are asked too.
    """

    samples: Annotated[int, Meta(ge=1, le=MOST_SAMPLES)] = 50
    older: str | None = None


class SwitchMigrationRequest(Struct, forbid_unknown_fields=True):
    """`timeout`: seconds that proxies may take to follow."""

    timeout: Annotated[float, Meta(ge=0, le=600)] = 30.0


class RollbackMigrationRequest(Struct, forbid_unknown_fields=True):
    """`restore`: what is here becomes what it was before the migration, too. `timeout` as of a switch."""

    restore: bool = False
    timeout: Annotated[float, Meta(ge=0, le=600)] = 30.0


class FinishMigrationRequest(Struct, forbid_unknown_fields=True):
    """`timeout`: seconds that a pass which is under way may take to end."""

    timeout: Annotated[float, Meta(ge=0, le=600)] = 30.0


_plan = msgspec.json.Decoder(PlanMigrationRequest)
_run = msgspec.json.Decoder(RunMigrationRequest)
_verify = msgspec.json.Decoder(VerifyMigrationRequest)
_switch = msgspec.json.Decoder(SwitchMigrationRequest)
_rollback = msgspec.json.Decoder(RollbackMigrationRequest)
_finish = msgspec.json.Decoder(FinishMigrationRequest)


# ---- routes
async def migration(service: Service, call: Call) -> Answer:
    """GET /migration."""
    call.query()
    return Answer(encode(_fields(await service.migration.status(call.principal))))


async def migration_report(service: Service, call: Call) -> Answer:
    """GET /migration/report."""
    call.query()
    return Answer(encode(_fields(await service.migration.report(call.principal))))


async def plan_migration(service: Service, call: Call) -> Answer:
    """POST /migration/plan."""
    seconds = patience(call.query("wait"))
    request = decode(_plan, call.body)
    sources, options = await _places(call, request.sources), _options(request, first=request.first)

    async def work(_running: Running) -> dict[str, Any]:
        return _fields(await service.migration.plan(call.principal, sources, options))

    return await long_work(service, call, "plan_migration", "", work, seconds=seconds)


async def run_migration(service: Service, call: Call) -> Answer:
    """POST /migration/run."""
    seconds = patience(call.query("wait"))
    request = decode(_run, call.body)
    sources = await _places(call, request.sources)
    options = _options(
        request,
        follow=request.follow,
        interval=request.interval,
        dry_run=request.dry_run,
        rollback_point=request.rollback_point,
    )

    async def work(running: Running) -> dict[str, Any]:
        advance = absolutely(running)
        if request.follow:
            advance = _endlessly(advance)
        return _fields(await service.migration.run(call.principal, sources, options, advance))

    return await long_work(service, call, "migrate", "", work, seconds=seconds)


async def verify_migration(service: Service, call: Call) -> Answer:
    """POST /migration/verify."""
    seconds = patience(call.query("wait"))
    request = decode(_verify, call.body)
    if request.older is not None:
        _reachable(call).check(live=True)
    replay = None if request.older is None else Replay(request.older)

    async def work(running: Running) -> dict[str, Any]:
        verification = await service.migration.verify(
            call.principal, replay=replay, samples=request.samples, advance=absolutely(running)
        )
        return _fields(verification)

    return await long_work(service, call, "verify_migration", "", work, seconds=seconds)


async def switch_migration(service: Service, call: Call) -> Answer:
    """POST /migration/switch."""
    seconds = patience(call.query("wait"))
    request = decode(_switch, call.body)

    async def work(_running: Running) -> dict[str, Any]:
        return _fields(await service.migration.switch(call.principal, wait=request.timeout))

    return await long_work(service, call, "switch_migration", "", work, seconds=seconds)


async def rollback_migration(service: Service, call: Call) -> Answer:
    """POST /migration/rollback."""
    seconds = patience(call.query("wait"))
    request = decode(_rollback, call.body)

    async def work(running: Running) -> dict[str, Any]:
        rolled_back = await service.migration.rollback(
            call.principal, restore=request.restore, advance=absolutely(running), wait=request.timeout
        )
        return _fields(rolled_back)

    return await long_work(service, call, "rollback_migration", "", work, seconds=seconds)


async def finish_migration(service: Service, call: Call) -> Answer:
    """POST /migration/finish."""
    seconds = patience(call.query("wait"))
    request = decode(_finish, call.body)

    async def work(_running: Running) -> dict[str, Any]:
        return _fields(await service.migration.finish(call.principal, wait=request.timeout))

    return await long_work(service, call, "finish_migration", "", work, seconds=seconds)


def _endlessly(advance: Advance) -> Advance:
    """The same for work of which nobody knows how much it will be."""
    return lambda done, _total: advance(done, None)


def _fields(told: Struct) -> dict[str, Any]:
    """What is told, without the passwords of URLs."""
    fields: dict[str, Any] = _masked(msgspec.to_builtins(told))
    return fields


def _masked(told: Any) -> Any:
    if isinstance(told, list):
        return [_masked(one) for one in told]
    if not isinstance(told, dict):
        return told
    return {
        name: _PASSWORD.sub(r"\1:***@", one) if name == "location" and isinstance(one, str) else _masked(one)
        for name, one in told.items()
    }


def _reachable(call: Call) -> Reachable:
    """Which sources whoever calls may name."""
    reachable: Reachable = call.scope.get("unified_memory.reachable", Reachable())
    return reachable


async def _places(call: Call, sources: list[NamedSource]) -> list[tuple[str, str]]:
    """Where the sources are. Raises as `Reachable.place`."""
    reachable = _reachable(call)
    return [(one.kind, await asyncio.to_thread(reachable.place, one.kind, one.location)) for one in sources]


def _options(request: PlanMigrationRequest | RunMigrationRequest, **told: Any) -> RunOptions:
    mapping = request.mapping or Mapping()
    if request.namespace_template is not None:
        mapping = msgspec.structs.replace(mapping, namespace_template=request.namespace_template)
    mapping.check()
    options = Options(keep_ttl=request.keep_ttl)
    if request.prefix is not None:
        options = msgspec.structs.replace(options, prefix=request.prefix)
    return RunOptions(mapping=mapping, on_conflict=request.on_conflict, options=options, **told)
