"""The language of a namespace: what is found by which forms of its words, and what happens when it changes."""

import pytest

from tests.storage.drafts import NOW, apply, found, remove, store, storing
from tests.storage.parts.asked import ask
from tests.storage.parts.opened import LATER, Opened, assert_clean, configure
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.storage.base import Storage

# By language: a text, and words of other forms than those that stand in it.
SPOKEN = {
    "english": ("The servers were deployed in the cities", ("deploying", "city", "server", "deploys")),
    "german": ("Die Häuser wurden von Gärtnern bepflanzt", ("Haus", "gärtner", "Hausern")),
    "french": ("Les fichiers ont été supprimés", ("supprimer", "fichier", "supprimes")),
    "russian": ("Мы развернули серверы", ("сервер", "серверами", "развернул")),
    "none": ("running shoes", ()),
}
# One word of each text as it stands there.
STANDING = {"english": "deployed", "german": "Häuser", "french": "fichiers", "russian": "серверы", "none": "running"}


async def speak(storage: Storage, name: str, language: str) -> None:
    """Sets the language of a namespace that is there."""
    await storage.put_namespace(name, NamespaceConfig(language=language), NOW, create=False)


async def by_words(storage: Storage, query: str, *scopes: str, now: int = NOW) -> list[str]:
    """Keys of what is found by whole words, in whatever form, without any correction; best first."""
    result = await ask(storage, query, *scopes, now=now)
    return [] if result.corrected else [hit.memory.key for hit in result.hits if hit.score > 0]


async def all_spoken(storage: Storage) -> None:
    """A namespace for each language, named by it, with its text under its name."""
    for language, (text, _) in SPOKEN.items():
        await configure(storage, language, language=language)
        await store(storage, language, text, namespace=language)


async def refreshed(storage: Storage) -> None:
    """Works off everything that waits."""
    while await storage.refresh_index(2):
        pass


