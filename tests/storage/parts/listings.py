"""Scopes, orders, pages and groups."""

import random
from itertools import count
from typing import Any

import pytest

from tests.storage.drafts import (
    NOW,
    apply,
    found,
    keys,
    literal,
    remove,
    selection,
    store,
    storing,
)
from tests.storage.parts.opened import LATER, NEIGHBOURS, Opened, all_names, some_memory
from unified_memory.model.found import SearchRequest
from unified_memory.model.memory import Memory
from unified_memory.model.query import Order, Selection, order_value, parse_field, parse_order
from unified_memory.model.search import parse_search
from unified_memory.storage.base import (
    Storage,
)


class ListingContract(Opened):
    """`select`, `count` and `group`, the filter aside."""

    # ---- scopes

    async def test_a_scope_is_a_subtree_and_never_a_prefix(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", "acme/x/y", *NEIGHBOURS):
            await store(storage, name, namespace=name)
        assert set(await keys(storage, "acme")) == {"acme", "acme/x", "acme/x/y"}
        assert set(await keys(storage, "acme", recursive=False)) == {"acme"}
        assert set(await keys(storage, "acme/x", "acme-corp")) == {
            "acme/x",
            "acme/x/y",
            "acme-corp",
            "acme-corp/x",
        }
        assert set(await keys(storage, "acme", "acme-corp", recursive=False)) == {"acme", "acme-corp"}
        assert await keys(storage, "%") == ["%"]
        assert await keys(storage, "a_me") == ["a_me"]
        assert await keys(storage, "none") == []
        assert len(await keys(storage)) == 3 + len(NEIGHBOURS)
        assert await storage.count(selection("acme"), NOW) == 3
        groups = await storage.group(selection("acme"), parse_field("namespace"), NOW, 50)
        assert [group.value for group in groups] == ["acme", "acme/x", "acme/x/y"]

    async def test_scopes_that_overlap_show_a_memory_once(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme/x")
        assert await keys(storage, "acme", "acme/x", "") == ["k"]
        assert await storage.count(selection("acme", "acme/x", ""), NOW) == 1
        assert await found(storage, "v", "acme", "acme/x", "") == ["k"]
        assert (await storage.stats(("acme", "acme/x"), NOW, top=1)).memories == 1
        assert await all_names(storage, "acme", "acme/x") == ["acme/x"]

    async def test_no_scope_shows_nothing(self, storage: Storage) -> None:
        await store(storage, "k", session_id="s")
        assert (await storage.select(Selection(scopes=()), NOW)).items == []
        assert await storage.count(Selection(scopes=()), NOW) == 0
        assert (
            await storage.search(SearchRequest((), recursive=True, terms=parse_search("v"), where=None, limit=9), NOW)
        ).hits == []
        assert (await storage.list_namespaces((), NOW, depth=None, limit=9, after=None)).items == []
        assert (await storage.stats((), NOW, top=1)).memories == 0

    # ---- order and pages

    async def test_an_order_is_by_the_value_then_by_id_with_nothing_last(self, storage: Storage) -> None:
        values = [3, "b", None, True, 2.5, False, "a", [1], 3, {"x": 1}, "B", 10]
        await apply(storage, *(storing(f"k{n}", {"v": value}) for n, value in enumerate(values)))
        await store(storage, "none", {})
        rising = ["k5", "k3", "k4", "k0", "k8", "k11", "k10", "k6", "k1"]
        assert await keys(storage, order="value.v") == [*rising, "k2", "k7", "k9", "none"]
        falling = ["k1", "k6", "k10", "k11", "k8", "k0", "k4", "k3", "k5"]
        assert await keys(storage, order="-value.v") == [*falling, "none", "k9", "k7", "k2"]

    async def test_texts_are_ordered_by_code_point(self, storage: Storage) -> None:
        names = ["a", "Z", "é", "\uffff", "\U00010000", "a/b", "a-b", "a b", "aa"]
        await apply(storage, *(storing(name) for name in names))
        assert await keys(storage, order="key") == sorted(names)
        assert await keys(storage, order="-key") == sorted(names, reverse=True)

    async def test_numbers_are_ordered_by_amount_with_all_their_digits(self, storage: Storage) -> None:
        amounts = ["9007199254740993", "9007199254740992", "1e3", "-5", "0.5", "9223372036854775808"]
        await apply(storage, *(storing(amount, literal(amount)) for amount in amounts))
        assert await keys(storage, order="value") == [
            "-5",
            "0.5",
            "1e3",
            "9007199254740992",
            "9007199254740993",
            "9223372036854775808",
        ]

    @pytest.mark.parametrize("sign", ["", "-"])
    @pytest.mark.parametrize(
        "field",
        [
            "id",
            "key",
            "namespace",
            "version",
            "tier",
            "importance",
            "session_id",
            "project_id",
            "created_at",
            "updated_at",
            "expires_at",
            "access_count",
            "last_accessed",
            "value",
            "value.n",
            "value.list[0]",
            "metadata.rank",
        ],
    )
    async def test_paging_under_writes_shows_each_memory_once_and_in_order(
        self, storage: Storage, field: str, sign: str
    ) -> None:
        dice = random.Random(f"{sign}{field}")
        stable = [await some_memory(storage, f"stable{n:02}", dice) for n in range(25)]
        for n in range(12):
            await some_memory(storage, f"doomed{n:02}", dice)
        order = parse_order(sign + field)
        shown: list[Memory] = []
        after = None
        for step in count():
            page = await storage.select(Selection(order=order, limit=4, after=after), NOW)
            shown += page.items
            if page.next is None:
                break
            assert len(page.items) == 4
            assert page.next[1] == page.items[-1].id
            after = page.next
            await some_memory(storage, f"new{step:02}", dice)
            for namespace in ("default", "n/m"):
                await remove(storage, f"doomed{step:02}", namespace=namespace)
        seen = [memory.key for memory in shown]
        assert len(seen) == len(set(seen))
        assert [memory for memory in shown if memory.key.startswith("stable")] == _ordered(stable, order)
        assert shown == _ordered(shown, order)

    async def test_a_listing_that_ends_with_a_full_page_says_so(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}") for n in range(6)))
        first = await storage.select(selection(limit=3), NOW)
        last = await storage.select(selection(limit=3, after=first.next), NOW)
        assert [len(first.items), len(last.items)] == [3, 3]
        assert last.next is None
        assert (await storage.select(selection(limit=6), NOW)).next is None

    async def test_a_page_goes_on_where_the_last_one_ended_although_that_memory_is_gone(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", importance=n % 3 + 1) for n in range(9)))
        page = await storage.select(selection(order="importance", limit=4), NOW)
        await remove(storage, page.items[-1].key)
        rest = await keys(storage, order="importance", after=page.next)
        assert rest == ["k4", "k7", "k2", "k5", "k8"]

    async def test_no_limit_gives_all(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}") for n in range(1500)))
        page = await storage.select(selection(limit=None), NOW)
        assert (len(page.items), page.next) == (1500, None)

    async def test_a_count_takes_no_notice_of_order_limit_and_after(self, storage: Storage) -> None:
        memories = [await store(storage, f"k{n}") for n in range(5)]
        after = (memories[3].id, memories[3].id)
        assert await storage.count(selection(order="-id", limit=2, after=after), NOW) == 5

    # ---- groups

    async def test_groups_are_counted_most_first_then_by_value(self, storage: Storage) -> None:
        for n, session in enumerate(["b", "a", "c", "c", None]):
            await store(storage, f"k{n}", session_id=session, importance=n)
        groups = await storage.group(selection(where={"key": {"ne": "k4"}}), parse_field("session_id"), NOW, 10)
        assert [(group.value, group.count) for group in groups] == [("c", 2), ("a", 1), ("b", 1)]
        groups = await storage.group(selection(), parse_field("session_id"), NOW, 1)
        assert [(group.value, group.count) for group in groups] == [("c", 2)]

    async def test_memories_without_the_field_are_a_group_of_none(self, storage: Storage) -> None:
        await apply(storage, storing("a"), storing("b"), storing("c", session_id="s", tags=("t",), color="red"))
        for name, value in (("session_id", "s"), ("metadata.color", "red"), ("tags", "t"), ("value.x", None)):
            groups = await storage.group(selection(), parse_field(name), NOW, 10)
            counted = {group.value: group.count for group in groups}
            assert counted == ({None: 2, value: 1} if value else {None: 3})

    async def test_each_tag_counts_by_itself(self, storage: Storage) -> None:
        await apply(storage, storing("a", tags=("x", "y")), storing("b", tags=("y",)), storing("c", tags=("X", "z")))
        groups = await storage.group(selection(), parse_field("tags"), NOW, 10)
        assert [(group.value, group.count) for group in groups] == [("y", 2), ("X", 1), ("x", 1), ("z", 1)]

    async def test_scalars_of_json_are_groups_as_they_are_and_all_else_is_none(self, storage: Storage) -> None:
        values = [
            True,
            True,
            True,
            1,
            1,
            literal("1.0"),
            literal("1.0"),
            "1",
            None,
            [1],
            {"a": 1},
            False,
            False,
            0,
        ]
        await apply(storage, *(storing(f"k{n}", {"v": value}) for n, value in enumerate(values)))
        groups = await storage.group(selection(), parse_field("value.v"), NOW, 10)
        counted = [(group.value, type(group.value) is bool, group.count) for group in groups]
        assert counted[0] == (1, False, 4)
        assert sorted(map(repr, counted)) == sorted(
            map(
                repr,
                [
                    (1, False, 4),
                    (True, True, 3),
                    (None, False, 3),
                    (False, True, 2),
                    ("1", False, 1),
                    (0, False, 1),
                ],
            )
        )

    async def test_groups_count_what_the_filter_and_the_scope_leave(self, storage: Storage) -> None:
        await store(storage, "a", {"n": 1}, namespace="acme", kind="x")
        await store(storage, "b", {"n": 2}, namespace="acme", kind="x")
        await store(storage, "c", {"n": 2}, namespace="acme-corp", kind="x")
        groups = await storage.group(selection("acme", where={"value.n": 2}), parse_field("metadata.kind"), NOW, 10)
        assert [(group.value, group.count) for group in groups] == [("x", 1)]

    @pytest.mark.parametrize(
        "name", ["importance", "namespace", "tier", "version", "created_at", "expires_at", "value"]
    )
    async def test_every_other_field_can_be_grouped_by(self, storage: Storage, name: str) -> None:
        memory = await store(storage, "k", "text", expires_at=LATER)
        groups = await storage.group(selection(), parse_field(name), NOW, 10)
        expected = "text" if name == "value" else getattr(memory, name)
        assert [(group.value, group.count) for group in groups] == [(expected, 1)]


def _ordered(memories: list[Memory], order: Order) -> list[Memory]:
    """The order in other words than a backend's."""

    def place(memory: Memory) -> tuple[bool, Any, int]:
        value = order_value(order, memory)
        return isinstance(value, str), value, memory.id

    present = [memory for memory in memories if order_value(order, memory) is not None]
    absent = [memory for memory in memories if order_value(order, memory) is None]
    return [
        *sorted(present, key=place, reverse=order.descending),
        *sorted(absent, key=lambda memory: memory.id, reverse=order.descending),
    ]
