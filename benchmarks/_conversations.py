"""LoCoMo's conversations, read from ../shared/locomo beside the repository; never copied (CC BY-NC 4.0).

Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents", 2024. The README beside the data says
how it is stored and scored.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks._machine import ROOT
from unified_memory.model.clock import to_rfc3339

DATA = ROOT.parent / "shared" / "locomo" / "conversations.json"
ADVERSARIAL = 5
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open domain", 4: "single-hop", ADVERSARIAL: "adversarial"}
_TURN_ID = re.compile(r"D\s*:?\s*(\d+)\s*:\s*(\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Entry(Struct, frozen=True):
    """What becomes one memory: a turn, or a fact drawn from turns. `covers`: the ids of those turns."""

    key: str
    text: str
    author: str
    occurred_at: str
    session_id: str
    covers: frozenset[str]


class Question(Struct, frozen=True):
    """A question and the ids of the turns that answer it."""

    text: str
    category: int
    evidence: frozenset[str]


class Conversation(Struct, frozen=True):
    """A conversation with its turns and facts in order, and the questions that have evidence.

    `dropped`: questions without evidence; `unknown`: evidence ids that name no turn even after the repair.
    """

    id: str
    turns: list[Entry]
    facts: list[Entry]
    questions: list[Question]
    dropped: int
    unknown: int

    @property
    def namespace(self) -> str:
        """Where it is stored."""
        return f"locomo/{self.id}"


def load(path: Path = DATA) -> list[Conversation]:
    """Every conversation of the file. Raises FileNotFoundError with a hint where there is none."""
    if not path.exists():
        raise FileNotFoundError(
            f"LoCoMo is not at {path}. It is not part of this repository (CC BY-NC 4.0): get locomo10.json from "
            "github.com/snap-research/LoCoMo and name it with --data"
        )
    return [_conversation(told) for told in msgspec.json.decode(path.read_bytes())]


def repair(ids: Iterable[str]) -> frozenset[str]:
    """Turn ids as they are meant: `D8:6; D9:17` is two, `D:11:26` is D11:26, `D30:05` is D30:5; a lone `D` is none."""
    return frozenset(f"D{int(session)}:{int(turn)}" for text in ids for session, turn in _TURN_ID.findall(text))


def _conversation(told: dict[str, Any]) -> Conversation:
    sample, said = told["sample_id"], told["conversation"]
    numbers = sorted(int(name[8:]) for name in said if re.fullmatch(r"session_\d+", name))
    turns: list[Entry] = []
    facts: list[Entry] = []
    for number in numbers:
        occurred_at = instant(said[f"session_{number}_date_time"])
        session_id = f"{sample}/session_{number}"
        for turn in said[f"session_{number}"]:
            key = turn["dia_id"]
            text = turn["text"] + (f" [shared image: {caption}]" if (caption := turn.get("blip_caption")) else "")
            turns.append(Entry(key, text, turn["speaker"], occurred_at, session_id, repair([key])))
        observed: dict[str, Any] = told.get("observation", {}).get(f"session_{number}_observation", {})
        for speaker, entries in observed.items():
            for text, evidence in entries:
                covers = repair([evidence] if isinstance(evidence, str) else evidence)
                facts.append(Entry(f"F{len(facts) + 1}", text, speaker, occurred_at, session_id, covers))
    known = frozenset[str]().union(*(turn.covers for turn in turns))
    questions: list[Question] = []
    dropped = unknown = 0
    for asked in told["qa"]:
        evidence = repair(asked.get("evidence") or [])
        unknown += len(evidence - known)
        if evidence & known:
            questions.append(Question(asked["question"], asked["category"], evidence & known))
        else:
            dropped += 1
    return Conversation(sample, turns, facts, questions, dropped, unknown)


def instant(text: str) -> str:
    """`1:56 pm on 8 May, 2023` as RFC 3339."""
    moment = datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    return to_rfc3339(round((moment - _EPOCH).total_seconds()) * 1_000_000)
