-- Hold what a worker knows to be written against what Redis has, after Redis was started again or replaced by another:
-- a charge that it has lost is charged once more.
--
-- KEYS: 1 open, 2 ledger, 3 spend, 4 counters, 5 events, 6 server, 7 reconciled (lost events that were
--   dealt with: their ids to `charged` or `told`; so a second look, or a call whose answer was lost, charges nothing twice)
-- args: worker, run_id (of the server), keep_ms, scopes ([{name, limit, hard, warn}]),
--   witnesses: [{event, owner, token, cost, model, scopes, window, fields}]; an empty cost: nothing was charged; fields (of the charge's event) are flat
-- returns: {missing, restored} (counts; `missing` also of what was dealt with before)

local OPEN, LEDGER, SPEND, COUNTERS, EVENTS, SERVER, RECONCILED = unpack(KEYS)

local function kept(id)
  return redis.call('EXISTS', EVENTS) == 1 and redis.call('XRANGE', EVENTS, id, id)[1] ~= nil
end

-- What is still reserved under this token is charged when its request is taken over.
local function still_reserved(witness)
  local held = redis.call('HGET', OPEN, witness.owner)
  return held and string.sub(held, 1, #witness.token + 1) == witness.token .. '|'
end

local function restore(witness)
  for scope in string.gmatch(witness.scopes, '[^,]+') do
    redis.call('HINCRBY', LEDGER, scope .. '|' .. witness.window .. '|settled', witness.cost)
  end
  redis.call('HINCRBY', SPEND, witness.window .. '|spent_nano|' .. witness.model, witness.cost)
  redis.call('HINCRBY', COUNTERS, 'cost_nano', witness.cost)
  event(EVENTS, 'model.request.restored', witness.fields, {
    'status', 'restored', 'window', witness.window, 'scopes', witness.scopes,
    'usd_nano', witness.cost, 'usd', usd(witness.cost), 'estimated', '0',
    'error_code', 'ledger_gap', 'lost_event', witness.event,
  })
end

local before = redis.call('GET', SERVER)
redis.call('SET', SERVER, a.run_id)
if before and before ~= a.run_id then
  local newest = redis.call('EXISTS', EVENTS) == 1 and redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
  event(EVENTS, 'model.ledger.restarted', { 'worker', a.worker, 'newest_event', newest and newest[1] or '' })
end

-- Whether a lost event is news. What is still reserved is charged when its request is taken over: it is dealt with too.
local function deal_with(witness)
  local was = redis.call('HGET', RECONCILED, witness.event)
  if was == 'charged' or (was and witness.cost == '') then
    return false, 0
  end
  redis.call('HSET', RECONCILED, witness.event, witness.cost == '' and 'told' or 'charged')
  if witness.cost == '' or still_reserved(witness) then
    return not was, 0
  end
  restore(witness)
  return true, tonumber(witness.cost)
end

-- What was admitted before this call did not know of these charges: a hard limit that they pass was overrun.
local function note_overrun(scope, window)
  local prefix = scope.name .. '|' .. window .. '|'
  local now = redis.call('HMGET', LEDGER, prefix .. 'settled', prefix .. 'reserved', prefix .. 'overrun')
  local over = tonumber(now[1] or '0') + tonumber(now[2] or '0') - tonumber(now[3] or '0') - tonumber(scope.limit)
  if scope.hard == '1' and over > 0 then
    redis.call('HINCRBY', LEDGER, prefix .. 'overrun', digits(over))
    event(EVENTS, 'model.budget.overrun', {
      'worker', a.worker, 'window', window, 'scopes', scope.name, 'usd_nano', digits(over), 'usd', usd(digits(over)),
    })
  end
end

local missing, news, restored, sum, windows = 0, {}, 0, 0, {}
for _, witness in ipairs(a.witnesses) do
  if not kept(witness.event) then
    missing = missing + 1
    local new, cost = deal_with(witness)
    if new then
      news[#news + 1] = witness.event
    end
    if cost > 0 then
      restored, sum, windows[witness.window] = restored + 1, sum + cost, true
    end
  end
end
for window in pairs(windows) do
  for _, scope in ipairs(a.scopes) do
    note_overrun(scope, window)
  end
end
if #news > 0 then
  event(EVENTS, 'model.ledger.gap', {
    'worker', a.worker, 'missing', digits(#news), 'restored', digits(restored),
    'usd_nano', digits(sum), 'usd', usd(digits(sum)), 'first_lost', news[1], 'last_lost', news[#news],
  })
  redis.call('PEXPIRE', RECONCILED, a.keep_ms)
end
return { digits(missing), digits(restored) }
