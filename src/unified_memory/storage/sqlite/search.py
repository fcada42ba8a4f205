"""Ranked search over the inverted index."""

import re
from typing import Any

import apsw

from unified_memory.model.memory import Memory
from unified_memory.model.search import Hit, SearchRequest, SearchTerms, Term, fold, names_of, snippet
from unified_memory.model.value import parse, text_of
from unified_memory.storage.sqlite.connection import Database, Tokenizer
from unified_memory.storage.sqlite.filters import condition, select_scope
from unified_memory.storage.sqlite.rows import RECORD, memory_of
from unified_memory.storage.sqlite.transaction import scope_token

# Words in key, tags, title and author weigh twice; the scope weighs nothing.
WEIGHTS = "1.0, 2.0, 0.0"
MAX_SCOPE_TOKENS = 64
_SHOWN_CHARS = 100_000


# What SQLite can tell by itself, without calling into Python for each memory: plain ASCII text that does not hold the needle.
# Accents and escapes hide what a text holds from it.
_MAY_HOLD = " OR ".join(
    f"instr(lower({text}), ?) OR octet_length({text}) <> length({text}) OR instr({text}, char(92))"
    for text in ("m.key", "coalesce(m.metadata, '')", "m.value_json")
)


def find(connection: Database, request: SearchRequest, now: int) -> list[Hit]:
    """The hits of a search, best first."""
    scored = _by_words(connection, request, now) if request.terms.any else []
    if not scored and not request.offset:
        return _inside_words(connection, request, now)
    if not scored and not _by_words(connection, _at_start(request), now):
        return _inside_words(connection, request, now)
    tokenizer = connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
    matcher = _Matcher(tokenizer, request.terms.any)
    return [_hit(matcher, memory, score) for memory, score in scored]


def _at_start(request: SearchRequest) -> SearchRequest:
    return SearchRequest(request.scopes, request.recursive, request.terms, request.where, 1)


def match_text(terms: SearchTerms, scopes: tuple[str, ...]) -> str:
    """The index's query: every word is quoted, so nothing that a caller writes is syntax."""
    text = "{body title} : (" + " OR ".join(_quoted(term) for term in terms.any) + ")"
    if "" not in scopes and len(scopes) <= MAX_SCOPE_TOKENS:
        text = "scope : (" + " OR ".join(f'"{scope_token(scope)}"' for scope in scopes) + ") AND " + text
    if terms.none:
        text = f"({text}) NOT {{body title}} : (" + " OR ".join(_quoted(term) for term in terms.none) + ")"
    return text


def _quoted(term: Term) -> str:
    return '"' + " ".join(term.words) + '"' + (" *" if term.prefix else "")


def _by_words(connection: Database, request: SearchRequest, now: int) -> list[tuple[Memory, float]]:
    scope, scope_bound = select_scope(request.scopes, recursive=request.recursive)
    where, where_bound = ("1", []) if request.where is None else condition(request.where)
    wanted = request.offset + request.limit
    match = match_text(request.terms, request.scopes)
    # Candidates are ranked before they are looked up; where too many of them fall through the filter, more are taken.
    take = wanted + 32 if request.where is None and request.recursive else -1
    while True:
        rows = connection.execute(
            f"""WITH found AS MATERIALIZED (
                    SELECT rowid AS id, bm25(memory_text, {WEIGHTS}) AS score FROM memory_text WHERE memory_text MATCH ?
                    ORDER BY score, rowid DESC LIMIT ?)
                SELECT {RECORD}, found.score, (SELECT count(*) FROM found)
                FROM found JOIN memories m ON m.id = found.id JOIN namespaces n ON n.id = m.namespace_id
                WHERE {scope} AND (m.expires_at IS NULL OR m.expires_at > ?) AND {where}
                ORDER BY found.score, m.id DESC LIMIT ?""",  # noqa: S608 - fixed columns, conditions from the compiler
            (match, take, *scope_bound, now, *where_bound, wanted),
        ).fetchall()
        if len(rows) >= wanted or take < 0 or not rows or rows[0][-1] < take:
            break
        take = -1 if take > 100 * wanted else take * 8
    return [(memory_of(row), -row[-2]) for row in rows[request.offset :]]


def _inside_words(connection: Database, request: SearchRequest, now: int) -> list[Hit]:
    """Those that hold the query as it stands inside of words: read one by one, since no index serves it."""
    needle = fold(request.terms.literal.rstrip("*") or request.terms.literal)
    if not needle:
        return []
    scope, scope_bound = select_scope(request.scopes, recursive=request.recursive)
    where, where_bound = ("1", []) if request.where is None else condition(request.where)
    rows = connection.execute(
        f"""SELECT {RECORD} FROM memories m JOIN namespaces n ON n.id = m.namespace_id
            WHERE {scope} AND (m.expires_at IS NULL OR m.expires_at > ?) AND {where}
              AND CASE WHEN {_MAY_HOLD} THEN holds(?, m.key, m.metadata, m.value_json) ELSE 0 END
            ORDER BY m.id DESC LIMIT ? OFFSET ?""",  # noqa: S608 - fixed columns, conditions from the compiler
        (*scope_bound, now, *where_bound, *[needle] * 4, request.limit, request.offset),
    )
    pattern = re.compile(re.escape(needle))
    hits = []
    for row in rows:
        memory = memory_of(row)
        text = text_of(memory.parsed())
        spans = _folded_spans(pattern, text)
        fields = {"value": fold(text)} | {name: fold(part) for name, part in _title_fields(memory).items()}
        hits.append(Hit(memory, 0.0, [name for name, part in fields.items() if needle in part], snippet(text, spans)))
    return hits


