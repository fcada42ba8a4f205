"""The tool profiles, by name."""

from functools import cache

from unified_memory.mcp.prompts import INSTRUCTIONS, RECALL, SAVE
from unified_memory.mcp.tool import Profile
from unified_memory.model.errors import InvalidInputError

DEFAULT_PROFILE = "unified"
NAMES = ("unified", "extended-memory", "memory-bank", "memory-bank-pypi", "knowledge-graph", "all")


@cache
def profile(name: str) -> Profile:
    """The profile of that name. Raises InvalidInputError."""
    if name not in NAMES:
        raise InvalidInputError("tools", f"There is no tool profile {name!r}", hint="One of: " + ", ".join(NAMES))
    return Profile(name=name, instructions=INSTRUCTIONS, tools=(), prompts=(RECALL, SAVE))
