"""The tool profiles, by name."""

from unified_memory.mcp.bank import MEMORY_BANK, MEMORY_BANK_PYPI
from unified_memory.mcp.contexts import EXTENDED_MEMORY, UNIFIED_TOOLS
from unified_memory.mcp.graph import KNOWLEDGE_GRAPH
from unified_memory.mcp.memory import MEMORY_SEARCH, MEMORY_USAGE, SEARCH_MEMORY
from unified_memory.mcp.prompts import INSTRUCTIONS, RECALL, SAVE
from unified_memory.mcp.tool import Profile
from unified_memory.model.errors import InvalidInputError

DEFAULT_PROFILE = "unified"
UNIFIED = Profile(
    name=DEFAULT_PROFILE,
    instructions=INSTRUCTIONS,
    tools=(*UNIFIED_TOOLS, SEARCH_MEMORY, MEMORY_USAGE),
    prompts=(RECALL, SAVE),
)
ALL = Profile(
    name="all",
    instructions=INSTRUCTIONS,
    tools=(*UNIFIED.tools, MEMORY_SEARCH, *MEMORY_BANK.tools, *KNOWLEDGE_GRAPH.tools),
    prompts=UNIFIED.prompts,
)
PROFILES = {one.name: one for one in (UNIFIED, EXTENDED_MEMORY, MEMORY_BANK, MEMORY_BANK_PYPI, KNOWLEDGE_GRAPH, ALL)}
NAMES = tuple(PROFILES)


def profile(name: str) -> Profile:
    """The profile of that name. Raises InvalidInputError."""
    found = PROFILES.get(name)
    if found is None:
        raise InvalidInputError("tools", f"There is no tool profile {name!r}", hint="One of: " + ", ".join(NAMES))
    return found
