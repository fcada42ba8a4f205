"""What is kept of a memory: the memory itself, and what searching needs of it."""

from msgspec import Struct

from unified_memory.model.memory import Memory
from unified_memory.model.search import Description, describe, names_of, words


class Record(Struct, frozen=True):
    """One stored memory; `words` and `title_words` are those of the description's texts."""

    memory: Memory
    about: Description
    words: tuple[str, ...]
    title_words: tuple[str, ...]


def make_record(memory: Memory, about: Description) -> Record:
    """The record of a memory of which the index needs to know that."""
    return Record(memory, about, words=tuple(words(about.text)), title_words=tuple(words(about.title_text)))


def derive(memory: Memory) -> Record:
    """The record as it must be."""
    return make_record(memory, describe(memory.key, memory.attributes, memory.parsed()))


def titles(memory: Memory) -> dict[str, str]:
    """The texts beside the value that a search looks into, by the name of their field."""
    named = names_of(memory.attributes)
    return {
        "key": memory.key,
        "tags": "\n".join(named.tags),
        "title": named.title or "",
        "author": named.author or "",
    }
