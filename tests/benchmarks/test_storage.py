from pathlib import Path

import msgspec
import pytest

from benchmarks import storage
from benchmarks._older_stores import STORES
from tests.conftest import absent
from tests.legacy.commands import extended_memory

pytestmark = pytest.mark.slow


def test_every_older_store_is_moved_and_weighed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not extended_memory(tmp_path).installed:
        absent("The older servers are not installed; scripts/setup --legacy does it")
    file = tmp_path / "report.json"
    assert storage.main(["--count", "60", "--many", "80", "--json", str(file)]) == 0

    report = msgspec.json.decode(file.read_bytes(), type=storage.Report)
    assert [one.memories for one in report.stores] == [60] * len(STORES) + [80]
    assert all(one.raw > 0 and one.seconds > 0 and one.peak > 0 for one in report.stores)
    assert all(one.ours > 0 and one.theirs > 0 and one.index > 0 and one.ledger > 0 for one in report.stores)
    assert "extended-memory, SQLite" in capsys.readouterr().out
