"""Locations of other programs' memories, as they may be shown."""

import re
from functools import lru_cache

# A password may hold what it should have escaped; up to the last @ nothing of it is shown. A port is none.
_USER = re.compile(r"(://[^/?#@:\s]*):(?!\d{1,5}[/?#])\S*@")
_QUERY = re.compile(r"([?&](?:password|token)=)[^&\s]*", re.IGNORECASE)


# Asked for with each record of a source, of which there are few.
@lru_cache(maxsize=64)
def without_password(location: str) -> str:
    """The location with `***` where a URL in it has a password."""
    return _QUERY.sub(r"\1***", _USER.sub(r"\1:***@", location))
