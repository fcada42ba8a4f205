from pathlib import Path

import msgspec
import pytest

from benchmarks import tiers


def test_every_tier_is_read_and_weighed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    asked = [
        "--memories",
        "600",
        "--reads",
        "60",
        "--million",
        "400",
        "--directory",
        str(tmp_path),
        "--json",
        str(file),
    ]
    assert tiers.main(asked) == 0

    report = msgspec.json.decode(file.read_bytes(), type=tiers.Report)
    assert [each.tier.partition(":")[0] for each in report.reads] == ["hot"] * 3 + ["warm"] + ["cold"] * 3
    for each in report.reads:
        assert 0 < each.p50 <= each.p95
        assert each.rate > 0
    # What HOT_TIER=auto decided, and how many reads were hits, of each kind of copy.
    assert len(report.notes) == 6
    assert report.bytes is not None
    assert 0 < report.bytes.archive < report.bytes.raw < report.bytes.warm_file
    assert report.bytes.stub.text == 0
    assert report.bytes.stub_file < report.bytes.warm_file
    assert report.many is not None
    assert (report.many.memories, report.many.cold, report.many.archives) == (400, 360, 1)
    assert report.many.database < report.many.database_before
    assert "of the values" in " ".join(capsys.readouterr().out.split())
