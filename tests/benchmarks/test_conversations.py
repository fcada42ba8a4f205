from pathlib import Path

import msgspec
import pytest

from benchmarks._conversations import Conversation, instant, load, repair

TOLD = {
    "sample_id": "conv-1",
    "conversation": {
        "speaker_a": "Ann",
        "speaker_b": "Bob",
        # As in the data: out of order, and one date without its session.
        "session_10_date_time": "12:05 am on 1 March, 2024",
        "session_10": [{"speaker": "Bob", "dia_id": "D10:1", "text": "Later."}],
        "session_2_date_time": "1:56 pm on 8 May, 2023",
        "session_2": [
            {"speaker": "Ann", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a red boat"},
            {"speaker": "Bob", "dia_id": "D2:2", "text": "Nice."},
        ],
        "session_11_date_time": "9:00 am on 2 March, 2024",
    },
    "observation": {
        "session_2_observation": {"Ann": [["Ann has a boat.", "D2:1"]], "Bob": [["Bob likes it.", ["D2:1", "D2:02"]]]},
        "session_10_observation": {"Bob": [["Bob is late.", "D10:1"]]},
    },
    "qa": [
        {"question": "What has Ann?", "answer": "a boat", "evidence": ["D2:1; D10:1"], "category": 1},
        {"question": "Who knows?", "answer": "nobody", "evidence": [], "category": 3},
        {"question": "Which turn?", "answer": "none", "evidence": ["D9:9"], "category": 4},
        {"question": "What has Bob?", "adversarial_answer": "a boat", "evidence": ["D2:1", "D7:7"], "category": 5},
    ],
}


@pytest.fixture
def conversation(tmp_path: Path) -> Conversation:
    file = tmp_path / "conversations.json"
    file.write_bytes(msgspec.json.encode([TOLD]))
    [loaded] = load(file)
    return loaded


def test_turns_stand_in_the_order_of_their_sessions(conversation: Conversation) -> None:
    assert conversation.namespace == "locomo/conv-1"
    assert [(turn.key, turn.text, turn.author) for turn in conversation.turns] == [
        ("D2:1", "Look! [shared image: a red boat]", "Ann"),
        ("D2:2", "Nice.", "Bob"),
        ("D10:1", "Later.", "Bob"),
    ]
    assert [turn.session_id for turn in conversation.turns] == ["conv-1/session_2"] * 2 + ["conv-1/session_10"]
    assert conversation.turns[2].occurred_at == "2024-03-01T00:05:00.000000Z"


def test_facts_say_which_turns_they_cover(conversation: Conversation) -> None:
    assert [(fact.key, fact.author, set(fact.covers)) for fact in conversation.facts] == [
        ("F1", "Ann", {"D2:1"}),
        ("F2", "Bob", {"D2:1", "D2:2"}),
        ("F3", "Bob", {"D10:1"}),
    ]
    assert conversation.facts[1].occurred_at == "2023-05-08T13:56:00.000000Z"


def test_questions_without_evidence_are_dropped_and_counted(conversation: Conversation) -> None:
    assert [(question.category, set(question.evidence)) for question in conversation.questions] == [
        (1, {"D2:1", "D10:1"}),
        (5, {"D2:1"}),
    ]
    assert (conversation.dropped, conversation.unknown) == (2, 2)


def test_malformed_evidence_is_repaired() -> None:
    assert repair(["D8:6; D9:17"]) == {"D8:6", "D9:17"}
    assert repair(["D:11:26"]) == {"D11:26"}
    assert repair(["D30:05", "D30:5"]) == {"D30:5"}
    assert repair(["D9:1 D4:4", "D1:18,D1:20"]) == {"D9:1", "D4:4", "D1:18", "D1:20"}
    assert repair(["D", ""]) == frozenset()


def test_a_date_of_the_data_becomes_an_instant() -> None:
    assert instant("12:30 pm on 29 February, 2024") == "2024-02-29T12:30:00.000000Z"


def test_missing_data_is_said_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="snap-research/LoCoMo"):
        load(tmp_path / "absent.json")
