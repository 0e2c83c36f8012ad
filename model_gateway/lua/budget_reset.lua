-- Zero what was settled in a scope's window; open reservations stay. One event carries the amount.
--
-- KEYS: 1 ledger, 2 spend, 3 events
-- args: scope, principal, reset_id
-- returns: {window, amount}

local window = window_of(NOW)
local prefix = a.scope .. '|' .. window .. '|'
if redis.call('HGET', KEYS[1], prefix .. 'reset') == a.reset_id then
  return { window, redis.call('HGET', KEYS[1], prefix .. 'reset_amount') }
end
local amount = redis.call('HGET', KEYS[1], prefix .. 'settled') or '0'
redis.call('HSET', KEYS[1], prefix .. 'reset', a.reset_id, prefix .. 'reset_amount', amount)
redis.call('HDEL', KEYS[1], prefix .. 'settled', prefix .. 'overrun', prefix .. 'warned')
for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(name, 1, #window + 1) == window .. '|' then
    redis.call('HDEL', KEYS[2], name)
  end
end
event(KEYS[3], 'model.budget.reset', {
  'scope', a.scope, 'window', window, 'principal', a.principal, 'usd_nano', amount, 'usd', usd(amount),
})
return { window, amount }
