"""Jobs, leases, totals, and the life of the storage itself."""

import asyncio
import random
from typing import Any

from tests.storage.drafts import (
    NOW,
    apply,
    found,
    keys,
    remove,
    store,
    storing,
)
from tests.storage.parts.opened import (
    LATER,
    LONG_AFTER,
    NEIGHBOURS,
    Opened,
    all_names,
    assert_clean,
    some_memory,
)
from unified_memory.model.clock import SECOND
from unified_memory.model.errors import (
    MemoryNotFoundError,
    NamespaceNotFoundError,
)
from unified_memory.model.found import SearchRequest
from unified_memory.model.job import Job, JobState
from unified_memory.model.search import parse_search
from unified_memory.storage.base import (
    Storage,
)


def _job(job_id: str, namespace: str = "", **facts: Any) -> Job:
    defaults: dict[str, Any] = {
        "principal": "anonymous",
        "state": JobState.RUNNING,
        "created_at": NOW,
        "beat_at": NOW,
    }
    return Job(job_id, "cleanup", namespace, **{**defaults, **facts})


class WholeContract(Opened):
    """Jobs, leases, totals, and the storage's own life."""

    async def test_a_job_is_kept_as_it_was_put_last(self, storage: Storage) -> None:
        assert await storage.get_job("j") is None
        await storage.put_job(_job("j", "acme"))
        assert await storage.get_job("j") == _job("j", "acme")
        ended = _job(
            "j",
            "acme",
            state=JobState.FAILED,
            beat_at=LATER,
            done=3,
            total=7,
            unit="namespaces",
            finished_at=LATER,
            result=b'{"a":1.50}',
            error=b'{"code":"x"}',
        )
        await storage.put_job(ended)
        assert await storage.get_job("j") == ended

    async def test_jobs_are_listed_newest_first_by_subtree_and_state(self, storage: Storage) -> None:
        for n, (name, namespace, state) in enumerate(
            [
                ("a", "acme", JobState.RUNNING),
                ("b", "acme-corp", JobState.RUNNING),
                ("c", "acme/x", JobState.DONE),
                ("d", "", JobState.DONE),
            ]
        ):
            await storage.put_job(_job(name, namespace, state=state, created_at=NOW + n))

        async def ids(*scopes: str, state: JobState | None = None) -> list[str]:
            return [job.id for job in (await storage.list_jobs(scopes, state=state, limit=9, after=None)).items]

        assert await ids("") == ["d", "c", "b", "a"]
        assert await ids("acme") == ["c", "a"]
        assert await ids("", state=JobState.RUNNING) == ["b", "a"]
        assert await ids("acme", "acme-corp", state=JobState.DONE) == ["c"]
        assert await ids("other") == []

    async def test_pages_of_jobs_follow_each_other(self, storage: Storage) -> None:
        for n in range(7):
            await storage.put_job(_job(f"j{n}", created_at=NOW + n // 3))
        seen: list[str] = []
        after = None
        while True:
            page = await storage.list_jobs(("",), state=None, limit=2, after=after)
            seen += [job.id for job in page.items]
            after = page.next
            if after is None:
                break
        assert len(seen) == len(set(seen)) == 7
        assert [int(name[1:]) // 3 for name in seen] == [2, 1, 1, 1, 0, 0, 0]

    async def test_a_job_keeps_its_page_while_it_goes_on(self, storage: Storage) -> None:
        for name in ("a", "b", "c"):
            await storage.put_job(_job(name, created_at=NOW))
        first = await storage.list_jobs(("",), state=None, limit=1, after=None)
        await storage.put_job(_job("a", created_at=NOW, beat_at=LATER, done=1))
        rest = await storage.list_jobs(("",), state=None, limit=9, after=first.next)
        assert [job.id for job in (*first.items, *rest.items)] == ["c", "b", "a"]

    async def test_a_job_outlives_its_namespace(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme")
        await storage.put_job(_job("j", "acme"))
        await storage.delete_namespace("acme", NOW, recursive=True)
        assert await storage.get_job("j") == _job("j", "acme")

    async def test_a_lease_is_held_by_one_until_it_runs_out(self, storage: Storage) -> None:
        assert await storage.lease("cleanup", "a", NOW, LATER)
        assert not await storage.lease("cleanup", "b", LATER - 1, LONG_AFTER)
        assert await storage.lease("cleanup", "b", LATER, LATER + SECOND)
        assert not await storage.lease("cleanup", "a", LATER, LONG_AFTER)

    async def test_a_lease_is_renewed_by_its_holder_and_others_are_free(self, storage: Storage) -> None:
        assert await storage.lease("cleanup", "a", NOW, LATER)
        assert await storage.lease("cleanup", "a", NOW + 1, LONG_AFTER)
        assert not await storage.lease("cleanup", "b", LATER, LONG_AFTER)
        assert await storage.lease("backup", "b", LATER, LONG_AFTER)

    async def test_of_many_that_want_a_lease_at_once_one_gets_it(self, storage: Storage) -> None:
        got = await asyncio.gather(*(storage.lease("x", f"h{n}", NOW, LATER) for n in range(20)))
        assert sum(got) == 1

    async def test_the_totals_of_nothing_are_nothing(self, storage: Storage) -> None:
        stats = await storage.stats(("",), NOW, top=5)
        assert (stats.memories, stats.bytes_raw, stats.expired, stats.sessions) == (0, 0, 0, 0)
        assert (stats.namespaces, stats.top_tags, stats.oldest, stats.newest) == ([], [], None, None)

    async def test_the_totals_are_of_what_is_visible_in_the_scopes(self, storage: Storage) -> None:
        await store(storage, "a", "12345", namespace="acme", tags=("x", "y"), session_id="s")
        await store(storage, "b", "1", namespace="acme/x", tags=("y",), now=NOW + 5)
        await store(storage, "c", "1", namespace="acme/x", tags=("z",), expires_at=LATER, now=NOW + 9)
        await store(storage, "d", "1", namespace="acme-corp", tags=("w",), session_id="s", expires_at=NOW)
        stats = await storage.stats(("acme",), LATER, top=5)
        assert (stats.memories, stats.bytes_raw, stats.expired, stats.sessions) == (2, 10, 1, 1)
        assert {use.name: (use.memories, use.bytes) for use in stats.namespaces} == {
            "acme": (1, 7),
            "acme/x": (1, 3),
        }
        assert {tier: count for tier, count in stats.tiers.items() if count} == {self.tier: 2}
        assert stats.top_tags == [("y", 2), ("x", 1)]
        assert (stats.oldest, stats.newest) == (NOW, NOW + 5)
        whole = await storage.stats(("",), LATER, top=5)
        assert (whole.memories, whole.expired, whole.sessions) == (2, 2, 2)
        assert whole.last_seq == stats.last_seq > 0

    async def test_the_totals_name_the_fullest_namespaces_and_the_commonest_tags(self, storage: Storage) -> None:
        for n in range(6):
            await apply(storage, *(storing(f"k{m}", namespace=f"n{n}", tags=(f"t{n}",)) for m in range(n + 1)))
        stats = await storage.stats(("",), NOW, top=2)
        assert [use.name for use in stats.namespaces] == ["n5", "n4"]
        assert stats.top_tags == [("t5", 6), ("t4", 5)]

    async def test_the_totals_are_never_by_prefix(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", *NEIGHBOURS):
            await store(storage, "k", namespace=name, session_id="s", expires_at=LATER)
        stats = await storage.stats(("acme",), NOW, top=50)
        assert (stats.memories, stats.sessions) == (2, 2)
        assert {use.name for use in stats.namespaces} == {"acme", "acme/x"}
        assert (await storage.stats(("acme",), LATER, top=50)).expired == 2

    async def test_a_probe_passes_and_leaves_nothing(self, storage: Storage) -> None:
        await storage.probe()
        assert await keys(storage) == []
        assert await all_names(storage) == []

    async def test_the_size_is_some_bytes_or_untold(self, storage: Storage) -> None:
        size = await storage.size()
        assert size is None or size > 0

    async def test_it_can_be_closed_more_than_once(self, storage: Storage) -> None:
        await storage.close()
        await storage.close()

    async def test_a_check_of_what_was_only_used_finds_nothing_and_tells_its_progress(self, storage: Storage) -> None:
        dice = random.Random("check")
        for n in range(60):
            memory = await some_memory(storage, f"k{n % 25}", dice)
            if n % 7 == 0:
                await remove(storage, memory.key, namespace=memory.namespace)
            if n % 11 == 0 and n % 7:
                await storage.move((memory.namespace, memory.key), ("moved", f"m{n}"), NOW)
        await storage.rename_namespace("moved", "renamed", NOW)
        await storage.expire(LONG_AFTER, 5)
        await storage.delete_namespace("n", NOW, recursive=True)
        steps: list[tuple[int, int | None]] = []
        assert await storage.check(fix=False, progress=lambda done, total: steps.append((done, total))) == []
        assert await storage.check(fix=True) == []
        assert all(total is None or 0 <= done <= total for done, total in steps)
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)

    async def test_a_check_among_writes_and_searches_finds_nothing(self, storage: Storage) -> None:
        for n in range(12):
            for m in range(10):
                await store(storage, f"k{m * n % 17}", f"word{n} and word{m}")
            assert await found(storage, f"word{n}") != []
            await assert_clean(storage)

    async def test_a_check_during_writes_finds_nothing(self, storage: Storage) -> None:
        async def write(who: int) -> None:
            for n in range(40):
                await store(storage, f"k{who} {n % 7}", f"word{n}", tags=(f"t{n}",), session_id=f"s{n}")
                if n % 5 == 4:
                    await remove(storage, f"k{who} {n % 7}")

        async def look() -> None:
            for _ in range(10):
                await found(storage, "word3")
                await assert_clean(storage)
                await asyncio.sleep(0)

        await asyncio.gather(*(write(who) for who in range(4)), look())

    async def test_everything_at_once_leaves_everything_right(self, storage: Storage) -> None:
        """Writers, readers, cleanups, moves and deletes at the same time."""
        dice = random.Random("at once")

        async def work(who: int) -> None:
            for n in range(15):
                key, namespace = f"k{dice.randrange(10)}", f"n{dice.randrange(3)}"
                expires_at = dice.choice([None, NOW + n + 1])
                await store(storage, key, f"w{who} {n}", namespace=namespace, now=NOW + n, expires_at=expires_at)
                await storage.search(SearchRequest(("",), True, parse_search(f"w{who}"), None, 5), NOW + n)
                await storage.expire(NOW + n, 3)
                try:
                    await storage.move((namespace, key), ("moved", f"{who} {n}"), NOW + n)
                except MemoryNotFoundError:
                    await remove(storage, key, namespace=namespace, now=NOW + n)
                if n % 5 == 4:
                    try:
                        for ticket in await storage.delete_namespace("moved", NOW + n, recursive=True):
                            await storage.purge(ticket, NOW + n, 100)
                    except NamespaceNotFoundError:
                        continue

        await asyncio.gather(*(work(who) for who in range(6)))
        await assert_clean(storage)
