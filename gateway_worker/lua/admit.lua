-- Admit a delivery: take it over from a dead attempt, look whether its deployment may be called, check every scope,
-- reserve, and write the fence token.
--
-- KEYS, args: see request.lua, budget.lua, deployment.lua; besides: id, max_attempts, gate,
--   old ('1': signed longer ago than ids are remembered), running_ttl_ms,
--   error_fields (of the refusal's terminal event); the reply is the refusal's
-- returns: {'admitted', attempt, window, event}
--   {'gated', reason, wait_ms} (nothing reserved: another deployment may be asked, under the same token)
--   {'lost'} (another consumer's), {'duplicate'} (acknowledged), {'refused'} (budget; finished here),
--   {'ledger_lost'} and {'stale'} (nothing written),
--   {'exhausted'|'cancelled', attempt, chunks, signature} (running under this token, nothing reserved: settle it)

local held = reservation()
local chunks = tonumber(rec.chunks or '0') or 0

local function exhausted()
  return (tonumber(rec.lost or '0') or 0) >= tonumber(a.max_attempts) or chunks > 0
end

-- This call was carried out and its answer lost. Only what is reserved under this token was admitted.
if held and held.token == a.token then
  return { 'admitted', tonumber(held.attempt), held.window }
elseif rec.state == 'running' and rec.token == a.token then
  return { exhausted() and 'exhausted' or 'cancelled', tonumber(rec.attempt), chunks, rec.signature or '' }
end
local answer = not_to_be_run()
if answer then
  return answer
end

-- An old id that was never submitted may have been paid for already; what is reserved was admitted, whatever its record says.
if a.old == '1' and not rec.state and not held then
  return { 'stale' }
end

local attempt = tonumber(held and held.attempt or rec.attempt or '0') or 0
if held or rec.state == 'running' then
  charge_lost_attempt()
  -- From here on whoever ran it is fenced off, even if nothing can be reserved yet.
  redis.call('HSET', RECORD, 'state', 'queued', 'token', a.token, 'entry', a.entry, 'attempt', attempt)
end

local window = window_of(NOW)
if exhausted() or rec.cancel then
  take(attempt, window)
  return { exhausted() and 'exhausted' or 'cancelled', attempt, chunks, rec.signature or '' }
end
if redis.call('EXISTS', EPOCH) == 0 then
  return { 'ledger_lost' }
end
local shut = gated(DEPLOYMENT, a.gate)
if shut then
  return shut
end

local base = cjson.decode(a.base)
local checked = check_scopes(window, base, 0)
if checked.refusing then
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
enter(DEPLOYMENT, a.gate)
reserve(attempt + 1, window, base, checked)
return { 'admitted', attempt + 1, window, told }
