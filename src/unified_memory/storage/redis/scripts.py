"""The scripts that Redis runs, each at once and whole. `copies` says what stands at a key.

Of every script KEYS[1] is the key, KEYS[2] its bucket's order of use: a sorted set whose members are the copies (digest and
size) by the instant of their last use, and the empty member, whose score is minus the sum of their bytes. Both are in one
key, so that a server which evicts takes both.
"""

from hashlib import sha1

from unified_memory.storage.redis.copies import OVERHEAD_BYTES

# The floor that a removal leaves: no copy may be put by the writers that are still under way. Lua counts exactly up to here.
_NO_VERSION = 2**53

_FORGET = f"""
local function bytes_of(digest, size) return size + #KEYS[2] + 1 + #digest + {OVERHEAD_BYTES} end

local function remove(member)
  if redis.call('ZREM', KEYS[2], member) == 0 then return false end
  local digest = string.sub(member, 1, -5)
  redis.call('ZINCRBY', KEYS[2], bytes_of(digest, struct.unpack('>I4', string.sub(member, -4))), '')
  return true
end

local function forget(digest)
  remove(digest .. struct.pack('>I4', redis.call('STRLEN', KEYS[1])))
end
"""

# Puts a copy, and takes those that were used longest ago out of a bucket that has too many bytes. How many went.
_PUT = """
local function put(copy, px, digest, used, limit, lifetime)
  redis.call('SET', KEYS[1], copy, 'PX', px)
  if redis.call('ZADD', KEYS[2], used, digest .. struct.pack('>I4', #copy)) == 1 then
    redis.call('ZINCRBY', KEYS[2], -bytes_of(digest, #copy), '')
  end
  redis.call('PEXPIRE', KEYS[2], lifetime)
  -- Copies that have expired are found by and by.
  for _, member in ipairs(redis.call('ZRANDMEMBER', KEYS[2], 3)) do
    if member ~= '' and redis.call('EXISTS', KEYS[2] .. ':' .. string.sub(member, 1, -5)) == 0 then remove(member) end
  end
  local evicted = 0
  while -tonumber(redis.call('ZSCORE', KEYS[2], '')) > limit do
    local member = redis.call('ZRANGE', KEYS[2], 1, 1)[1]
    if not member then break end
    remove(member)
    local key = KEYS[2] .. ':' .. string.sub(member, 1, -5)
    -- What stands there may be a writer's mark by now.
    if redis.call('GETRANGE', key, 0, 0) == 'c' then
      redis.call('DEL', key)
      evicted = evicted + 1
    end
  end
  return evicted
end

local function told(done, evicted)
  local bytes = redis.call('ZSCORE', KEYS[2], '')
  if not bytes then return {done, evicted, 0, 0} end
  return {done, evicted, redis.call('ZCARD', KEYS[2]) - 1, -tonumber(bytes)}
end
"""

_MARKS = """
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The parts of a mark: had, floor, and the tokens that are under way but for `own`; and whether that was among them.
local function parts(own)
  local mark = redis.call('GET', KEYS[1])
  local now, others, found = milliseconds(), {}, false
  for at = 11, #mark, 16 do
    if string.sub(mark, at, at + 7) == own then
      found = true
    elseif struct.unpack('>I8', mark, at + 8) > now then
      others[#others + 1] = string.sub(mark, at, at + 15)
    end
  end
  return string.sub(mark, 2, 2), struct.unpack('>I8', mark, 3), table.concat(others), found
end
"""

# ARGV: ticket, copy, its lifetime, digest, instant, the bucket's bytes, the lifetime of the order of use (milliseconds).
# {1 where it was put, how many were evicted, copies and bytes of the bucket}.
_FILL_BODY = """
if redis.call('STRLEN', KEYS[1]) ~= #ARGV[1] or redis.call('GET', KEYS[1]) ~= ARGV[1] then return told(0, 0) end
return told(1, put(ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]))
"""

# ARGV: token, how long the mark stands (milliseconds), digest. 1 where a copy stood there, else 0.
_BEGIN_BODY = """
local kind = redis.call('GETRANGE', KEYS[1], 0, 0)
local had, floor, tokens = '0', 0, ''
if kind == 'c' then
  had = '1'
  forget(ARGV[3])
elseif kind == 'm' then
  had, floor, tokens = parts('')
end
local deadline = milliseconds() + tonumber(ARGV[2])
redis.call(
  'SET', KEYS[1], 'm' .. had .. struct.pack('>I8', floor) .. tokens .. ARGV[1] .. struct.pack('>I8', deadline), 'PX', ARGV[2]
)
return tonumber(had)
"""

# ARGV: token, version (empty: none), copy (empty: none), and as for filling from the lifetime on. As for filling.
_SETTLE_BODY = f"""
local kind = redis.call('GETRANGE', KEYS[1], 0, 0)
if kind == '' then return told(0, 0) end
local version = tonumber(ARGV[2])
if kind == 'c' then
  if version and struct.unpack('>I8', redis.call('GETRANGE', KEYS[1], 1, 8)) >= version then return told(0, 0) end
  forget(ARGV[5])
elseif kind == 'm' then
  local had, floor, others, found = parts(ARGV[1])
  if others ~= '' then
    floor = math.max(floor, version or {_NO_VERSION})
    redis.call('SET', KEYS[1], 'm' .. had .. struct.pack('>I8', floor) .. others, 'KEEPTTL')
    return told(0, 0)
  end
  if found and version and version >= floor and ARGV[3] ~= '' then
    return told(1, put(ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]))
  end
end
redis.call('DEL', KEYS[1])
return told(0, 0)
"""

# ARGV: id, how many accesses, the instant of the last. 1 where there was a copy.
_COUNT = """
if redis.call('GETRANGE', KEYS[1], 0, 0) ~= 'c' then return 0 end
local id, count, last = struct.unpack('>I8I8I8', redis.call('GETRANGE', KEYS[1], 9, 32))
if id ~= tonumber(ARGV[1]) then return 0 end
redis.call('SETRANGE', KEYS[1], 17, struct.pack('>I8I8', count + tonumber(ARGV[2]), math.max(last, tonumber(ARGV[3]))))
return 1
"""

# ARGV: lifetime (milliseconds), a value. What was written, read back.
_PROBE = """
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
return redis.call('GET', KEYS[1])
"""

FILL = (_FORGET + _PUT + _FILL_BODY).encode()
BEGIN = (_FORGET + _MARKS + _BEGIN_BODY).encode()
SETTLE = (_FORGET + _PUT + _MARKS + _SETTLE_BODY).encode()
COUNT = _COUNT.encode()
PROBE = _PROBE.encode()


def name_of(script: bytes) -> bytes:
    """How EVALSHA calls a script: its SHA-1 in hexadecimal."""
    return sha1(script, usedforsecurity=False).hexdigest().encode()


NAMES = {script: name_of(script) for script in (FILL, BEGIN, SETTLE, COUNT, PROBE)}
