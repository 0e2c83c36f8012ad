-- Put a signed envelope on the request stream, once.
--
-- KEYS: 1 requests, 2 record, 3 full
-- args: group, max_depth, ttl_ms; ARGV[2..]: the envelope's fields, flat
-- returns: {'queued', entry, how many nobody has taken, with this one} | {'duplicate', entry} | {'busy', depth} | {'full'}

local entry = redis.call('HGET', KEYS[2], 'entry')
if entry then
  return { 'duplicate', entry }
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  return { 'full' }
end

local untaken, unfinished = 0, 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  untaken, unfinished = queue_depth(KEYS[1], a.group)
end
if unfinished >= tonumber(a.max_depth) then
  return { 'busy', unfinished }
end
return { 'queued', enqueue(KEYS[1], KEYS[2], a.ttl_ms), untaken + 1 }