def register(connection: Database) -> None:
    """Teaches a reading connection what searches need, before it first looks at the index.

    `holds(needle, key, metadata, value)`: whether the folded needle stands in any of the texts. And a tokenizer that
    takes the place of the built-in one in queries: of a word that may go on (deploy*) it gives beside the stem the
    word itself, since the stems of longer words begin with that (deployment -> deploy, but deploy -> deploi).
    """
    connection.create_scalar_function("holds", _holds, 4, deterministic=True)
    stemming = connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
    plain = connection.fts5_tokenizer("unicode61", ["remove_diacritics", "2"])

    def tokenize(utf8: bytes, flags: int, locale: str | None) -> list[tuple[Any, ...]]:
        stems = stemming(utf8, apsw.FTS5_TOKENIZE_DOCUMENT, locale)
        if not flags & apsw.FTS5_TOKENIZE_PREFIX:
            return stems
        raw = plain(utf8, apsw.FTS5_TOKENIZE_DOCUMENT, locale)
        return [(a[0], a[1], *dict.fromkeys((a[2], b[2]))) for a, b in zip(stems, raw, strict=True)]

    connection.register_fts5_tokenizer("porter", lambda _connection, _arguments: tokenize)


def _holds(needle: str, key: str, metadata: str | None, value: str) -> bool:
    if needle in fold(key):
        return True
    # A look at the JSON text says quickly where it cannot be; escapes hide it from that look.
    if metadata is not None and ("\\" in metadata or needle in fold(metadata)):
        named = names_of(metadata.encode())
        if any(needle in fold(text) for text in (*named.tags, named.title or "", named.author or "")):
            return True
    return ("\\" in value or needle in fold(value)) and needle in fold(text_of(parse(value.encode())))


def _title_fields(memory: Memory) -> dict[str, str]:
    named = names_of(memory.attributes)
    return {"key": memory.key, "tags": "\n".join(named.tags), "title": named.title or "", "author": named.author or ""}


def _folded_spans(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    """Where the pattern stands in the folded text, as offsets into the text as it is."""
    shown = text[:_SHOWN_CHARS]
    if shown.isascii():
        return [m.span() for m in pattern.finditer(shown.lower())]
    folded = [fold(c) for c in shown]
    place = [i for i, part in enumerate(folded) for _ in part]
    return [(place[m.start()], place[m.end() - 1] + 1) for m in pattern.finditer("".join(folded))]


class _Matcher:
    """Finds the terms of a query in a text, with the index's own tokenizer."""

    def __init__(self, tokenizer: Tokenizer, terms: tuple[Term, ...]) -> None:
        self._tokenizer = tokenizer
        self._singles: set[str] = set()
        self._phrases: list[tuple[tuple[str, ...], str | None]] = []
        self._unspaced: list[re.Pattern[str]] = []
        for term in terms:
            stems = tuple(token[2] for token in self._tokens(" ".join(term.words)))
            if len(stems) == 1 and not term.prefix:
                self._singles.add(stems[0])
            elif stems:
                self._phrases.append((stems, term.words[-1] if term.prefix else None))
            if not (joined := "".join(term.words)).isascii():
                # A run of an unspaced script is one token of the text, and many of the index.
                self._unspaced.append(re.compile(re.escape(joined)))

    def _tokens(self, text: str) -> list[tuple[int, int, str]]:
        return self._tokenizer(text.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the terms stand in the beginning of the text, as character offsets, in order."""
        shown = text[:_SHOWN_CHARS]
        tokens = self._tokens(shown)
        singles = self._singles
        spans = [(start, end) for start, end, stem in tokens if stem in singles]
        raw = shown.encode() if self._phrases or not shown.isascii() else b""
        for stems, prefix in self._phrases:
            spans += _phrase_spans(tokens, stems, prefix, raw)
        if not shown.isascii():
            spans = [(len(raw[:a].decode()), len(raw[:b].decode())) for a, b in spans]
            for pattern in self._unspaced:
                spans += _folded_spans(pattern, shown)
        return sorted(spans)


def _phrase_spans(
    tokens: list[tuple[int, int, str]], stems: tuple[str, ...], prefix: str | None, raw: bytes
) -> list[tuple[int, int]]:
    spans = []
    for i in range(len(tokens) - len(stems) + 1):
        run = tokens[i : i + len(stems)]
        if all(t[2] == s for t, s in zip(run[:-1], stems[:-1], strict=True)):
            start, end, last = run[-1]
            if last == stems[-1] or (prefix and fold(raw[start:end].decode()).startswith(prefix)):
                spans.append((run[0][0], end))
    return spans


def _hit(matcher: _Matcher, memory: Memory, score: float) -> Hit:
    text = text_of(memory.parsed())
    spans = matcher.spans(text)
    matched = ["value"] if spans else []
    matched += [name for name, part in _title_fields(memory).items() if part and matcher.spans(part)]
    return Hit(memory, score, matched, snippet(text, spans))
