-- Ask for a request to be cancelled: mark its record and tell the workers. The state decides who wins a race.
--
-- KEYS: 1 record, 2 control
-- args: principal, id, keep_ms
-- returns: {'asked'} | {'over'} (final, or never seen)

return { ask_to_cancel(KEYS[1], KEYS[2], a.keep_ms) }
