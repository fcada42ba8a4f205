"""The tables, as numbered steps; each step and its record commit in one transaction.

Instants are integers: microseconds since the epoch, UTC. The mission's tables and indexes stand under its names.

- `namespaces.name` is NULL for a deleted one; `deleted_name` remembers it. `top_version` is the highest version ever used in it;
  a new namespace of that name begins with it as its `version_floor`, above which all its versions are.
- `memories.metadata` is the JSON object of the tags (first) and the caller's own fields, NULL where there is neither.
- `search_index.full_text` is NULL where it is derived from the value (always, so far); `content_hash` is 32 bytes.
- `memory_text` holds the inverted index alone, no text; rowid is the memory's id. `scope` has one token for the
  namespace and for each of its ancestors, so that a subtree is one term of the query.
- `tombstones` keep the last version of deleted keys, and deletes in the commit order.
- `stale_text` names memories whose words in the index are to be derived again, and the language in which they stand there
  ('': English by the rules of an older program).
- `vectors` hold codes as `semantic/codes.py` lays them out, `models` what made them; all codes of a model have `length` bytes.
  `place` is never used twice, so that whoever holds vectors can ask for what came since.
- A memory with an empty `value_json` is a stub: `archived` says which archive holds its value, where in it, and how long it is.
  `archives` names the files of the cold tier; see `storage/warm.py` for their states, for `hot_era` and for `hot_mutes`.
- `past` holds versions that were replaced. `coding` says how `value` is written: 0 as it came, and looked at by nobody yet; 1
  as it came, for good; 2 zstd; 3 zstd with the value of the version `base` of that memory as its dictionary, `depth` such steps
  from one that needs none; 4 gone. `touched` is the place in the commit order where the row last changed.
- `changes` lists every change; those up to `counters.feed_floor` are no longer all there. `counters.store` names this storage.
  Until `held_until` writes are off for `held_reason`.
- `counters` has one row: the last id, the last place in the commit order, and `epoch`, which changes whenever a namespace
  is made, deleted, renamed or configured.
"""

MEMORY_TEXT = """CREATE VIRTUAL TABLE memory_text USING fts5(
    body, title, scope, content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2'
)"""

