-- Move a verified envelope from its agent's ingress onto the request stream, once: the entry, the record and the removal
-- are one step. What is written is what was verified, not what the stream says now.
--
-- KEYS: 1, 2: see ingress.lua; 3 unfinished (set: ids that were moved and may not be over), 4 requests, 5 record, 6 full,
--   7 replies
-- args: entry, id, records (their name up to the id), group, max_depth, max_unfinished, ttl_ms, reply_ttl_ms;
--   ARGV[2..]: the envelope's fields, flat
-- returns: {'moved', entry} | {'gone'} (another has dealt with it)
--   {'duplicate'} (taken off; a reply says where the replies are)
--   {'many', n} (of this agent's are not over), {'busy', depth} and {'full'}: nothing was changed

local UNFINISHED, REQUESTS, RECORD, REPLIES = KEYS[3], KEYS[4], KEYS[5], KEYS[7]

-- How many of this agent's requests are not over, as far as it matters.
local function unfinished()
  local found = redis.call('SCARD', UNFINISHED)
  if found < tonumber(a.max_unfinished) then
    return found
  end
  for _, id in ipairs(redis.call('SMEMBERS', UNFINISHED)) do
    local state = redis.call('HGET', a.records .. id, 'state')
    if state ~= 'queued' and state ~= 'running' then
      found = found - redis.call('SREM', UNFINISHED, id)
    end
  end
  return found
end

local known = redis.call('HMGET', RECORD, 'entry', 'first', 'last')
if known[1] then
  if not take_off(a.entry) then
    return { 'gone' }
  end
  redis.call('XADD', REPLIES, 'MINID', '~', digits(SERVER_NOW - tonumber(a.reply_ttl_ms)), '*', 'id', a.id,
    'kind', 'duplicate', 'index', '0', 'status', '200', 'end', '0', 'first', known[2] or '', 'last', known[3] or '',
    'data', '{}')
  redis.call('PEXPIRE', REPLIES, a.reply_ttl_ms)
  return { 'duplicate' }
end
if redis.call('EXISTS', KEYS[6]) == 1 then
  return { 'full' }
end
local depth = 0
if redis.call('EXISTS', REQUESTS) == 1 then
  local _, not_over = queue_depth(REQUESTS, a.group)
  depth = not_over
end
if depth >= tonumber(a.max_depth) then
  return { 'busy', depth }
end
local mine = unfinished()
if mine >= tonumber(a.max_unfinished) then
  return { 'many', mine }
end
if not take_off(a.entry) then
  return { 'gone' }
end
local entry = enqueue(REQUESTS, RECORD, a.ttl_ms)
redis.call('SADD', UNFINISHED, a.id)
redis.call('PEXPIRE', UNFINISHED, a.ttl_ms)
return { 'moved', entry }
