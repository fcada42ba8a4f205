"""The storage contract as tests: what `storage/base.py` says, sentence by sentence.

A backend is tested by a subclass of `StorageContract` that gives the fixture `storage`, an opened one, empty.
Nothing here knows a backend.
"""

from tests.storage.parts.changes import ChangeContract
from tests.storage.parts.dumps import DumpContract, LinkContract, TakeoverContract
from tests.storage.parts.edits import EditContract
from tests.storage.parts.events import EventContract
from tests.storage.parts.feed import FeedContract
from tests.storage.parts.filters import FilterContract
from tests.storage.parts.languages import LanguageContract
from tests.storage.parts.listings import ListingContract
from tests.storage.parts.namespaces import NamespaceContract
from tests.storage.parts.origin import OriginContract
from tests.storage.parts.past import AsOfContract, PastContract, RedactContract
from tests.storage.parts.quotas import QuotaContract
from tests.storage.parts.ranking import RankingContract
from tests.storage.parts.reads import ReadContract
from tests.storage.parts.refusals import IdempotencyContract, ReadOnlyContract
from tests.storage.parts.searches import SearchContract
from tests.storage.parts.sessions import SessionContract
from tests.storage.parts.spelling import SpellingContract
from tests.storage.parts.standstill import StandstillContract
from tests.storage.parts.vectors import VectorContract
from tests.storage.parts.versions import ManyAtOnceContract, VersionContract
from tests.storage.parts.whole import WholeContract


class StorageContract(
    EditContract,
    VersionContract,
    ManyAtOnceContract,
    IdempotencyContract,
    ReadOnlyContract,
    ReadContract,
    ChangeContract,
    FeedContract,
    FilterContract,
    ListingContract,
    SearchContract,
    RankingContract,
    LanguageContract,
    SpellingContract,
    NamespaceContract,
    QuotaContract,
    SessionContract,
    VectorContract,
    PastContract,
    AsOfContract,
    RedactContract,
    EventContract,
    StandstillContract,
    OriginContract,
    DumpContract,
    LinkContract,
    TakeoverContract,
    WholeContract,
):
    """All of it."""
