-- Hold what a worker knows to be written against what Redis has, after Redis was started again or replaced by another:
-- a charge that it has lost is charged once more.
--
-- KEYS: 1 open, 2 ledger, 3 spend, 4 counters, 5 events, 6 server, 7 done (marks this call, whose answer may get lost)
-- args: worker, run_id (of the server), keep_ms, witnesses: [{event, owner, token, cost, model, scopes, window, fields}];
--   an empty cost: nothing was charged; fields (of the charge's event) are flat
-- returns: {missing, restored} (counts)

local OPEN, LEDGER, SPEND, COUNTERS, EVENTS, SERVER, DONE = unpack(KEYS)

if redis.call('EXISTS', DONE) == 1 then
  return redis.call('HMGET', DONE, 'missing', 'restored')
end

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

local missing, restored, sum = {}, 0, 0
for _, witness in ipairs(a.witnesses) do
  if not kept(witness.event) then
    missing[#missing + 1] = witness.event
    if witness.cost ~= '' and not still_reserved(witness) then
      restore(witness)
      restored, sum = restored + 1, sum + tonumber(witness.cost)
    end
  end
end
if #missing > 0 then
  event(EVENTS, 'model.ledger.gap', {
    'worker', a.worker, 'missing', digits(#missing), 'restored', digits(restored),
    'usd_nano', digits(sum), 'usd', usd(digits(sum)), 'first_lost', missing[1], 'last_lost', missing[#missing],
  })
end
redis.call('HSET', DONE, 'missing', digits(#missing), 'restored', digits(restored))
redis.call('PEXPIRE', DONE, a.keep_ms)
return { digits(#missing), digits(restored) }
