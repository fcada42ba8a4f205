"""Which tests run.

Slow and system ones with --all only, those of the night with --nightly. One that lacks what scripts/setup installs is
skipped at a desk and fails in CI.
"""

import os
import shutil

import pytest
from hypothesis import settings

CI = os.environ.get("CI", "").lower() in {"1", "true"}

# hypothesis brings the profile "ci", which takes the same examples every time.
settings.register_profile("desk", deadline=None)
settings.register_profile("nightly", deadline=None, max_examples=2_000)
settings.load_profile("ci" if CI else "desk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked slow or system, too")
    parser.addoption("--nightly", action="store_true", help="run the tests marked nightly, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    extra = [
        *(() if config.getoption("--all") else ("slow", "system")),
        *(() if config.getoption("--nightly") else ("nightly",)),
    ]
    chosen: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (left_out if any(item.get_closest_marker(name) for name in extra) else chosen).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("system"):
        for program in marker.args:
            if shutil.which(program) is None:
                absent(f"{program} is not installed; scripts/setup --system does it")


def absent(what: str) -> None:
    """End a test that lacks something which scripts/setup installs: skipped at a desk, failed in CI."""
    if CI:
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
