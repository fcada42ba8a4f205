"""The rules by which what a caller says becomes what is stored."""

import math
from typing import Any

import pytest
from msgspec import UNSET, Raw

from tests.service.asking import Held, raw, raws, storing
from tests.storage.drafts import NOW
from unified_memory.model.clock import LAST_INSTANT, SECOND, to_rfc3339
from unified_memory.model.errors import (
    ConflictError,
    InvalidInputError,
    MalformedInputError,
    TooLargeError,
    UnifiedMemoryError,
)
from unified_memory.model.memory import Memory, pack_attributes
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.drafting import (
    Limits,
    Metadata,
    changed,
    check_ahead,
    expiry,
    inherited_expiry,
    patched,
    read_changes,
    read_metadata,
    read_patch,
    read_store,
    read_update,
)
from unified_memory.service.requests import Changes, ListQuery, PatchRequest, UpdateRequest

LIMITS = Limits(value_bytes=1000, key_bytes=16, tags=3, metadata_bytes=100)


def memory(value: Any = "v", tags: tuple[str, ...] = (), **facts: Any) -> Memory:
    """A memory as it lies in the storage; `facts`: columns, everything else the caller's own metadata."""
    columns: dict[str, Any] = {"importance": 7, "session_id": "s", "project_id": "p", "expires_at": NOW + SECOND}
    columns |= {name: facts.pop(name) for name in list(facts) if name in columns}
    return Memory(
        id=1,
        namespace="n",
        key="k",
        value=bytes(raw(value)),
        attributes=pack_attributes(tags, raws(facts)),
        created_at=NOW,
        updated_at=NOW,
        access_count=0,
        last_accessed=None,
        version=1,
        seq=1,
        **columns,
    )


# ---- ttl and expires_at


@pytest.mark.parametrize(
    ("ttl", "instant"),
    [
        (UNSET, UNSET),
        (None, None),
        (1, NOW + SECOND),
        (1.5, NOW + 1_500_000),
        (0.000001, NOW + 1),
        (0.0000015, NOW + 2),
        (10**9, NOW + 10**9 * SECOND),
        ((LAST_INSTANT - NOW) // SECOND, LAST_INSTANT - (LAST_INSTANT - NOW) % SECOND),
        (1e15, LAST_INSTANT),
        (1e300, LAST_INSTANT),
    ],
)
def test_a_ttl_is_counted_from_now_and_ends_with_time(ttl: Any, instant: Any) -> None:
    assert expiry(ttl, UNSET, NOW) == instant


@pytest.mark.parametrize("ttl", [0, -1, -0.5, math.nan, math.inf, -math.inf])
def test_a_ttl_that_is_no_duration_is_refused(ttl: float) -> None:
    with pytest.raises(InvalidInputError) as refused:
        expiry(ttl, UNSET, NOW)
    assert refused.value.field == "ttl"


@pytest.mark.parametrize("ttl", [1e-7, 4e-7, 5e-324])
async def test_no_ttl_that_is_taken_makes_a_memory_that_was_never_there(held: Held, ttl: float) -> None:
    await held.store("k", ttl=ttl)
    assert (await held.retrieve("k")).key == "k"


@pytest.mark.parametrize("ttl", [1e-7, 1e12, 9e14])
async def test_no_default_ttl_that_is_taken_spoils_what_is_stored_under_it(each: Held, ttl: float) -> None:
    await each.service.namespaces.create(ANONYMOUS, "n", raws({"default_ttl": ttl}))
    stored = await each.store("k", namespace="n")
    assert stored.expires_at is not None
    assert NOW < stored.expires_at <= LAST_INSTANT
    assert (await each.retrieve("k", "n")).expires_at == stored.expires_at


@pytest.mark.parametrize(
    ("config", "instant"),
    [
        (NamespaceConfig(), None),
        (NamespaceConfig(default_ttl=None), None),
        (NamespaceConfig(default_ttl=0.5), NOW + SECOND // 2),
        (NamespaceConfig(default_ttl=3600), NOW + 3600 * SECOND),
    ],
)
def test_where_nothing_is_said_the_namespace_decides(config: NamespaceConfig, instant: int | None) -> None:
    assert inherited_expiry(config, NOW) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        (to_rfc3339(NOW + 1), NOW + 1),
        ("2025-06-15T15:06:41Z", NOW + SECOND),
        ("2025-06-15t15:06:41z", NOW + SECOND),
        ("2025-06-15T17:06:41.5+02:00", NOW + 1_500_000),
        ("2025-06-16", NOW + (8 * 3600 + 53 * 60 + 20) * SECOND),
        ("9999-12-31T23:59:59.999999Z", LAST_INSTANT),
        (None, None),
    ],
)
def test_expires_at_is_the_instant_that_it_names(text: str | None, instant: int | None) -> None:
    assert expiry(UNSET, text, NOW) == instant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "1750000001",
        "2025-06-31T00:00:00Z",
        "2099-01-01T24:00:01Z",
        "2099-01-01T00:00:60Z",
        "10000-01-01T00:00:00Z",
        # In UTC it is a day of the year 10000, which nobody can write.
        "9999-12-31T23:59:59.999999-00:01",
        "0001-01-01T00:00:00+14:00",
        to_rfc3339(NOW),
        to_rfc3339(NOW - 1),
        "1970-01-01T00:00:00Z",
    ],
)
def test_expires_at_that_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_ahead(expiry(UNSET, text, NOW), NOW)
    assert refused.value.field == "expires_at"


