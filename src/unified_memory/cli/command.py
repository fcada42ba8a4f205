"""How a command is run: its options, whom it asks, and what becomes of errors."""

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer
from msgspec import Raw, Struct

from unified_memory.cli.views import View, visible
from unified_memory.model.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    SemanticUnavailableError,
    SourceError,
    StorageError,
    UnifiedMemoryError,
)
from unified_memory.model.value import parse

if TYPE_CHECKING:
    from unified_memory.client import UnifiedMemoryClient
    from unified_memory.client.protocol import Answer, Call, Flow
    from unified_memory.settings import Settings

Show = Callable[[Any], View | Sequence[View]]
Run = Callable[..., None]
T = TypeVar("T")

# From the special to the general; what is none of these ends with 1.
EXIT_STATUS: tuple[tuple[type[UnifiedMemoryError], int], ...] = (
    (InvalidInputError, 2),
    (NotFoundError, 3),
    (ConflictError, 4),
    (RefusedError, 5),
    (StorageError, 6),
    (SemanticUnavailableError, 6),
    (SourceError, 6),
)
UNAVAILABLE = 6
OTHERWISE = 1
# A command has ended before a model is loaded.
WITHOUT_SERVICE = "Only a running service searches by meaning: --url URL"
LONG_WORK_SECONDS = 1.0
POLL_SECONDS = 0.2
FAILED = 500
# The host is never looked up: the application is called in this process.
IN_PROCESS = "http://127.0.0.1"

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, exactly as REST gives it.")]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Ask the service running there, such as http://127.0.0.1:3200.")
]
DataDir = Annotated[Path | None, typer.Option(metavar="PATH", help="Work on this data directory (default: as serve).")]

_KIND = inspect.Parameter.KEYWORD_ONLY
_SHARED = [
    inspect.Parameter("url", _KIND, default=None, annotation=Url),
    inspect.Parameter("data_dir", _KIND, default=None, annotation=DataDir),
    inspect.Parameter("json", _KIND, default=False, annotation=Json),
]


class Job(Struct):
    """What is needed of a job."""

    id: str
    kind: str
    state: str
    done: int
    total: int | None
    unit: str
    result: Raw
    error: Any


class _Accepted(Struct):
    job: Job


class Needs(Enum):
    """What a command needs of a data directory."""

    DATA = "one that is there"
    PLACE = "one that is there, or is begun"
    NOTHING = "nothing"


class Target(Struct, frozen=True):
    """Whom a command asks, and how it answers."""

    json: bool = False
    url: str | None = None
    data_dir: Path | None = None

    def settings(self) -> "Settings":
        """The settings of the data directory that the command works on."""
        from unified_memory.settings import load

        return load(data_dir=self.data_dir)

    def ask(self, call: "Call[Any]", show: Show, *, needs: Needs = Needs.DATA) -> Any:
        """Makes the call and shows its answer; returns it."""
        import asyncio

        return self.show(asyncio.run(self._ask(call, needs)), show)

    async def _ask(self, call: "Call[Any]", needs: Needs) -> bytes:
        async with self.connect(needs) as client:
            return (await answer_of(client, call)).content

    def ask_long(self, call: "Call[Any]", show: Show, *, needs: Needs = Needs.DATA) -> Any:
        """Makes a call for long work, waits until it has ended, and shows its result; returns it."""
        return self.show(self.result(call, needs=needs), show)

    def result(self, call: "Call[Any]", *, needs: Needs = Needs.DATA) -> bytes:
        """Makes a call for long work and waits until it has ended; its result."""
        import asyncio

        return asyncio.run(self._ask_long(call, needs))

    async def _ask_long(self, call: "Call[Any]", needs: Needs) -> bytes:
        async with self.connect(needs) as client:
            answer = await answer_of(client, call)
            job = accepted(answer)
            return answer.content if job is None else await job_result(client, job)

    def follow(self, flow: "Flow[T]", each: Callable[[T], object]) -> None:
        """Makes a call whose answer goes on, and takes each item of it as it comes."""
        import asyncio

        async def follow() -> None:
            async with self.connect() as client:
                async for item in client.stream(flow):
                    each(item)

        asyncio.run(follow())

    @asynccontextmanager
    async def connect(self, needs: Needs = Needs.DATA) -> AsyncIterator["UnifiedMemoryClient"]:
        """A client of the service at the URL, else of one in this process on the data directory.

        Raises NotFoundError where there is none, but the command needs it.
        """
        from unified_memory.client import UnifiedMemoryClient

        if self.url is not None:
            if self.data_dir is not None:
                raise InvalidInputError("--url", "--url and --data-dir exclude each other")
            async with UnifiedMemoryClient(self.url) as client:
                yield client
            return
        from unified_memory.app import make_app
        from unified_memory.bootstrap import build
        from unified_memory.cli.inprocess import InProcess

        settings = self.settings()
        if needs is Needs.DATA:
            check_database(settings)
        service = build(settings, copies=False)
        transport = InProcess(make_app(service, settings, anything=True))
        if needs is not Needs.NOTHING:
            await service.open()
        try:
            async with UnifiedMemoryClient(IN_PROCESS, timeout=None, transport=transport) as client:
                yield client
        except SemanticUnavailableError as error:
            if service.meaning is None:
                raise
            raise SemanticUnavailableError(error.detail, hint=WITHOUT_SERVICE) from None
        finally:
            if needs is not Needs.NOTHING:
                await service.close()

    def show(self, content: bytes, show: Show) -> Any:
        """Prints an answer: its bytes with --json, else as `show` makes it of the parsed JSON, which is returned."""
        answer = parse(content)
        if self.json:
            sys.stdout.buffer.write(content + b"\n")
            sys.stdout.flush()
            return answer
        shown = show(answer)
        if isinstance(shown, str):
            typer.echo(visible(shown))
        else:
            from unified_memory.cli.terminal import draw

            draw(shown)
        return answer


