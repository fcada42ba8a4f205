"""The older servers start and answer as FORMATS of their time say: what all comparisons with them rest on."""

from pathlib import Path
from typing import Any

import pytest

from tests.legacy import commands
from tests.legacy.servers import running

pytestmark = pytest.mark.slow


def _text(result: dict[str, Any]) -> str:
    [block] = result["content"]
    text: str = block["text"]
    return text


async def test_extended_memory_saves_and_loads(tmp_path: Path) -> None:
    async with running(commands.extended_memory(tmp_path), tmp_path) as server:
        saved = await server.call("save_context", content="The port is 3200", importance_level=8, tags=["Ports"])
        loaded = await server.call("load_contexts")
    assert _text(saved).startswith("✅ Context saved successfully!")
    assert "🏷️ Tags: ports\n📝 The port is 3200\n" in _text(loaded)
    assert (tmp_path / "memory.db").exists()


async def test_memory_bank_of_npm_writes_and_reads(tmp_path: Path) -> None:
    async with running(commands.memory_bank_npm(tmp_path), tmp_path) as server:
        named = {"projectName": "p", "fileName": "f.md"}
        written = await server.call("memory_bank_write", **named, content="# Plan")
        read = await server.call("memory_bank_read", **named)
    assert _text(written) == "File f.md written successfully to project p"
    assert _text(read) == "# Plan"
    assert (tmp_path / "bank/p/f.md").read_text(encoding="utf-8") == "# Plan"


async def test_memory_bank_of_pypi_writes_and_reads(tmp_path: Path) -> None:
    async with running(commands.memory_bank_pypi(tmp_path), tmp_path) as server:
        named = {"project_name": "p", "file_name": "f.md"}
        written = await server.call("memory_bank_write", **named, content="# Plan")
        read = await server.call("memory_bank_read", **named)
    assert _text(written) == "Successfully wrote file 'f.md' to project 'p'."
    assert _text(read) == "# Plan"
    assert (tmp_path / "bank.db").exists()
