"""What has to be done at once in Redis: Lua, which it runs as one step.

A topic is a stream of entries and a hash beside it, ``meta``: ``n`` counts the entries that were
ever added, ``bytes`` those that are left, ``floor`` is an id after which none has been removed, and
``closed`` the id of the entry after which none is added. Both expire when the topic has not been
used for a while, so ``floor`` also tells one life of a topic from the next.
"""

# Redis 6 replicates a script that asks for the time by its effects only if it is told to.
_TIME = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# A stream without its meta is what is left where Redis had no memory for both.
_BEGIN = (
    _TIME
    + """
local stream, meta = KEYS[1], KEYS[2]
if redis.call('EXISTS', meta) == 0 then
  local last = string.format('%.0f-0', now - 1)
  if redis.call('EXISTS', stream) == 1 then
    local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if newest then last = newest[1] end
    redis.call('DEL', stream)
  end
  redis.call('HSET', meta, 'floor', last, 'n', 0, 'bytes', 0)
end
"""
)

# Add an entry, and say so on the channel that is called like the stream; unless it was added
# before: a publisher numbers what it publishes, so what it sends again, because it has heard no
# answer, is known. Then forget what is past the bounds: the oldest, while there are too many
# entries, or too many bytes of them, or it is too old; not more than a hundred or so at once, for
# others wait.
# Keys: the stream, its meta, what is known of the publisher here.
# Arguments: the entry's number, the number of the entry before it in this topic (0 if unknown), how
# many entries to keep, how many bytes of them, for how many ms to keep an entry and all of it
# unused, "1" if it is the last, and the entry's fields.
PUBLISH = (
    _BEGIN
    + """
local number, before = tonumber(ARGV[1]), tonumber(ARGV[2])
local known = tonumber(redis.call('GET', KEYS[3]) or '0')
if number <= known then return 'known' end
if known > 0 and before > known then return 'hole' end
if redis.call('HEXISTS', meta, 'closed') == 1 then
  redis.call('SET', KEYS[3], number, 'PX', ARGV[5])
  return 'closed'
end

local function size(fields, first)
  local sum = 0
  for i = first, #fields do sum = sum + #fields[i] end
  return sum
end
-- What can fail comes first. Nobody can read before the end what is said now.
redis.call('PUBLISH', stream, '')
local n = redis.call('HGET', meta, 'n') + 1
local id = redis.call('XADD', stream, '*', 'n', n, unpack(ARGV, 7))
redis.call('HSET', meta, 'n', n)
redis.call('SET', KEYS[3], number, 'PX', ARGV[5])
local bytes = redis.call('HINCRBY', meta, 'bytes', size(ARGV, 7))
if ARGV[6] == '1' then redis.call('HSET', meta, 'closed', id) end

local function forget(entries)
  if #entries == 0 then return end
  local freed = 0
  for _, entry in ipairs(entries) do
    freed = freed + size(entry[2], 3)
    redis.call('XDEL', stream, entry[1])
  end
  redis.call('HSET', meta, 'floor', entries[#entries][1])
  bytes = redis.call('HINCRBY', meta, 'bytes', -freed)
end
local extra = redis.call('XLEN', stream) - ARGV[3]
if extra > 0 then forget(redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(extra, 100))) end
forget(redis.call('XRANGE', stream, '-', string.format('%.0f', now - ARGV[5]), 'COUNT', 100))
for _ = 1, 100 do
  if bytes <= tonumber(ARGV[4]) or redis.call('XLEN', stream) == 1 then break end
  forget(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1))
end

redis.call('PEXPIRE', stream, ARGV[5])
redis.call('PEXPIRE', meta, ARGV[5])
return id
"""
)

# Use a topic, so that it does not expire: its floor, how many entries it ever had, the id of the
# last if it is closed, the time, and the newest entries.
# Keys: the stream, its meta. Arguments: how many entries, for how many ms to keep all of it unused.
OPEN = (
    _BEGIN
    + """
redis.call('PEXPIRE', stream, ARGV[2])
redis.call('PEXPIRE', meta, ARGV[2])
local state = redis.call('HMGET', meta, 'floor', 'n', 'closed')
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', ARGV[1])
return {state[1], state[2], state[3] or '', string.format('%.0f', now), newest}
"""
)

# Presence: a sorted set of who is there, with the time until which that is believed.
# Key: the set. Arguments: for how many ms, and who.
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

# Take a lease, or keep it, and have it heard where the holder begins: on a channel of its name.
# Key: the lease. Arguments: by whom, for how many ms, and "1" to have it heard in any case. 1 if it
# is theirs.
TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if not holder or ARGV[3] == '1' then redis.call('PUBLISH', KEYS[1], ARGV[1]) end
return 1
"""

# Give a lease back, and have that heard. Key: the lease. Argument: by whom.
GIVE_BACK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', KEYS[1], '')
return 1
"""
