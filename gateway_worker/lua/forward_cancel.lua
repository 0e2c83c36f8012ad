-- Carry out a cancellation that stands in an isolated agent's ingress: it names one of that agent's own requests.
--
-- KEYS: 1, 2: see ingress.lua; 3 record, 4 control
-- args: entry, principal, id, control_ms
-- returns: {'asked'} | {'over'} (final, or never seen) | {'gone'} (another has dealt with it)

if not take_off(a.entry) then
  return { 'gone' }
end
return { ask_to_cancel(KEYS[3], KEYS[4], a.control_ms) }