@pytest.mark.parametrize(("ttl", "at"), [(1, "2099-01-01"), (None, "2099-01-01"), (1, None), (None, None)])
def test_ttl_and_expires_at_are_not_said_both(ttl: float | None, at: str | None) -> None:
    with pytest.raises(InvalidInputError) as refused:
        expiry(ttl, at, NOW)
    assert refused.value.field == "expires_at"


# ---- metadata


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, Metadata()),
        ({"tags": []}, Metadata(tags=())),
        ({"tags": ["b", "a", "b"]}, Metadata(tags=("b", "a"))),
        ({"tags": ["a", "A", " a"]}, Metadata(tags=("a", "A", " a"))),
        ({"tags": None, "importance": None}, Metadata(tags=None, importance=None)),
        ({"importance": 1}, Metadata(importance=1)),
        ({"importance": 10}, Metadata(importance=10)),
        ({"session_id": "1", "project_id": None}, Metadata(session_id="1", project_id=None)),
        ({"session_id": "ü" * 255}, Metadata(session_id="ü" * 255)),
        ({"Tags": Raw(b'[ "a",1.0]'), "id": 7}, Metadata(extra={"Tags": Raw(b'[ "a",1.0]'), "id": Raw(b"7")})),
        ({"tags": ["é" * 127]}, Metadata(tags=("é" * 127,))),
    ],
)
def test_metadata_is_read_field_by_field_and_the_callers_own_is_kept_as_it_came(
    metadata: dict[str, Any], told: Metadata
) -> None:
    read = read_metadata(raws(metadata), LIMITS)
    assert (read.tags, read.importance, read.session_id, read.project_id) == (
        told.tags,
        told.importance,
        told.session_id,
        told.project_id,
    )
    assert {name: bytes(part) for name, part in read.extra.items()} == {
        name: bytes(part) for name, part in told.extra.items()
    }


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"tags": "a"}, "metadata.tags"),
        ({"tags": [1]}, "metadata.tags"),
        ({"tags": {"a": 1}}, "metadata.tags"),
        ({"tags": [""]}, "metadata.tags"),
        ({"tags": [" \t"]}, "metadata.tags"),
        ({"tags": ["a\0"]}, "metadata.tags"),
        ({"tags": ["a" * 1025]}, "metadata.tags"),
        ({"tags": ["é" * 513]}, "metadata.tags"),
        ({"tags": ["a", "b", "c", "d"]}, "metadata.tags"),
        ({"importance": 0}, "metadata.importance"),
        ({"importance": 11}, "metadata.importance"),
        ({"importance": 1.5}, "metadata.importance"),
        ({"importance": "5"}, "metadata.importance"),
        ({"importance": True}, "metadata.importance"),
        ({"importance": Raw(b"1e400")}, "metadata.importance"),
        ({"importance": 10**30}, "metadata.importance"),
        ({"session_id": ""}, "metadata.session_id"),
        ({"session_id": 1}, "metadata.session_id"),
        ({"session_id": "s" * 256}, "metadata.session_id"),
        ({"session_id": "a\0b"}, "metadata.session_id"),
        ({"project_id": ["p"]}, "metadata.project_id"),
        ({"created_at": "2025-01-01"}, "metadata.created_at"),
        ({"updated_at": None}, "metadata.updated_at"),
        ({"expires_at": None}, "metadata.expires_at"),
        ({"access_count": 0}, "metadata.access_count"),
        ({"last_accessed": None}, "metadata.last_accessed"),
        ({"a": Raw(b"[" * 5000 + b"]" * 5000)}, "metadata.a"),
        ({"a": "x" * 60, "b": "x" * 60}, "metadata"),
    ],
)
def test_metadata_that_is_wrong_is_refused_by_the_name_of_its_field(metadata: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_metadata(raws(metadata), LIMITS)
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["tags", "session_id", "project_id", "author"])
def test_bytes_that_are_no_text_are_malformed_wherever_they_stand(name: str) -> None:
    text = b'["\xff"]' if name == "tags" else b'"\xff"'
    with pytest.raises(MalformedInputError) as refused:
        read_metadata({name: Raw(text)}, LIMITS)
    assert refused.value.field == f"metadata.{name}"


