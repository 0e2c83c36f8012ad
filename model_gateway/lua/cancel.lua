-- Ask for a request to be cancelled: mark its record and tell the workers. The state decides who wins a race.
--
-- KEYS: 1 record, 2 control
-- args: principal, id, keep_ms
-- returns: {'asked'} | {'over'} (final, or never seen)

local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then
  return { 'over' }
end
if redis.call('HSETNX', KEYS[1], 'cancel', '1') == 1 then
  redis.call('XADD', KEYS[2], 'MINID', '~', digits(SERVER_NOW - tonumber(a.keep_ms)), '*', 'principal', a.principal, 'id', a.id)
  redis.call('PEXPIRE', KEYS[2], a.keep_ms)
end
return { 'asked' }
