"""The document's examples, asked of a service."""

import json
from typing import Any

import httpx2
from msgspec import UNSET

from tests.rest.asking import Rest, escaped
from unified_memory.rest.examples import BACKUP_ID, JOB_ID, STORY, Example
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


async def some_backup(rest: Rest, **how: Any) -> str:
    """The id of a backup of what there is."""
    told = await rest.ok("POST", "/backup", how)
    backup_id: str = told["id"]
    return backup_id


async def made_for(rest: Rest, route: Route) -> dict[str, str]:
    """What the route's examples speak of, made: by the ids that stand for it, those that it has."""
    if route.path.startswith("/jobs"):
        return {JOB_ID: await some_job(rest)}
    if route.tag == "Backups" and route.path != "/backup":
        return {BACKUP_ID: await some_backup(rest)}
    return {}


async def ask_example(
    rest: Rest,
    route: Route,
    example: Example,
    *,
    made: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx2.Response:
    """Sends an example's request. `made`: what of `made_for` there is."""
    path, body = filled(route.path), None if example.body is UNSET else example.body
    content = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    for stands, is_there in (made or {}).items():
        path = path.replace(stands, is_there)
        content = None if content is None else content.replace(stands.encode(), is_there.encode())
    query = f"?{example.query}" if example.query else ""
    return await rest.ask(
        route.method, path + query, content, headers={"content-type": example.media_type, **(headers or {})}
    )