async def test_a_store_fills_in_what_it_does_not_say() -> None:
    draft = (await read_store(storing("k"), "k", LIMITS, NOW)).draft
    assert (draft.tags, draft.importance, draft.session_id, draft.project_id) == ((), 5, None, None)
    nulls = {"tags": None, "importance": None, "session_id": None, "project_id": None, "own": None}
    draft = (await read_store(storing("k", metadata=nulls), "k", LIMITS, NOW)).draft
    assert (draft.tags, draft.importance, draft.session_id, draft.project_id) == ((), 5, None, None)
    # A store says all there is; a null of the caller's own is a value.
    assert draft.attributes == b'{"tags":[],"own":null}'


@pytest.mark.parametrize(
    ("request_", "kind", "field"),
    [
        (storing(""), InvalidInputError, "key"),
        (storing("k" * 17), TooLargeError, "key"),
        (storing("é" * 9), TooLargeError, "key"),
        (storing("a\0"), InvalidInputError, "key"),
        (storing("k", namespace=""), InvalidInputError, "namespace"),
        (storing("k", namespace="a//b"), InvalidInputError, "namespace"),
        (storing("k", namespace="../a"), InvalidInputError, "namespace"),
        (storing("k", "x" * 999), TooLargeError, "value"),
        (storing("k", Raw(b'"\xff"')), MalformedInputError, "value"),
        (storing("k", Raw(b"[" * 300 + b"]" * 300)), InvalidInputError, "value"),
        (storing("k", ttl=0), InvalidInputError, "ttl"),
        (storing("k", metadata={"importance": 11}), InvalidInputError, "metadata.importance"),
    ],
)
async def test_a_store_that_is_wrong_is_refused_by_the_name_of_the_part(
    request_: Any, kind: type[InvalidInputError], field: str
) -> None:
    with pytest.raises(kind) as refused:
        await read_store(request_, request_.key, LIMITS, NOW)
    assert (type(refused.value), refused.value.field) == (kind, field)


async def test_a_value_of_exactly_the_limit_is_stored_as_it_came() -> None:
    value = Raw(b'[1.0, "' + b"x" * 991 + b'"]')
    assert (await read_store(storing("é" * 8, value), "é" * 8, LIMITS, NOW)).draft.value == bytes(value)


