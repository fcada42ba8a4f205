"""The document's examples, asked of a service."""

import json
import os
from typing import Any

import httpx2
from msgspec import UNSET

from tests.rest.asking import Rest, escaped
from unified_memory.model.clock import SECOND
from unified_memory.rest.examples import BACKUP_ID, BACKUPS, JOB_ID, LEDGERS, OLDER, STORY, Example
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


async def some_migration(rest: Rest, path: str) -> dict[str, str]:
    """A folder of the memory bank, of which there was a run where the route goes on from there."""
    file = rest.older / "bank/billing/brief.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("Invoices go out on Fridays", encoding="utf-8")
    seconds = rest.clock.now() // SECOND
    os.utime(file, (seconds, seconds))
    directory = rest.service.migration.directory
    made = {OLDER: str(rest.older), BACKUPS: str(rest.backups), LEDGERS: str(directory)}
    if path not in {"/migration", "/migration/plan", "/migration/run"}:
        await rest.ok("POST", "/migration/run", {"sources": [{"kind": "memory-bank-files", "location": "bank"}]})
    if path in {"/migration/rollback", "/migration/finish"}:
        await rest.ok("POST", "/migration/switch", {})
    return made


async def made_for(rest: Rest, route: Route) -> dict[str, str]:
    """What the route's examples speak of, made: by the ids that stand for it, those that it has."""
    if route.path.startswith("/jobs"):
        return {JOB_ID: await some_job(rest)}
    if route.tag == "Backups" and route.path != "/backup":
        return {BACKUP_ID: await some_backup(rest)}
    if route.tag == "Migration":
        return await some_migration(rest, route.path)
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
