"""What must hold when things go wrong: kills, power cuts, full disks, other processes, other programs."""

import pytest

# What is no test module by its name shows its assertions in full too.
pytest.register_assert_rewrite("tests.faults.callers", "tests.faults.ledger", "tests.faults.processes")