# ---- updates


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, {}),
        ({"value": Raw(b"[1.50]")}, {"value": b"[1.50]"}),
        ({"value": None}, {"value": b"null"}),
        ({"ttl": None}, {"expires_at": None}),
        ({"ttl": 5}, {"expires_at": NOW + 5 * SECOND}),
        ({"expires_at": None}, {"expires_at": None}),
        ({"metadata": {}}, {}),
        ({"metadata": {"tags": None}}, {"tags": ()}),
        ({"metadata": {"tags": ["c", "c"]}}, {"tags": ("c",)}),
        ({"metadata": {"importance": None}}, {"importance": 5}),
        ({"metadata": {"importance": 1}}, {"importance": 1}),
        ({"metadata": {"session_id": None, "project_id": "q"}}, {"session_id": None, "project_id": "q"}),
        ({"metadata": {"own": None}}, {"attributes": b'{"tags":["a","b"]}'}),
        ({"metadata": {"own": Raw(b" null ")}}, {"attributes": b'{"tags":["a","b"]}'}),
        ({"metadata": {"none": None}}, {}),
        ({"metadata": {"own": [1], "more": 2}}, {"attributes": b'{"tags":["a","b"],"own":[1],"more":2}'}),
    ],
)
def test_an_update_changes_what_it_names_and_nothing_else(request_: dict[str, Any], expected: dict[str, Any]) -> None:
    before = memory({"a": 1}, ("a", "b"), own=Raw(b"1.0"))
    unchanged = {
        "value": b'{"a":1}',
        "tags": ("a", "b"),
        "importance": 7,
        "session_id": "s",
        "project_id": "p",
        "expires_at": NOW + SECOND,
    }
    told: dict[str, Any] = {name: raws(part) if name == "metadata" else part for name, part in request_.items()}
    if "value" in told:
        told["value"] = raw(told["value"])
    draft = changed(before, read_update(UpdateRequest(**told), LIMITS, NOW), LIMITS)
    attributes = expected.pop("attributes", None)
    assert {name: getattr(draft, name) for name in unchanged} == unchanged | expected
    if attributes is not None:
        assert draft.attributes == attributes


@pytest.mark.parametrize(
    ("add", "remove", "tags"),
    [
        (["c"], [], ("a", "b", "c")),
        (["b"], [], ("a", "b")),
        ([], ["a", "none"], ("b",)),
        (["a"], ["a"], ("b", "a")),
        (["c", "c"], ["a", "b"], ("c",)),
    ],
)
def test_tags_are_removed_then_added(add: list[str], remove: list[str], tags: tuple[str, ...]) -> None:
    change = read_changes(Changes(add_tags=add, remove_tags=remove), LIMITS, NOW)
    assert changed(memory(tags=("a", "b")), change, LIMITS).tags == tags


def test_limits_hold_for_what_comes_of_a_change_not_only_for_what_it_says() -> None:
    too_many = read_changes(Changes(add_tags=["c", "d"]), LIMITS, NOW)
    with pytest.raises(InvalidInputError) as refused:
        changed(memory(tags=("a", "b")), too_many, LIMITS)
    assert refused.value.field == "tags"
    more = read_update(UpdateRequest(metadata=raws({"b": "x" * 60})), LIMITS, NOW)
    with pytest.raises(InvalidInputError) as refused:
        changed(memory(a="x" * 60), more, LIMITS)
    assert refused.value.field == "metadata"
    # What is taken away makes room.
    swap = read_update(UpdateRequest(metadata=raws({"a": None, "b": "x" * 60})), LIMITS, NOW)
    assert set(changed(memory(a="x" * 60), swap, LIMITS).attributes) >= set(b'"b"')


# ---- patches

