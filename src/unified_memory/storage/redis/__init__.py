"""Hot copies in Redis or Valkey, and why they are never older than what was acknowledged.

`copies` says what stands at a key, `scripts` what is done there at once and whole, `link` how servers are told apart, `tier` is
the hot tier. `storage.untold` holds what a process knows of the era.

**What is to be shown.** W is a write, acknowledged when `settle` returns. No look that is asked after that is answered with a
copy of a version before W's. Versions of a key only rise, also over its removal. Tokens and eras are random and used once.

**Inside of an era.** A copy comes into being in two ways only.

- `fill` puts it over the reader's own ticket, which has stood there since before the reader asked the warm tier. `settle` of W
  leaves no ticket. So if the fill comes after it, the ticket was given after it, hence after W's commit, and what was read is
  W's version or later. If the fill comes before it, `settle` of W finds the copy, and drops it where its version is lower (or
  where W has removed the memory).
- `settle` of a writer V puts V's version where V's mark stands and no other writer's, and its version is at least the floor.
  V's token has stood there since before V's commit, without a gap, as `begin` sets it once. If W settles while it stands, W
  raises the floor to its own version (beyond all where W removes), so a lower one is not put. If W settles after V, it finds
  V's copy as it finds a filled one. If W has settled before V began, W's commit is before V's and V's version is higher.

So it needs no mark that survives: whatever was evicted, expired or flushed, W's own `settle` is what the acknowledgement stands
on. Marks are for what comes before it: from `begin` to `settle` no copy and no ticket is given, so a reader that has seen W's
version does not see an older one afterwards, and a writer that is killed after its commit leaves a mark, which bars the key for
up to 60 s, and not the old copy. Several writers share a mark, each with its token: if the first one's settling took the mark
of the second, the second, killed after its commit, would leave the copy of the first. (A writer killed in just that instant
whose mark was evicted, too, leaves a copy that is older than what it has written, and has acknowledged to nobody, for HOT_TTL
at most.)

A command that was given up (time-out, cut connection) may still be done at any later time. Each of them is harmless then: a
ticket that nobody uses, a mark that passes, a copy that is put by the rules above. None is sent again by itself, but where a
cluster says that it was not done; then those sent with it may be done twice, which changes nothing.

**Between eras.** An era belongs to servers: the run of the process, the history of its data, and the database. A connection
says which one it reaches, when it is made and then every second, and carries nothing to others. So a server that was restarted,
empty or with old data, a promoted replica, or a stranger behind the same address is in no era, and one is begun for it.

- A look is answered with a copy only while the lease runs: the warm tier was asked for the era less than `LEASE_SECONDS`
  before, counted from before the question, and that is the era of the question to Redis. Both hold when the answer is there.
- W asks for the era after its commit, and settles in that one. If another begins after that, all of its copies come from reads
  of the warm tier after W's commit, or from writers that began after it.
- The era before may still be trusted by others for a lease. So who learns that the era is another one than it knew holds its
  writes back for a lease (and 10 %, as clocks differ). One that came and went unseen counts, too, so `Trust` must differ after
  it.
- A process that has just begun knows of no era before. Where there is none then and nobody is mute, nothing is held back:
  without a successor an era ends by a mute only, whoever is mute stays so until its lease is over, and none begins before.
  (This alone needs wall clocks of nodes that agree to some seconds.)

**What cannot be told.** If Redis does not take the mark or the settling, whatever the reason, the node is muted in the warm
tier: that ends the era, durably, and lets none begin; then it waits out the lease. All who fail meanwhile share that. While it
is mute its writes find no era and wait for nothing. A probe that writes and reads back on every server ends it. Copies from
before are in an era that never comes back.

**What is measured** (two cores, loopback, copies of 600 bytes): a look, which is one command (`SET … NX GET`: the copy, or the
ticket put), takes 70 µs at the median, 100 µs at the 95th percentile; over a unix socket 60 µs; 32 readers of one process make
25,000 looks a second, as those who wait go in one exchange. `begin` and `settle` take 150 µs each.
"""

from unified_memory.storage.redis.tier import RedisHot

__all__ = ["RedisHot"]
