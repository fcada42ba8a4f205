"""Prompts that a user can choose: what to do with the memory at the start and at the end of a conversation."""

from unified_memory.mcp.tool import Prompt

INSTRUCTIONS = (
    "This is your memory between conversations. At the start, call load_contexts (or search_memory for a topic) before you"
    " answer; save decisions, preferences and open work with save_context as soon as they are known, one fact each, with"
    " tags and an importance of 7 or more for what must not be missed. Delete with forget_context what turned out wrong."
)


def _recall(arguments: dict[str, str]) -> str:
    project = arguments.get("project")
    topic = arguments.get("topic")
    where = f' with project_id "{project}"' if project else ""
    more = f' Then call search_memory with the query "{topic}".' if topic else ""
    return (
        f"Call load_contexts{where} and read what comes back.{more} Tell me in a few sentences what you know that matters now:"
        " decisions, preferences, open work. Say it when nothing is remembered; do not guess."
    )


def _save(arguments: dict[str, str]) -> str:
    project = arguments.get("project")
    where = f' with project_id "{project}"' if project else ""
    return (
        f"Look back over this conversation and call save_context{where} once for each thing worth knowing next time:"
        " what was decided and why, what I prefer, what is still open and what comes next. One fact in each, in words that"
        " can be understood alone; 2 to 4 tags; importance 7 to 10 for what must not be missed, lower for the rest."
        " Leave out what is in the memory already, and secrets. Then tell me what you have saved."
    )


_PROJECT = ("project", "The project it is about.", False)

RECALL = Prompt(
    name="recall",
    title="Recall",
    description="Load what is remembered before the work begins.",
    arguments=(_PROJECT, ("topic", "What the conversation is about.", False)),
    render=_recall,
)
SAVE = Prompt(
    name="save_session",
    title="Save this conversation",
    description="Save what should be known next time, at the end of a conversation.",
    arguments=(_PROJECT,),
    render=_save,
)
MEMORY_INSTRUCTIONS = Prompt(
    name="memory_instructions",
    title="How to use the memory",
    description="When to load, to save and to forget.",
    render=lambda _arguments: INSTRUCTIONS,
)
