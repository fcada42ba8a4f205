"""Ranked search."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.storage.drafts import (
    NOW,
    apply,
    found,
    hits,
    literal,
    remove,
    store,
    storing,
)
from tests.storage.parts.opened import NEIGHBOURS, Opened, assert_clean, configure, examples
from unified_memory.model.analysis import LANGUAGES
from unified_memory.model.errors import (
    EmptyQueryError,
)
from unified_memory.model.search import words
from unified_memory.storage.base import (
    Storage,
)

# In many scripts, with marks, signs and what only looks like text.
TEXTS = (
    "The database was deployed, said Zoë: naïve café, Ångström, ﬁne ½ ²",
    "Die Häuser der Straße, Übermaß",
    "Les fichiers ont été supprimés à l'été",
    "Мы развернули серверы, ёлка",
    "部署流水线已经完成。データベースを更新しました",
    "데이터베이스를 배포했습니다",
    "ฐานข้อมูลถูกปรับใช้แล้ว ລາວ ខ្មែរ မြန်မာ",
    "نُشِرَت قاعدةُ البيانات ١٢٣",
    "מסד הנתונים נפרס בְּהַצְלָחָה",
    "डेटाबेस तैनात किया गया தரவுத்தளம்",
    "Η βάση δεδομένων Σίσυφος",
    "İstanbul ıI ŉ ẞ ǅ",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "foo_bar E_CONN-42 src/x/y.py:17 parseQuery a.b(c)[d] \\n\\u0041 C:\\x",
    "e\u0301\u0302\u0303 \u0301 \u200f\u202eabc\u202c a\u200db \u00ad \ufeff \ue000x \ue001y",
    "\u0378 \U000e0080 \ufdd0 \U0010ffff \u2028 \x85 \x00 \x1b \x7f",
)
NASTY = (
    "\ud800",
    "word \udfff\ud800 database",
    '"\ud83d database"',
    "-\udc00 database",
    "\udc80*",
    "\x00",
    "a\x00b database",
    "\x00" * 1000,
    "x" * 100_000,
    "word " * 20_000,
    "線" * 50_000,
    "-x " * 20_000 + "database",
    '"' * 5_001,
    '"a" ' * 5_000,
    '"' * 5_000 + " database",
    "'" * 5_000,
    "*" * 5_000,
    "-" * 5_000,
    "a*" * 5_000,
    "(" * 10_000,
    "\\" * 5_000,
    "\u202e\u202dabc\u202c\u2066\u2069",
    "\u200f\u200e\u061c",
    "e" + "\u0301" * 10_000,
    "\u0301" * 10_000,
    "\u0345\u0344\u1e9b\u0323",
    "\ufdfa" * 500,
    "\u1100\u1161\u11a8" * 500,
    "👩‍👩‍👧‍👦",
    "👩\u200d" * 1000,
    "🇩🇪🇩",
    "\u200d",
    "\ufe0f",
    "\u0378\u0379 \U000e0fff",
    "\uffff\ufffe",
    "\ue000",
    "\ue001",
    "database\ue000",
    "\ue001databas",
    '"\ue001" OR "\ue000"',
    "İSTANBUL ﬀ ŉ ß ẞ ς",
    "\u2028\u2029\x85\x1c\x1d\x1e\x1f",
    "NEAR(a b, 2)",
    "database NEAR/2 deployed",
    "body : database",
    "{body title} : database",
    "- {scope} : n1",
    "^database",
    "database + deployed",
    "database AND",
    "NOT NOT NOT database",
    "OR",
    '"database" "deployed" *',
    '"database*"',
    'database"deployed',
    "-database*",
    '-"database deployed" -"',
    "memory_text MATCH 'x'",
    "%s %d {0} $1 ?1 :a @b",
    "8 May 99999",
    "31 February 2023",
    "0 May 2023",
    "0000-00-00 2023-13-45",
    "١٢ May ٢٠٢٣",
    "May ٢٠٢٣ ²⁰²³",
)

# Longer ones are asked in one language.
SHORT = 100
# Lone surrogates and unassigned code points too.
ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cn", "Cf", "Mn", "Co"]), max_size=12)


async def fill(storage: Storage, namespace: str) -> None:
    """All of the texts, in a session, with names."""
    await apply(
        storage,
        *(
            storing(str(n), text, namespace=namespace, session_id="s", tags=(text[:5],), title=text[5:9], author="Zoë")
            for n, text in enumerate(TEXTS)
        ),
    )


async def any_answer(storage: Storage, query: str, *scopes: str) -> None:
    """Searches; anything may be found, and only that nothing was asked may be said."""
    try:
        answer = await hits(storage, query, *scopes, limit=3)
    except EmptyQueryError:
        return
    assert all(hit.score >= 0 for hit in answer)


class SearchContract(Opened):
    """`search`: what is found, by what, and in which order."""

    async def test_a_word_is_found_whatever_its_case_and_accents(self, storage: Storage) -> None:
        await store(storage, "k", "The Café of Zürich")
        for query in ("café", "CAFE", "zurich", "Zürich,", "(café)"):
            assert await found(storage, query) == ["k"], query

    async def test_words_are_found_in_values_of_any_shape(self, storage: Storage) -> None:
        await store(storage, "k", {"outer": {"inner": ["alpha", 42, {"deep": "omega"}]}, "price": literal("3.50")})
        for query in ("outer", "inner", "alpha", "42", "omega", "3.50"):
            assert await found(storage, query) == ["k"], query
        for query in ("true", "absent"):
            assert await found(storage, query) == [], query

    async def test_any_of_the_words_is_enough(self, storage: Storage) -> None:
        await apply(storage, storing("a", "red apple"), storing("b", "green pear"), storing("c", "blue plum"))
        assert set(await found(storage, "apple pear")) == {"a", "b"}

    async def test_a_phrase_must_stand_in_order(self, storage: Storage) -> None:
        await apply(storage, storing("a", "the quick brown fox"), storing("b", "a brown and quick dog"))
        assert await found(storage, '"quick brown"') == ["a"]
        assert set(await found(storage, "quick brown")) == {"a", "b"}
        assert await found(storage, '"brown fox" dog') != []

    async def test_words_joined_by_odd_characters_are_a_phrase(self, storage: Storage) -> None:
        await apply(storage, storing("a", "see foo_bar.baz here"), storing("b", "baz bar foo"))
        assert await found(storage, "foo.bar-baz") == ["a"]

    async def test_a_prefix_is_found_by_its_star(self, storage: Storage) -> None:
        await apply(storage, storing("a", "deployment"), storing("b", "deploy"), storing("c", "destroy"))
        assert set(await found(storage, "deploy*")) == {"a", "b"}
        assert await found(storage, "deploy") == ["b"]
        assert await found(storage, "rollback*") == []

    async def test_a_negated_word_phrase_or_prefix_leaves_out(self, storage: Storage) -> None:
        await apply(storage, storing("a", "fruit apple"), storing("b", "fruit pear"), storing("c", "fruit big apple"))
        assert set(await found(storage, "fruit -pear")) == {"a", "c"}
        assert set(await found(storage, 'fruit -"big apple"')) == {"a", "b"}
        assert set(await found(storage, "fruit -app*")) == {"b"}
        assert await found(storage, "fruit -apple -pear") == []

    async def test_a_negated_word_in_key_tags_or_title_leaves_out(self, storage: Storage) -> None:
        await store(storage, "secret", "fruit")
        await store(storage, "b", "fruit", tags=("secret",))
        await store(storage, "c", "fruit", title="Secret")
        await store(storage, "d", "fruit")
        assert await found(storage, "fruit -secret") == ["d"]

    async def test_stop_words_alone_are_searched_for(self, storage: Storage) -> None:
        await apply(storage, storing("a", "to be or not to be"), storing("b", "nothing"))
        assert await found(storage, "to be") == ["a"]

    async def test_a_stop_word_beside_a_telling_one_finds_nothing_by_itself(self, storage: Storage) -> None:
        await apply(storage, storing("a", "the harbour"), storing("b", "the mountain"))
        assert await found(storage, "where is the harbour") == ["a"]

    @pytest.mark.parametrize(
        ("value", "query"),
        [
            ("部署流水线已经更新", "流水"),
            ("部署流水线已经更新", "流水线"),
            ("部署流水线已经更新", "部署流水线已经更新"),
            ("部署流水线已经更新", "水"),
            ("今日は良い天気です", "天気"),
            ("カタカナの言葉", "カナ"),
            ("สวัสดีครับ", "ดี"),
            ("配置 nginx 服务器", "nginx服务"),
            ("서울의 날씨", "서울"),
            ("서울의 날씨", "날"),
            ("Привет мир", "мир"),
            ("Привет мир", "ПРИВ"),
            ("हिन्दी भाषा", "हिन्दी"),
            ("हिन्दी भाषा", "भाषा"),
            ("السلام عليكم", "عليكم"),
            ("שָׁלוֹם עולם", "שָׁלוֹם"),
            ("Tiếng Việt", "tieng viet"),
            ("Große Straße", "STRASSE"),
            ("İstanbul'da", "istanbul"),
            ("ΟΔΟΣ ΣΟΦΟΣ", "σοφος"),
            ("\uff46\uff55\uff4c\uff4c width", "full"),
            ("cafe\u0301 noir", "café"),
            ("naïveté", "NAI\u0308VE*"),
            ("snake_case_name", "case"),
            ("CamelCaseName", "casenam"),
            ("v1.2.3-beta", "2.3"),
            ("user@example.com", "example.com"),
            ("https://example.com/a/b?c=d", "example.com/a/b"),
        ],
    )
    async def test_text_of_any_script_is_found_by_a_part_of_it(self, storage: Storage, value: str, query: str) -> None:
        await store(storage, "k", value)
        await store(storage, "other", "something else 無關")
        assert await found(storage, query) == ["k"]

    async def test_the_middle_of_a_word_is_found_where_no_word_matches(self, storage: Storage) -> None:
        await apply(
            storage,
            storing("a", "Refactoring the parser"),
            storing("b", "a manufactory"),
            storing("c", "nothing"),
        )
        assert await found(storage, "FACTOR") == ["b", "a"]
        assert await found(storage, "refactoring the par") == ["a"]

    async def test_the_middle_of_a_word_is_not_searched_for_where_a_word_matches(self, storage: Storage) -> None:
        await apply(storage, storing("a", "refactoring"), storing("b", "factor"))
        assert await found(storage, "factor") == ["b"]

    async def test_the_middle_of_a_word_is_found_in_key_tags_title_and_author_too(self, storage: Storage) -> None:
        await store(storage, "xxneedlexx")
        await store(storage, "b", tags=("xxneedlexx",))
        await store(storage, "c", title="xxNeedlexx")
        await store(storage, "d", author="xxneedlexx")
        found_ = await hits(storage, "eedle")
        assert [(hit.memory.key, hit.matched) for hit in found_] == [
            ("d", ["author"]),
            ("c", ["title"]),
            ("b", ["tags"]),
            ("xxneedlexx", ["key"]),
        ]

    @pytest.mark.parametrize("query", ["(*-", "*", "c++", "100%", "_x_", "a\\b", "'; DROP", "😀", "<b>", "%"])
    async def test_odd_characters_are_found_as_they_are(self, storage: Storage, query: str) -> None:
        await store(storage, "k", "odd: (*- c++ 100% _x_ a\\b '; DROP 😀 <b>")
        await store(storage, "other", "nothing odd at all")
        assert await found(storage, query) == ["k"]

    @pytest.mark.parametrize(
        "query",
        [
            "\"'(*-",
            '"unclosed',
            'a "b" "c',
            "'",
            "''",
            "; DROP TABLE memories; --",
            "NEAR(a b, 5)",
            "a AND b OR NOT c",
            "NOT",
            "AND",
            "text:value",
            "title_text : word",
            "{a b}: c",
            "^start",
            "a + b",
            "a*b*",
            "* *",
            "--",
            "- a",
            "\\",
            "\\\\",
            "%_%",
            "[a-z]",
            "a\0b",
            "é\u0301\u0301",
            "\u202eabc",
            "x" * 5000,
            "word " * 500,
            "😀😀",
            "ﬁ ½ Å ß",
            "(((((((((",
            "a,b;c|d&e",
            ":memory:",
            "-x a",
            "1.5e10",
        ],
    )
    async def test_no_query_is_a_syntax_error(self, storage: Storage, query: str) -> None:
        await store(storage, "k", "a plain word")
        await hits(storage, query)
        await hits(storage, query + " word", where={"importance": {"gt": 1}})

    @given(query=st.text(max_size=20), value=st.text(max_size=20))
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    async def test_any_text_can_be_searched_for_and_is_found_by_itself(
        self, storage: Storage, query: str, value: str
    ) -> None:
        scope = f"example/{next(examples)}"
        await store(storage, "k", value, namespace=scope)
        for text in (query, value):
            try:
                result = await found(storage, text, scope)
            except EmptyQueryError:
                continue
            assert text != value or '"' in text or "-" in text or text != " ".join(text.split()) or result == ["k"]

    @pytest.mark.parametrize("language", LANGUAGES)
    async def test_no_query_fails_whatever_language_it_meets(self, storage: Storage, language: str) -> None:
        await configure(storage, "a", language=language)
        await fill(storage, "a")
        for query in (*NASTY, *TEXTS):
            if len(query) <= SHORT:
                await any_answer(storage, query, "a")
        await assert_clean(storage)

    @pytest.mark.parametrize("number", range(len(NASTY)))
    async def test_no_query_fails_whatever_it_holds(self, storage: Storage, number: int) -> None:
        await configure(storage, "ru", language="russian")
        for scope in ("default", "ru"):
            await fill(storage, scope)
        for query in (NASTY[number], f"database {NASTY[number]}", f'{NASTY[number]} "deployed"'):
            await any_answer(storage, query)

    @given(query=ANY_TEXT, other=ANY_TEXT)
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    async def test_no_text_at_all_makes_a_search_fail(self, storage: Storage, query: str, other: str) -> None:
        if await storage.get("default", "0", NOW) is None:
            await configure(storage, "de", language="german")
            for scope in ("default", "de"):
                await fill(storage, scope)
        for text in (query, f"{query} {other}", f'"{query}" -{other}', f"{query}* {other}*"):
            await any_answer(storage, text)

    @pytest.mark.parametrize("language", LANGUAGES)
    async def test_a_text_of_any_script_is_found_by_itself(self, storage: Storage, language: str) -> None:
        await configure(storage, "a", language=language)
        await fill(storage, "a")
        for number, text in enumerate(TEXTS):
            if words(text):
                assert str(number) in await found(storage, text.replace('"', " "), "a"), text

    async def test_a_hit_names_the_fields_that_matched(self, storage: Storage) -> None:
        await store(storage, "ocelot", "a puma", tags=("lynx", "big cat"), title="Zebra crossing", author="Ann Quagga")
        for query, fields in (
            ("puma", ["value"]),
            ("ocelot", ["key"]),
            ("cat", ["tags"]),
            ("zebra", ["title"]),
            ("quagga", ["author"]),
            ("puma quagga", ["value", "author"]),
            ('"zebra crossing"', ["title"]),
            ("cross*", ["title"]),
        ):
            (hit,) = await hits(storage, query)
            assert sorted(hit.matched) == sorted(fields), query

    async def test_a_snippet_shows_the_match_in_a_long_text(self, storage: Storage) -> None:
        filler = "lorem ipsum dolor sit amet " * 100
        await store(storage, "k", f"{filler}the Remárkable needle {filler}")
        for query in ("remarkable", '"remarkable needle"', "needl*", "emárkab"):
            (hit,) = await hits(storage, query)
            assert "Remárkable needle" in hit.snippet, query
            assert len(hit.snippet) <= 250

    async def test_a_snippet_of_a_short_text_is_the_text(self, storage: Storage) -> None:
        await store(storage, "k", "short and sweet")
        (hit,) = await hits(storage, "sweet")
        assert hit.snippet == "short and sweet"

    async def test_a_hit_holds_the_whole_memory(self, storage: Storage) -> None:
        memory = await store(storage, "k", {"a": "needle"}, tags=("t",))
        (hit,) = await hits(storage, "needle")
        assert hit.memory == memory

    async def test_rarer_words_weigh_more(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"c{n}", "common thing here") for n in range(20)))
        await store(storage, "rare", "rare thing here")
        assert (await found(storage, "common rare"))[0] == "rare"

    async def test_more_of_the_words_weigh_more(self, storage: Storage) -> None:
        await apply(storage, storing("a", "red stone"), storing("b", "red apple"), storing("c", "green apple"))
        assert (await found(storage, "red apple"))[0] == "b"

    async def test_a_word_in_the_title_weighs_more_than_one_in_the_value(self, storage: Storage) -> None:
        await store(storage, "a", "words about stones", title="walrus")
        await store(storage, "b", "words about walrus", title="stones")
        await apply(storage, *(storing(f"f{n}", "filler of other kinds") for n in range(10)))
        assert await found(storage, "walrus") == ["a", "b"]

    async def test_scores_fall_and_ties_are_newest_first(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", "same words") for n in range(5)))
        await store(storage, "best", "same words", title="same words")
        found_ = await hits(storage, "same words")
        assert [hit.memory.key for hit in found_] == ["best", "k4", "k3", "k2", "k1", "k0"]
        scores = [hit.score for hit in found_]
        assert scores == sorted(scores, reverse=True)

    async def test_pages_of_a_search_follow_each_other(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", "word " * (n % 4 + 1)) for n in range(11)))
        everything = await found(storage, "word")
        pages = [await found(storage, "word", limit=4, offset=offset) for offset in (0, 4, 8, 12)]
        assert [len(page) for page in pages] == [4, 4, 3, 0]
        assert [key for page in pages for key in page] == everything

    async def test_pages_of_a_search_inside_of_words_follow_each_other(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", f"xxneedle{n}") for n in range(5)))
        pages = [await found(storage, "eedle", limit=2, offset=offset) for offset in (0, 2, 4, 6)]
        assert pages == [["k4", "k3"], ["k2", "k1"], ["k0"], []]

    async def test_a_page_behind_the_last_hit_by_words_is_empty(self, storage: Storage) -> None:
        await apply(storage, storing("a", "factor"), storing("b", "refactoring"))
        assert await found(storage, "factor", offset=1) == []

    async def test_a_search_stays_in_its_namespaces(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", *NEIGHBOURS):
            await store(storage, name, "needle", namespace=name)
        assert set(await found(storage, "needle", "acme")) == {"acme", "acme/x"}
        assert set(await found(storage, "eedl", "acme")) == {"acme", "acme/x"}
        assert await found(storage, "needle", "acme", recursive=False) == ["acme"]
        assert await found(storage, "eedl", "acme", recursive=False) == ["acme"]
        assert await found(storage, "needle", "acm") == ["acm"]
        assert await found(storage, "needle", "nowhere") == []

    async def test_words_elsewhere_do_not_keep_the_middle_of_a_word_from_being_found_here(
        self, storage: Storage
    ) -> None:
        await store(storage, "elsewhere", "factor", namespace="other")
        await store(storage, "expired", "factor", namespace="acme", expires_at=NOW)
        await store(storage, "here", "refactoring", namespace="acme")
        assert await found(storage, "factor", "acme") == ["here"]

    async def test_a_search_meets_its_filter(self, storage: Storage) -> None:
        await store(storage, "a", {"text": "needle", "n": 1}, tags=("x",), session_id="s")
        await store(storage, "b", {"text": "needle", "n": 2}, tags=("y",), importance=9)
        assert await found(storage, "needle", where={"tags": {"contains": "x"}}) == ["a"]
        assert await found(storage, "needle", where={"importance": {"gte": 9}}) == ["b"]
        assert await found(storage, "needle", where={"value.n": {"lt": 2}, "session_id": "s"}) == ["a"]
        assert await found(storage, "eedl", where={"value.n": 2}) == ["b"]
        assert await found(storage, "needle", where={"value.n": 3}) == []

    async def test_updated_text_is_found_and_the_old_is_not(self, storage: Storage) -> None:
        await store(storage, "k", "oldword", tags=("oldtag",), title="oldtitle")
        await store(storage, "k", "newword", tags=("newtag",), title="newtitle")
        for query in ("oldword", "oldtag", "oldtitle", "ldwor", "ldtag", "ldtitl"):
            assert await found(storage, query) == [], query
        for query in ("newword", "newtag", "newtitle", "ewwor", "ewtag", "ewtitl"):
            assert await found(storage, query) == ["k"], query
        await assert_clean(storage)

    async def test_words_of_what_was_removed_are_not_found(self, storage: Storage) -> None:
        await store(storage, "k", "needle")
        await remove(storage, "k")
        await store(storage, "k", "straw")
        assert await found(storage, "needle") == []
        assert await found(storage, "eedl") == []

    async def test_many_matches_give_the_best_and_no_more_than_the_limit(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", f"word number {n}") for n in range(1000)))
        assert await found(storage, "word", limit=3) == ["k999", "k998", "k997"]
        assert (await found(storage, "word 517", limit=3))[0] == "k517"
