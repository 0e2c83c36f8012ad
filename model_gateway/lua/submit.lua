-- Put a signed envelope on the request stream, once.
--
-- KEYS: 1 requests, 2 record, 3 full
-- args: group, max_depth, ttl_ms; ARGV[2..]: the envelope's fields, flat
-- returns: {'queued', entry} | {'duplicate', entry} | {'busy', depth} | {'full'}

local entry = redis.call('HGET', KEYS[2], 'entry')
if entry then
  return { 'duplicate', entry }
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  return { 'full' }
end

-- lag is nil after an XDEL or a XADD with an id of one's own; the length is then the safe side.
local function depth()
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = {}
    for i = 1, #flat, 2 do
      group[flat[i]] = flat[i + 1]
    end
    if group.name == a.group then
      local lag = group.lag
      return (type(lag) == 'number' and lag or redis.call('XLEN', KEYS[1])) + group.pending
    end
  end
  return redis.call('XLEN', KEYS[1])
end

local waiting = redis.call('EXISTS', KEYS[1]) == 1 and depth() or 0
if waiting >= tonumber(a.max_depth) then
  return { 'busy', waiting }
end
local fields = {}
for i = 2, #ARGV do
  fields[#fields + 1] = ARGV[i]
end
entry = redis.call('XADD', KEYS[1], '*', unpack(fields))
redis.call('HSET', KEYS[2], 'state', 'queued', 'entry', entry)
redis.call('PEXPIRE', KEYS[2], a.ttl_ms)
return { 'queued', entry }
