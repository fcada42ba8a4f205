"""Ranked search over records, in the plainest way that the contract allows: every record is a candidate."""

from collections.abc import Callable, Sequence

from unified_memory.model.analysis import analyzer, telling
from unified_memory.model.dates import day_at, day_of, named_days
from unified_memory.model.found import Hit, SearchRequest, SearchResult
from unified_memory.model.matching import Finder, fields_of, literal_spans
from unified_memory.model.memory import Memory
from unified_memory.model.ranking import (
    NEIGHBOURS,
    Body,
    Candidate,
    Cut,
    Needle,
    PlainStems,
    Query,
    Scored,
    body_of,
    cut_text,
    order,
)
from unified_memory.model.search import SearchTerms, Term, fold, names_of, snippet
from unified_memory.model.spelling import MAX_CORRECTED, nearest, nearness, reach
from unified_memory.storage.inmemory.record import Record


class Ranking:
    """One search. `chosen`: the records that may be found; `everything`: all that are stored; `language_of` a namespace."""

    def __init__(
        self,
        request: SearchRequest,
        chosen: Sequence[Record],
        everything: Sequence[Record],
        language_of: Callable[[str], str],
        now: int,
    ) -> None:
        self._request = request
        self._chosen = chosen
        self._everything = everything
        self._language_of = language_of
        self._now = now
        self._needles: dict[str, Needle] = {}
        spoken = {language_of(record.memory.namespace) for record in chosen}
        self._terms = SearchTerms(telling(request.terms.any, spoken), request.terms.none, request.terms.literal)

    def find(self) -> SearchResult:
        """The hits, best first."""
        corrected: dict[str, str] = {}
        start, stop = self._request.offset, self._request.offset + self._request.limit
        scored = self._ranked()
        if not any(one.own for one in scored) and self._request.fulltext:
            literal = self._terms.literal
            if hits := self._inside_words(fold(literal.rstrip("*") or literal)):
                return SearchResult(hits[start:stop])
            corrected = self._correct()
            if corrected:
                scored = self._ranked()
        records = {record.memory.id: record for record in self._chosen}
        return SearchResult([self._hit(records[one.id], one) for one in scored[start:stop]], corrected)

    def _cut(self, record: Record, text: str) -> Cut:
        language = self._language_of(record.memory.namespace)
        return cut_text(text, PlainStems(analyzer(language)), words=True)

    def _needle(self, namespace: str) -> Needle:
        language = self._language_of(namespace)
        if language not in self._needles:
            told = analyzer(language)
            self._needles[language] = Needle(self._terms.any, self._terms.none, told, PlainStems(told))
        return self._needles[language]

    def _ranked(self) -> list[Scored]:
        near = self._request.near
        visible = [record for record in self._everything if record.memory.visible(self._now)]
        bodies = {r.memory.id: body_of(self._cut(r, r.about.text), self._needle(r.memory.namespace)) for r in visible}
        names = {r.memory.id: self._needle(r.memory.namespace).count(self._cut(r, r.about.title_text)) for r in visible}
        count = len(self._terms.any)
        held = [float(sum(bool(bodies[n].counts[i] or names[n][i]) for n in bodies)) for i in range(count)]
        stems = [frozenset[str]()] * count
        for needle in self._needles.values():
            stems = [known | {s for run in needle.alternatives[i] for s in run} for i, known in enumerate(stems)]
        nearest = set() if near is None else set(near.nearest())
        candidates = []
        for record in self._chosen:
            around = self._around(record.memory, bodies)
            one = self._candidate(record, bodies[record.memory.id], around)
            if any(one.names[count:]) or any(one.body.counts[count:]):
                continue
            if self._request.fulltext and (any(one.names[:count]) or any(one.body.counts[:count])):
                one.base = 0.0
            if one.base is not None or one.id in nearest or (self._request.fulltext and around):
                candidates.append(one)
        query = Query(self._terms.any, stems, held, len(visible), named_days(self._terms.literal))
        cosines = None if near is None else near.cosines([one.id for one in candidates])
        return order(query, candidates, self._request.rank, self._now, cosines, fulltext=self._request.fulltext)

    def _around(self, memory: Memory, bodies: dict[int, Body]) -> list[tuple[int, Body]]:
        if memory.session_id is None:
            return []
        place = (memory.namespace, memory.session_id)
        line = sorted(r.memory.id for r in self._everything if (r.memory.namespace, r.memory.session_id) == place)
        at = line.index(memory.id)
        beside = ((d, line[at - d]) for d in NEIGHBOURS if 0 <= at - d < len(line))
        # What must not occur lends nothing either.
        banned = len(self._terms.any)
        return [
            (d, bodies[number]) for d, number in beside if number in bodies and not any(bodies[number].counts[banned:])
        ]

    def _candidate(self, record: Record, body: Body, around: list[tuple[int, Body]]) -> Candidate:
        memory = record.memory
        needle = self._needle(memory.namespace)
        named = names_of(memory.attributes)
        cut = self._cut(record, record.about.title_text)
        authors = needle.author(named.author) if named.author else frozenset[str]()
        day = (day_of(named.occurred_at) if named.occurred_at else None) or day_at(memory.created_at)
        return Candidate(
            memory.id,
            body,
            needle.count(cut),
            len(cut.stems),
            authors,
            memory.importance,
            memory.updated_at,
            day,
            None,
            around,
        )

    def _hit(self, record: Record, one: Scored) -> Hit:
        finder = Finder(self._terms.any, analyzer(self._language_of(record.memory.namespace)))
        return finder.hit(record.memory, one)

    def _inside_words(self, literal: str) -> list[Hit]:
        hits = []
        for record in self._chosen if literal else ():
            text = record.about.text
            matched = [
                name for name, held in {"value": text, **fields_of(record.memory)}.items() if literal in fold(held)
            ]
            if matched:
                hits.append(Hit(record.memory, 0.0, matched, snippet(text, literal_spans(literal, text))))
        return sorted(hits, key=lambda hit: -hit.memory.id)

    def _correct(self) -> dict[str, str]:
        corrected: dict[str, str] = {}
        terms = []
        if len(self._terms.any) > MAX_CORRECTED:
            return corrected
        for term in self._terms.any:
            near = self._nearest(term.words[0]) if term.plain else None
            if near is not None:
                corrected[term.words[0]] = near
            terms.append(term if near is None else Term((near,), raw=(near,)))
        self._terms = SearchTerms(tuple(terms), self._terms.none, self._terms.literal)
        self._needles.clear()
        return corrected

    def _nearest(self, word: str) -> str | None:
        found: dict[str, list[int]] = {}
        for record in self._chosen if reach(word) else ():
            told = analyzer(self._language_of(record.memory.namespace))
            (asked,) = told.stems((word,))
            for held in {*record.words, *record.title_words}:
                (stem,) = told.stems((held,))
                apart = nearness(word, asked, stem)
                if apart <= reach(word) and nearest(word, (held,)):
                    found.setdefault(held, [apart, 0])[1] -= 1
        return min(found, key=lambda held: (found[held], held), default=None)
