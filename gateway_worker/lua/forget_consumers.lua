-- Delete consumers that are long gone. Deleting one drops what it has pending, so only those with nothing.
--
-- KEYS: 1 requests
-- args: group, idle_ms
-- returns: how many were deleted

local deleted = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], a.group)) do
  local consumer = {}
  for i = 1, #flat, 2 do
    consumer[flat[i]] = flat[i + 1]
  end
  if consumer.pending == 0 and consumer.idle > tonumber(a.idle_ms) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], a.group, consumer.name)
    deleted = deleted + 1
  end
end
return { deleted }
