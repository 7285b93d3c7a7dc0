"""What Redis does as a whole: Lua scripts, run on the one slot of all of the broker's keys.

- A script checks everything before it writes anything: Redis does not undo what a failed script wrote. What makes
  writes fail (memory, a replica, too few replicas) fails the first of them. Were one to fail later, the caller gets an
  error, and a token is spent at most.
- Times to live are relative, in milliseconds. `EXAT` with a moment in the past answers success and stores nothing, and
  the server's clock is not ours.
- Records are swept by the server's clock, which also numbers them; every replica's would differ.
- Lua's numbers are doubles: microseconds of this century stay exact, if they are written with `%.0f`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from broker.state.redis_chain import APPEND as APPEND_FIRST
from broker.state.redis_chain import SWEEP


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that Redis knows it by once it has seen it."""

    text: str
    writes: bool = True
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Names it as Redis does."""
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "name", digest)


SETTLE: Final = Script(
    APPEND_FIRST
    + """
-- KEYS: 1 to 3 the record's; 4 the spent token; 5 since when all is remembered; each limit; each pin's publisher.
-- ARGV: 1 to 5 the record's; 6 attempt, 7 receipt, 8 ms to remember the token, 9 now in us, 10 number of limits,
--       11 when the token was issued, 12 since when all is remembered if nothing is;
--       interval and window of each limit in us; field and value of each pin.
local before = redis.call('HMGET', KEYS[4], 'attempt', 'receipt')
if before[1] == ARGV[6] then return {'settled'} end
local since = redis.call('GET', KEYS[5])
if not since then
  since = ARGV[12]
  redis.call('SET', KEYS[5], since)
end

local now, limits = tonumber(ARGV[9]), tonumber(ARGV[10])
local counted, wait = {}, 0
for i = 1, limits do
  local interval, window = tonumber(ARGV[11 + 2 * i]), tonumber(ARGV[12 + 2 * i])
  local free_at = tonumber(redis.call('GET', KEYS[5 + i]) or '0')
  -- No further ahead than a limit can be: what a clock that was wrong for a while wrote holds for one window.
  counted[i] = math.min(math.max(free_at, now), now + window) + interval
  wait = math.max(wait, counted[i] - window - now)
end
if wait > 0 then return {'over', string.format('%.0f', wait)} end
for i = 1, limits do
  -- A minute longer than it matters, as a replica whose clock is behind still asks for it.
  local ms = math.ceil((counted[i] - now) / 1000) + 60000
  redis.call('SET', KEYS[5 + i], string.format('%.0f', counted[i]), 'PX', string.format('%.0f', ms))
end

if before[1] then return {'spent', before[2]} end
if tonumber(ARGV[11]) < tonumber(since) then return {'forgotten'} end

local pins = #KEYS - 5 - limits
for i = 1, pins do
  local at = 11 + 2 * (limits + i)
  local found = redis.call('HGET', KEYS[5 + limits + i], ARGV[at])
  if found and found ~= ARGV[at + 1] then return {'taken', i - 1} end
end

redis.call('HSET', KEYS[4], 'attempt', ARGV[6], 'receipt', ARGV[7])
redis.call('PEXPIRE', KEYS[4], ARGV[8])
for i = 1, pins do
  local at = 11 + 2 * (limits + i)
  redis.call('HSET', KEYS[5 + limits + i], ARGV[at], ARGV[at + 1])
end
append()
return {'settled'}
"""
)

APPEND: Final = Script(APPEND_FIRST + "append()")

REVOKE: Final = Script(
    APPEND_FIRST
    + """
-- KEYS: 1 to 3 the record's; 4 the token. ARGV: 1 to 5 the record's; 6 ms to remember the token.
if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[6]) then redis.call('SET', KEYS[4], '', 'PX', ARGV[6]) end
append()
"""
)

REVOKE_SUBJECT: Final = Script(
    APPEND_FIRST
    + """
-- KEYS: 1 to 3 the record's; 4 the subject. ARGV: 1 to 5 the record's; 6 ms to remember, 7 the moment.
local before, left = redis.call('GET', KEYS[4]), math.max(redis.call('PTTL', KEYS[4]), tonumber(ARGV[6]))
local moment = ARGV[7]
if before and tonumber(before) > tonumber(moment) then moment = before end
redis.call('SET', KEYS[4], moment, 'PX', string.format('%.0f', left))
append()
"""
)

RECORDS: Final = Script(
    """
