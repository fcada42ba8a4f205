from pathlib import Path

import msgspec
import pytest

from benchmarks import backup


def test_every_piece_of_work_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    asked = ["--memories", "600", "--beside", "300", "--seconds", "0.3", "--rounds", "1"]
    assert backup.main([*asked, "--directory", str(tmp_path), "--json", str(file)]) == 0

    report = msgspec.json.decode(file.read_bytes(), type=backup.Report)
    (filled,) = report.filled
    assert [work.memories for work in filled.works] == [600] * 5
    assert all(work.seconds > 0 and work.peak >= work.resident > 0 for work in filled.works)
    assert 0 < filled.incremental < filled.full < filled.copy
    (load,) = report.beside
    assert load.backups >= 1
    assert 0 < load.alone_p50 <= load.alone_p95
    told = " ".join(capsys.readouterr().out.split())
    assert "restore in place, the chain" in told
    assert "p95 of stores:" in told
