"""Every scenario gives the same answers and errors over every interface."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interfaces.client import ClientInterface
from tests.interfaces.interface import Interface
from tests.interfaces.mcp import ACTIONS, MCPInterface, playable, reduced
from tests.interfaces.rest import ROUTES, RestInterface, ToldError
from tests.interfaces.scenarios import SCENARIOS, Scenario, Step
from tests.rest.asking import Rest, make_storage, serving
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.rest.routes import PREFIXES

INTERFACES: dict[str, Callable[[Rest], Any]] = {
    "rest": lambda rest: RestInterface(rest.application, PREFIXES[0]),
    "rest for the backend": lambda rest: RestInterface(rest.application, PREFIXES[1]),
    "client": lambda rest: ClientInterface(rest.application),
}
AGENTS: dict[str, Callable[[Rest], Any]] = {
    "of the present era": lambda rest: MCPInterface(rest.service, modern=True),
    "of the handshake era": lambda rest: MCPInterface(rest.service, modern=False),
}
REFERENCE = "rest"


async def play(scenario: Scenario, make: Callable[[Rest], Any], *, checked: bool = True) -> list[Any]:
    """What each step gave, on a service of its own: an answer, or an error as its code, detail, hint and facts.

    `checked`: it must be what the step says.
    """
    clock = SettableClock()
    given: list[Any] = []
    async with serving(make_storage("inmemory", Path(), clock), clock) as rest:
        interface = make(rest)
        for step in scenario.steps:
            if step.operation == "advance":
                clock.advance(step.arguments["seconds"])
                continue
            given.append(await outcome(interface, step))
            if checked:
                check(step, given[-1])
        await interface.close()
    return given


async def outcome(interface: Interface, step: Step) -> Any:
    try:
        return await interface.do(step.operation, copy.deepcopy(step.arguments))
    except UnifiedMemoryError as error:
        code = error.told_code if isinstance(error, ToldError) else error.code
        facts = {name: fact for name, fact in error.facts.items() if name != "job_id"}
        return {"error": code, "detail": error.detail, "hint": error.hint, **facts}


def check(step: Step, given: Any) -> None:
    if step.error is None:
        assert not isinstance(given, dict) or "error" not in given or "detail" not in given, (step, given)
        if step.gives is not None:
            assert holds(given, step.gives), (step, given)
    else:
        assert isinstance(given, dict), (step, given)
        assert (given.get("error"), given.get("field")) == (step.error, step.field), (step, given)


def holds(given: Any, wanted: Any) -> bool:
    """Whether what was given holds at least what is wanted; lists item by item."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        return all(name in given and holds(given[name], part) for name, part in wanted.items())
    if isinstance(wanted, list) and isinstance(given, list):
        return len(given) == len(wanted) and all(map(holds, given, wanted))
    return type(given) is type(wanted) and bool(given == wanted)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("name", INTERFACES)
async def test_a_scenario_comes_out_as_it_says(scenario: Scenario, name: str) -> None:
    await play(scenario, INTERFACES[name])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("name", [name for name in INTERFACES if name != REFERENCE])
async def test_every_interface_gives_the_very_same(scenario: Scenario, name: str) -> None:
    assert await play(scenario, INTERFACES[name]) == await play(scenario, INTERFACES[REFERENCE])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("name", AGENTS)
async def test_the_tools_of_an_agent_give_the_same_memories_and_errors(scenario: Scenario, name: str) -> None:
    played = playable(scenario)
    operations = [step.operation for step in played.steps if step.operation != "advance"]
    told = [await play(played, make, checked=False) for make in (AGENTS[name], INTERFACES[REFERENCE])]
    agents, rests = [list(map(reduced, operations, given)) for given in told]
    assert agents == rests


def test_every_operation_stands_in_a_scenario() -> None:
    used = {step.operation for scenario in SCENARIOS for step in scenario.steps} - {"advance"}
    assert used == set(ROUTES)


def test_the_tools_play_their_part() -> None:
    steps = [step for scenario in SCENARIOS for step in playable(scenario).steps]
    assert {step.operation for step in steps} == {*ACTIONS, "advance"}
    assert len(steps) > 80
    assert sum(step.error is not None for step in steps) > 15