class LanguageContract(Opened):
    """The setting `language` and `refresh_index`."""

    async def test_each_namespace_is_searched_in_its_language(self, storage: Storage) -> None:
        await all_spoken(storage)
        for language, (_, forms) in SPOKEN.items():
            for form in (*forms, STANDING[language]):
                assert await by_words(storage, form, language) == [language], form
        await assert_clean(storage)

    async def test_a_search_of_everything_finds_each_language_by_its_forms(self, storage: Storage) -> None:
        await all_spoken(storage)
        for language, (_, forms) in SPOKEN.items():
            for form in (*forms, STANDING[language]):
                assert language in await by_words(storage, form), form
        everything = " ".join(STANDING.values())
        assert set(await by_words(storage, everything)) == set(SPOKEN)
        assert set(await by_words(storage, everything, "german", "russian")) == {"german", "russian"}

    async def test_without_a_language_a_word_is_found_in_its_own_form_only(self, storage: Storage) -> None:
        await configure(storage, "plain", language="none")
        await store(storage, "plain", "she is running", namespace="plain")
        await store(storage, "english", "she is running")
        assert set(await by_words(storage, "running")) == {"plain", "english"}
        assert await by_words(storage, "runs") == ["english"]
        assert await by_words(storage, "runs", "plain") == []

    async def test_words_of_one_language_are_not_cut_by_the_rules_of_another(self, storage: Storage) -> None:
        for language in ("german", "english"):
            await configure(storage, language, language=language)
        await store(storage, "german", "Häuser", namespace="german")
        await store(storage, "english", "hausing", namespace="english")
        assert await by_words(storage, "Haus", "german") == ["german"]
        assert await by_words(storage, "Hausern", "english") == []
        assert await by_words(storage, "hausing", "german") == []

    @pytest.mark.parametrize(
        ("query", "keys"),
        [
            ('"neue Häuser"', ["phrase"]),
            ('"neuen Häusern"', ["phrase"]),
            ('"Häuser neue"', ["turned"]),
            ("Gärt*", ["garden"]),
            ("gartenb*", ["garden"]),
            ("Haus -Gärten", ["turned", "phrase"]),
            ("Hausern -bauten", ["turned", "phrase"]),
        ],
    )
    async def test_phrases_prefixes_and_negations_are_of_the_language(
        self, storage: Storage, query: str, keys: list[str]
    ) -> None:
        await configure(storage, "de", language="german")
        await store(storage, "phrase", "wir bauen neue Häuser", namespace="de")
        await store(storage, "turned", "Häuser, neue und alte", namespace="de")
        await store(storage, "garden", "Häuser mit Gartenbau, Garten und Bauten", namespace="de")
        assert sorted(await by_words(storage, query)) == sorted(keys)

    async def test_a_language_holds_below_until_another_is_set(self, storage: Storage) -> None:
        await configure(storage, "de", language="german")
        await configure(storage, "de/x/en", language="english")
        for name in ("de", "de/x", "de/x/en", "de/x/en/y"):
            await store(storage, name, "Haus", namespace=name)
        assert set(await by_words(storage, "Häusern", "de")) == {"de", "de/x"}
        assert set(await by_words(storage, "Haus", "de")) == {"de", "de/x", "de/x/en", "de/x/en/y"}
        assert await by_words(storage, "Häusern", "de/x/en") == []
        await assert_clean(storage)

    async def test_names_are_searched_in_the_language_too(self, storage: Storage) -> None:
        await configure(storage, "de", language="german")
        await store(storage, "Haus", namespace="de")
        await store(storage, "b", namespace="de", tags=("Haus",))
        await store(storage, "c", namespace="de", title="Ein Haus")
        assert set(await by_words(storage, "Häusern", "de")) == {"Haus", "b", "c"}

    # ---- a change of language

    @pytest.mark.parametrize("new", ["german", "french", "none"])
    async def test_everything_stays_found_while_a_new_language_is_worked_in(self, storage: Storage, new: str) -> None:
        keys = {f"k{n}" for n in range(7)}
        await configure(storage, "a")
        await apply(storage, *(storing(key, "Haus mit Fenstern", namespace="a") for key in sorted(keys)))
        assert set(await by_words(storage, "Haus", "a")) == keys
        await speak(storage, "a", new)
        left, waiting = 8, 7
        while waiting:
            assert set(await by_words(storage, "Haus", "a")) == keys
            assert set(await by_words(storage, "Fenstern", "a")) == keys
            assert set(await by_words(storage, '"mit Fenstern"', "a")) == keys
            await assert_clean(storage)
            waiting = await storage.refresh_index(2)
            assert waiting < left
            left = waiting
        assert set(await by_words(storage, "Haus", "a")) == keys
        assert await by_words(storage, "Häusern", "a") == (sorted(keys, reverse=True) if new == "german" else [])
        assert await storage.refresh_index(2) == 0
        await assert_clean(storage)

    async def test_a_language_that_is_set_back_before_it_was_worked_in_holds(self, storage: Storage) -> None:
        await configure(storage, "a", language="german")
        await store(storage, "k", "Haus", namespace="a")
        for language in ("english", "french", "german"):
            await speak(storage, "a", language)
            assert await by_words(storage, "Haus", "a") == ["k"]
        await refreshed(storage)
        assert await by_words(storage, "Häusern", "a") == ["k"]
        await assert_clean(storage)

    async def test_what_waits_is_found_by_the_forms_of_its_old_language(self, storage: Storage) -> None:
        await configure(storage, "a")
        await store(storage, "k", "The knives were sold by the running houses", namespace="a")
        await speak(storage, "a", "german")
        for query in ("knives", "houses"):
            assert await by_words(storage, query, "a") == ["k"], query
        await assert_clean(storage)

    async def test_what_is_updated_while_it_waits_is_found_by_its_new_words_alone(self, storage: Storage) -> None:
        await configure(storage, "a")
        await store(storage, "k", "Haus", namespace="a")
        await speak(storage, "a", "german")
        await store(storage, "k", "Baum", namespace="a")
        for _ in range(2):
            assert await by_words(storage, "Bäumen", "a") == ["k"]
            assert await by_words(storage, "Haus", "a") == []
            await assert_clean(storage)
            await refreshed(storage)

    async def test_what_is_updated_between_two_changes_of_language_stays_found(self, storage: Storage) -> None:
        await configure(storage, "a")
        await store(storage, "k", "Haus", namespace="a")
        await speak(storage, "a", "german")
        await store(storage, "k", "neue Bäume", namespace="a")
        await speak(storage, "a", "none")
        for _ in range(2):
            assert await by_words(storage, "Bäume", "a") == ["k"]
            await assert_clean(storage)
            await refreshed(storage)

    async def test_what_is_removed_or_passes_its_time_while_it_waits_is_gone(self, storage: Storage) -> None:
        await configure(storage, "a")
        await store(storage, "removed", "Häuser", namespace="a")
        await store(storage, "passed", "Häuser", namespace="a", expires_at=LATER)
        await store(storage, "kept", "Häuser", namespace="a")
        await speak(storage, "a", "german")
        await remove(storage, "removed", namespace="a")
        await storage.expire(LATER, 10)
        for query in ("Häuser", "äuse"):
            assert await found(storage, query, "a", now=LATER) == ["kept"]
        await refreshed(storage)
        assert await by_words(storage, "Haus", "a", now=LATER) == ["kept"]
        await assert_clean(storage)

    async def test_a_change_above_reaches_what_sets_nothing_itself(self, storage: Storage) -> None:
        await configure(storage, "a")
        await configure(storage, "a/en", language="english")
        for name in ("a", "a/x", "a/en", "b"):
            await store(storage, name, "Haus", namespace=name)
        await speak(storage, "a", "german")
        await refreshed(storage)
        assert set(await by_words(storage, "Häusern")) == {"a", "a/x"}
        await assert_clean(storage)

    async def test_a_namespace_that_takes_its_language_back_has_that_of_the_one_above(self, storage: Storage) -> None:
        await configure(storage, "a", language="german")
        await configure(storage, "a/x", language="none")
        await store(storage, "k", "Haus", namespace="a/x")
        assert await by_words(storage, "Häusern", "a") == []
        await storage.put_namespace("a/x", NamespaceConfig(), NOW, create=False)
        await refreshed(storage)
        assert await by_words(storage, "Häusern", "a") == ["k"]
        await assert_clean(storage)

    # ---- what changes its place

    @pytest.mark.parametrize("waiting", [False, True])
    async def test_a_memory_that_is_moved_is_searched_in_the_language_of_its_new_place(
        self, storage: Storage, *, waiting: bool
    ) -> None:
        await configure(storage, "en")
        await configure(storage, "de")
        await store(storage, "k", "Haus", namespace="en")
        await store(storage, "other", "Haus", namespace="de")
        await speak(storage, "de", "german")
        if not waiting:
            await refreshed(storage)
        await storage.move(("en", "k"), ("de", "k"), NOW)
        assert "k" in await by_words(storage, "Häusern", "de")
        await storage.move(("de", "other"), ("en", "other"), NOW)
        assert await by_words(storage, "Haus", "en") == ["other"]
        assert await by_words(storage, "Häusern", "de") == ["k"]
        await assert_clean(storage)
        await refreshed(storage)
        assert await by_words(storage, "Häusern") == ["k"]
        assert set(await by_words(storage, "Haus")) == {"k", "other"}
        await assert_clean(storage)

    async def test_a_namespace_takes_its_own_language_along_when_it_is_renamed(self, storage: Storage) -> None:
        await configure(storage, "old", language="german")
        for name in ("old", "old/x", "old/x/y", "old/a"):
            await store(storage, name, "Haus", namespace=name)
        await storage.rename_namespace("old", "new", NOW)
        assert set(await by_words(storage, "Häusern", "new")) == {"old", "old/x", "old/x/y", "old/a"}
        await assert_clean(storage)

    async def test_a_namespace_has_the_language_of_what_it_is_renamed_into(self, storage: Storage) -> None:
        await configure(storage, "de", language="german")
        await store(storage, "k", "Haus", namespace="x")
        await store(storage, "l", "Haus", namespace="x/y")
        await storage.rename_namespace("x", "de/x", NOW)
        assert set(await by_words(storage, "Häusern")) == {"k", "l"}
        await storage.rename_namespace("de/x", "z", NOW)
        assert await by_words(storage, "Häusern") == []
        assert set(await by_words(storage, "Haus")) == {"k", "l"}
        await assert_clean(storage)

    async def test_a_namespace_that_is_renamed_while_it_waits_is_found(self, storage: Storage) -> None:
        await configure(storage, "a")
        await store(storage, "k", "Haus", namespace="a")
        await store(storage, "l", "Haus", namespace="a/x")
        await speak(storage, "a", "german")
        await storage.rename_namespace("a", "b", NOW)
        for _ in range(2):
            assert set(await by_words(storage, "Häusern", "b")) == {"k", "l"}
            await assert_clean(storage)
            await refreshed(storage)

    async def test_a_deleted_namespace_leaves_nothing_of_its_language(self, storage: Storage) -> None:
        await configure(storage, "de", language="german")
        await store(storage, "old", "Haus", namespace="de")
        await store(storage, "below", "Haus", namespace="de/x")
        tickets = await storage.delete_namespace("de", NOW, recursive=True)
        await assert_clean(storage)
        await store(storage, "new", "Haus", namespace="de")
        assert await by_words(storage, "Haus", "de") == ["new"]
        assert await by_words(storage, "Häusern", "de") == []
        await assert_clean(storage)
        for ticket in tickets:
            while await storage.purge(ticket, NOW, 1):
                await assert_clean(storage)
        await refreshed(storage)
        assert await by_words(storage, "Haus") == ["new"]
        await assert_clean(storage)

    async def test_a_namespace_that_is_deleted_while_it_waits_stays_gone(self, storage: Storage) -> None:
        await configure(storage, "a")
        await store(storage, "k", "Haus", namespace="a/x")
        await speak(storage, "a", "german")
        tickets = await storage.delete_namespace("a/x", NOW, recursive=True)
        await assert_clean(storage)
        await refreshed(storage)
        await assert_clean(storage)
        await speak(storage, "a", "french")
        await assert_clean(storage)
        for query in ("Haus", "Häusern", "Hau"):
            assert await found(storage, query) == []
        for ticket in tickets:
            while await storage.purge(ticket, NOW, 1):
                pass
        await assert_clean(storage)
