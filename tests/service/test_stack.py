from hypothesis import settings

from tests.service.stack import Stack

# Every step asks for everything, so a run counts for more here than elsewhere.
_NIGHTLY = settings.get_current_profile_name() == "nightly"

TestStack = Stack.TestCase
TestStack.settings = settings(max_examples=1_000 if _NIGHTLY else 60, stateful_step_count=40, deadline=None)
