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


_OFF = """
local function off_of(switches, first)
  -- Those of the arguments from `first` on that are switched off, by whomever.
  local off = {}
  if redis.call('EXISTS', switches) == 0 then return off end
  for i = first, #ARGV do
    local by = redis.call('HMGET', switches, 'operator ' .. ARGV[i], 'owner ' .. ARGV[i])
    if by[1] or by[2] then off[#off + 1] = ARGV[i] end
  end
  return off
end
"""

_ROOM = """
-- What each limit is to be set to, the longest wait in us, and which limit that is.
local function room(now, limits)
  local counted, wait, over = {}, 0, 0
  for i, limit in ipairs(limits) do
    local free_at = tonumber(redis.call('GET', limit.key) or '0')
    -- No further ahead than a limit can be: what a clock that was wrong for a while wrote holds for one window.
    counted[i] = math.min(math.max(free_at, now), now + limit.window) + limit.interval
    if counted[i] - limit.window - now > wait then wait, over = counted[i] - limit.window - now, i end
  end
  return counted, wait, over
end

local function count(now, limits, counted)
  for i, limit in ipairs(limits) do
    -- A minute longer than it matters, as a replica whose clock is behind still asks for it.
    local ms = math.ceil((counted[i] - now) / 1000) + 60000
    redis.call('SET', limit.key, string.format('%.0f', counted[i]), 'PX', string.format('%.0f', ms))
  end
end
"""

SETTLE: Final = Script(
    _ROOM
    + APPEND_FIRST
    + _OFF
    + """
-- KEYS: 1 to 3 the record's; 4 the switches, 5 the spent token, 6 since when all is remembered; each limit; the limit
--       of a token that was spent, where there is one; each pin's publisher.
-- ARGV: 1 to 5 the record's; 6 attempt, 7 receipt, 8 ms to remember the token, 9 now in us, 10 number of limits, 11 1
--       where there is one of a spent token, 12 when the token was issued, 13 since when all is remembered if nothing
--       is; interval and window of each limit in us; field and value of each pin; the subjects that must be on.
local before = redis.call('HMGET', KEYS[5], 'attempt', 'receipt')
if before[1] == ARGV[6] then return {'settled'} end
local since = redis.call('GET', KEYS[6])
if not since then
  since = ARGV[13]
  redis.call('SET', KEYS[6], since)
end

local now, fresh, again = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local bounded = fresh + again
local pins = #KEYS - 6 - bounded
local off = off_of(KEYS[4], 14 + 2 * (bounded + pins))
if #off > 0 then return {'off', off} end

local first, last = 1, fresh
if before[1] then first, last = fresh + 1, fresh + again end
local limits = {}
for i = first, last do
  local interval, window = tonumber(ARGV[12 + 2 * i]), tonumber(ARGV[13 + 2 * i])
  limits[#limits + 1] = {key = KEYS[6 + i], interval = interval, window = window}
end
local counted, wait, over = room(now, limits)
if wait > 0 then return {'over', string.format('%.0f', wait), first + over - 2} end
count(now, limits, counted)

if before[1] then return {'spent', before[2]} end
if tonumber(ARGV[12]) < tonumber(since) then return {'forgotten'} end

for i = 1, pins do
  local at = 12 + 2 * (bounded + i)
  local found = redis.call('HGET', KEYS[6 + bounded + i], ARGV[at])
  if found and found ~= ARGV[at + 1] then return {'taken', i - 1} end
end

redis.call('HSET', KEYS[5], 'attempt', ARGV[6], 'receipt', ARGV[7])
redis.call('PEXPIRE', KEYS[5], ARGV[8])
for i = 1, pins do
  local at = 12 + 2 * (bounded + i)
  redis.call('HSET', KEYS[6 + bounded + i], ARGV[at], ARGV[at + 1])
end
append()
return {'settled'}
"""
)

APPEND: Final = Script(
    _ROOM
    + APPEND_FIRST
    + """
-- KEYS: 1 to 3 the record's; each limit. ARGV: 1 to 5 the record's; 6 now in us; interval and window of each limit in
--       us. Answers the longest wait in us, and which limit that is.
local now, limits = tonumber(ARGV[6]), {}
for i = 1, #KEYS - 3 do
  limits[i] = {key = KEYS[3 + i], interval = tonumber(ARGV[5 + 2 * i]), window = tonumber(ARGV[6 + 2 * i])}
end
local counted, wait, over = room(now, limits)
append()
if wait > 0 then return {string.format('%.0f', wait), over - 1} end
count(now, limits, counted)
"""
)

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

OBJECTIONS: Final = Script(
    _OFF
    + """
-- KEYS: the token, the switches, since when all is remembered, each subject's revocation.
-- ARGV: when it was minted, the subjects.
-- Answers whether the token was revoked, or nobody knows; which subjects were since, and which are off.
local revoked, minted = {}, tonumber(ARGV[1])
local since, token = unpack(redis.call('MGET', KEYS[3], KEYS[1]))
if #KEYS > 3 then
  for i, before in ipairs(redis.call('MGET', unpack(KEYS, 4))) do
    if before and tonumber(before) >= minted then revoked[#revoked + 1] = ARGV[1 + i] end
  end
end
local speaks = (token or not since or minted < tonumber(since)) and 1 or 0
return {speaks, revoked, off_of(KEYS[2], 2)}
""",
    writes=False,
)

SWITCH_OFF: Final = Script(
    APPEND_FIRST
    + """
-- KEYS: 1 to 3 the record's; 4 the switches. ARGV: 1 to 5 the record's; 6 the switch, 7 what is kept of it.
redis.call('HSET', KEYS[4], ARGV[6], ARGV[7])
append()
"""
)

SWITCH_ON: Final = Script(
    APPEND_FIRST
    + """
-- KEYS: 1 to 3 the record's; 4 the switches. ARGV: 1 to 5 the record's; 6 the switch. Answers whether it was thrown.
if redis.call('HDEL', KEYS[4], ARGV[6]) == 0 then return 0 end
append()
return 1
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

ADVANCE_ALERTS: Final = Script(
    """
-- KEYS: the progress, each key of memory, each alert's queue.
-- ARGV: the step and position that were read, the new position, number of memories, ms that alerts are kept;
--       text and ms to remember of each memory; id, at and body of each alert. Answers whether it was done.
local before = redis.call('HMGET', KEYS[1], 'step', 'position')
local step = tonumber(before[1] or '0')
if step ~= tonumber(ARGV[1]) or (before[2] or '') ~= ARGV[2] then return 0 end
local memories, at, now = tonumber(ARGV[4]), 6, redis.call('TIME')
redis.call('HSET', KEYS[1], 'step', string.format('%.0f', step + 1), 'position', ARGV[3])
for i = 2, memories + 1 do
  redis.call('SET', KEYS[i], ARGV[at], 'PX', ARGV[at + 1])
  at = at + 2
end
local oldest = string.format('%.0f', math.max(tonumber(now[1]) * 1000 - tonumber(ARGV[5]), 0))
for i = memories + 2, #KEYS do
  redis.call('XADD', KEYS[i], 'MINID', oldest, '*', 'id', ARGV[at], 'at', ARGV[at + 1], 'body', ARGV[at + 2])
  redis.call('PEXPIRE', KEYS[i], ARGV[5])
  at = at + 3
end
return 1
"""
)

WAITING: Final = Script(
    """
-- KEYS: queues. Answers of each how many wait, and when the oldest was queued, as text, or false.
local found = {}
for i, key in ipairs(KEYS) do
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  found[i] = {redis.call('XLEN', key), first and first[2][4] or false}
end
return found
""",
    writes=False,
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
