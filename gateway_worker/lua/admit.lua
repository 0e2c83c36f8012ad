-- Admit a delivery: take it over from a dead attempt, check every scope, reserve, and write the fence token.
--
-- KEYS, args: see request.lua; besides: id, amount (nano-dollars to reserve), scopes ([{name, limit, hard, warn}]),
--   max_attempts, old ('1': signed longer ago than ids are remembered),
--   running_ttl_ms, error_fields (of the refusal's terminal event); the reply is the refusal's
-- returns: {'admitted', attempt, window}
--   {'lost'} (another consumer's), {'duplicate'} (acknowledged), {'refused'} (budget; finished here),
--   {'ledger_lost'} and {'stale'} (nothing written),
--   {'exhausted'|'cancelled', attempt, chunks, signature} (running under this token, nothing reserved: settle it)

local held = reservation()
local chunks = tonumber(rec.chunks or '0') or 0

-- This call was carried out and its answer lost. Only what is reserved under this token was admitted.
if held and held.token == a.token then
  return { 'admitted', tonumber(held.attempt), held.window }
elseif rec.state == 'running' and rec.token == a.token then
  return { rec.cancel and 'cancelled' or 'exhausted', tonumber(rec.attempt), chunks, rec.signature or '' }
end
local answer = not_to_be_run()
if answer then
  return answer
end

-- An old id that was never submitted may have been paid for already.
if a.old == '1' and not rec.state then
  return { 'stale' }
end

local attempt = tonumber(held and held.attempt or rec.attempt or '0') or 0
local crashed = held ~= nil or rec.state == 'running'
if crashed then
  charge_lost_attempt()
end

local function take(number, window)
  redis.call('HSET', RECORD, 'state', 'running', 'token', a.token, 'entry', a.entry, 'attempt', number,
    'base', a.base, 'model', a.model, 'window', window, 'consumer', a.consumer)
  redis.call('PEXPIRE', RECORD, a.running_ttl_ms)
end

local window = window_of(NOW)
local exhausted = crashed and (attempt >= tonumber(a.max_attempts) or chunks > 0)
if exhausted or rec.cancel then
  take(attempt, window)
  return { exhausted and 'exhausted' or 'cancelled', attempt, chunks, rec.signature or '' }
end
if redis.call('EXISTS', EPOCH) == 0 then
  return { 'ledger_lost' }
end

-- Check every scope before anything is written.
local names, used, refusing, exceeded = {}, {}, nil, {}
for i, scope in ipairs(a.scopes) do
  local prefix = scope.name .. '|' .. window .. '|'
  local held = redis.call('HMGET', LEDGER, prefix .. 'settled', prefix .. 'reserved')
  local settled, reserved = held[1] or '0', held[2] or '0'
  names[i], used[i] = scope.name, tonumber(settled) + tonumber(reserved) + tonumber(a.amount)
  if used[i] > tonumber(scope.limit) and a.amount ~= '0' then
    exceeded[#exceeded + 1] = {
      'scope', scope.name, 'window', window, 'limit_nano', scope.limit,
      'settled_nano', settled, 'reserved_nano', reserved, 'requested_nano', a.amount,
    }
    refusing = refusing or (scope.hard == '1')
  end
end

local base = cjson.decode(a.base)
for _, fields in ipairs(exceeded) do
  event(EVENTS, 'model.budget.exceeded', base, fields)
  redis.call('HINCRBY', COUNTERS, 'budget_exceeded', 1)
end
if refusing then
  local reply = a.replies[1]
  reply[#reply + 1] = 'retry_after'
  reply[#reply + 1] = digits(seconds_left(NOW))
  local fields = { 'attempt', attempt }
  for _, value in ipairs(a.error_fields) do
    fields[#fields + 1] = value
  end
  finish('failed', fields)
  return { 'refused' }
end

attempt = attempt + 1
local scopes = table.concat(names, ',')
for i, scope in ipairs(a.scopes) do
  local prefix = scope.name .. '|' .. window .. '|'
  redis.call('HINCRBY', LEDGER, prefix .. 'reserved', a.amount)
  if used[i] >= tonumber(scope.warn) and redis.call('HSETNX', LEDGER, prefix .. 'warned', '1') == 1 then
    event(EVENTS, 'model.budget.warning', base, {
      'scope', scope.name, 'window', window, 'limit_nano', scope.limit, 'used_nano', digits(used[i]),
    })
  end
end
redis.call('HSET', OPEN, a.owner, table.concat({ a.token, window, a.amount, scopes, attempt }, '|'))
take(attempt, window)
event(EVENTS, 'model.request.start', base, {
  'attempt', attempt, 'status', 'running', 'window', window, 'scopes', scopes, 'reserved_nano', a.amount,
})
return { 'admitted', attempt, window }