STEPS: tuple[tuple[str, str], ...] = (
    (
        "the record, namespaces, sessions, jobs",
        f"""
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,
    config JSON NOT NULL DEFAULT '{{}}',
    created_at TIMESTAMP NOT NULL,
    explicit INTEGER NOT NULL DEFAULT 0,
    memories INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    top_version INTEGER NOT NULL DEFAULT 0,
    version_floor INTEGER NOT NULL DEFAULT 0,
    deleted_name TEXT
);
CREATE INDEX idx_namespaces_deleted ON namespaces(deleted_name) WHERE deleted_name IS NOT NULL;

CREATE TABLE memories (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    namespace_id INTEGER NOT NULL REFERENCES namespaces(id),
    importance INTEGER NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    access_count INTEGER NOT NULL DEFAULT 0,
    last_accessed TIMESTAMP,
    session_id TEXT,
    project_id TEXT,
    metadata JSON,
    value_json TEXT NOT NULL
);
CREATE UNIQUE INDEX idx_memories_key_ns ON memories(namespace_id, key);
CREATE INDEX idx_memories_expires ON memories(expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX idx_memories_seq ON memories(seq);
CREATE INDEX idx_memories_session ON memories(namespace_id, session_id) WHERE session_id IS NOT NULL;

CREATE TABLE search_index (
    memory_id INTEGER PRIMARY KEY REFERENCES memories(id),
    keywords TEXT NOT NULL,
    content_hash BLOB NOT NULL,
    full_text TEXT
);
CREATE INDEX idx_search_keywords ON search_index(keywords);
CREATE INDEX idx_search_hash ON search_index(substr(content_hash, 1, 8));

{MEMORY_TEXT};

CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE memory_tags (
    tag_id INTEGER NOT NULL REFERENCES tags(id),
    memory_id INTEGER NOT NULL REFERENCES memories(id),
    PRIMARY KEY (tag_id, memory_id)
) WITHOUT ROWID;

CREATE TABLE tombstones (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    memory_id INTEGER NOT NULL,
    deleted_at TIMESTAMP NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE INDEX idx_tombstones_seq ON tombstones(seq);

CREATE TABLE sessions (
    namespace_id INTEGER NOT NULL REFERENCES namespaces(id),
    id TEXT NOT NULL,
    cluster_id TEXT,
    project_id TEXT,
    ttl REAL,
    metadata JSON NOT NULL DEFAULT '{{}}',
    created_at TIMESTAMP NOT NULL,
    last_used TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    ended_at TIMESTAMP,
    PRIMARY KEY (namespace_id, id)
);
CREATE INDEX idx_sessions_cluster ON sessions(namespace_id, cluster_id) WHERE cluster_id IS NOT NULL;
CREATE INDEX idx_sessions_used ON sessions(last_used);

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    record BLOB NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX idx_idempotency_expires ON idempotency(expires_at);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    beat_at TIMESTAMP NOT NULL,
    done INTEGER NOT NULL,
    total INTEGER,
    unit TEXT NOT NULL,
    finished_at TIMESTAMP,
    result BLOB NOT NULL,
    error BLOB NOT NULL
);
CREATE INDEX idx_jobs_created ON jobs(created_at);

CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until TIMESTAMP NOT NULL);
CREATE TABLE counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last_id INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    read_only TEXT,
    probe INTEGER NOT NULL DEFAULT 0
);
INSERT INTO counters VALUES (1, 0, 0, 1, NULL, 0);
CREATE TABLE schema_steps (number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TIMESTAMP NOT NULL, program TEXT NOT NULL);
""",  # noqa: S608 - a fixed text
    ),
    (
        "what was created last in a namespace",
        "CREATE INDEX idx_memories_created ON memories(namespace_id, created_at);",
    ),
    (
        "what is still indexed as it was: in another language, or by the rules of before",
        """
CREATE TABLE stale_text (memory_id INTEGER PRIMARY KEY, language TEXT NOT NULL);
CREATE INDEX idx_stale_text_language ON stale_text(language);
INSERT INTO stale_text SELECT id, '' FROM memories
    WHERE instr(metadata, '"occurred_at"') OR octet_length(key) <> length(key) OR octet_length(metadata) <> length(metadata)
        OR octet_length(value_json) <> length(value_json) OR instr(value_json, '\\u')
        OR key GLOB '*[a-z0-9][A-Z]*' OR metadata GLOB '*[a-z0-9][A-Z]*' OR value_json GLOB '*[a-z0-9][A-Z]*';
""",
    ),
    (
        "vectors",
        """
CREATE TABLE models (id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT UNIQUE NOT NULL, length INTEGER NOT NULL);
CREATE TABLE vectors (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    memory_id INTEGER NOT NULL UNIQUE REFERENCES memories(id),
    model_id INTEGER NOT NULL REFERENCES models(id),
    code BLOB NOT NULL
);
CREATE INDEX idx_vectors_model ON vectors(model_id);
""",
    ),
    (
        "the cold tier, and the era of hot copies",
        """
CREATE TABLE archives (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE NOT NULL,
    state TEXT NOT NULL,
    changed_at TIMESTAMP NOT NULL,
    memories INTEGER NOT NULL DEFAULT 0,
    bytes_raw INTEGER NOT NULL DEFAULT 0,
    bytes_stored INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE archived (
    memory_id INTEGER PRIMARY KEY REFERENCES memories(id),
    archive INTEGER NOT NULL REFERENCES archives(number),
    block INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE INDEX idx_archived_archive ON archived(archive);
CREATE TABLE hot_mutes (node TEXT PRIMARY KEY, until TIMESTAMP NOT NULL) WITHOUT ROWID;
ALTER TABLE counters ADD COLUMN hot_era TEXT NOT NULL DEFAULT '';
ALTER TABLE counters ADD COLUMN hot_servers JSON NOT NULL DEFAULT '[]';
ALTER TABLE counters ADD COLUMN hot_changes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN archive_token TEXT NOT NULL DEFAULT '';
""",
    ),
    (
        "former versions, and everything that happened",
        """
CREATE TABLE past (
    id INTEGER PRIMARY KEY,
    memory_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    namespace_id INTEGER NOT NULL REFERENCES namespaces(id),
    key TEXT NOT NULL,
    importance INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    ended_at TIMESTAMP NOT NULL,
    session_id TEXT,
    project_id TEXT,
    metadata JSON,
    touched INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    coding INTEGER NOT NULL DEFAULT 0,
    base INTEGER,
    depth INTEGER NOT NULL DEFAULT 0,
    value BLOB,
    redacted_at TIMESTAMP
);
CREATE UNIQUE INDEX idx_past_memory ON past(memory_id, version);
CREATE INDEX idx_past_key ON past(namespace_id, key, version);
CREATE INDEX idx_past_ended ON past(ended_at);
CREATE INDEX idx_past_waiting ON past(id) WHERE coding = 0;
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY,
    at TIMESTAMP NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    key TEXT,
    version INTEGER,
    memory_id INTEGER
);
ALTER TABLE counters ADD COLUMN feed_floor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN store TEXT NOT NULL DEFAULT '';
ALTER TABLE counters ADD COLUMN held_reason TEXT;
ALTER TABLE counters ADD COLUMN held_until TIMESTAMP NOT NULL DEFAULT 0;
UPDATE counters SET feed_floor = last_seq, store = lower(hex(randomblob(8)));
""",
    ),
)
VERSION = len(STEPS)
