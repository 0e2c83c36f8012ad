-- Settle a running request: money, the end of the reply, the terminal event, metrics and XACK, or nothing at all.
--
-- KEYS: see request.lua
-- args: see request.lua; besides: id, state (done|failed|cancelled), attempt, cost (nano-dollars), unknown ('1': the
--   provider may have been paid and nobody knows how much: the reservation is the cost), unknown_reason,
--   note (on the call, see deployment.lua), input_tokens, output_tokens, bucket and latency_ms (of the histogram),
--   fields (of the terminal event), window
-- returns: {'settled', event, charged} | {'missing', event, charged} (the record is gone: charged as unknown)
--   {'already'} (by this token: the answer was lost) | {'stale'}

local base = cjson.decode(a.base)

-- The request's end, and what it adds to the stats and the histogram.
local function close(state, held, cost)
  redis.call('HINCRBY', SPEND, held.window .. '|requests|' .. a.model, 1)
  redis.call('HINCRBY', SPEND, held.window .. '|input_tokens|' .. a.model, a.input_tokens)
  redis.call('HINCRBY', SPEND, held.window .. '|output_tokens|' .. a.model, a.output_tokens)
  redis.call('HINCRBY', COUNTERS, 'latency|' .. a.bucket .. '|' .. a.model, 1)
  redis.call('HINCRBY', COUNTERS, 'latency_ms|' .. a.model, a.latency_ms)
  local fields = {
    'attempt', held.attempt, 'window', held.window, 'scopes', held.scopes, 'reserved_nano', held.amount,
    'usd_nano', cost, 'usd', usd(cost),
  }
  for _, value in ipairs(a.fields) do
    fields[#fields + 1] = value
  end
  finish(state, fields)
end

-- The reservation's token decides: an agent may write its own record, but not the ledger.
local held, cost = reservation(), a.cost
local holder = held and held.token or rec.token
if holder and holder ~= a.token then
  return { 'stale' }
end
if not held and FINAL[rec.state] then
  return { 'already' }
end
if not rec.token then
  -- Redis lost the record, or came back from before the admission, and what was spent is still spent; unless this
  -- comes so late that the record of whoever finished the request may have run out.
  if not held and tonumber(a.latency_ms) > tonumber(a.final_ttl_ms) then
    return { 'stale' }
  end
  held = held or { window = a.window, amount = '0', scopes = a.scope_names, attempt = a.attempt }
  local spent = a.unknown == '1' and a.amount or cost
  charge_unknown(held, base, a.model, spent, 'record_missing')
  close('failed', held, '0')
  return { 'missing', told, spent }
end

local charged = cost
-- A request that was taken over with nothing reserved has nothing to charge.
if not held then
  held, cost, charged = { window = rec.window or a.window, amount = '0', scopes = '', attempt = a.attempt }, '0', '0'
elseif held.attempt ~= a.attempt then
  -- The next attempt was started and nobody heard of it: it called nobody, and closed the one that this is about.
  cost, charged = '0', '0'
  charge(held, cost, a.model, base)
elseif a.unknown == '1' then
  cost, charged = '0', held.amount
  charge_unknown(held, base, a.model, charged, a.unknown_reason)
else
  charge(held, cost, a.model, base)
end
if rec.noted ~= a.attempt then
  leave(DEPLOYMENT, a.note, base)
end
close(a.state, held, cost)
return { 'settled', told, charged }
