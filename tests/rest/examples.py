"""The document's examples, asked of a service."""

import httpx2
from msgspec import UNSET

from tests.rest.asking import Rest, escaped
from unified_memory.rest.examples import JOB_ID, STORY, Example
from unified_memory.rest.openapi import document
from unified_memory.rest.routes import Route


def filled(path: str) -> str:
    """The path with the document's own example in it."""
    if "{" not in path:
        return path
    (parameter,) = document()["paths"][path]["parameters"]
    return path.replace("{" + parameter["name"] + "}", escaped(parameter["example"]))


async def tell_story(rest: Rest) -> None:
    """Does what every example stands on."""
    for method, path, body in STORY:
        await rest.ok(method, path, body)


async def some_job(rest: Rest) -> str:
    """The id of a job that has ended."""
    await rest.ok("POST", "/cleanup")
    told = await rest.ok("GET", "/jobs?limit=1")
    job_id: str = told["jobs"][0]["id"]
    return job_id


async def ask_example(
    rest: Rest, route: Route, example: Example, *, job: str = JOB_ID, headers: dict[str, str] | None = None
) -> httpx2.Response:
    """Sends an example's request. `job`: the id of a job that there is."""
    path = filled(route.path).replace(JOB_ID, job)
    query = f"?{example.query}" if example.query else ""
    body = None if example.body is UNSET else example.body
    return await rest.ask(
        route.method, path + query, body, headers={"content-type": example.media_type, **(headers or {})}
    )
