"""Ranked search: the index proposes, the rules of `model.ranking` decide on the words of what it proposed."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import apsw
import msgspec
from msgspec import Struct

from unified_memory.model.analysis import ENGLISH, MARK, analyzer, index_text, telling
from unified_memory.model.dates import Day, day_at, day_of, named_days
from unified_memory.model.found import Hit, SearchRequest, SearchResult
from unified_memory.model.matching import Finder, fields_of, literal_spans
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.ranking import (
    NEIGHBOURS,
    REACH,
    Body,
    Candidate,
    Needle,
    PlainStems,
    Query,
    Scored,
    Stems,
    body_of,
    cut_text,
    order,
)
from unified_memory.model.search import Names, SearchTerms, Term, fold, names_of, snippet, words
from unified_memory.model.spelling import MAX_CORRECTED, nearest, nearness, reach
from unified_memory.model.value import parse, text_of
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Binding, condition, select_scope
from unified_memory.storage.sqlite.languages import Languages
from unified_memory.storage.sqlite.rows import RECORD, SIZE, VALUE, memory_of
from unified_memory.storage.sqlite.scopes import scope_token
from unified_memory.storage.sqlite.texts import Text, Texts
from unified_memory.storage.sqlite.vocabulary import EXACT, Vocabulary, exactly, inside, known_near

# Words in key, tags, title, author and date weigh twice; the scope weighs nothing.
WEIGHTS = "1.0, 2.0, 0.0"
MAX_SCOPE_TOKENS = 64
# Where more of everything lies in the scopes, their token costs more to look through than what it saves; what is found is
# checked by name in any case.
LARGE_SHARE = 0.3
# So many of what the index proposes are ranked by their own words; the neighbours of the first of them too.
WINDOW = 32
EXPANDED = 20
EXPANSION = 2
# Sessions up to this size are read at once, of longer ones what is near.
WHOLE_SESSION = 256
# The index looks through about so many entries for a query: its rarest words first, of the others only where there is room.
# What is left out still counts for what was proposed.
MAX_ENTRIES = 8_000
# Of a word that is more frequent than that, the newest so many are looked at.
MAX_NEWEST = 20_000
# Of those that may hold a text inside of a word the newest so many are read.
MAX_LIKELY = 100_000
# So few memories are looked through one by one, rather than all terms of the index.
FEW = 500
FEW_BYTES = 1_000_000
# So many memories are looked through for the word of a stem that is nearest to a mistyped one.
MAX_LOOKED_THROUGH = 10
# Longer values are not read to be ranked: the index tells which words they hold.
READ_BYTES = 65_536
NO_NAMES = Names()
_encode = msgspec.json.Encoder().encode


class EnglishStems:
    """The index's own stems."""

    def __init__(self, connection: Database) -> None:
        # Those that SQLite brings along: `register` puts another in their place for the queries of a connection.
        self.stemming = connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
        self.plain = connection.fts5_tokenizer("unicode61", ["remove_diacritics", "2"])

    def cut(self, text: str) -> Sequence[str]:
        """See `Stems`."""
        utf8 = index_text(text, ENGLISH).encode()
        return self.stemming(utf8, apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False)

    def words(self, text: str) -> Sequence[str]:
        """See `Stems`."""
        utf8 = index_text(text, ENGLISH).encode()
        return self.plain(utf8, apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False)

    def of(self, words: Sequence[str], raw: Sequence[str]) -> list[str]:  # noqa: ARG002 - English folds first
        """See `Stems`."""
        return [stem for word in words for stem in self.cut(word)]


_english: "WeakKeyDictionary[Database, EnglishStems]" = WeakKeyDictionary()


class Proposal(Struct):
    """What the index proposes: a memory's row, its session, and the index's score (higher is better)."""

    id: int
    namespace_id: int
    namespace: str
    session_id: str | None
    score: float


