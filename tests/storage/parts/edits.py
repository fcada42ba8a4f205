"""What a unit of edits does, and that it does all of it or nothing."""

import asyncio

import pytest
from msgspec import structs

from tests.storage.drafts import (
    NOW,
    apply,
    draft,
    failing,
    found,
    keeping,
    keys,
    literal,
    remove,
    removing,
    selection,
    store,
    storing,
)
from tests.storage.parts.opened import (
    LATER,
    LONG_AFTER,
    Opened,
    all_names,
    all_sessions,
    assert_clean,
    configure,
)
from unified_memory.model.clock import SECOND
from unified_memory.model.errors import (
    InvalidInputError,
    MemoryNotFoundError,
)
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.storage.base import (
    REMOVE,
    Access,
    Decision,
    Edit,
    Idempotency,
    Outcome,
    Storage,
)


class EditContract(Opened):
    """`edit`: what a unit does, and that it does all of it or nothing."""

    async def test_a_stored_memory_is_what_was_drafted(self, storage: Storage) -> None:
        stored = await store(
            storage,
            "a key/with ünïcode",
            {"b": [1, None, "x"], "a": literal("1.50")},
            namespace="acme/web",
            tags=("z", "a"),
            importance=9,
            session_id="s",
            project_id="p",
            expires_at=LATER,
            color="red",
            weight=literal("1e2"),
        )
        assert stored.value == b'{"b":[1,null,"x"],"a":1.50}'
        assert (stored.namespace, stored.key) == ("acme/web", "a key/with ünïcode")
        assert stored.tags == ("z", "a")
        assert {name: bytes(raw) for name, raw in stored.extra.items()} == {
            "color": b'"red"',
            "weight": b"1e2",
        }
        assert (stored.importance, stored.session_id, stored.project_id) == (9, "s", "p")
        assert (stored.created_at, stored.updated_at, stored.expires_at) == (NOW, NOW, LATER)
        assert (stored.access_count, stored.last_accessed, stored.version, stored.tier) == (
            0,
            None,
            1,
            self.tier,
        )
        assert await storage.get("acme/web", "a key/with ünïcode", NOW) == stored

    @pytest.mark.parametrize(
        "raw",
        [
            "null",
            "true",
            '""',
            "[]",
            "{}",
            "0.10",
            "-0.0",
            "1e400",
            "123456789012345678901234567890",
            '{"b":1,"a":2,"b":3}',
            '{ "spaced" : [ 1 , 2 ] }',
            '"a\\u0000b"',
            '"\\u00e9 é \\ud83d\\ude00 😀"',
            '"\\/slash"',
            '"' + "x" * 300_000 + '"',
        ],
    )
    async def test_a_value_comes_back_byte_for_byte(self, storage: Storage, raw: str) -> None:
        await store(storage, "k", literal(raw))
        memory = await storage.get("default", "k", NOW)
        assert memory is not None
        assert memory.value == raw.encode()
        assert [one.value for one in (await storage.select(selection(), NOW)).items] == [raw.encode()]
        await assert_clean(storage)

    async def test_the_outcome_of_a_new_memory_says_created(self, storage: Storage) -> None:
        (outcome,) = await apply(storage, storing("k"))
        assert (outcome.written, outcome.removed, outcome.created) == (True, False, True)

    async def test_the_outcome_of_a_replaced_memory_does_not_say_created(self, storage: Storage) -> None:
        await store(storage, "k")
        (outcome,) = await apply(storage, storing("k"))
        assert (outcome.written, outcome.removed, outcome.created) == (True, False, False)

    async def test_a_replaced_memory_keeps_id_creation_and_accesses_and_counts_its_version(
        self, storage: Storage
    ) -> None:
        first = await store(storage, "k", "one", tags=("old",), importance=2, expires_at=LONG_AFTER, color="red")
        await storage.touch([Access(first.id, 3, NOW + 5)])
        second = await store(storage, "k", "two", now=LATER)
        assert (second.id, second.created_at, second.updated_at) == (first.id, NOW, LATER)
        assert (second.access_count, second.last_accessed) == (3, NOW + 5)
        assert second.version == 2
        assert (second.value, second.tags, second.importance) == (b'"two"', (), 5)
        assert (second.expires_at, second.extra) == (None, {})
        assert second.seq > first.seq

    async def test_decide_is_given_nothing_where_nothing_is_visible(self, storage: Storage) -> None:
        await store(storage, "k", expires_at=LATER)
        given_: list[Memory | None] = []

        def decide(memory: Memory | None, _config: NamespaceConfig) -> Decision:
            given_.append(memory)
            return REMOVE

        await apply(storage, Edit("default", "never", decide), Edit("default", "k", decide), now=LATER)
        assert set(given_) == {None}

    async def test_decide_is_given_the_whole_memory_where_it_asks_for_it(self, storage: Storage) -> None:
        stored = await store(storage, "k", {"a": 1}, tags=("t",), color="red")
        given_: list[Memory | None] = []

        def decide(memory: Memory | None, _config: NamespaceConfig) -> Decision:
            given_.append(memory)
            return draft("k", "new")

        await apply(storage, Edit("default", "k", decide, whole=True))
        assert given_[-1] == stored

    async def test_decide_is_given_the_head_where_it_asks_for_no_more(self, storage: Storage) -> None:
        stored = await store(storage, "k", {"a": 1}, tags=("t",), color="red", session_id="s", expires_at=LATER)
        given_: list[Memory | None] = []

        def decide(memory: Memory | None, _config: NamespaceConfig) -> Decision:
            given_.append(memory)
            return draft("k", "new")

        await apply(storage, Edit("default", "k", decide))
        assert given_[-1] is not None
        assert structs.replace(given_[-1], value=stored.value) == stored

    async def test_decide_is_given_the_settings_that_hold_after_inheritance(self, storage: Storage) -> None:
        await configure(storage, "a", default_ttl=60.0, max_memories=100, description="above")
        await configure(storage, "a/b", default_ttl=None)
        given_: list[NamespaceConfig] = []

        def decide(_memory: Memory | None, config: NamespaceConfig) -> Decision:
            given_.append(config)
            return REMOVE

        await apply(storage, Edit("a/b/c", "k", decide))
        assert given_[-1] == NamespaceConfig(default_ttl=None, max_memories=100)
        await apply(storage, Edit("a/x", "k", decide))
        assert given_[-1] == NamespaceConfig(default_ttl=60.0, max_memories=100)
        await apply(storage, Edit("ax", "k", decide))
        assert given_[-1] == NamespaceConfig()

    async def test_keep_changes_nothing_and_tells_what_is_there(self, storage: Storage) -> None:
        stored = await store(storage, "k")
        kept, missing = await apply(storage, keeping("k", whole=True), keeping("none"), now=LATER)
        assert kept == Outcome(stored)
        assert missing == Outcome(None)
        assert await storage.get("default", "k", LATER) == stored

    async def test_remove_takes_it_away_and_tells_what_it_was(self, storage: Storage) -> None:
        stored = await store(storage, "k")
        (outcome,) = await apply(storage, removing("k"))
        assert (outcome.written, outcome.removed, outcome.created) == (False, True, False)
        assert outcome.memory is not None
        assert (outcome.memory.id, outcome.memory.version, outcome.memory.seq) == (stored.id, 1, stored.seq)
        assert await storage.get("default", "k", NOW) is None

    async def test_removing_what_is_not_there_removes_nothing(self, storage: Storage) -> None:
        await store(storage, "gone", expires_at=LATER)
        outcomes = await apply(storage, removing("none"), removing("gone"), now=LATER)
        assert outcomes == [Outcome(None), Outcome(None)]

    async def test_only_a_draft_creates_the_namespace(self, storage: Storage) -> None:
        await apply(storage, removing("k", namespace="a"), keeping("k", namespace="b"), storing("k", namespace="c/d"))
        assert await all_names(storage) == ["c/d"]
        namespace = await storage.get_namespace("c/d", NOW)
        assert namespace is not None
        assert (namespace.explicit, namespace.created_at, namespace.config) == (False, NOW, NamespaceConfig())

    async def test_outcomes_are_in_the_order_of_the_edits(self, storage: Storage) -> None:
        await store(storage, "x")
        outcomes = await apply(storage, storing("c"), removing("x"), storing("a"), keeping("none"), storing("b"))
        assert [one.memory and one.memory.key for one in outcomes] == ["c", "x", "a", None, "b"]

    async def test_edits_of_one_key_in_a_unit_follow_each_other(self, storage: Storage) -> None:
        outcomes = await apply(
            storage,
            storing("k", 1, expected=0),
            storing("k", 2, expected=1),
            removing("k"),
            keeping("k"),
            storing("k", 3, expected=0),
        )
        assert [(one.written, one.removed, one.created) for one in outcomes] == [
            (True, False, True),
            (True, False, False),
            (False, True, False),
            (False, False, False),
            (True, False, True),
        ]
        memory = await storage.get("default", "k", NOW)
        assert memory is not None
        assert (memory.value, memory.version) == (b"3", 3)
        assert await keys(storage) == ["k"]
        assert await found(storage, "3") == ["k"]
        await assert_clean(storage)

    async def test_a_unit_of_which_one_edit_raises_leaves_nothing_behind(self, storage: Storage) -> None:
        await store(storage, "old", "before", session_id="s")
        await store(storage, "doomed", "before")
        before = (await storage.select(selection(), NOW)).items
        with pytest.raises(MemoryNotFoundError):
            await apply(
                storage,
                storing("new", "tomorrow", namespace="fresh", session_id="t"),
                storing("old", "tomorrow", session_id="u"),
                removing("doomed"),
                failing("none"),
                storing("other", "tomorrow"),
                now=LATER,
            )
        assert (await storage.select(selection(), LATER)).items == before
        assert await all_names(storage) == ["default"]
        assert [session.id for session in await all_sessions(storage)] == ["s"]
        assert await found(storage, "tomorrow") == []
        assert await found(storage, "before") != []
        await assert_clean(storage)

    async def test_a_unit_whose_record_cannot_be_made_leaves_nothing_behind(self, storage: Storage) -> None:
        def record(_outcomes: list[Outcome]) -> bytes:
            raise InvalidInputError("record", "cannot be made")

        with pytest.raises(InvalidInputError):
            await storage.edit([storing("k")], NOW, idempotency=Idempotency("s", "i", b"f", record, SECOND))
        assert await keys(storage) == []

    async def test_a_failed_unit_does_not_spoil_others_that_are_under_way(self, storage: Storage) -> None:
        units = [
            storage.edit([storing(f"k{n}"), failing("x")] if n % 3 == 0 else [storing(f"k{n}")], NOW) for n in range(30)
        ]
        results = await asyncio.gather(*units, return_exceptions=True)
        assert [isinstance(one, MemoryNotFoundError) for one in results] == [n % 3 == 0 for n in range(30)]
        assert sorted(await keys(storage)) == sorted(f"k{n}" for n in range(30) if n % 3)
        await assert_clean(storage)

    async def test_an_empty_unit_does_nothing(self, storage: Storage) -> None:
        assert await apply(storage) == []

    async def test_ids_rise_and_are_never_used_again(self, storage: Storage) -> None:
        ids = []
        for n in range(5):
            ids.append((await store(storage, f"k{n % 2}", namespace=f"n{n}")).id)
            await remove(storage, f"k{n % 2}", namespace=f"n{n}")
        assert ids == sorted(set(ids))

    async def test_seq_rises_with_every_change(self, storage: Storage) -> None:
        first = await store(storage, "a")
        second, third = await apply(storage, storing("b"), storing("c", namespace="n"))
        assert second.memory is not None
        assert third.memory is not None
        moved = await storage.move(("default", "a"), ("default", "d"), NOW)
        assert first.seq < second.memory.seq < third.memory.seq < moved.seq
        assert (await storage.stats(("",), NOW, top=1)).last_seq >= moved.seq
        before = (await storage.stats(("",), NOW, top=1)).last_seq
        await remove(storage, "b")
        assert (await storage.stats(("",), NOW, top=1)).last_seq > before

    async def test_what_a_caller_does_with_an_answer_changes_nothing_that_is_stored(self, storage: Storage) -> None:
        stored = await store(storage, "k", "v")
        stored.value, stored.version = b"null", 99
        read = await storage.get("default", "k", NOW)
        assert read is not None
        assert (read.value, read.version) == (b'"v"', 1)
