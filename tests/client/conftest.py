"""Both clients, each speaking to a real service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import isasyncgen, isawaitable
from typing import Any

import pytest

from tests.client.serving import serving
from unified_memory.client import SyncUnifiedMemoryClient, UnifiedMemoryClient


class Awaited:
    """An asynchronous client (or a part of it), used as the synchronous one is: the same tests run over both."""

    def __init__(self, part: Any, run: Callable[[Any], Any]) -> None:
        self._part = part
        self._run = run

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._called(found) if callable(found) else Awaited(found, self._run)

    def _called(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = operation(*args, **kwargs)
            if isasyncgen(result):
                return iter(self._run(_all(result)))
            return self._run(result) if isawaitable(result) else result

        return call


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


@pytest.fixture(scope="session")
def service_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture(params=["asynchronous", "synchronous"])
def client(request: pytest.FixtureRequest, service_url: str) -> Iterator[Any]:
    """One client after the other; a `SyncUnifiedMemoryClient` to the type checker's eye and the test's."""
    if request.param == "synchronous":
        with SyncUnifiedMemoryClient(service_url) as synchronous:
            yield synchronous
        return
    with asyncio.Runner() as runner:
        asynchronous = UnifiedMemoryClient(service_url)
        yield Awaited(asynchronous, lambda awaitable: runner.run(_result(awaitable)))
        runner.run(asynchronous.close())


async def _result(awaitable: Any) -> Any:
    return await awaitable


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    return f"test/{request.node.name.replace('/', ' ').strip()}"
