-- Renew leases: of admitted requests by their fence token, of others by their consumer. A bare XCLAIM would let a
-- woken worker steal its entries back.
--
-- KEYS: 1 requests, 2.. records
-- args: group, consumer, entries and tokens (lists, in the order of the records; an empty token: not admitted yet),
--   running_ttl_ms
-- returns: for each, 1 if renewed, 0 if lost

local answer = {}
for i, entry in ipairs(a.entries) do
  local token, record = a.tokens[i], KEYS[i + 1]
  local held, found
  if token ~= '' then
    -- A record that is gone is for settle to judge, which charges what was spent all the same.
    found = redis.pcall('HMGET', record, 'token', 'state')
    held = found.err ~= nil or not found[1] or found[1] == token
  else
    local pending = redis.call('XPENDING', KEYS[1], a.group, entry, entry, 1)
    held = pending[1] ~= nil and pending[1][2] == a.consumer
  end
  if held then
    -- What was settled meanwhile is pending no more: XCLAIM then does nothing.
    redis.call('XCLAIM', KEYS[1], a.group, a.consumer, 0, entry, 'JUSTID')
    if not found or found[2] == 'running' then
      redis.call('PEXPIRE', record, a.running_ttl_ms)
    end
  end
  answer[i] = held and 1 or 0
end
return answer
