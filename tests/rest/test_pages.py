"""The page at /docs needs nothing but the service, and runs nothing but its own script."""

import re

import pytest

from tests.rest.asking import Rest, refused
from unified_memory.rest.pages import PAGES

MOST_BYTES = 25_000
KINDS = {"/docs": "text/html", "/docs/page.css": "text/css", "/docs/page.js": "text/javascript"}


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_served_with_its_kind_and_a_strict_policy(one_rest: Rest, path: str) -> None:
    answer = await one_rest.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"{KINDS[path]}; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    refused(await one_rest.client.post(path), 405, "method_not_allowed")


async def test_the_page_asks_only_for_what_the_service_has(one_rest: Rest) -> None:
    told = (await one_rest.client.get("/docs")).text
    asked = re.findall(r'(?:href|src)="([^"#][^"]*)"', told)
    assert {"docs/page.css", "docs/page.js", "openapi.json"} <= set(asked)
    for path in asked:
        assert (await one_rest.client.get("/" + path)).status_code == 200, path


async def test_the_page_needs_no_other_place_and_makes_no_markup_of_values(one_rest: Rest) -> None:
    files = {path: (await one_rest.client.get(path)).text for path in PAGES}
    for path, told in files.items():
        assert not re.search(r"https?:|//\w+\.\w", told.replace("// ", "")), path
    html, script = files["/docs"], files["/docs/page.js"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=|javascript:", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)
    assert sum(len(told.encode()) for told in files.values()) < MOST_BYTES


async def test_every_page_that_is_there_is_served(one_rest: Rest) -> None:
    refused(await one_rest.client.get("/docs/other.js"), 404, "no_such_route")
    refused(await one_rest.client.get("/docs/../pages.py"), 404, "no_such_route")
    refused(await one_rest.client.get("/docs/%2e%2e/pages.py"), 404, "no_such_route")