def check_database(settings: "Settings") -> None:
    """Raises NotFoundError where the settings name a database that is not there: a slip of the pen, not an empty one."""
    if not settings.database.exists():
        raise NotFoundError(
            f"There is no database at {settings.database}",
            hint="--data-dir names the directory; store and serve begin one",
            database=str(settings.database),
        )


async def answer_of(client: "UnifiedMemoryClient", call: "Call[Any]") -> "Answer":
    """The answer to a call, which is a good one. Raises UnifiedMemoryError."""
    answer = await client.exchange(call)
    call.read(answer)
    return answer


def accepted(answer: "Answer") -> Job | None:
    """The job as which the work goes on; None where it is done."""
    if answer.status != 202:  # noqa: PLR2004 - HTTP: accepted, goes on as a job
        return None
    return msgspec.json.decode(answer.content, type=_Accepted).job


async def job_result(client: "UnifiedMemoryClient", job: Job) -> bytes:
    """The result of a job, when it has ended. Raises UnifiedMemoryError where it did not end well."""
    import asyncio

    from unified_memory.cli.progress import progress
    from unified_memory.client import protocol

    with progress(job.kind, job.unit) as advance:
        while job.state == "running":
            advance(job.done, job.total)
            await asyncio.sleep(POLL_SECONDS)
            job = msgspec.json.decode((await answer_of(client, protocol.get_job(job.id))).content, type=Job)
    if job.state == "failed" and isinstance(job.error, dict) and "code" in job.error:
        # What the request itself would have answered, had it been waited for.
        content = msgspec.json.encode({**job.error, "job_id": job.id})
        raise protocol.error_of(protocol.Answer(FAILED, protocol.PROBLEM, content))
    if job.state != "done":
        detail = job.error.get("detail") if isinstance(job.error, dict) else None
        raise UnifiedMemoryError(f"The job {job.id} is {job.state}" + (f": {detail}" if detail else ""), job_id=job.id)
    return bytes(job.result)


def fail(error: UnifiedMemoryError) -> int:
    """Tells an error in one line on standard error; returns the exit status."""
    hint = f" ({error.hint})" if error.hint else ""
    # Of several sources it must be known which.
    where = f"{error.facts['kind']} {error.facts['location']}: " if isinstance(error, SourceError) else ""
    typer.echo(f"error: {visible(where)}{visible(error.detail)}{visible(hint)}", err=True)
    if error.code in {"service_unavailable", "unexpected_answer"}:
        return UNAVAILABLE
    return next((status for kind, status in EXIT_STATUS if isinstance(error, kind)), OTHERWISE)


@contextmanager
def errors_told() -> Iterator[None]:
    """Ends the command with its exit status where an error comes out of the block."""
    try:
        yield
    except UnifiedMemoryError as error:
        raise typer.Exit(fail(error)) from None


def command(group: typer.Typer, name: str, *, remote: bool = True, panel: str | None = None) -> Callable[[Run], Run]:
    """Makes a function a command. Its first parameter is the target, whose options the command gets beside its own.

    `remote`: whether it can ask a running service. `panel`: where it stands in the help.
    """
    shared = _SHARED[0 if remote else 1 :]

    def made(run: Run) -> Run:
        own = list(inspect.signature(run, eval_str=True).parameters.values())[1:]

        def entry(**given: Any) -> None:
            target = Target(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            with errors_told():
                run(target, **given)

        entry.__doc__ = run.__doc__
        entry.__dict__["__signature__"] = inspect.Signature([*(p.replace(kind=_KIND) for p in own), *shared])
        group.command(name, rich_help_panel=panel)(entry)
        return run

    return made


def alone(group: typer.Typer) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Makes a function what a group of commands does where none of them is named."""

    def made(run: Callable[[Target], None]) -> Callable[[Target], None]:
        def entry(context: typer.Context, **given: Any) -> None:
            with errors_told():
                if context.invoked_subcommand is None:
                    run(Target(**given))
                elif any(given.values()):
                    # They would be the target of nothing.
                    raise InvalidInputError(
                        "options",
                        f"Options stand behind the command: {context.info_name} {context.invoked_subcommand} …",
                    )

        entry.__doc__ = run.__doc__
        first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        entry.__dict__["__signature__"] = inspect.Signature([first, *_SHARED])
        group.callback(invoke_without_command=True)(entry)
        return run

    return made
