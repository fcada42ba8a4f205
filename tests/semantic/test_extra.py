"""The extra is there, and what is missing is told."""

import importlib.util

import pytest

from tests.conftest import absent
from unified_memory.semantic.errors import ExtraMissingError
from unified_memory.semantic.extra import PACKAGES, require


def test_the_extra_is_installed() -> None:
    if not all(importlib.util.find_spec(module) for module in PACKAGES):
        absent("The extra is not installed; scripts/setup --dev does it")
    require()


def test_what_is_missing_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "no_such_module", "no-such-module")
    with pytest.raises(ExtraMissingError) as raised:
        require("no_such_module", "json.decoder")
    assert raised.value.detail == "Not installed: no-such-module"
    assert raised.value.hint == "pip install 'mcp-unified-memory[semantic]'"
    assert raised.value.facts == {"packages": ["no-such-module"]}
