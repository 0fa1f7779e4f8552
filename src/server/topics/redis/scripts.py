"""The Lua scripts, which Redis runs atomically.

A topic is a stream of entries and a hash beside it, ``meta``, with these fields:

- ``n``: the number of entries ever added;
- ``bytes``: the weight of the entries in the stream: their fields, and ENTRY_WEIGHT for each;
- ``last``: the id of the newest entry ever added;
- ``floor``: an id after which no entry has been removed;
- ``closed``: the id of the last entry of a closed topic;
- ``life``: a text that distinguishes this hash from an earlier one under the same key.

Both keys expire when the topic has not been used for a while. Redis may also evict either of them.
"""

# The weight of an entry in a stream besides its fields, rounded.
ENTRY_WEIGHT = 64

# In Redis 6, a script that reads the time must begin with this call, so that its effects are
# replicated.
_TIME = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Repair the hash, so that it fits the stream:
# - A missing or damaged hash begins again, after the newest entry of an existing stream.
# - A missing stream that had entries was evicted, so all of them are removed.
_BEGIN = (
    _TIME
    + """
local stream, meta = KEYS[1], KEYS[2]
local function is_whole(value, pattern, length)
  return value and #value <= length and string.match(value, pattern)
end
local ID = '^%d+%-%d+$'
local floor, last, n, bytes, life, closed =
  unpack(redis.call('HMGET', meta, 'floor', 'last', 'n', 'bytes', 'life', 'closed'))
local exists = redis.call('EXISTS', stream) == 1
if not (is_whole(floor, ID, 41) and is_whole(last, ID, 41) and is_whole(n, '^%d+$', 15)
    and is_whole(bytes, '^%-?%d+$', 16) and life)
    or closed and not is_whole(closed, ID, 41) then
  last = string.format('%.0f-0', now - 1)
  if exists then
    local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if newest then last = newest[1] end
    exists = false
  end
  redis.call('DEL', stream, meta)
  floor, n, bytes, closed = last, 0, 0, false
  life = time[1] .. '.' .. time[2]
  redis.call('HSET', meta, 'floor', floor, 'last', last, 'n', n, 'bytes', bytes, 'life', life)
elseif not exists and floor ~= last then
  floor, bytes = last, 0
  redis.call('HSET', meta, 'floor', floor, 'bytes', bytes)
end
"""
)

