"""The Python examples of the documentation, run against a real service."""

import re
from pathlib import Path
from typing import Any

import pytest

from unified_memory.client import SyncUnifiedMemoryClient

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("README.md", "docs/python.md")
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, service_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "http://127.0.0.1:3200" in example
    names: dict[str, Any] = {}
    exec(compile(example.replace("http://127.0.0.1:3200", service_url), "example", "exec"), names)  # noqa: S102 - our own page
    if isinstance(left_open := names.get("client"), SyncUnifiedMemoryClient):
        left_open.close()
    assert re.search("vim|changed meanwhile", capsys.readouterr().out)


def test_every_operation_is_documented() -> None:
    source = (ROOT / "src/unified_memory/client/synchronous.py").read_text(encoding="utf-8")
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    names = re.findall(r"^    (\w+) = _(?:operation|iteration|flow)\(", source, re.MULTILINE)
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"[`.]{name}\b", page)] == []
