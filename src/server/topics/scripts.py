"""What has to be done at once in Redis: Lua, which it runs as one step.

A topic is a stream of entries and a hash beside it, ``meta``: ``n`` counts the entries that were
ever added, and ``floor`` is an id after which none has been removed. Both expire when the topic has
not been used for a while, so ``floor`` also tells one life of a topic from the next.
"""

# Redis 6 replicates a script that asks for the time by its effects only if it is told to.
_BEGIN = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stream, meta = KEYS[1], KEYS[2]
if redis.call('EXISTS', meta) == 0 then
  local last = string.format('%.0f-0', now - 1)
  if redis.call('EXISTS', stream) == 1 then
    local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    if newest then last = newest[1] end
  end
  redis.call('HSET', meta, 'floor', last, 'n', 0)
end
"""

# Add an entry, unless it was added before: a publisher numbers what it publishes, so what it sends
# again, because it has heard no answer, is known. Then forget what is past the bounds.
# Keys: the stream, its meta, what is known of the publisher here, and a lease that must be its own.
# Arguments: the publisher, the entry's number, the number of the entry before it in this topic (0
# if unknown), how many entries to keep, for how many ms, for how many ms to keep all of it unused,
# and the entry's fields.
PUBLISH = (
    _BEGIN
    + """
local publisher, number, before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if KEYS[4] and redis.call('GET', KEYS[4]) ~= publisher then return 'not mine' end
local known = tonumber(redis.call('GET', KEYS[3]) or '0')
if number <= known then return 'known' end
if known > 0 and before > known then return 'hole' end
local length, age, expiry = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local n = redis.call('HINCRBY', meta, 'n', 1)
local id = redis.call('XADD', stream, '*', 'n', n, unpack(ARGV, 7))
local function forget(entries)
  if #entries == 0 then return end
  redis.call('HSET', meta, 'floor', entries[#entries][1])
  for _, entry in ipairs(entries) do redis.call('XDEL', stream, entry[1]) end
end
local extra = redis.call('XLEN', stream) - length
if extra > 0 then forget(redis.call('XRANGE', stream, '-', '+', 'COUNT', math.min(extra, 100))) end
if age < now then
  local old = string.format('%.0f', now - age)
  forget(redis.call('XRANGE', stream, '-', old, 'COUNT', 100))
end
redis.call('SET', KEYS[3], number, 'PX', expiry)
redis.call('PEXPIRE', stream, expiry)
redis.call('PEXPIRE', meta, expiry)
return id
"""
)

# Begin to follow a topic: its floor, how many entries it ever had, and the newest of them.
# Keys: the stream, its meta. Arguments: how many entries, for how many ms to keep all of it unused.
OPEN = (
    _BEGIN
    + """
redis.call('PEXPIRE', stream, ARGV[2])
redis.call('PEXPIRE', meta, ARGV[2])
local state = redis.call('HMGET', meta, 'floor', 'n')
return {state[1], state[2], redis.call('XREVRANGE', stream, '+', '-', 'COUNT', ARGV[1])}
"""
)

# Take a lease, or keep it. Key: the lease. Arguments: by whom, for how many ms. 1 if it is theirs.
TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# Give a lease back. Key: the lease. Argument: by whom.
GIVE_BACK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

# Presence: a sorted set of who is there, with the time until which that is believed.
# Key: the set. Arguments: for how many ms, and who.
JOIN = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""

# Key: the set.
MEMBERS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')
"""
