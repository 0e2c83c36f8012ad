-- One scope's window and the spend by model, read at one instant.
--
-- KEYS: 1 ledger, 2 spend, 3 epoch
-- args: scope
-- returns: {window, settled, reserved, overrun, seconds_left, whole, spend...}; spend is field, value, ... of the window

local window = window_of(NOW)
local prefix = a.scope .. '|' .. window .. '|'
local amounts = redis.call('HMGET', KEYS[1], prefix .. 'settled', prefix .. 'reserved', prefix .. 'overrun')
local answer = {
  window,
  amounts[1] or '0',
  amounts[2] or '0',
  amounts[3] or '0',
  seconds_left(NOW),
  redis.call('EXISTS', KEYS[3]),
}
local spend = redis.call('HGETALL', KEYS[2])
for i = 1, #spend, 2 do
  if string.sub(spend[i], 1, #window + 1) == window .. '|' then
    answer[#answer + 1] = string.sub(spend[i], #window + 2)
    answer[#answer + 1] = spend[i + 1]
  end
end
return answer
