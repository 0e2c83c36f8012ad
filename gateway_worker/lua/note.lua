-- Note what a failed attempt says of its deployment while the request still waits for its next one.
--
-- KEYS: see request.lua
-- args: see request.lua, deployment.lua; besides: attempt, note
-- returns: {'noted'} | {'stale'} (another has the request, or the attempt is closed)

local held = reservation()
if not held or held.token ~= a.token or held.attempt ~= a.attempt or rec.token ~= a.token then
  return { 'stale' }
end
leave_early(DEPLOYMENT, a.attempt, a.note, cjson.decode(a.base))
return { 'noted' }
