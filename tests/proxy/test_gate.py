"""The gate: who is let in, who is held back, and what is acknowledged."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.proxy.manager import BOUND, RecordingManager, until
from unified_memory.model.errors import MigrationStateError
from unified_memory.proxy.gate import Gate
from unified_memory.sources.ledger import Phase


@pytest.fixture
async def manager() -> RecordingManager:
    return RecordingManager(Phase.SHADOW)


@pytest.fixture
async def gate(manager: RecordingManager) -> AsyncIterator[Gate]:
    gate = Gate(manager, "extended-memory")
    await gate.open()
    yield gate
    await gate.close()
    assert manager.members == set()


async def acknowledged(manager: RecordingManager, phase: Phase) -> None:
    await until(lambda: manager.acknowledged[-1:] == [phase])


async def test_a_proxy_joins_and_acknowledges_the_phase_that_it_finds(gate: Gate, manager: RecordingManager) -> None:
    assert manager.members == {"extended-memory"}
    await acknowledged(manager, Phase.SHADOW)
    async with gate.enter() as phase:
        assert phase is Phase.SHADOW


async def test_a_change_is_acknowledged_only_when_what_was_under_way_is_done(
    gate: Gate, manager: RecordingManager
) -> None:
    async with gate.enter():
        manager.now = Phase.SWITCHING
        held = asyncio.create_task(gate.let_in())
        asked = manager.asked
        await until(lambda: manager.asked > asked + 10)
        assert Phase.SWITCHING not in manager.acknowledged
        assert not held.done()
    await acknowledged(manager, Phase.SWITCHING)
    assert not held.done()
    manager.now = Phase.SWITCHED
    ticket = await asyncio.wait_for(held, BOUND)
    assert ticket.phase is Phase.SWITCHED
    ticket.leave()
    await acknowledged(manager, Phase.SWITCHED)


async def test_whoever_is_held_back_for_too_long_is_told_so(manager: RecordingManager) -> None:
    manager.now = Phase.RETURNING
    gate = Gate(manager, "extended-memory", hold=0.1)
    with pytest.raises(MigrationStateError) as caught:
        await gate.let_in()
    assert caught.value.facts["state"] == "returning"
    manager.now = Phase.RETURNED
    async with gate.enter() as phase:
        assert phase is Phase.RETURNED