# Add an entry, and publish the life of the topic on its channel, unless the entry was added before:
# a publisher numbers its entries, so an entry that it sends again without a reply is recognized.
# Then remove the oldest entries while there are too many, or they weigh too much, or they are too
# old. The newest entry is never removed. Removing many entries delays other clients of Redis: after
# a thousand, all but the newest are removed at once.
# Keys: the stream, its meta, the last number of the publisher in this topic.
# Arguments: the number of the entry; the number of the previous entry in this topic (0 if unknown);
# the maximum number of entries and their maximum weight; the milliseconds to keep an entry, and all
# keys unused; "1" for the last entry; the channel; the number of dropped events before the entry;
# and the fields of the entry. Dropped events add an entry, a gap; without fields only the gap.
PUBLISH = (
    _BEGIN
    + f"local ENTRY_WEIGHT = {ENTRY_WEIGHT}"
    + """
local number, before, lifetime = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[5]
local known = tonumber(redis.call('GET', KEYS[3]) or '0')
if number <= known then return 'known' end
if known > 0 and before > known then return 'hole' end
if closed then
  redis.call('SET', KEYS[3], number, 'PX', lifetime)
  return 'closed'
end

local function weight(fields, first)
  local sum = ENTRY_WEIGHT
  for i = first, #fields do sum = sum + #fields[i] end
  return sum
end

-- Ids never decrease, not even in a stream that begins again while the clock is late.
local where = '*'
if not exists then
  local ms, sequence = string.match(last, '^(%d+)%-(%d+)$')
  if tonumber(ms) >= now then where = ms .. '-' .. string.format('%.0f', sequence + 1) end
end
-- XADD and PUBLISH can fail. The commands after them cannot.
local id
local function add(...)
  n = n + 1
  id = redis.call('XADD', stream, where, 'n', n, ...)
  where = '*'
  bytes = bytes + weight({...}, 1)
end
if ARGV[8] ~= '0' then add('g', ARGV[8]) end
local gap = id
if #ARGV > 8 then add(unpack(ARGV, 9)) end
local published = redis.pcall('PUBLISH', ARGV[7], life)
if type(published) == 'table' and published.err then
  redis.call('XDEL', stream, gap or id, id)
  return published
end
redis.call('SET', KEYS[3], number, 'PX', lifetime)

-- Remove the oldest entries up to an id, at most `count`, while `is_over` returns true.
local length = redis.call('XLEN', stream)
local function remove(to, count, is_over)
  local gone = {}
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', to, 'COUNT', count)) do
    if length <= 1 or not is_over() then break end
    length = length - 1
    bytes = bytes - weight(entry[2], 3)
    gone[#gone + 1] = entry[1]
  end
  if #gone > 0 then
    redis.call('XDEL', stream, unpack(gone))
    floor = gone[#gone]
  end
  return #gone
end
local entries, most = tonumber(ARGV[3]), tonumber(ARGV[4])
remove(string.format('%.0f', now - lifetime), 100, function() return true end)
local function is_too_much() return length > entries or bytes > most end
local count, removed = 1, 0
while length > 1 and is_too_much() and removed < 1000 do
  removed = removed + remove('+', count, is_too_much)
  count = math.min(2 * count, 100)
end
if length > 1 and is_too_much() then
  local newest = redis.call('XRANGE', stream, id, id)[1]
  local before_it = redis.call('XREVRANGE', stream, '(' .. id, '-', 'COUNT', 1)[1]
  redis.call('XTRIM', stream, 'MAXLEN', 1)
  floor, bytes = before_it[1], weight(newest[2], 3)
end

redis.call('HSET', meta, 'n', n, 'last', id, 'bytes', bytes, 'floor', floor)
if ARGV[6] == '1' then redis.call('HSET', meta, 'closed', id) end
redis.call('PEXPIRE', stream, lifetime)
redis.call('PEXPIRE', meta, lifetime)
return id
"""
)

# Renew the expiry of a topic. Return its floor, the number of entries ever added, the id of the
# last entry of a closed topic, the time, and its life. Return also 1 if a position is still in the
# stream, and the newest entries.
# Keys: the stream, its meta. Arguments: the maximum number of entries; the milliseconds to keep all
# keys unused; the position, an id, or empty.
OPEN = (
    _BEGIN
    + """
redis.call('PEXPIRE', stream, ARGV[2])
redis.call('PEXPIRE', meta, ARGV[2])
local place, found = ARGV[3], 1
if place ~= '' and place ~= floor then
  found = #redis.call('XRANGE', stream, place, place)
end
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', ARGV[1])
return {floor, tostring(n), closed or '', string.format('%.0f', now), life, found, newest}
"""
)

# Presence: a sorted set of members, scored by the time at which each expires.
# Key: the set. Arguments: the milliseconds until they expire, and the members.
JOIN = (
    _TIME
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# Key: the set.
MEMBERS = (
    _TIME
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')
"""
)

# Acquire or renew a lease; publish the holder on the lease's channel where it begins.
# Key: the lease. Arguments: the holder, the milliseconds until the lease expires, "1" to publish in
# any case, the channel. Return 1 if the holder has the lease.
TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not holder or ARGV[3] == '1' then redis.call('PUBLISH', ARGV[4], ARGV[1]) end
return 1
"""

# Release a lease, and publish an empty holder. Key: the lease. Arguments: the holder, the channel.
GIVE_BACK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
"""