# RFC 7396, appendix A: original, patch, result.
RFC_7396 = [
    (b'{"a":"b"}', b'{"a":"c"}', b'{"a":"c"}'),
    (b'{"a":"b"}', b'{"b":"c"}', b'{"a":"b","b":"c"}'),
    (b'{"a":"b"}', b'{"a":null}', b"{}"),
    (b'{"a":"b","b":"c"}', b'{"a":null}', b'{"b":"c"}'),
    (b'{"a":["b"]}', b'{"a":"c"}', b'{"a":"c"}'),
    (b'{"a":"c"}', b'{"a":["b"]}', b'{"a":["b"]}'),
    (b'{"a":{"b":"c"}}', b'{"a":{"b":"d","c":null}}', b'{"a":{"b":"d"}}'),
    (b'{"a":[{"b":"c"}]}', b'{"a":[1]}', b'{"a":[1]}'),
    (b'["a","b"]', b'["c","d"]', b'["c","d"]'),
    (b'{"a":"b"}', b'["c"]', b'["c"]'),
    (b'{"a":"foo"}', b"null", b"null"),
    (b'{"a":"foo"}', b'"bar"', b'"bar"'),
    (b'{"e":null}', b'{"a":1}', b'{"e":null,"a":1}'),
    (b"[1,2]", b'{"a":"b","c":null}', b'{"a":"b"}'),
    (b"{}", b'{"a":{"bb":{"ccc":null}}}', b'{"a":{"bb":{}}}'),
]


def patch(value: bytes, merge: bytes = b"", append: Any = None, increment: Any = None) -> bytes:
    """The value after a patch; elements and amounts as JSON text."""

    def texts(parts: dict[str, bytes] | None) -> dict[str, Raw] | None:
        return None if parts is None else {path: Raw(part) for path, part in parts.items()}

    request = PatchRequest(merge=Raw(merge), append=texts(append), increment=texts(increment))
    return patched(memory(Raw(value)), read_patch(request), LIMITS)


@pytest.mark.parametrize(("value", "merge", "result"), RFC_7396)
def test_a_merge_is_that_of_rfc_7396(value: bytes, merge: bytes, result: bytes) -> None:
    assert patch(value, merge) == result


def test_what_a_patch_does_not_touch_keeps_its_digits_and_its_order() -> None:
    value = b'{"z": 1.50, "a": 1E2, "m": 123456789012345678901234567890, "n": [1.0, {"x": -0.0}]}'
    expected = b'{"z":1.50,"a":1E2,"m":123456789012345678901234567890,"n":[1.0,{"x":-0.0}],"new":2.00}'
    assert patch(value, b'{"new": 2.00}') == expected


@pytest.mark.parametrize(
    ("value", "path", "result"),
    [
        (b"[1]", "", b"[1,9]"),
        (b'{"a":[]}', "a", b'{"a":[9]}'),
        (b'{"a":1}', "b", b'{"a":1,"b":[9]}'),
        (b"{}", "a.b.c", b'{"a":{"b":{"c":[9]}}}'),
        (b'{"a":[{"b":[]},2]}', "a[0].b", b'{"a":[{"b":[9]},2]}'),
        (b"[[1],[2]]", "[1]", b"[[1],[2,9]]"),
        (b'{"a.b":[]}', '"a.b"', b'{"a.b":[9]}'),
    ],
)
def test_an_element_is_appended_where_the_path_leads(value: bytes, path: str, result: bytes) -> None:
    assert patch(value, append={path: b"9"}) == result


@pytest.mark.parametrize(
    ("held", "amount", "result"),
    [
        (b"1", b"1", b"2"),
        (b"0.1", b"0.2", b"0.3"),
        (b"1.10", b"-1.10", b"0.00"),
        (b"1E2", b"1", b"101"),
        (b"-5", b"10", b"5"),
        (b"9007199254740993", b"1", b"9007199254740994"),
        (b"1" + b"0" * 40, b"1", b"1" + b"0" * 39 + b"1"),
        (b"123456789012345678901234567890.1", b"0.1", b"123456789012345678901234567890.2"),
        (b"1", b"1e-40", b"1." + b"0" * 39 + b"1"),
        (b"1", b"1e3", b"1001"),
        (b"9" * 300, b"1", b"1" + b"0" * 300),
    ],
)
def test_an_increment_is_exact_whatever_the_digits(held: bytes, amount: bytes, result: bytes) -> None:
    assert patch(b'{"n":%b}' % held, increment={"n": amount}) == b'{"n":%b}' % result
    assert patch(held, increment={"": amount}) == result


