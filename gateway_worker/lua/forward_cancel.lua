-- Carry out a cancellation that stands in an isolated agent's ingress: it names one of that agent's own requests.
--
-- KEYS: 1, 2: see ingress.lua; 3 record, 4 control
-- args: entry, principal, id, control_ms
-- returns: {'asked'} | {'over'} (final, or never seen) | {'gone'} (another has dealt with it)

if not take_off(a.entry) then
  return { 'gone' }
end
local state = redis.call('HGET', KEYS[3], 'state')
if state ~= 'queued' and state ~= 'running' then
  return { 'over' }
end
if redis.call('HSETNX', KEYS[3], 'cancel', '1') == 1 then
  redis.call('XADD', KEYS[4], 'MINID', '~', digits(SERVER_NOW - tonumber(a.control_ms)), '*',
    'principal', a.principal, 'id', a.id)
  redis.call('PEXPIRE', KEYS[4], a.control_ms)
end
return { 'asked' }
