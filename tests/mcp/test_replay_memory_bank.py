"""Both profiles of the memory bank against what the older servers answered, recorded call by call."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"
RECORDINGS = SHARED / "legacy" / "transcripts"

pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"the recordings of the older servers are not beside the repository, in {SHARED}"
)