def test_an_increment_of_nothing_counts_from_0() -> None:
    assert patch(b"{}", increment={"a.n": b"1.5"}) == b'{"a":{"n":1.5}}'


def test_a_patch_merges_then_appends_then_increments() -> None:
    result = patch(b'{"a":1}', b'{"a":null,"l":[1],"n":2}', {"l": b"2", "a": b"3"}, {"n": b"1", "l[0]": b"5"})
    assert result == b'{"l":[6,2],"n":3,"a":[3]}'


@pytest.mark.parametrize(
    ("value", "append", "increment"),
    [
        (b'{"a":1}', "a", None),
        (b'{"a":{}}', "a", None),
        (b'{"a":null}', "a", None),
        (b'"text"', "", None),
        (b'"text"', "a", None),
        (b'{"a":[]}', "a[0]", None),
        (b'{"a":[]}', "a.b", None),
        (b"{}", "a[0]", None),
        (b'{"a":"1"}', None, "a"),
        (b'{"a":true}', None, "a"),
        (b'{"a":null}', None, "a"),
        (b'{"a":[1]}', None, "a"),
        (b'{"a":[1]}', None, "a[1]"),
        (b'{"a":1}', None, "a.b"),
    ],
)
def test_a_patch_that_does_not_fit_what_is_there_is_a_conflict(
    value: bytes, append: str | None, increment: str | None
) -> None:
    with pytest.raises(ConflictError) as refused:
        patch(
            value,
            append=None if append is None else {append: b"1"},
            increment=None if increment is None else {increment: b"1"},
        )
    assert refused.value.facts["path"] == (append if increment is None else increment)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "merge"),
        ({"append": {}, "increment": {}}, "merge"),
        ({"append": {"a..b": b"1"}}, "append.a..b"),
        ({"append": {"a[-1]": b"1"}}, "append.a[-1]"),
        ({"append": {"a": b'"\xff"'}}, "append.a"),
        ({"merge": b'{"a": "\xff"}'}, "merge"),
        ({"increment": {"a": b'"1"'}}, "increment.a"),
        ({"increment": {"a": b"true"}}, "increment.a"),
        ({"increment": {"a": b"null"}}, "increment.a"),
        ({"increment": {"a": b"[1]"}}, "increment.a"),
    ],
)
def test_a_patch_that_is_wrong_is_refused_by_the_name_of_the_part(request_: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        patch(b"{}", **request_)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("held", "amount"),
    [
        (b"1", b"1e999999"),
        (b"1", b"1e9999999"),
        (b"1", b"1e99999999999999999999"),
        (b"1", b"1e-99999999"),
        (b"1e99999999999999999999", b"1"),
        (b"1e-99999999999999999999", b"1"),
    ],
)
def test_an_increment_beyond_all_bounds_is_refused_rather_than_rounded_or_written_out(
    held: bytes, amount: bytes
) -> None:
    with pytest.raises((ConflictError, InvalidInputError)):
        patch(held, increment={"": amount})


def test_a_patch_cannot_make_a_value_larger_than_the_limit() -> None:
    with pytest.raises(TooLargeError):
        patch(b"[]", append={"": b'"' + b"x" * 1000 + b'"'})


async def test_what_cannot_be_done_leaves_everything_as_it_was(each: Held) -> None:
    stored = await each.store("k", {"n": 1, "s": "x"}, metadata={"tags": ["t"]}, ttl=5)
    requests = [
        PatchRequest(merge=raw({"n": 2}), increment=raws({"s": 1})),
        PatchRequest(merge=raw({"n": 2}), append=raws({"n": 1})),
    ]
    for request in requests:
        with pytest.raises(UnifiedMemoryError):
            await each.service.memories.patch(ANONYMOUS, "default", "k", request)
    (after,) = (await each.service.memories.list_all(ANONYMOUS, ListQuery())).memories
    assert after == stored
