"""Without the extra only what needs none of it is collected; test_extra.py tells of the rest."""

import importlib.util

from unified_memory.semantic.extra import PACKAGES

INSTALLED = all(importlib.util.find_spec(module) for module in PACKAGES)
collect_ignore = [] if INSTALLED else ["test_codes.py", "test_local.py", "test_matrix.py", "test_remote.py"]
