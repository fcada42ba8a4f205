"""The switch and the way back, killed at any instant and done again: the older services hold everything, and each of it once."""

import asyncio
import json
import random
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw

from tests.faults.processes import PATIENCE, ROOT
from tests.sources.test_extended_memory import Made
from unified_memory.bootstrap import build
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import BY_ID, Selection
from unified_memory.service.migration import RunOptions
from unified_memory.service.projects import project_of
from unified_memory.service.requests import StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import load
from unified_memory.sources.ledger import Phase

CONTEXTS, FILES = 120, 40


@asynccontextmanager
async def service_on(directory: Path) -> AsyncIterator[Service]:
    service = build(load({}, data_dir=directory))
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def prepare(directory: Path, rng: random.Random) -> None:
    """Older services in that directory that were copied."""
    made = Made(directory / "memory.db")
    for number in range(CONTEXTS):
        made.save(f"context {number} {rng.random()}", 1 + number % 10, f"p{number % 3}", (f"t{number % 5}",))
    made.database.close()
    for number in range(FILES):
        path = directory / "bank" / f"p{number % 3}" / f"f{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}")
    named = [("extended-memory-sqlite", str(directory / "memory.db")), ("memory-bank-files", str(directory / "bank"))]
    async with service_on(directory) as service:
        await service.migration.run(ANONYMOUS, named, RunOptions(rollback_point=False))


async def change(directory: Path) -> None:
    """Everything that can happen after the switch."""
    async with service_on(directory) as service:
        for number in range(70):
            await service.contexts.save(ANONYMOUS, f"new {number}", project=f"p{number % 4}", importance=5, tags=("n",))
        for number in range(1, 30):
            await service.contexts.forget(ANONYMOUS, number)
        for number in range(20):
            await service.bank.update(ANONYMOUS, f"p{number % 3}", f"f{number}.md", f"changed {number}")
        for number in range(20, 25):
            await service.memories.delete(ANONYMOUS, f"projects/p{number % 3}", f"f{number}.md")
        for number in range(15):
            await service.bank.write(ANONYMOUS, "p9", f"made {number}.md", f"made {number}")
        for number in range(10):
            request = StoreRequest(Raw(json.dumps({"n": number}).encode()), f"object {number}", "projects/p1")
            await service.memories.store(ANONYMOUS, request)


def held(directory: Path) -> Any:
    """What the older services hold: how often each context, each file with its content."""
    database = apsw.Connection(str(directory / "memory.db"))
    contexts = Counter(database.execute("SELECT project_id, content, importance_level FROM contexts").fetchall())
    tags = Counter(database.execute("SELECT name FROM context_tags JOIN tags ON tags.id = tag_id").fetchall())
    assert database.execute("PRAGMA integrity_check").get == "ok"
    database.close()
    bank = directory / "bank"
    return (
        contexts,
        tags,
        {str(path.relative_to(bank)): path.read_bytes() for path in bank.rglob("*") if path.is_file()},
    )


async def expected(directory: Path) -> Any:
    """What they are to hold, by what is here."""
    contexts: Counter[Any] = Counter()
    tags: Counter[Any] = Counter()
    files = {}
    async with service_on(directory) as service:
        page = await service.storage.select(Selection(("projects",), order=BY_ID, limit=1000), service.clock.now())
        for memory in page.items:
            if memory.key.startswith("context/"):
                contexts[project_of(memory.namespace), json.loads(memory.value), memory.importance] += 1
                tags.update((tag,) for tag in memory.tags)
        for project in await service.bank.projects(ANONYMOUS):
            for name in await service.bank.files(ANONYMOUS, project):
                files[f"{project}/{name}"] = (await service.bank.read(ANONYMOUS, project, name)).encode()
    return contexts, tags, files


async def start(directory: Path, *told: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.returning", str(directory), *told, cwd=ROOT, stdout=PIPE
    )


async def done(directory: Path, *told: str) -> float:
    """Does a step to its end; the seconds from its beginning."""
    process = await start(directory, *told)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"begins\n"
        since = asyncio.get_running_loop().time()
        assert await process.wait() == 0
    return asyncio.get_running_loop().time() - since


async def killed(directory: Path, step: str, seconds: float) -> bool:
    """Kills a step so long after its beginning; whether it was not done by then."""
    process = await start(directory, step)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"begins\n"
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
        return await process.wait() != 0


async def died(directory: Path, *told: str) -> bool:
    """Does a step until it kills itself."""
    process = await start(directory, *told)
    async with asyncio.timeout(PATIENCE):
        await process.communicate()
    return process.returncode == -signal.SIGKILL


async def phase(directory: Path) -> Phase:
    async with service_on(directory) as service:
        return await service.migration.phase()


@pytest.fixture
async def directory(tmp_path: Path, rng: random.Random) -> Path:
    """Switched, with everything changed."""
    directory = tmp_path / "data"
    directory.mkdir()
    await prepare(directory, rng)
    await done(directory, "switch")
    await change(directory)
    return directory


async def test_a_rollback_killed_at_each_of_its_steps_and_done_again_ends_in_everything_once(directory: Path) -> None:
    wanted = await expected(directory)
    assert held(directory) != wanted
    assert await died(directory, "pass", "2")
    # Written and not noted; noted and the cursor not moved; all written and the phase not set.
    for told in (("1",), ("2",), ("2", "put"), ("3", "put_returned"), ("1", "returned"), ("2", "set_phase")):
        assert await died(directory, "rollback", *told), told
        assert await phase(directory) in {Phase.SWITCHED, Phase.RETURNING}
    await done(directory, "rollback")
    assert held(directory) == wanted
    assert await phase(directory) is Phase.RETURNED


@pytest.mark.parametrize("points", [pytest.param(6, id="some"), pytest.param(40, marks=pytest.mark.nightly, id="many")])
async def test_a_rollback_killed_at_any_instant_and_done_again_ends_in_everything_once(
    points: int, directory: Path, tmp_path: Path, rng: random.Random
) -> None:
    wanted = await expected(directory)
    before = tmp_path / "before"
    shutil.copytree(directory, before)
    took = await done(directory, "rollback")
    assert held(directory) == wanted
    kills = 0
    while kills < points:
        shutil.rmtree(directory)
        shutil.copytree(before, directory)
        for step in rng.choices(("pass", "rollback"), k=rng.randint(1, 3)):
            kills += await killed(directory, step, rng.uniform(0, took))
        await done(directory, "rollback")
        assert held(directory) == wanted


async def test_a_switch_killed_at_each_of_its_steps_is_done_again(tmp_path: Path, rng: random.Random) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    await prepare(directory, rng)
    database = apsw.Connection(str(directory / "memory.db"))
    database.execute(
        "INSERT INTO contexts (project_id, content, importance_level, created_at) VALUES ('p1', 'late', 5, '2025-07-01T12:00:00')"
    )
    database.close()
    for told in (("1",), ("1", "set_phase"), ("2", "set_phase")):
        assert await died(directory, "switch", *told), told
        assert await phase(directory) in {Phase.SHADOW, Phase.SWITCHING}
    await done(directory, "switch")
    assert await phase(directory) is Phase.SWITCHED
    assert (await expected(directory))[0] == held(directory)[0]
