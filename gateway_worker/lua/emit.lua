-- Put chunks on the reply stream, if the fence token still holds.
--
-- KEYS: see request.lua
-- args: see request.lua; besides: id, first_index, signature (of the last chunk), attempt
-- returns: {'written', cancel asked (0 or 1)} | {'stale'}

if rec.state ~= 'running' or rec.token ~= a.token then
  return { 'stale' }
end
local chunks = tonumber(rec.chunks or '0')
if chunks == tonumber(a.first_index) then
  for i, reply in ipairs(a.replies) do
    local entry = append_reply(reply, ARGV[i + 1])
    if chunks == 0 and i == 1 then
      redis.call('HSET', RECORD, 'first', entry)
      event(EVENTS, 'model.streaming.start', cjson.decode(a.base), { 'attempt', a.attempt, 'status', 'running' })
    end
    rec.last = entry
  end
  redis.call('HSET', RECORD, 'chunks', chunks + #a.replies, 'signature', a.signature, 'last', rec.last)
  redis.call('PEXPIRE', REPLIES, a.reply_ttl_ms)
end
return { 'written', rec.cancel and 1 or 0 }
