"""Many If-Match updates of one key at once: exactly one wins each version, and every loser is told the current one."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from tests.faults.clients import Inside
from tests.faults.conftest import Start
from tests.faults.directories import opened
from tests.faults.runner import SHARED, Raced, race_on
from unified_memory.app import make_app
from unified_memory.model.errors import VersionConflictError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import Conditions, StoreRequest, UpdateRequest
from unified_memory.service.service import Service
from unified_memory.settings import load

CALLERS = 64


async def begin(service: Service) -> None:
    """The key at version 1."""
    await service.memories.store(ANONYMOUS, StoreRequest(Raw(b"{}"), SHARED))


async def judge(service: Service, raced: list[Raced], wins: int) -> None:
    """Every version was won once, and no loser was told anything but a version above the one it named."""
    assert [error for one in raced for error in one.errors] == []
    won = {version: task for one in raced for task, versions in one.won.items() for version in versions}
    assert sum(len(versions) for one in raced for versions in one.won.values()) == len(won) == wins
    assert sorted(won) == list(range(2, wins + 2))
    lost = [told for one in raced for told in one.lost]
    assert lost
    assert all(named < current <= wins + 1 for named, current in lost)
    memory = await service.memories.retrieve(ANONYMOUS, "default", SHARED)
    assert memory.version == wins + 1
    assert memory.parsed() == {"by": won[wins + 1], "over": wins}


async def test_of_64_updates_that_name_one_version_exactly_one_wins(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await begin(service)

        async def update(me: int) -> int:
            request = UpdateRequest(Raw(msgspec.json.encode(me)))
            outcome = await service.memories.update(ANONYMOUS, "default", SHARED, request, Conditions(1))
            assert outcome.memory is not None
            return outcome.memory.version

        told = await asyncio.gather(*(update(me) for me in range(CALLERS)), return_exceptions=True)
        winners = [me for me, result in enumerate(told) if result == 2]
        losers = [result for result in told if isinstance(result, VersionConflictError)]
        assert (len(winners), len(losers)) == (1, CALLERS - 1)
        assert {error.facts["current_version"] for error in losers} == {2}
        assert (await service.memories.retrieve(ANONYMOUS, "default", SHARED)).parsed() == winners[0]


async def test_of_64_callers_that_try_until_they_have_won_each_wins_one_version(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await begin(service)
        raced = await race_on(service, "here", CALLERS, 1)
        await judge(service, [raced], CALLERS)
        assert all(len(versions) == 1 for versions in raced.won.values())


async def test_over_rest_the_losers_get_412_with_the_current_version(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await begin(service)
        client = Inside(make_app(service, load({})))
        replies = await asyncio.gather(
            *(client.ask("PUT", f"/update/{SHARED}", {"value": me}, If_Match='"1"') for me in range(CALLERS))
        )
        assert sorted(reply.status for reply in replies) == [200] + [412] * (CALLERS - 1)
        assert {reply.body.get("current_version") for reply in replies if reply.status == 412} == {2}
        assert [reply.headers["etag"] for reply in replies if reply.status == 200] == ['"2"']


async def test_over_two_processes_each_version_is_won_once(tmp_path: Path, start: Start) -> None:
    async with opened(tmp_path) as service:
        await begin(service)
        runners = [await start("race", tmp_path, name=name, tasks=CALLERS // 2, rounds=2) for name in ("one", "other")]
        for runner in runners:
            await runner.line("ready")
        for runner in runners:
            runner.send("go")
        raced = [await runner.told(Raced) for runner in runners]
        await judge(service, raced, 2 * CALLERS)


@pytest.mark.parametrize("version", [0, 2, 7])
async def test_an_update_that_names_a_wrong_version_changes_nothing(version: int, tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await begin(service)
        request = UpdateRequest(Raw(b"1"), expected_version=version)
        with pytest.raises(VersionConflictError) as refused:
            await service.memories.update(ANONYMOUS, "default", SHARED, request)
        assert refused.value.facts["current_version"] == 1
        memory = await service.memories.retrieve(ANONYMOUS, "default", SHARED)
        assert (memory.version, memory.value) == (1, b"{}")
