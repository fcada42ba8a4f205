"""What changed, in the commit order, and which tags are in use."""

from tests.storage.drafts import NOW, apply, remove, store, storing
from tests.storage.parts.opened import LATER, NEIGHBOURS, Opened
from unified_memory.storage.base import Change, Storage, TagUse


async def _feed(storage: Storage, after: int = 0, limit: int = 99) -> list[tuple[str, str, int, bool]]:
    found = await storage.changes(after, limit)
    assert [change.seq for change in found] == sorted({change.seq for change in found})
    assert all(change.seq > after for change in found)
    return [(change.namespace, change.key, change.version, change.deleted) for change in found]


class FeedContract(Opened):
    """`changes`, `last_seq`, `tag_uses`."""

    async def test_each_key_stands_once_in_the_feed_at_its_last_change(self, storage: Storage) -> None:
        assert await storage.last_seq() == 0
        for key in ("a", "b", "a", "c"):
            await store(storage, key)
        assert await _feed(storage) == [
            ("default", "b", 1, False),
            ("default", "a", 2, False),
            ("default", "c", 1, False),
        ]
        last = (await storage.changes(0, 9))[-1]
        assert last.seq == await storage.last_seq()
        assert await storage.changes(last.seq, 9) == []
        assert last == Change(last.seq, "default", "c", 1, deleted=False)

    async def test_whatever_removes_a_memory_stands_in_the_feed(self, storage: Storage) -> None:
        await store(storage, "deleted")
        await store(storage, "expired", expires_at=LATER)
        await store(storage, "moved")
        await store(storage, "held", namespace="gone")
        seq = await storage.last_seq()
        await remove(storage, "deleted")
        await storage.expire(LATER, 9)
        await storage.move(("default", "moved"), ("default", "target"), NOW)
        for ticket in await storage.delete_namespace("gone", NOW, recursive=True):
            while await storage.purge(ticket, NOW, 9):
                pass
        assert await _feed(storage, seq) == [
            ("default", "deleted", 1, True),
            ("default", "expired", 1, True),
            ("default", "moved", 1, True),
            ("default", "target", 2, False),
            ("gone", "held", 1, True),
        ]

    async def test_a_key_stored_anew_is_no_longer_told_as_deleted(self, storage: Storage) -> None:
        await store(storage, "k")
        await remove(storage, "k")
        await store(storage, "k")
        assert await _feed(storage) == [("default", "k", 2, False)]

    async def test_the_feed_can_be_read_in_pages(self, storage: Storage) -> None:
        for n in range(7):
            await store(storage, f"k{n}")
        for n in (1, 4):
            await remove(storage, f"k{n}")
        await apply(storage, *(storing(f"m{n}") for n in range(4)))
        seen, after = [], 0
        while page := await storage.changes(after, 3):
            assert len(page) <= 3
            seen += [change.key for change in page]
            after = page[-1].seq
        assert seen == ["k0", "k2", "k3", "k5", "k6", "k1", "k4", "m0", "m1", "m2", "m3"]

    async def test_tags_are_counted_over_the_visible_memories_of_the_subtrees(self, storage: Storage) -> None:
        for name in NEIGHBOURS:
            await store(storage, "k", namespace=name, tags=("x",))
        await store(storage, "a", namespace="acme", tags=("x", "y"))
        await apply(storage, storing("b", namespace="acme/web", tags=("y", "z")), now=NOW + 5)
        await store(storage, "c", namespace="acme", tags=("old", "x"), expires_at=LATER)
        assert await storage.tag_uses(("acme",), LATER) == [
            TagUse("y", 2, NOW + 5),
            TagUse("z", 1, NOW + 5),
            TagUse("x", 1, NOW),
        ]
        assert (await storage.tag_uses(("",), NOW))[0] == TagUse("x", len(NEIGHBOURS) + 2, NOW)
        assert await storage.tag_uses((), NOW) == []
        await remove(storage, "a", namespace="acme")
        assert [use.tag for use in await storage.tag_uses(("acme",), LATER)] == ["y", "z"]
