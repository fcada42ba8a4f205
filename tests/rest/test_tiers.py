"""Tiers: what lies where, moves on purpose, and the figures."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.rest.asking import PREFIX, Rest, make_tiered, refused, serving
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.rest.routes import PREFIXES
from unified_memory.service.tiering import Policy
from unified_memory.storage.hot import HotState
from unified_memory.storage.process import ProcessHot
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage

BOUND = 20.0
DAY = 86_400


@pytest.fixture
async def rest(directory: Path) -> AsyncIterator[Rest]:
    """REST over the database with archives beside it; what was not used for a day is archived."""
    clock = SettableClock()
    async with serving(make_tiered(directory, clock), clock, policy=Policy(demote_after=DAY)) as rest:
        yield rest


class ToldHot(ProcessHot):
    """Hot copies that tell of a trouble that they are given, and not always how many they are."""

    trouble: str | None = None
    knows_its_size = True

    def state(self) -> HotState:
        told = replace(super().state(), trouble=self.trouble, trusted=self.trouble is None)
        if not self.knows_its_size:
            told.counts = replace(told.counts, entries=None, bytes=None)
        return told


@pytest.fixture
def hots() -> list[ToldHot]:
    """The hot tier of `hot_rest`, alone."""
    return []


@pytest.fixture
async def hot_rest(directory: Path, hots: list[ToldHot]) -> AsyncIterator[Rest]:
    """The same with hot copies before it."""
    clock = SettableClock()

    def hot(warm: SQLiteStorage) -> ToldHot:
        hots.append(ToldHot(warm, max_bytes=10**6, ttl=3600))
        return hots[0]

    async with serving(make_tiered(directory, clock, hot), clock) as rest:
        yield rest


async def tiers_of(rest: Rest) -> dict[str, str]:
    """The tier of every memory by its key."""
    return {one["key"]: one["tier"] for one in (await rest.ok("GET", "/list"))["memories"]}


async def held(rest: Rest) -> tuple[int, int]:
    """How many memories are warm and how many cold."""
    told = await rest.ok("GET", "/tiers")
    return told["warm"]["memories"], told["cold"]["memories"]


async def retrieve(rest: Rest, key: str) -> None:
    """Retrieves, and lets what nobody waits for be done: a hot copy is put behind the answer."""
    await rest.ok("GET", f"/retrieve/{key}")
    await asyncio.sleep(0)


async def three(rest: Rest) -> None:
    await rest.store("a", "x" * 8, "acme")
    await rest.store("b", "x" * 18, "acme/web")
    await rest.store("c", "x" * 28, "other")


# ---- archive and recall
async def test_a_namespace_is_archived_with_those_below_it_and_comes_back(rest: Rest) -> None:
    await three(rest)
    before = [await rest.ok("GET", f"/list?namespace={name}") for name in ("acme", "other")]
    moved = {"namespace": "acme", "recursive": True, "dry_run": False, "memories": 2, "bytes": 30}
    assert await rest.ok("POST", "/archive", {"namespace": "acme"}) == moved
    assert await tiers_of(rest) == {"a": "cold", "b": "cold", "c": "warm"}
    assert await rest.ok("POST", "/archive", {"namespace": "acme"}) == {**moved, "memories": 0, "bytes": 0}
    assert await rest.ok("POST", "/archive/recall", {"namespace": "acme"}) == moved
    assert [await rest.ok("GET", f"/list?namespace={name}") for name in ("acme", "other")] == before


@pytest.mark.parametrize("path", ["/archive", "/archive/recall"])
async def test_a_namespace_alone_is_moved_where_that_is_said(rest: Rest, path: str) -> None:
    await three(rest)
    if path == "/archive/recall":
        await rest.ok("POST", "/archive", {"namespace": "acme"})
    was = await tiers_of(rest)
    told = await rest.ok("POST", path, {"namespace": "acme", "recursive": False})
    assert (told["recursive"], told["memories"], told["bytes"]) == (False, 1, 10)
    now = await tiers_of(rest)
    assert [key for key in now if now[key] != was[key]] == ["a"]


async def test_a_dry_run_tells_what_would_move_and_moves_nothing(rest: Rest) -> None:
    await three(rest)
    for path, memories, size in (("/archive", 2, 30), ("/archive/recall", 0, 0)):
        told = await rest.ok("POST", f"{path}?wait=0", {"namespace": "acme", "dry_run": True})
        assert (told["dry_run"], told["memories"], told["bytes"]) == (True, memories, size)
    assert await held(rest) == (3, 0)
    await rest.ok("POST", "/archive", {"namespace": "acme", "recursive": False})
    told = await rest.ok("POST", "/archive/recall", {"namespace": "acme", "dry_run": True})
    assert (told["memories"], told["bytes"]) == (1, 10)
    assert await held(rest) == (2, 1)
    assert (await rest.ok("GET", "/jobs"))["jobs"][1:] == []


@pytest.mark.parametrize(
    ("path", "kind", "done", "total"),
    [("/archive", "archive", 3, 3), ("/archive/recall", "recall", 3, 3), ("/archive/pass", "tier_pass", 0, None)],
)
async def test_moves_that_are_not_waited_for_go_on_as_jobs_with_their_progress(
    rest: Rest, path: str, kind: str, done: int, total: int | None
) -> None:
    for number in range(3):
        await rest.store(f"k{number}", "value", "acme")
    if path != "/archive":
        await rest.ok("POST", "/archive", {"namespace": "acme"})
    answer = await rest.ask("POST", f"{path}?wait=0", None if kind == "tier_pass" else {"namespace": "acme"})
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert (job["kind"], job["total"], job["unit"]) == (kind, total, "memories")
    assert job["namespace"] == ("" if kind == "tier_pass" else "acme")
    ended = await asyncio.wait_for(rest.service.jobs.finished(ANONYMOUS, job["id"]), BOUND)
    told = await rest.ok("GET", f"/jobs/{ended.id}")
    assert (told["state"], told["done"]) == ("done", done)
    assert await held(rest) == ((3, 0) if kind == "recall" else (0, 3))


@pytest.mark.parametrize("path", ["/archive", "/archive/recall"])
async def test_a_namespace_that_is_not_there_is_an_error_and_not_an_empty_one(rest: Rest, path: str) -> None:
    await rest.store("k", 1, "acme/web")
    refused(await rest.ask("POST", path, {"namespace": "amce"}), 404, "namespace_not_found")
    refused(await rest.ask("POST", path, {"namespace": "amce", "dry_run": True}), 404, "namespace_not_found")
    refused(await rest.ask("POST", path, {"namespace": "acme", "recursive": False}), 404, "namespace_not_found")
    refused(await rest.ask("POST", path, {"namespace": "acme//web"}), 422, "invalid_input", "namespace")
    assert (await rest.ok("POST", path, {"namespace": "acme", "dry_run": True}))["namespace"] == "acme"


async def test_where_nothing_can_be_archived_every_move_there_is_refused_with_the_reason(directory: Path) -> None:
    clock = SettableClock()
    warm = SQLiteStorage(directory / "memory.db", clock=clock)
    storage: Any = TieredStorage(warm, clock, cold_off="ARCHIVE is off")  # type: ignore[abstract]
    async with serving(storage, clock) as rest:
        await rest.store("k", 1, "acme")
        for path, body in (
            ("/archive?wait=0", {"namespace": "acme"}),
            ("/archive", {"namespace": "acme", "dry_run": True}),
            ("/archive/pass", None),
        ):
            told = refused(await rest.ask("POST", path, body), 403, "refused")
            assert told["detail"] == "There is no cold tier: ARCHIVE is off"
        assert (await rest.ok("GET", "/jobs"))["jobs"] == []
        assert (await rest.ok("GET", "/tiers"))["cold"]["off"] == "ARCHIVE is off"


async def test_an_archive_that_is_gone_is_named(rest: Rest, directory: Path) -> None:
    await rest.store("k", "value", "acme")
    await rest.ok("POST", "/archive", {"namespace": "acme"})
    (file,) = (directory / "archive").glob("*.zar")
    file.unlink()
    answer = await rest.ask("GET", "/retrieve/k?namespace=acme")
    assert refused(answer, 500, "archive_missing")["archive"] == file.name
    # Whatever can be read comes back; that not all of it did is an error all the same.
    answer = await rest.ask("POST", "/archive/recall", {"namespace": "acme"})
    assert refused(answer, 500, "storage_corrupt")["damaged"] == 1


# ---- one pass
async def test_a_pass_archives_what_was_not_used_and_compacts_what_is_dead(rest: Rest) -> None:
    for number in range(4):
        await rest.store(f"k{number}", f"{number}" * 50_000, "acme")
    told = await rest.ok("POST", "/archive/pass")
    assert told == {"demoted": {"memories": 0, "bytes": 0}, "compacted": 0, "bytes_before": 0, "bytes_after": 0}
    rest.clock.advance(DAY + 1)
    told = await rest.ok("POST", "/archive/pass")
    assert told["demoted"] == {"memories": 4, "bytes": 4 * 50_002}
    assert set((await tiers_of(rest)).values()) == {"cold"}
    for number in range(2):
        await rest.ok("DELETE", f"/delete/k{number}?namespace=acme")
    told = await rest.ok("POST", "/archive/pass")
    assert (told["demoted"]["memories"], told["compacted"]) == (0, 1)
    assert 0 < told["bytes_after"] < told["bytes_before"]
    assert (await rest.ok("GET", "/retrieve/k3?namespace=acme"))["value"] == "3" * 50_000


async def test_a_namespace_says_when_its_values_are_archived_and_those_below_inherit_it(rest: Rest) -> None:
    await rest.ok("POST", "/namespaces", {"name": "acme", "config": {"demote_after": 60}})
    await rest.ok("POST", "/namespaces", {"name": "acme/kept", "config": {"demote_after": None}})
    for name in ("acme/web", "acme/kept", "other"):
        await rest.store(name, "x" * 80_000, name)
    assert (await rest.ok("GET", "/namespaces/acme/web"))["effective"] == {"demote_after": 60.0}
    assert (await rest.ok("GET", "/namespaces/acme/kept"))["config"] == {"demote_after": None}
    rest.clock.advance(61)
    await rest.ok("POST", "/archive/pass")
    assert await tiers_of(rest) == {"acme/web": "cold", "acme/kept": "warm", "other": "warm"}
    rest.clock.advance(DAY)
    await rest.ok("POST", "/archive/pass")
    assert await tiers_of(rest) == {"acme/web": "cold", "acme/kept": "warm", "other": "cold"}


# ---- what lies where
async def test_the_tiers_tell_what_lies_where_and_what_has_happened(rest: Rest) -> None:
    await three(rest)
    await rest.ok("POST", "/archive", {"namespace": "acme"})
    await rest.ok("GET", "/retrieve/b?namespace=acme/web")
    told = await rest.ok("GET", "/tiers")
    (archive,) = told["archives"]
    assert (told["warm"], told["hot"]["kind"]) == ({"memories": 2, "bytes": 50}, "none")
    assert told["cold"] == {
        "memories": 1,
        "bytes": 10,
        "archives": 1,
        "archive_bytes": archive["bytes_stored"],
        "off": None,
    }
    assert (told["promotions"], told["demotions"], told["compactions"]) == (1, 2, 0)
    assert (archive["state"], archive["memories"], archive["bytes_raw"]) == ("live", 2, 30)
    assert (archive["live"], archive["live_bytes"], archive["changed_at"]) == (1, 10, "2025-06-15T15:06:40.000000Z")
    await rest.ok("DELETE", "/delete/a?namespace=acme")
    await rest.ok("POST", "/archive/pass")
    told = await rest.ok("GET", "/tiers")
    assert [one["state"] for one in told["archives"]] == ["dead"]
    assert (told["cold"]["archives"], told["cold"]["archive_bytes"], told["compactions"]) == (0, 0, 1)


async def test_hot_copies_tell_how_often_they_were_of_use(hot_rest: Rest) -> None:
    await hot_rest.store("k", "v")
    assert (await hot_rest.ok("GET", "/tiers"))["hot"]["hit_ratio"] is None
    for _ in range(8):
        await retrieve(hot_rest, "k")
    refused(await hot_rest.ask("GET", "/retrieve/nothing"), 404, "memory_not_found")
    hot = (await hot_rest.ok("GET", "/tiers"))["hot"]
    assert (hot["kind"], hot["trusted"], hot["memories"], hot["trouble"]) == ("process", True, 1, None)
    assert (hot["hits"], hot["misses"], hot["fills"]) == (7, 2, 1)
    assert hot["hit_ratio"] == pytest.approx(7 / 9)
    assert hot["bytes"] > 0


async def test_one_tier_is_told_as_the_warm_one(one_rest: Rest) -> None:
    await three(one_rest)
    told = await one_rest.ok("GET", "/tiers")
    assert told["warm"] == {"memories": 3, "bytes": 60}
    assert (told["cold"]["off"], told["cold"]["memories"], told["archives"]) == ("The storage has one tier only", 0, [])
    assert (told["hot"]["kind"], told["hot"]["memories"]) == ("none", 0)


async def test_a_query_into_cold_values_says_how_many_it_read(rest: Rest) -> None:
    await three(rest)
    asked = {"filter": {"value": "x" * 8}}
    assert "cold_read" not in await rest.ok("POST", "/query", asked)
    await rest.ok("POST", "/archive", {"namespace": "acme"})
    told = await rest.ok("POST", "/query", asked)
    assert [one["key"] for one in told["memories"]] == ["a"]
    assert told["cold_read"] >= 2
    # Nothing of a value is asked for.
    assert "cold_read" not in await rest.ok("POST", "/query", {"filter": {"key": "a"}, "group_by": "namespace"})


async def test_hot_trouble_is_told_as_degraded_health(hot_rest: Rest, hots: list[ToldHot]) -> None:
    assert (await hot_rest.ok("GET", "/health/ready"))["status"] == "ok"
    hots[0].trouble = "Redis does not answer"
    for path in ("/health/ready", "/health"):
        told = await hot_rest.ok("GET", path)
        assert (told["status"], told["reasons"]) == ("degraded", ["hot tier: Redis does not answer"])
    assert (await hot_rest.ok("GET", "/tiers"))["hot"]["trouble"] == "Redis does not answer"


# ---- figures
SAMPLE = re.compile(r'([a-z_]+)(\{([a-z]+)="([a-z]+)"\})? (\d+)')


async def figures(rest: Rest, url: str = "/metrics") -> dict[str, int]:
    """The samples by name and label; every line is one of the format."""
    answer = await rest.client.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found: dict[str, int] = {}
    kinds: dict[str, str] = {}
    helped = set()
    assert answer.text.endswith("\n")
    for line in answer.text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
        elif line.startswith("# TYPE "):
            _, _, name, kinds[name] = line.split()
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert kinds[sample[1]] == ("counter" if sample[1].endswith("_total") else "gauge")
            found[line.rpartition(" ")[0].removeprefix("unified_memory_")] = int(sample[5])
    assert helped == set(kinds) == {"unified_memory_" + name.partition("{")[0] for name in found}
    return found


async def test_the_figures_are_those_of_the_tiers(hot_rest: Rest) -> None:
    await three(hot_rest)
    await hot_rest.ok("POST", "/archive", {"namespace": "acme"})
    for _ in range(3):
        await hot_rest.ok("GET", "/retrieve/b?namespace=acme/web")
    told = await hot_rest.ok("GET", "/tiers")
    hot, cold = told["hot"], told["cold"]
    assert await figures(hot_rest) == {
        'tier_memories{tier="hot"}': hot["memories"],
        'tier_memories{tier="warm"}': 2,
        'tier_memories{tier="cold"}': 1,
        'tier_bytes{tier="hot"}': hot["bytes"],
        'tier_bytes{tier="warm"}': 50,
        'tier_bytes{tier="cold"}': 10,
        'hot_looks_total{result="hit"}': hot["hits"],
        'hot_looks_total{result="miss"}': hot["misses"],
        "hot_evictions_total": hot["evictions"],
        "hot_refused_total": hot["refused"],
        "hot_failures_total": hot["failures"],
        "hot_trusted": 1,
        "promotions_total": 1,
        "demotions_total": 2,
        "compactions_total": 0,
        "archives": 1,
        "archive_bytes": cold["archive_bytes"],
        "backup_verified": 0,
        "backups": 0,
        "backup_bytes": 0,
    }


async def test_every_figure_has_its_line_on_the_page(rest: Rest) -> None:
    # Some are told only where there is one that was proven.
    made = await rest.ok("POST", "/backup")
    await rest.ok("POST", f"/backups/{made['id']}/verify")
    page = (Path(__file__).parents[2] / "docs/rest.md").read_text(encoding="utf-8")
    names = {"unified_memory_" + name.partition("{")[0] for name in await figures(rest)}
    assert len(names) > 15
    assert [name for name in names if not re.search(rf"`{name}[`{{]", page)] == []


async def test_the_figures_stand_at_the_root_and_below_the_prefixes(rest: Rest) -> None:
    await three(rest)
    assert PREFIX in PREFIXES
    told = [await figures(rest, url) for url in ("/metrics", *(prefix + "/metrics" for prefix in PREFIXES))]
    assert told[0]['tier_memories{tier="warm"}'] == 3
    assert told == [told[0]] * 3
    assert (await rest.ask("GET", "/metrics")).status_code == 200


async def test_what_takes_long_to_count_is_counted_again_after_15_seconds(hot_rest: Rest, hots: list[ToldHot]) -> None:
    await three(hot_rest)
    first = await figures(hot_rest)
    await hot_rest.store("d", "v")
    hots[0].trouble = "Redis does not answer"
    await retrieve(hot_rest, "d")
    await retrieve(hot_rest, "d")
    hot_rest.clock.advance(14)
    then = await figures(hot_rest)
    assert then['tier_memories{tier="warm"}'] == 3
    assert (first["hot_trusted"], then["hot_trusted"]) == (1, 0)
    assert then['hot_looks_total{result="hit"}'] == first['hot_looks_total{result="hit"}'] + 1
    hot_rest.clock.advance(1)
    assert (await figures(hot_rest))['tier_memories{tier="warm"}'] == 4


async def test_many_who_ask_at_once_are_told_what_is_counted_once(rest: Rest) -> None:
    counted = 0
    uses = rest.service.tiering.state

    async def state() -> Any:
        nonlocal counted
        counted += 1
        return await uses()

    rest.service.tiering.state = state  # type: ignore[method-assign]
    answers = await asyncio.gather(*(rest.client.get("/metrics") for _ in range(5)))
    assert counted == 1
    assert len({answer.text for answer in answers}) == 1


async def test_a_hot_tier_that_has_not_told_its_size_has_no_sample_of_it(hot_rest: Rest, hots: list[ToldHot]) -> None:
    hots[0].knows_its_size = False
    told = await figures(hot_rest)
    assert 'tier_memories{tier="hot"}' not in told
    assert told['tier_memories{tier="warm"}'] == 0
    assert (await hot_rest.ok("GET", "/tiers"))["hot"]["memories"] is None


async def test_read_only_refuses_to_bring_values_back(directory: Path) -> None:
    clock = SettableClock()
    async with serving(make_tiered(directory, clock), clock) as rest:
        await rest.store("k", "value", "acme")
        await rest.ok("POST", "/archive", {"namespace": "acme"})
        await rest.ok("PUT", "/mode", {"read_only": True, "reason": "moving"})
        refused(await rest.ask("POST", "/archive/recall", {"namespace": "acme"}), 403, "read_only")
        assert (await rest.ok("GET", "/tiers"))["cold"]["memories"] == 1
