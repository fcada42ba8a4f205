"""Typing errors: corrected where nothing is found, by what the caller may see."""

import pytest

from tests.storage.drafts import NOW, apply, remove, store, storing
from tests.storage.parts.asked import ask
from tests.storage.parts.opened import LATER, Opened, configure
from unified_memory.storage.base import Storage


class SpellingContract(Opened):
    """`SearchResult.corrected`."""

    @pytest.mark.parametrize(
        ("query", "word"),
        [
            ("databse", "database"),
            ("dtaabase", "database"),
            ("datebase", "database"),
            ("databasse", "database"),
            ("adtabase", "database"),
            ("deploymment", "deployment"),
            ("kuberntes", "kubernetes"),
            ("reisions", "revisions"),
            ("deploymnet", "deployment"),
            ("revisinos", "revisions"),
            ("zurihc", "zurich"),
            ("Zrich", "zurich"),
        ],
    )
    async def test_a_mistyped_word_finds_the_nearest_and_says_so(self, storage: Storage, query: str, word: str) -> None:
        await store(storage, "other", "something else")
        await store(storage, "k", "The database of a kubernetes deployment in Zürich, with revisions")
        result = await ask(storage, query)
        assert [hit.memory.key for hit in result.hits] == ["k"]
        assert result.corrected == {query.lower(): word}

    @pytest.mark.parametrize("query", ["databse", "database", "kubernetes databse", "atabas"])
    async def test_nothing_is_corrected_where_something_is_found(self, storage: Storage, query: str) -> None:
        await store(storage, "k", "database databse kubernetes")
        result = await ask(storage, query)
        assert [hit.memory.key for hit in result.hits] == ["k"]
        assert result.corrected == {}

    async def test_the_words_that_need_no_correction_stay(self, storage: Storage) -> None:
        await store(storage, "k", "a database")
        result = await ask(storage, "databse xylophone")
        assert [hit.memory.key for hit in result.hits] == ["k"]
        assert result.corrected == {"databse": "database"}

    @pytest.mark.parametrize("query", ["cta", "4242", "wholly different", "data1", "ab"])
    async def test_short_words_numbers_and_far_ones_are_not_corrected(self, storage: Storage, query: str) -> None:
        await store(storage, "k", "cat 4243 data2 ac")
        result = await ask(storage, query)
        assert (result.hits, result.corrected) == ([], {})

    async def test_the_nearest_word_is_taken_before_the_more_frequent(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", "abcdefxy") for n in range(5)), storing("near", "abcdefgx"))
        assert (await ask(storage, "abcdefgh")).corrected == {"abcdefgh": "abcdefgx"}

    async def test_of_words_as_near_the_more_frequent_is_taken(self, storage: Storage) -> None:
        await apply(storage, storing("rare", "lantern"), *(storing(f"k{n}", "lectern") for n in range(3)))
        result = await ask(storage, "lentern")
        assert result.corrected == {"lentern": "lectern"}
        assert {hit.memory.key for hit in result.hits} == {"k0", "k1", "k2"}

    async def test_words_come_from_the_names_too(self, storage: Storage) -> None:
        await store(storage, "ocelot")
        await store(storage, "b", tags=("giraffe",))
        await store(storage, "c", title="Chimpanzee")
        await store(storage, "d", author="Rhinoceros")
        for query, key in (("ocelto", "ocelot"), ("girafe", "b"), ("chimpanze", "c"), ("rhinocerso", "d")):
            assert [hit.memory.key for hit in (await ask(storage, query)).hits] == [key], query

    async def test_words_of_other_namespaces_are_never_told(self, storage: Storage) -> None:
        await store(storage, "secret", "thunderbird", namespace="other")
        await store(storage, "secret", "thunderbird", namespace="acme-corp")
        await store(storage, "k", "plain words", namespace="acme")
        for scopes in (("acme",), ("acme", "nowhere")):
            result = await ask(storage, "thundrbird", *scopes)
            assert (result.hits, result.corrected) == ([], {})
        assert (await ask(storage, "thundrbird", "other")).corrected == {"thundrbird": "thunderbird"}

    async def test_words_below_are_told_only_where_they_are_searched(self, storage: Storage) -> None:
        await store(storage, "k", "thunderbird", namespace="acme/x")
        assert (await ask(storage, "thundrbird", "acme")).corrected == {"thundrbird": "thunderbird"}
        result = await ask(storage, "thundrbird", "acme", recursive=False)
        assert (result.hits, result.corrected) == ([], {})

    async def test_words_of_what_has_passed_its_time_are_never_told(self, storage: Storage) -> None:
        await store(storage, "k", "thunderbird", expires_at=LATER)
        assert (await ask(storage, "thundrbird")).corrected == {"thundrbird": "thunderbird"}
        result = await ask(storage, "thundrbird", now=LATER)
        assert (result.hits, result.corrected) == ([], {})

    async def test_words_of_what_was_removed_or_replaced_are_never_told(self, storage: Storage) -> None:
        await store(storage, "removed", "thunderbird")
        await store(storage, "replaced", "thunderbolt")
        await store(storage, "gone", "thunderstorm", namespace="gone")
        await remove(storage, "removed")
        await store(storage, "replaced", "plain")
        await storage.delete_namespace("gone", NOW, recursive=True)
        for query in ("thundrbird", "thunderbotl", "thunderstrm"):
            result = await ask(storage, query)
            assert (result.hits, result.corrected) == ([], {}), query

    async def test_a_visible_word_is_found_behind_nearer_ones_that_are_not(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", "configuration", namespace="other") for n in range(5)))
        await store(storage, "k", "configurator", namespace="acme")
        assert (await ask(storage, "configuratoin", "acme")).corrected == {"configuratoin": "configurator"}

    async def test_words_are_corrected_in_their_language(self, storage: Storage) -> None:
        await configure(storage, "de", language="german")
        await configure(storage, "ru", language="russian")
        await configure(storage, "plain", language="none")
        await store(storage, "de", "Die Datenbanken", namespace="de")
        await store(storage, "ru", "развернули серверы", namespace="ru")
        await store(storage, "plain", "running", namespace="plain")
        for query, key in (("Datnebanken", "de"), ("сервреы", "ru"), ("runnign", "plain")):
            result = await ask(storage, query)
            assert [hit.memory.key for hit in result.hits] == [key], query
            assert list(result.corrected) == [query.lower()]

    async def test_what_must_not_occur_is_not_corrected_and_still_keeps_away(self, storage: Storage) -> None:
        await store(storage, "k", "database of cats")
        await store(storage, "l", "database of dogs")
        result = await ask(storage, "databse -cats")
        assert [hit.memory.key for hit in result.hits] == ["l"]
        assert result.corrected == {"databse": "database"}