-- KEYS: all records; one organization's records where only those are wanted. ARGV: how many. The newest first.
local bodies = {}
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[#KEYS], '+', '-', 'COUNT', ARGV[1])) do
  if KEYS[2] then entry = redis.call('XRANGE', KEYS[1], entry[1], entry[1])[1] end
  if entry then bodies[#bodies + 1] = entry[2][8] end
end
return bodies
""",
    writes=False,
)

RECORDS_AFTER: Final = Script(
    """
-- KEYS: all records; one organization's records where only those are wanted. ARGV: where to begin, how many.
local found = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[#KEYS], ARGV[1], '+', 'COUNT', ARGV[2])) do
  if KEYS[2] then entry = redis.call('XRANGE', KEYS[1], entry[1], entry[1])[1] end
  if entry then found[#found + 1] = {entry[1], entry[2][2], entry[2][4], entry[2][6], entry[2][8]} end
end
return found
""",
    writes=False,
)

PINS: Final = Script(
    """
-- KEYS: publishers. Answers field, value, field, value ... for each.
local found = {}
for i, key in ipairs(KEYS) do found[i] = redis.call('HGETALL', key) end
return found
""",
    writes=False,
)

CLAIM: Final = Script(
    """
-- KEYS: the file's name. ARGV: attempt, sha256, the lease in ms.
local found = redis.call('HMGET', KEYS[1], 'attempt', 'sha256', 'written')
if found[3] then return {'written', found[2]} end
local left_to_us = found[1] == '' and found[2] == ARGV[2]
if found[1] and found[1] ~= ARGV[1] and not left_to_us then return {'busy'} end
redis.call('HSET', KEYS[1], 'attempt', ARGV[1], 'sha256', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'claimed', left_to_us and 1 or 0}
"""
)

CONCLUDE: Final = Script(
    """
-- KEYS: the file's name. ARGV: attempt, what to do, ms to remember it, now. Answers whether it was the attempt's.
local found = redis.call('HMGET', KEYS[1], 'attempt', 'written')
if found[1] ~= ARGV[1] or (found[2] and ARGV[2] ~= 'store') then return 0 end
if ARGV[2] == 'release' then redis.call('DEL', KEYS[1]) return 1 end
if ARGV[2] == 'leave' then redis.call('HSET', KEYS[1], 'attempt', '') return 1 end
if ARGV[2] == 'store' then redis.call('HSETNX', KEYS[1], 'written', ARGV[4]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

WRITTEN_AT: Final = Script(
    """
-- KEYS: files' names. Answers the moment of each, as text, or false.
local found = {}
for i, key in ipairs(KEYS) do found[i] = redis.call('HGET', key, 'written') end
return found
""",
    writes=False,
)

USE: Final = Script(
    """
-- KEYS: the token's files. ARGV: a file, how many at most, ms to remember them. Answers whether it is counted.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 1 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
)

STORE_API_TOKEN: Final = Script(
    """
-- KEYS: the token, the ids of all. ARGV: id, when it was made, ms to keep it, its fields and values.
local fields = {}
for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
"""
)

REMOVE_API_TOKEN: Final = Script(
    """
-- KEYS: the token, the ids of all. ARGV: id. Answers whether there was one.
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
)

STORE_KEYS: Final = Script(
    """
-- KEYS: the issuer. ARGV: when its keys were fetched, the document.
local before = redis.call('HGET', KEYS[1], 'fetched_at')
if before and tonumber(before) > tonumber(ARGV[1]) then return end
redis.call('HSET', KEYS[1], 'fetched_at', ARGV[1], 'document', ARGV[2])
"""
)

BEGIN: Final = Script(
    """
-- KEYS: since when all is remembered. ARGV: the same if nothing is. Answers what INFO says, where that may be asked.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local told = {}
for i, section in ipairs({'memory', 'persistence', 'replication'}) do
  local text = redis.pcall('INFO', section)
  if type(text) == 'string' then told[i] = text else return {} end
end
return told
"""
)

PING: Final = Script(
    SWEEP
    + """
-- KEYS: one to write, all records, the heads of all chains. ARGV: retention in ms.
-- Answers the eviction policy, where that could make Redis forget what was spent.
redis.call('SET', KEYS[1], '', 'PX', 60000)
sweep(KEYS[2], KEYS[3], ARGV[1], 100)
local memory = redis.pcall('INFO', 'memory')  -- which a user may not be allowed to ask
if type(memory) ~= 'string' then return end
local most, policy = string.match(memory, 'maxmemory:(%d+)'), string.match(memory, 'maxmemory_policy:([%w-]+)')
if most ~= '0' and policy ~= 'noeviction' then return policy end
"""
)
