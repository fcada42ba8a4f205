"""The router inside a FastAPI application that fronts a real service; most is asked by our own client, as of the service."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.conftest import absent
from unified_memory.client import ServiceUnavailableError, UnifiedMemoryClient
from unified_memory.model import errors
from unified_memory.rest import problems

try:
    from fastapi import FastAPI

    from unified_memory.client.fastapi import MCP_PREFIX, PREFIX, get_memory_client, memory_router, status_of
except ImportError:
    absent("FastAPI is not installed; scripts/setup does it")


@pytest.fixture
async def backend(service_url: str) -> AsyncIterator[UnifiedMemoryClient]:
    async with UnifiedMemoryClient(service_url) as made:
        yield made


def asking(application: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(application), base_url="http://front")


def application_of(client: UnifiedMemoryClient | None, **options: Any) -> FastAPI:
    application = FastAPI()
    application.include_router(memory_router(client, **options))
    return application


async def test_a_client_may_ask_the_application_in_the_service_s_place(
    backend: UnifiedMemoryClient, namespace: str
) -> None:
    transport = httpx2.ASGITransport(application_of(backend))
    async with UnifiedMemoryClient("http://front", transport=transport) as client:
        value = {"big": 2**70, "漢": [1.5, None]}
        stored = await client.store("a/b ü", value, namespace, 3600, {"tags": ["x"], "author": "ann"})
        found = await client.retrieve("a/b ü", namespace, as_of=stored["metadata"]["created_at"])
        assert found is not None
        assert found["value"] == stored["value"] == value
        assert found["metadata"]["expires_at"] == stored["metadata"]["expires_at"]
        assert (await client.update("a/b ü", namespace, ttl=None, metadata={"author": None}))["version"] == 2
        assert (await client.patch("a/b ü", namespace, merge={"n": 1}))["value"]["n"] == 1
        assert [record["key"] for record in (await client.list(namespace=namespace, tags=["x"]))["memories"]] == [
            "a/b ü"
        ]
        assert [hit["key"] for hit in (await client.search("漢", namespace=namespace))["results"]] == ["a/b ü"]
        with pytest.raises(errors.VersionConflictError) as told:
            await client.delete("a/b ü", namespace, expected_version=1)
        assert told.value.facts["current_version"] == 3
        assert (await client.delete("a/b ü", namespace, expected_version=3))["version"] == 3
        assert await client.retrieve("a/b ü", namespace) is None
        assert (await client.health())["status"] == "ok"


async def test_a_missing_memory_is_told_as_ever(backend: UnifiedMemoryClient) -> None:
    async with asking(application_of(backend)) as http:
        response = await http.get(f"{PREFIX}/retrieve/none")
    assert response.status_code == 404
    assert response.json()["detail"] == "Memory not found"
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_parameter_that_is_not_known_is_not_passed_over(backend: UnifiedMemoryClient) -> None:
    async with asking(application_of(backend)) as http:
        response = await http.get(f"{PREFIX}/list", params={"offset": 5})
    assert (response.status_code, response.json()["field"]) == (422, "offset")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_input"),
        (b"{}", 422, "invalid_input"),
        (b'{"value": 1, "tll": 5}', 422, "invalid_input"),
        (b'{"value": NaN}', 400, "malformed_input"),
        (b'{"value": "\xff"}', 400, "malformed_input"),
        (b'{"value": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "malformed_input"),
        (b'{"value": 1, "ttl": true}', 422, "invalid_input"),
        (b'{"value": 1, "ttl": "5"}', 422, "invalid_input"),
        (b'{"value": 1, "key": 5}', 422, "invalid_input"),
        (b'{"value": 1, "namespace": "a//b"}', 422, "invalid_input"),
        (b'{"value": 1, "key": "k", "expected_version": 99}', 409, "version_conflict"),
    ],
)
async def test_what_is_wrong_is_a_problem(backend: UnifiedMemoryClient, body: bytes, status: int, code: str) -> None:
    async with asking(application_of(backend)) as http:
        response = await http.post(f"{PREFIX}/store", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "key", ["a\n", "\n", "a\nb", "a/b", "/a/", "a//b", "..", "a%2Fb", "100%", "a?b#c", "a+b", "\u2028", "é漢"]
)
async def test_a_key_may_hold_anything(backend: UnifiedMemoryClient, namespace: str, key: str) -> None:
    await backend.store("a", "another", namespace)
    async with UnifiedMemoryClient("http://front", transport=httpx2.ASGITransport(application_of(backend))) as client:
        await client.store(key, 1, namespace)
        await client.update(key, namespace, value=2)
        assert (await client.patch(key, namespace, merge=3))["version"] == 3
        found = await client.retrieve(key, namespace)
        assert found is not None
        assert (found["key"], found["value"]) == (key, 3)
        await client.delete(key, namespace)
        assert await client.retrieve(key, namespace) is None
    other = await backend.retrieve("a", namespace)
    assert other is not None
    assert other["value"] == "another"


async def test_numbers_keep_all_their_digits(backend: UnifiedMemoryClient) -> None:
    digits = "9" * 5000
    async with asking(application_of(backend)) as http:
        headers = {"content-type": "application/json"}
        response = await http.post(f"{PREFIX}/store", content=f'{{"value": {digits}}}', headers=headers)
    assert response.status_code == 200
    assert digits in response.text


async def test_a_parameter_is_given_once(backend: UnifiedMemoryClient) -> None:
    async with asking(application_of(backend)) as http:
        response = await http.get(f"{PREFIX}/retrieve/k?namespace=a&namespace=b")
    assert (response.status_code, response.json()["field"]) == (422, "namespace")


async def test_the_routes_stand_in_both_places_and_the_client_can_be_overridden(
    backend: UnifiedMemoryClient, namespace: str
) -> None:
    application = application_of(None, prefixes=(PREFIX, MCP_PREFIX))
    async with asking(application) as http:
        assert (await http.get(f"{PREFIX}/health")).status_code == 500
        application.dependency_overrides[get_memory_client] = lambda: backend
        for prefix in (PREFIX, MCP_PREFIX):
            body = {"key": "k", "value": prefix, "namespace": namespace}
            assert (await http.post(f"{prefix}/store", json=body)).status_code == 200
        record = (await http.get(f"{PREFIX}/retrieve/k", params={"namespace": namespace})).json()
    assert (record["value"], record["version"]) == (MCP_PREFIX, 2)


async def test_a_service_that_is_away_is_503_or_what_the_fallback_keeps(tmp_path: Any) -> None:
    def down(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("down", request=request)

    transport = httpx2.MockTransport(down)
    async with UnifiedMemoryClient(transport=transport, retries=None, spool=tmp_path / "spool.db") as client:
        async with asking(application_of(client)) as http:
            response = await http.post(f"{PREFIX}/store", json={"key": "k", "value": 1})
            assert (response.status_code, response.json()["code"]) == (503, ServiceUnavailableError.code)
        async with asking(application_of(client, fallback=True)) as http:
            response = await http.post(f"{PREFIX}/store", json={"key": "k", "value": 1})
            assert response.json() == {"status": "cached_locally", "key": "k"}
            assert (await http.get(f"{PREFIX}/retrieve/k")).json()["value"] == 1


def kinds(kind: type[errors.UnifiedMemoryError] = errors.UnifiedMemoryError) -> list[type[errors.UnifiedMemoryError]]:
    return [kind, *(found for special in kind.__subclasses__() for found in kinds(special))]


def test_every_error_of_the_service_has_its_status() -> None:
    own = [kind for kind in kinds() if kind.__module__ == errors.__name__]
    assert len(own) > 30
    for kind in own:
        error = kind.__new__(kind, "")
        assert status_of(error) == problems.status_of(error), kind