class _Search:
    """One search on one connection."""

    def __init__(
        self, connection: Database, request: SearchRequest, now: int, languages: Languages, texts: Texts
    ) -> None:
        self.connection = connection
        self.texts = texts
        self.request = request
        self.now = now
        self.languages = languages.now(connection)
        self.scope, self.scope_bound = select_scope(request.scopes, recursive=request.recursive)
        where: tuple[str, list[Binding]] = ("1", []) if request.where is None else condition(request.where)
        self.where, self.where_bound = where
        # Some may still be indexed in the language that a namespace had before.
        self._waiting = {row[0] or ENGLISH for row in connection.execute("SELECT DISTINCT language FROM stale_text")}
        self.spoken = sorted(self.languages.within(request.scopes) | self._waiting)
        self._needles: dict[str, Needle] = {}
        self._vocabulary = Vocabulary(connection)
        self._words: Counter[tuple[str, str, str]] | None = None
        self.terms = SearchTerms(telling(request.terms.any, self.spoken), request.terms.none, request.terms.literal)
        self._days = named_days(self.terms.literal)
        self._documents, everything = connection.execute("SELECT total(memories), total(bytes) FROM namespaces").get
        held, size = self._in_scope() or (self._documents, everything)
        self._share = held / self._documents if self._documents else 1.0
        self._few = held <= FEW and size <= FEW_BYTES

    def needle(self, language: str) -> Needle:
        """The terms, ready to be counted in texts of that language."""
        needle = self._needles.get(language)
        if needle is None:
            stems = self._stems(language)
            needle = self._needles[language] = Needle(self.terms.any, self.terms.none, analyzer(language), stems)
        return needle

    def _stems(self, language: str) -> Stems:
        return _english[self.connection] if language == ENGLISH else PlainStems(analyzer(language))

    def find(self) -> SearchResult:
        """The hits, best first, and which words were taken for others."""
        corrected: dict[str, str] = {}
        scored, tail = self._by_words() if self.request.fulltext else self._by_meaning()
        if not any(one.own for one in scored) and self.request.fulltext:
            if hits := self._inside_words():
                return SearchResult(hits)
            corrected = self._correct()
            if corrected:
                scored, tail = self._by_words()
        start, stop = self.request.offset, self.request.offset + self.request.limit
        return SearchResult(self._hits([*scored, *tail][start:stop]), corrected)

    # ---- by words
    def _by_words(self) -> tuple[list[Scored], list[Scored]]:
        """What was ranked by its own words, and behind it what the index alone has put in order."""
        query = self._query()
        near = self.request.near
        wanted = max(self.request.offset + self.request.limit, WINDOW)
        proposals = self._propose(query, wanted) if self.terms.any else []
        meant = [] if near is None else self._eligible(near.nearest())
        if not proposals and not meant:
            return [], []
        ranked = self._ranked(query, proposals[:WINDOW], meant)
        known = {one.id for one in ranked} | {one.id for one in proposals[:WINDOW]}
        rest = [p for p in proposals[WINDOW:] if p.id not in known]
        if not rest or any(map(self._vocabulary.is_short, self.terms.none)):
            # What the index was not asked to leave out is told by the words alone.
            return ranked, []
        # Behind what was ranked: the index's order, its scores drawn below the last of those.
        floor, best = (ranked[-1].score if ranked else 0.0), rest[0].score or 1.0
        return ranked, [_listed(p, floor * min(1.0, p.score / best)) for p in rest]

    def _by_meaning(self) -> tuple[list[Scored], list[Scored]]:
        near = self.request.near
        ranked = [] if near is None else self._ranked(self._query(), [], self._eligible(near.nearest()))
        return ranked, []

    def _ranked(self, query: Query, proposals: list[Proposal], meant: list[Proposal]) -> list[Scored]:
        candidates = self._candidates(proposals, meant)
        near = self.request.near
        cosines = None if near is None else near.cosines([one.id for one in candidates])
        return order(query, candidates, self.request.rank, self.now, cosines, fulltext=self.request.fulltext)

    def _query(self) -> Query:
        """The terms with how many memories hold each."""
        terms = self.terms.any
        held = [0.0] * len(terms)
        stems: list[frozenset[str]] = [frozenset()] * len(terms)
        for language in self.spoken:
            for i, runs in enumerate(self.needle(language).alternatives[: len(terms)]):
                held[i] += sum(self._vocabulary.holding(run, language, prefix=terms[i].prefix) for run in runs)
                stems[i] |= {stem for run in runs for stem in run}
        return Query(terms, stems, held, self._documents, self._days)

    def _propose(self, query: Query, wanted: int) -> list[Proposal]:
        by_rarity, chosen, bounded = self._affordable(query)
        terms = [self.terms.any[i] for i in by_rarity]
        found = self._rows(self._match(terms[:chosen], terms[chosen:]), wanted)
        while len(found) < WINDOW and chosen < len(terms):
            # The rarest words found too little: the next one is looked at too, however frequent.
            chosen += 1
            found = self._rows(self._match(terms[:chosen], terms[chosen:]), wanted)
        if bounded and len(terms) > 1:
            # Each word alone is too frequent; those that hold all of them, or the two rarest, may be older than the newest.
            merged = {one.id: one for one in found}
            for together in {len(terms), 2}:
                match = self._match(terms[:together], terms[together:], together=True)
                merged |= {one.id: one for one in self._rows(match, wanted)}
            found = sorted(merged.values(), key=lambda one: (-one.score, -one.id))
        return found

    def _affordable(self, query: Query) -> tuple[list[int], int, bool]:
        """The terms, rarest first; by how many of them to propose; whether even the rarest of them is in too many memories."""
        share = self._share if self._scope_match() else 1.0
        by_rarity = sorted(range(len(query.holding)), key=lambda i: query.holding[i])
        chosen, entries = 0, 0.0
        for i in by_rarity:
            entries += query.holding[i] * share
            if chosen and entries > MAX_ENTRIES:
                break
            chosen += 1
        return by_rarity, chosen, query.holding[by_rarity[0]] * share > MAX_NEWEST

    def _in_scope(self) -> tuple[float, float] | None:
        """How many memories lie in the scopes, and their bytes; None where the scope is everything."""
        if "" in self.request.scopes:
            return None
        # The index knows subtrees only.
        scope, bound = select_scope(self.request.scopes, recursive=True)
        counted = f"SELECT total(n.memories), total(n.bytes) FROM namespaces n WHERE {scope}"  # noqa: S608
        held, size = self.connection.execute(counted, bound).get
        return held, size

    def _match(self, terms: Sequence[Term], others: Sequence[Term], *, together: bool = False) -> str:
        """The index's query: every word is quoted, so nothing that a caller writes is syntax.

        Memories with any of the terms (with `together` all of them); the `others` only add to their scores.
        """
        wanted = dict.fromkeys(map(self._either, terms))
        found = (" AND " if together else " OR ").join(f"({one})" for one in wanted)
        if others:
            # The index counts what stands in a memory wherever it stands in the query.
            also = " OR ".join(f"({one})" for one in wanted | dict.fromkeys(map(self._either, others)))
            found = f"({found}) AND ({also})"
        text = f"{{body title}} : ({found})"
        if scope := self._scope_match():
            text = f"{scope} AND {text}"
        if self.terms.none:
            banned = " OR ".join(self._either(term) for term in self.terms.none)
            text = f"({text}) NOT {{body title}} : ({banned})"
        return text

    def _either(self, term: Term) -> str:
        """The index's query for a term, in whatever language it stands there."""
        told: dict[str, None] = {}
        for language in self.spoken:
            told.update(dict.fromkeys(self._vocabulary.alternatives(term, language)))
        return " OR ".join(told)

    def _scope_match(self) -> str:
        scopes = self.request.scopes
        if self._share > LARGE_SHARE or len(scopes) > MAX_SCOPE_TOKENS:
            return ""
        return "scope : (" + " OR ".join(f'"{scope_token(scope)}"' for scope in scopes) + ")"

    def _rows(self, match: str, wanted: int) -> list[Proposal]:
        if self.request.where is not None or not self.request.recursive:
            return self._filtered_rows(match, wanted)
        # Candidates are ranked before they are looked up; where too many of them are in other scopes, more are taken.
        take = round(wanted / max(self._share, LARGE_SHARE)) + 32
        while True:
            rows = self.connection.execute(
                f"""WITH found AS MATERIALIZED (
                        SELECT id, score FROM (
                            SELECT rowid AS id, bm25(memory_text, {WEIGHTS}) AS score FROM memory_text
                            WHERE memory_text MATCH ? ORDER BY rowid DESC LIMIT ?)
                        ORDER BY score, id DESC LIMIT ?)
                    SELECT m.id, m.namespace_id, n.name, m.session_id, -found.score, (SELECT count(*) FROM found)
                    FROM found JOIN memories m ON m.id = found.id JOIN namespaces n ON n.id = m.namespace_id
                    WHERE {self.scope} AND (m.expires_at IS NULL OR m.expires_at > ?)
                    ORDER BY found.score, m.id DESC LIMIT ?""",  # noqa: S608 - fixed columns, conditions from the compiler
                (match, MAX_NEWEST, take, *self.scope_bound, self.now, wanted),
            ).fetchall()
            if len(rows) >= wanted or take < 0 or not rows or rows[0][-1] < take:
                return [Proposal(*row[:-1]) for row in rows]
            take = -1 if take > 100 * wanted else take * 8

    def _filtered_rows(self, match: str, wanted: int) -> list[Proposal]:
        """The best of the newest that meet the filter: only what does is scored."""
        rows = self.connection.execute(
            f"""SELECT id, namespace_id, name, session_id, -score FROM (
                    SELECT m.id, m.namespace_id, n.name, m.session_id, bm25(memory_text, {WEIGHTS}) AS score
                    FROM memory_text CROSS JOIN memories m ON m.id = memory_text.rowid
                    CROSS JOIN namespaces n ON n.id = m.namespace_id
                    WHERE memory_text MATCH ? AND {self.scope} AND (m.expires_at IS NULL OR m.expires_at > ?)
                      AND {self.where}
                    ORDER BY memory_text.rowid DESC LIMIT ?)
                ORDER BY score, id DESC LIMIT ?""",  # noqa: S608 - fixed columns, conditions from the compiler
            (match, *self.scope_bound, self.now, *self.where_bound, MAX_NEWEST, wanted),
        )
        return [Proposal(*row) for row in rows]

    def _eligible(self, ids: Iterable[int]) -> list[Proposal]:
        """Those of the memories that are visible, in scope, and meet the filter, in the order of the ids."""
        asked = list(ids)
        rows = self.connection.execute(
            f"""SELECT m.id, m.namespace_id, n.name, m.session_id, 0.0 FROM json_each(?) AS j
                CROSS JOIN memories m ON m.id = j.value JOIN namespaces n ON n.id = m.namespace_id
                WHERE {self.scope} AND (m.expires_at IS NULL OR m.expires_at > ?) AND {self.where} ORDER BY j.key""",  # noqa: S608
            (_encode(asked).decode(), *self.scope_bound, self.now, *self.where_bound),
        )
        return [Proposal(*row) for row in rows]

    # ---- the candidates' own words
    def _candidates(self, proposals: list[Proposal], meant: list[Proposal]) -> list[Candidate]:
        base: dict[int, float | None] = {one.id: one.score for one in proposals}
        places = {one.id: one for one in (*proposals, *meant)}
        around, expanded = self._neighbourhood([*proposals, *meant])
        for one in meant:
            base.setdefault(one.id, None)
        if any(term.plain for term in self.terms.any) and self.request.fulltext:
            more = [number for number in expanded if number not in base]
            if more and self.request.where is not None:
                more = [one.id for one in self._eligible(more)]
            for number in more:
                base[number] = None
                places[number] = places[expanded[number]]
        needed = set(base).union(*(neighbours.values() for number, neighbours in around.items() if number in base))
        texts = self._texts_of(needed, places, around)
        bodies = {number: self._body(number, text, language) for number, (text, language) in texts.items()}
        candidates = []
        for number, score in base.items():
            if number in texts:
                beside = ((d, bodies[other]) for d, other in around.get(number, {}).items() if other in bodies)
                # What must not occur lends nothing either.
                nearby = [(d, body) for d, body in beside if not any(body.counts[len(self.terms.any) :])]
                candidate = self._candidate(number, *texts[number], bodies[number], score, nearby)
                if candidate is not None:
                    candidates.append(candidate)
        return candidates

    def _neighbourhood(self, proposals: list[Proposal]) -> tuple[dict[int, dict[int, int]], dict[int, int]]:
        """By memory, its neighbours by distance (1: right before it, -1: right behind it); and which memories stand beside
        the first proposals, each with the proposal beside which it stands.
        """
        around: dict[int, dict[int, int]] = {}
        expanded: dict[int, int] = {}
        sessions: dict[tuple[int, str], list[int]] = {}
        for place, one in enumerate(proposals):
            if one.session_id is None:
                continue
            session = (one.namespace_id, one.session_id)
            if session not in sessions:
                sessions[session] = self._session(session)
            line = sessions[session]
            if len(line) > WHOLE_SESSION:
                line = self._part_of_session(session, one.id)
            at = bisect_left(line, one.id)
            around[one.id] = _beside(line, at)
            expand = EXPANSION if place < EXPANDED else 0
            for other in range(max(0, at - expand), min(len(line), at + expand + 1)):
                number = line[other]
                expanded.setdefault(number, one.id)
                if number not in around:
                    around[number] = _beside(line, other)
        return around, expanded

    def _session(self, session: tuple[int, str]) -> list[int]:
        """The ids of a session in order, one more than WHOLE_SESSION of a longer one."""
        ids = "SELECT id FROM memories WHERE namespace_id = ? AND session_id = ? ORDER BY id LIMIT ?"
        return [row[0] for row in self.connection.execute(ids, (*session, WHOLE_SESSION + 1))]

    def _part_of_session(self, session: tuple[int, str], number: int) -> list[int]:
        """The ids of a session near to one of them, in order."""
        side = "SELECT id FROM memories WHERE namespace_id = ? AND session_id = ? AND id"
        bound = (*session, number, REACH + EXPANSION)
        before = [row[0] for row in self.connection.execute(f"{side} < ? ORDER BY id DESC LIMIT ?", bound)]
        behind = [row[0] for row in self.connection.execute(f"{side} > ? ORDER BY id LIMIT ?", bound)]
        return [*reversed(before), number, *behind]

    def _texts_of(
        self, needed: set[int], places: dict[int, Proposal], around: dict[int, dict[int, int]]
    ) -> dict[int, tuple[Text, str]]:
        """By memory, what is read of those that are visible, and in which language they are."""
        # A neighbour lies in the namespace of the memory beside which it stands.
        spoken = {number: self.languages.of(one.namespace) for number, one in places.items()}
        for number, neighbours in around.items():
            if number in spoken:
                for other in neighbours.values():
                    spoken.setdefault(other, spoken[number])
        if self._waiting:
            waiting = "SELECT memory_id, language FROM stale_text WHERE memory_id IN (SELECT value FROM json_each(?))"
            rows = self.connection.execute(waiting, (_encode(sorted(needed)).decode(),))
            spoken |= {number: language or ENGLISH for number, language in rows}
        found: dict[int, tuple[Text, str]] = {}
        missing = []
        for number, seq in self.connection.execute(
            "SELECT m.id, m.seq FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value"
            " WHERE m.expires_at IS NULL OR m.expires_at > ?",
            (_encode(sorted(needed)).decode(), self.now),
        ):
            language = spoken[number]
            text = None if self.needle(language).prefixed else self.texts.get(number, language, seq)
            if text is None:
                missing.append(number)
            else:
                found[number] = (text, language)
        for number, text in self._read(missing, spoken):
            found[number] = (text, spoken[number])
        return found

    def _read(self, missing: list[int], spoken: dict[int, str]) -> Iterator[tuple[int, Text]]:
        """Reads texts, and keeps them unless they were cut with their words."""
        for row in self.connection.execute(
            f"""SELECT m.id, m.seq, m.key, CAST(m.metadata AS BLOB), m.importance, m.created_at, m.updated_at,
                {SIZE}, CASE WHEN {SIZE} <= {READ_BYTES} THEN CAST({VALUE} AS BLOB) END
                FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value""",  # noqa: S608 - a fixed number
            (_encode(missing).decode(),),
        ):
            number, seq, key, metadata, importance, created_at, updated_at, size, value = row
            language = spoken[number]
            stems, prefixed = self._stems(language), self.needle(language).prefixed
            named = NO_NAMES if metadata is None else names_of(metadata)
            text = Text(
                seq,
                size,
                None if value is None else cut_text(text_of(parse(value)), stems, words=prefixed),
                cut_text(named.text(key), stems, words=prefixed),
                named.author,
                named.occurred_at,
                importance,
                created_at,
                updated_at,
            )
            if not prefixed:
                self.texts.put(number, language, text)
            yield number, text

    def _body(self, number: int, text: Text, language: str) -> Body:
        return (
            self._told_by_index(number, text.size) if text.body is None else body_of(text.body, self.needle(language))
        )

    def _told_by_index(self, number: int, size: int) -> Body:
        """What counts of a long value: each term once, if the index has it there."""
        counts = []
        for term in (*self.terms.any, *self.terms.none):
            match = f"body : ({self._either(term)})"
            held = "SELECT 1 FROM memory_text WHERE memory_text MATCH ? AND rowid = ?"
            counts.append(1 if self.connection.execute(held, (match, number)).get else 0)
        # About six bytes a word, as in most prose.
        return Body(counts, size // 6)

    def _candidate(
        self, number: int, text: Text, language: str, body: Body, base: float | None, around: list[tuple[int, Body]]
    ) -> Candidate | None:
        """The candidate, None where it holds what must not occur."""
        needle = self.needle(language)
        names = needle.count(text.names)
        for i in range(len(self.terms.any), len(names)):
            if names[i] or body.counts[i]:
                return None
        authors = needle.author(text.author) if text.author else frozenset[str]()
        day: Day | None = None
        if self._days:
            day = (day_of(text.occurred_at) if text.occurred_at else None) or day_at(text.created_at)
        length = len(text.names.stems)
        return Candidate(number, body, names, length, authors, text.importance, text.updated_at, day, base, around)

    # ---- what is shown
    def _hits(self, page: list[Scored]) -> list[Hit]:
        found = {
            row[0]: memory_of(row)
            for row in self.connection.execute(
                f"""SELECT {RECORD} FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value
                    JOIN namespaces n ON n.id = m.namespace_id""",  # noqa: S608 - fixed columns
                (_encode([one.id for one in page]).decode(),),
            )
        }
        finders: dict[str, Finder] = {}
        hits = []
        for one in page:
            memory = found[one.id]
            language = self.languages.of(memory.namespace)
            finder = finders.get(language)
            if finder is None:
                finder = finders[language] = Finder(self.terms.any, analyzer(language))
            hits.append(finder.hit(memory, one))
        return hits

    # ---- where no word is held
    def _inside_words(self) -> list[Hit]:
        """Those that hold the query as it stands inside of words."""
        literal = self.terms.literal.rstrip("*") or self.terms.literal
        needle = fold(literal)
        # Of three words or more those in the middle would stand there whole, and would have been found by themselves.
        middle = words(needle)[1:-1]
        told = {word for term in self.terms.any for word in term.words}
        if not needle or not told.isdisjoint(middle):
            return []
        narrowed: str = "1"
        bound: list[Binding] = []
        if not self._few:
            narrowed, bound = inside(self.connection, literal, needle, self._scope_match())
        rows = self.connection.execute(
            f"""SELECT {RECORD} FROM memories m JOIN namespaces n ON n.id = m.namespace_id
                WHERE {narrowed} AND {self.scope} AND (m.expires_at IS NULL OR m.expires_at > ?) AND {self.where}
                ORDER BY m.id DESC LIMIT ?""",  # noqa: S608 - fixed columns, conditions from the compiler
            (*bound, *self.scope_bound, self.now, *self.where_bound, MAX_LIKELY),
        )
        held = (memory for row in rows if _holds(needle, memory := memory_of(row)))
        hits = []
        for memory in islice(held, self.request.offset, self.request.offset + self.request.limit):
            text = text_of(memory.parsed())
            fields = {"value": text, **fields_of(memory)}
            matched = [name for name, part in fields.items() if needle in fold(part)]
            hits.append(Hit(memory, 0.0, matched, snippet(text, literal_spans(needle, text))))
        return hits

    def _correct(self) -> dict[str, str]:
        """Takes the nearest known words for those that nothing holds, and tells which; empty where there are none."""
        corrected: dict[str, str] = {}
        terms = []
        if len(self.terms.any) > MAX_CORRECTED:
            return corrected
        for term in self.terms.any:
            near = self._nearest(term.words[0]) if term.plain else None
            if near is not None:
                corrected[term.words[0]] = near
            terms.append(term if near is None else Term((near,), raw=(near,)))
        if not corrected:
            return corrected
        self.terms = SearchTerms(tuple(terms), self.terms.none, self.terms.literal)
        self._needles.clear()
        return corrected

    def _nearest(self, word: str) -> str | None:
        """The word nearest to this one among those that the caller may see, as it stands there."""
        if self._few:
            return self._nearest_of_few(word)
        for language in self.spoken:
            for stem in known_near(self.connection, word, language):
                meant = nearest(word, self._visible_words(stem, language))
                if meant is not None:
                    return meant
        return None

    def _nearest_of_few(self, word: str) -> str | None:
        if not (allowed := reach(word)):
            return None
        if self._words is None:
            self._words = Counter(self._words_in_scope())
        asked = {language: analyzer(language).stem(word) for language in self.spoken}
        found = {}
        for (held, stem, language), count in self._words.items():
            apart = nearness(word, asked[language], stem)
            if apart <= allowed and nearest(word, (held,)):
                found[held] = (apart, -count)
        return min(found, key=lambda held: (found[held], held), default=None)

    def _words_in_scope(self) -> Iterator[tuple[str, str, str]]:
        """(word, its stem, language) of all that the caller may see, once for each memory."""
        for row in self.connection.execute(
            f"""SELECT {RECORD} FROM memories m JOIN namespaces n ON n.id = m.namespace_id
                WHERE {self.scope} AND (m.expires_at IS NULL OR m.expires_at > ?)""",  # noqa: S608
            (*self.scope_bound, self.now),
        ):
            memory = memory_of(row)
            language = self.languages.of(memory.namespace)
            told = analyzer(language)
            texts = (*fields_of(memory).values(), text_of(memory.parsed()))
            for held in {word for text in texts for word in words(text)}:
                yield held, told.stem(held), language

    def _visible_words(self, stem: str, language: str) -> Iterator[str]:
        """Words of that stem in memories that the caller may see."""
        match = f"{{body title}} : ({exactly(stem if language == ENGLISH else stem + MARK)})"
        scope = self._scope_match()
        told = analyzer(language)
        for row in self.connection.execute(
            f"""SELECT {RECORD} FROM memory_text CROSS JOIN memories m ON m.id = memory_text.rowid
                JOIN namespaces n ON n.id = m.namespace_id
                WHERE memory_text MATCH ? AND {self.scope} AND (m.expires_at IS NULL OR m.expires_at > ?) LIMIT ?""",  # noqa: S608
            (f"{scope} AND {match}" if scope else match, *self.scope_bound, self.now, MAX_LOOKED_THROUGH),
        ):
            memory = memory_of(row)
            for text in (*fields_of(memory).values(), text_of(memory.parsed())):
                yield from (word for word in words(text) if word == stem or told.stems((word,)) == [stem])


def find(connection: Database, request: SearchRequest, now: int, languages: Languages, texts: Texts) -> SearchResult:
    """The hits of a search, best first."""
    return _Search(connection, request, now, languages, texts).find()


def register(connection: Database) -> None:
    """Teaches a reading connection what searches need, before it first looks at the index.

    A view of the index's terms; and a tokenizer that takes the place of the built-in one in queries: of a word that may go on
    (deploy*) it gives beside the stem the word itself, since the stems of longer words begin with that (deployment -> deploy,
    but deploy -> deploi); and what `exactly` quotes stays as it is.
    """
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("CREATE VIRTUAL TABLE temp.known_terms USING fts5vocab(main, memory_text, row)")
    connection.execute("PRAGMA query_only = ON")
    stems = _english[connection] = EnglishStems(connection)

    def tokenize(utf8: bytes, flags: int, locale: str | None) -> list[tuple[Any, ...]]:
        if utf8.startswith(EXACT.encode()):
            return [(0, len(utf8), utf8[len(EXACT.encode()) :].decode())]
        stemmed = stems.stemming(utf8, apsw.FTS5_TOKENIZE_DOCUMENT, locale)
        if not flags & apsw.FTS5_TOKENIZE_PREFIX:
            return stemmed
        raw = stems.plain(utf8, apsw.FTS5_TOKENIZE_DOCUMENT, locale)
        return [(a[0], a[1], *dict.fromkeys((a[2], b[2]))) for a, b in zip(stemmed, raw, strict=True)]

    connection.register_fts5_tokenizer("porter", lambda _connection, _arguments: tokenize)


def _holds(needle: str, memory: Memory) -> bool:
    """Whether the folded needle stands in any of the memory's texts."""
    if needle in fold(memory.key):
        return True
    # A look at the JSON text says quickly where it cannot be; escapes hide it from that look.
    if memory.attributes != NO_ATTRIBUTES and _may_hold(needle, memory.attributes):
        named = names_of(memory.attributes)
        if any(needle in fold(text) for text in (*named.tags, named.title or "", named.author or "")):
            return True
    return _may_hold(needle, memory.value) and needle in fold(text_of(memory.parsed()))


def _may_hold(needle: str, json: bytes) -> bool:
    return b"\\" in json or needle in fold(json.decode())


def _beside(line: list[int], at: int) -> dict[int, int]:
    """The neighbours of the memory at that place of a session, by distance."""
    return {d: line[at - d] for d in NEIGHBOURS if 0 <= at - d < len(line)}


def _listed(proposal: Proposal, score: float) -> Scored:
    return Scored(proposal.id, score, score, [], 0.0)
