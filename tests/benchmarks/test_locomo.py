from pathlib import Path

import msgspec
import pytest

from benchmarks import locomo
from benchmarks._conversations import DATA

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"LoCoMo is not at {DATA}; its licence keeps it out of here")


@needs_data
@pytest.mark.parametrize(("variant", "memories"), [([], 369), (["--facts"], 169)])
def test_one_conversation_is_stored_asked_and_scored(
    variant: list[str], memories: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    assert locomo.main(["--conversations", "conv-30", "--json", str(file), *variant]) == 0

    report = msgspec.json.decode(file.read_bytes(), type=locomo.Report)
    assert report.memories == memories
    asked = {group.name: group.questions for group in report.groups}
    assert asked == {"1 multi-hop": 11, "2 temporal": 26, "4 single-hop": 44, "1 to 4": 81, "5 adversarial": 24}
    assert len(report.answers) == 105
    assert all(len(answer.found) <= 10 for answer in report.answers)
    # What any full-text search finds; how much more is for the benchmark to say.
    [overall] = [group.score for group in report.groups if group.name == locomo.HEADLINE]
    assert 0.3 < overall.recall_5 < overall.recall_10 < 1
    assert "recall@10" in capsys.readouterr().out


def test_missing_data_ends_with_a_clear_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locomo.main(["--data", str(tmp_path / "absent.json")]) == 1
    assert "LoCoMo is not at" in capsys.readouterr().err


@needs_data
def test_an_unknown_conversation_ends_with_a_clear_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert locomo.main(["--conversations", "conv-26,conv-0"]) == 1
    assert "There is no conversation conv-0, only conv-26" in " ".join(capsys.readouterr().err.split())
