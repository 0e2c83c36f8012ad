-- End a delivery that was never admitted: an error reply, the terminal event and XACK. A dead attempt is charged.
--
-- KEYS: see request.lua
-- args: see request.lua; besides: id, fields (of the terminal event)
-- returns: {'refused'} | {'lost'} | {'duplicate'}

local answer = not_to_be_run()
if answer then
  return answer
end
if rec.state == 'running' then
  charge_lost_attempt()
end
finish('failed', a.fields)
return { 'refused' }
