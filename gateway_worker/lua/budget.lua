-- Reservations and charges, over every scope of a request. Stands on request.lua.
--
-- args: scopes ([{name, limit, hard, warn}]), amount (nano-dollars to reserve), for `check_scopes` and `reserve`

-- The open reservation of this request: its token, window, amount, scopes and attempt; nil when there is none.
local function reservation()
  local held = redis.call('HGET', OPEN, a.owner)
  if not held then
    return nil
  end
  local token, window, amount, scopes, attempt = string.match(held, '^(.-)|(.-)|(.-)|(.-)|(.*)$')
  return { token = token, window = window, amount = amount, scopes = scopes, attempt = attempt }
end

-- HINCRBY takes -5 and 0, but not -0.
local function minus(amount)
  return amount == '0' and amount or '-' .. amount
end

-- Close a reservation at a cost: in every scope, in the window in which it was reserved. A bill above it is an overrun.
local function charge(held, cost, model, base)
  local over = digits(math.max(0, tonumber(cost) - tonumber(held.amount)))
  for scope in string.gmatch(held.scopes, '[^,]+') do
    local prefix = scope .. '|' .. held.window .. '|'
    redis.call('HINCRBY', LEDGER, prefix .. 'reserved', minus(held.amount))
    redis.call('HINCRBY', LEDGER, prefix .. 'settled', cost)
    if over ~= '0' then
      redis.call('HINCRBY', LEDGER, prefix .. 'overrun', over)
    end
  end
  redis.call('HDEL', OPEN, a.owner)
  redis.call('HINCRBY', SPEND, held.window .. '|spent_nano|' .. model, cost)
  redis.call('HINCRBY', COUNTERS, 'cost_nano', cost)
  if over ~= '0' then
    event(EVENTS, 'model.budget.overrun', base, {
      'attempt', held.attempt, 'window', held.window, 'scopes', held.scopes, 'reserved_nano', held.amount,
      'usd_nano', over, 'usd', usd(over),
    })
  end
end

-- Charge an attempt whose outcome was lost at what it had reserved, or at `cost` if more is known.
local function charge_unknown(held, base, model, cost, reason)
  charge(held, cost, model, base)
  event(EVENTS, 'model.request.unknown', base, {
    'attempt', held.attempt, 'status', 'unknown', 'window', held.window, 'scopes', held.scopes,
    'reserved_nano', held.amount, 'usd_nano', cost, 'usd', usd(cost), 'estimated', '1', 'error_code', reason,
  })
end

-- The attempt before this delivery died with its worker: its reservation is its cost.
local function charge_lost_attempt()
  local held = reservation()
  if held then
    local readable, base = pcall(cjson.decode, rec.base or a.base)
    charge_unknown(held, readable and base or cjson.decode(a.base), rec.model or a.model, held.amount, 'worker_lost')
    rec.lost = redis.call('HINCRBY', RECORD, 'lost', 1)
  end
end

-- Whether `amount` more fits every scope; what is over a limit is told in events, whether it refuses or not.
-- Nothing else is written. `released` is what a reservation of the same window gives back in the same script.
-- Returns {names, used, refusing}.
local function check_scopes(window, base, released)
  local names, used, refusing, exceeded = {}, {}, false, {}
  for i, scope in ipairs(a.scopes) do
    local prefix = scope.name .. '|' .. window .. '|'
    local now = redis.call('HMGET', LEDGER, prefix .. 'settled', prefix .. 'reserved')
    local settled, reserved = now[1] or '0', now[2] or '0'
    names[i], used[i] = scope.name, tonumber(settled) + tonumber(reserved) - released + tonumber(a.amount)
    if used[i] > tonumber(scope.limit) and a.amount ~= '0' then
      exceeded[#exceeded + 1] = {
        'scope', scope.name, 'window', window, 'limit_nano', scope.limit,
        'settled_nano', settled, 'reserved_nano', reserved, 'requested_nano', a.amount,
      }
      refusing = refusing or scope.hard == '1'
    end
  end
  for _, fields in ipairs(exceeded) do
    event(EVENTS, 'model.budget.exceeded', base, fields)
    redis.call('HINCRBY', COUNTERS, 'budget_exceeded', 1)
  end
  return { names = names, used = used, refusing = refusing }
end

-- Make the record this delivery's, as an attempt that runs.
local function take(attempt, window)
  redis.call('HSET', RECORD, 'state', 'running', 'token', a.token, 'entry', a.entry, 'attempt', attempt,
    'base', a.base, 'model', a.model, 'window', window, 'consumer', a.consumer)
  redis.call('PEXPIRE', RECORD, a.running_ttl_ms)
end

-- Reserve in every scope that was checked, and start an attempt.
local function reserve(attempt, window, base, checked)
  local scopes = table.concat(checked.names, ',')
  for i, scope in ipairs(a.scopes) do
    local prefix = scope.name .. '|' .. window .. '|'
    redis.call('HINCRBY', LEDGER, prefix .. 'reserved', a.amount)
    if checked.used[i] >= tonumber(scope.warn) and redis.call('HSETNX', LEDGER, prefix .. 'warned', '1') == 1 then
      event(EVENTS, 'model.budget.warning', base, {
        'scope', scope.name, 'window', window, 'limit_nano', scope.limit, 'used_nano', digits(checked.used[i]),
      })
    end
  end
  redis.call('HSET', OPEN, a.owner, table.concat({ a.token, window, a.amount, scopes, attempt }, '|'))
  take(attempt, window)
  event(EVENTS, 'model.request.start', base, {
    'attempt', attempt, 'status', 'running', 'window', window, 'scopes', scopes, 'reserved_nano', a.amount,
  })
end
