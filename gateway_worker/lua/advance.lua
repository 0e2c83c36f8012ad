-- Close an attempt that failed and start the next one, on the same or on another deployment: one script, so that no
-- moment has neither reservation nor charge, or both. Where the next can't start, no money moves: settle the failed one.
--
-- KEYS: see request.lua; 11 the failed attempt's deployment, 12 the next one's
-- args: see request.lua, budget.lua, deployment.lua (base and model are the next attempt's); besides: id, attempt (that
--   failed), failed_base (JSON text), failed_model, failed_fields (of the retry event), unknown ('1': charge the
--   reservation), unknown_reason, note (on the failed call), gate (of the next), running_ttl_ms
-- returns: {'admitted', attempt, window, event} | {'gated', reason, wait_ms} | {'refused'} (budget) | {'cancelled'}
--   {'stale'} (another's request, or an attempt that was closed) | {'missing'} (settle judges)

-- The reservation's token decides: an agent may write its own record, but not the ledger.
local held = reservation()
if held and held.token ~= a.token then
  return { 'stale' }
elseif not held or rec.state ~= 'running' or rec.token ~= a.token then
  return { 'missing' }
elseif tonumber(held.attempt) == tonumber(a.attempt) + 1 then
  return { 'admitted', tonumber(held.attempt), held.window } -- carried out, and its answer lost
elseif held.attempt ~= a.attempt then
  return { 'stale' } -- sent long ago: by now a later attempt is being called, which is not the one that failed
elseif rec.cancel then
  return { 'cancelled' }
end
-- First of all, as the failure may be what shuts the way: a circuit that it opens is not tried again through.
local failed_base = cjson.decode(a.failed_base)
leave_early(DEPLOYMENT, a.attempt, a.note, failed_base)
local shut = gated(KEYS[12], a.gate)
if shut then
  return shut
end
local window, base = window_of(NOW), cjson.decode(a.base)
local given_back = (a.unknown ~= '1' and held.window == window) and tonumber(held.amount) or 0
local checked = check_scopes(window, base, given_back)
if checked.refusing then
  return { 'refused' }
end

if a.unknown == '1' then
  charge_unknown(held, failed_base, a.failed_model, held.amount, a.unknown_reason)
else
  charge(held, '0', a.failed_model, failed_base)
end
event(EVENTS, 'model.request.retry', failed_base, { 'attempt', held.attempt }, a.failed_fields)
enter(KEYS[12], a.gate)
local attempt = tonumber(held.attempt) + 1
reserve(attempt, window, base, checked)
return { 'admitted', attempt, window, told }
