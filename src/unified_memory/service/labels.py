"""What the older tools call a context: its id, or for one that came from an older service the id that it had there.

A context that came so has the key `context/<older id>~<some hexadecimal digits>` and says the older id in its metadata.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unified_memory.model.memory import Memory
from unified_memory.sources.base import LEGACY_CREATED_AT, LEGACY_ID, LEGACY_IMPORTANCE

Label = int | str

CONTEXT_PREFIX = "context/"
# Between the older id and what makes the key differ from that of another service's context with the same id.
MARK = "~"
# Beyond it numbers lose digits in other programs, and there would be no room for ids of our own.
LAST_LABEL = 2**53
_HINT = b'"legacy_'


class _Legacy(Struct, rename={"id": LEGACY_ID, "created_at": LEGACY_CREATED_AT, "importance": LEGACY_IMPORTANCE}):
    id: Raw = Raw()
    created_at: Raw = Raw()
    importance: Raw = Raw()


_decode = msgspec.json.Decoder(_Legacy).decode
_NONE = _Legacy()


def _legacy(memory: Memory) -> _Legacy:
    return _decode(memory.attributes) if _HINT in memory.attributes else _NONE


def _told(raw: Raw) -> Any:
    return json.loads(bytes(raw)) if bytes(raw) else None


def _label(legacy: _Legacy) -> Label | None:
    found = _told(legacy.id)
    return found if isinstance(found, int | str) and not isinstance(found, bool) else None


def own_label(memory: Memory) -> Label | None:
    """The id that a context had in the older service; None where it came from none."""
    return _label(_legacy(memory))


def label_of(memory: Memory) -> Label:
    """The id by which the tools show it."""
    found = own_label(memory)
    return memory.id if found is None else found


def shown_importance(memory: Memory) -> Any:
    """Its importance as the older service had it, whatever that was."""
    raw = _legacy(memory).importance
    return _told(raw) if bytes(raw) else memory.importance


def shown_created_at(memory: Memory) -> str | None:
    """When it was created, in the older service's own spelling (`YYYY-MM-DD`, one more character, `HH:MM`, …); None: ours."""
    found = _told(_legacy(memory).created_at)
    return found if isinstance(found, str) else None


def highest_label(attributes: Iterable[bytes]) -> int:
    """The highest number by which one of the memories with those attributes goes besides its id; 0 where none does."""
    labels = (_label(_decode(text)) for text in attributes if _HINT in text)
    return max((label for label in labels if isinstance(label, int) and label <= LAST_LABEL), default=0)
