"""Appending audit records in Redis, each linked to the one before it: the beginning of each script that appends.

A link is SHA-256 (`broker.chain`), and Lua in Redis has none: so here it is (FIPS 180-4), for the one message of 64
bytes that is needed. It costs some 0.1 ms of the server's time. Were the link made by the broker, two brokers that
append at once would have to take turns over the network.
"""

from __future__ import annotations

from typing import Final

_ROUNDS: Final = bytes.fromhex(
    "428a2f9871374491b5c0fbcfe9b5dba53956c25b59f111f1923f82a4ab1c5ed5d807aa9812835b01243185be550c7dc3"
    "72be5d7480deb1fe9bdc06a7c19bf174e49b69c1efbe47860fc19dc6240ca1cc2de92c6f4a7484aa5cb0a9dc76f988da"
    "983e5152a831c66db00327c8bf597fc7c6e00bf3d5a7914706ca63511429296727b70a852e1b21384d2c6dfc53380d13"
    "650a7354766a0abb81c2c92e92722c85a2bfe8a1a81a664bc24b8b70c76c51a3d192e819d6990624f40e3585106aa070"
    "19a4c1161e376c082748774c34b0bcb5391c0cb34ed8aa4a5b9cca4f682e6ff3748f82ee78a5636f84c878148cc70208"
    "90befffaa4506cebbef9a3f7c67178f2"
)
"""The constants of the 64 rounds (FIPS 180-4, section 4.2.2)."""


def _words(block: bytes) -> list[int]:
    return [int.from_bytes(block[at : at + 4], "big") for at in range(0, len(block), 4)]


def _scheduled(block: bytes) -> list[int]:
    """What the 64 rounds add of a block (FIPS 180-4, section 6.2.2, step 1)."""

    def turned(word: int, *by: int) -> int:
        first, second, shifted = by
        right = [(word >> n | word << (32 - n)) & 0xFFFFFFFF for n in (first, second)]
        return right[0] ^ right[1] ^ (word >> shifted)

    words = _words(block)
    for at in range(16, 64):
        words.append(
            (words[at - 16] + turned(words[at - 15], 7, 18, 3) + words[at - 7] + turned(words[at - 2], 17, 19, 10))
            & 0xFFFFFFFF
        )
    return words


_PADDING: Final = b"\x80" + bytes(61) + (64 * 8).to_bytes(2, "big")
"""The second block of a message of 64 bytes: always the same, so what the rounds add of it is known."""


def _table(numbers: list[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


_LINK: Final = (
    f"""
local rounds = {_table(_words(_ROUNDS))}
local padding = {_table([one + two for one, two in zip(_words(_ROUNDS), _scheduled(_PADDING), strict=True)])}
"""
    """
local band, bxor, ror, rshift, tobit = bit.band, bit.bxor, bit.ror, bit.rshift, bit.tobit
-- Sums stay exact, being far below 2^53, and are cut to 32 bits where they are kept.
local function compress(hash, added)
  local a, b, c, d, e, f, g, h = unpack(hash)
  for i = 1, 64 do
    local t = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(g, band(e, bxor(f, g))) + added[i]
    local u = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, bxor(b, c)), band(b, c))
    h, g, f, e, d, c, b, a = g, f, e, tobit(d + t), c, b, a, tobit(t + u)
  end
  local all = {a, b, c, d, e, f, g, h}
  for i = 1, 8 do hash[i] = tobit(hash[i] + all[i]) end
end
local function link_of(before, digest)
  local w = {}
  for word in string.gmatch(before .. digest, '%x%x%x%x%x%x%x%x') do w[#w + 1] = tobit(tonumber(word, 16)) end
  for i = 17, 64 do
    local p, q = w[i - 15], w[i - 2]
    w[i] = tobit(w[i - 16] + bxor(ror(p, 7), ror(p, 18), rshift(p, 3)) + w[i - 7] +
      bxor(ror(q, 17), ror(q, 19), rshift(q, 10)))
  end
  for i = 1, 64 do w[i] = w[i] + rounds[i] end
  local hash = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
  compress(hash, w)
  compress(hash, padding)
  for i = 1, 8 do hash[i] = bit.tohex(hash[i]) end
  return table.concat(hash)
end
"""
)

SWEEP: Final = """
local function head_of(heads, organization, genesis)
  local head = redis.call('HGET', heads, organization)
  if not head then return '0', genesis, '0', genesis end
  return string.match(head, '^(%d+) (%x+) (%d+) (%x+)$')
end
local function records_of(records, organization) return string.sub(records, 1, -2) .. '-of:' .. organization end
-- Takes out the oldest records, where they are over: at most so many, and never one in the middle of a chain.
local function sweep(records, heads, retention, most)
  local now = redis.call('TIME')
  local oldest = string.format('%.0f', math.max(tonumber(now[1]) * 1000 - tonumber(retention), 0))
  for _, entry in ipairs(redis.call('XRANGE', records, '-', oldest, 'COUNT', most)) do
    local organization, sequence, link = entry[2][2], entry[2][4], entry[2][6]
    local last, at = head_of(heads, organization, link)
    redis.call('HSET', heads, organization, table.concat({last, at, sequence, link}, ' '))
    redis.call('XDEL', records, entry[1])
    redis.call('XDEL', records_of(records, organization), entry[1])
  end
end
"""
"""Names of other organizations' keys are made here: a Cluster has them all in one slot."""

APPEND: Final = (
    _LINK
    + SWEEP
    + """
-- Appends a record, and those that are kept with it.
-- KEYS: 1 all records, 2 the organization's, 3 the heads of all chains.
-- ARGV: 1 retention in ms, 2 body, 3 its digest, 4 organization, 5 the chain's genesis, 6 how many are kept with it;
--       2 to 5 again of each. Those from 6 on are taken out here: what follows them is then numbered from 6 on.
local others = {}
for i = 1, tonumber(table.remove(ARGV, 6)) do
  others[i] = {unpack(ARGV, 6, 9)}
  for _ = 1, 4 do table.remove(ARGV, 6) end
end
local function append_to(key, body, digest, organization, genesis)
  local sequence, before, swept, swept_link = head_of(KEYS[3], organization, genesis)
  local number, link = string.format('%.0f', sequence + 1), link_of(before, digest)
  local fields = {'organization', organization, 'sequence', number, 'link', link, 'body', body}
  local id = redis.call('XADD', KEYS[1], '*', unpack(fields))
  redis.call('XADD', key, id, 'of', '')
  redis.call('HSET', KEYS[3], organization, table.concat({number, link, swept, swept_link}, ' '))
  -- One in 16, whichever organizations they are of, and twice as many each time: faster than anything comes.
  if string.sub(link, 1, 1) == '0' then sweep(KEYS[1], KEYS[3], ARGV[1], 32) end
end
local function append()
  append_to(KEYS[2], unpack(ARGV, 2, 5))
  for _, other in ipairs(others) do append_to(records_of(KEYS[1], other[3]), unpack(other)) end
end
"""
)
