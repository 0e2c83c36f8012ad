-- Whether a deployment may be called: its circuit breaker and its rates, kept for all workers. Stands on request.lua.
--
-- A deployment's hash: open_until (ms), opened (times in a row), probe and probe_until (whose call tries it out);
--   span, calls, failures, before_calls, before_failures (counts of this window and the one before), timeouts (in a row);
--   minute, requests, tokens, before_requests, before_tokens (rates); blocked_until (ms: what its headers asked for)
-- gate: {asks, breaker, rpm, tpm, tokens, probe_ms}; an empty asks: nobody is called; breaker, rpm or tpm: none
-- note: {result: ok|error|timeout|none, blocked_ms, window_ms, min_calls, error_rate, timeouts, open_ms, max_open_ms};
--   an empty window_ms: no breaker

local DEPLOYMENT_TTL_MS = 3600000
local MINUTE_MS = 60000

local function n(text)
  return tonumber(text or '0') or 0
end

-- Counts of the last minute, by weighing this one and the one before (Cloudflare's sliding window counter).
local function rates(d)
  local minute = math.floor(NOW / MINUTE_MS)
  local weight = 1 - (NOW % MINUTE_MS) / MINUTE_MS
  if n(d.minute) == minute then
    return minute, n(d.requests), n(d.tokens), n(d.before_requests), n(d.before_tokens), weight
  elseif n(d.minute) == minute - 1 then
    return minute, 0, 0, n(d.requests), n(d.tokens), weight
  end
  return minute, 0, 0, 0, 0, weight
end

-- How long until `more` fits a limit: what was counted before fades over the minute, and this minute's over the next.
local function wait_for(limit, now, before, weight, more)
  if now + before * weight + more <= limit then
    return 0
  elseif now + more > limit then
    return (weight + 1 - (limit - more) / now) * MINUTE_MS
  end
  return (weight - (limit - now - more) / before) * MINUTE_MS
end

-- nil where the deployment may be called; else {'gated', reason, wait in ms}. Writes nothing.
local function gated(key, gate)
  if gate.asks == '' then
    return nil
  end
  local d = hash(key)
  local open_until = gate.breaker ~= '' and d.open_until
  if n(d.blocked_until) > NOW then
    return { 'gated', 'rate_limited', digits(n(d.blocked_until) - NOW) }
  elseif open_until and n(open_until) > NOW then
    return { 'gated', 'circuit_open', digits(n(open_until) - NOW) }
  elseif open_until and n(d.probe_until) > NOW and d.probe ~= a.token then
    return { 'gated', 'circuit_open', digits(math.min(1000, n(d.probe_until) - NOW)) }
  end
  if gate.rpm == '' and gate.tpm == '' then
    return nil
  end
  local _, requests, tokens, before_requests, before_tokens, weight = rates(d)
  local wait = 0
  if gate.rpm ~= '' then
    wait = wait_for(tonumber(gate.rpm), requests, before_requests, weight, 1)
  end
  if gate.tpm ~= '' then
    -- A request that is larger than the whole rate may go when nothing else has.
    local more = math.min(tonumber(gate.tokens), tonumber(gate.tpm))
    wait = math.max(wait, wait_for(tonumber(gate.tpm), tokens, before_tokens, weight, more))
  end
  return wait > 0 and { 'gated', 'rate_limited', digits(math.ceil(wait)) } or nil
end

-- Count a call that `gated` let through; the one that finds the circuit open is its probe.
local function enter(key, gate)
  if gate.asks == '' then
    return
  end
  local open = gate.breaker ~= '' and redis.call('HGET', key, 'open_until')
  if open then
    redis.call('HSET', key, 'probe', a.token, 'probe_until', digits(NOW + tonumber(gate.probe_ms)))
  end
  if gate.rpm ~= '' or gate.tpm ~= '' then
    local minute, requests, tokens, before_requests, before_tokens = rates(hash(key))
    redis.call('HSET', key, 'minute', minute, 'requests', requests + 1, 'tokens', digits(tokens + tonumber(gate.tokens)),
      'before_requests', before_requests, 'before_tokens', digits(before_tokens))
  elseif not open then
    return
  end
  redis.call('PEXPIRE', key, DEPLOYMENT_TTL_MS)
end

local function open_circuit(key, note, base, times)
  local wait = math.min(tonumber(note.max_open_ms), tonumber(note.open_ms) * 2 ^ (times - 1))
  redis.call('HSET', key, 'open_until', digits(NOW + wait), 'opened', times)
  redis.call('HDEL', key, 'probe', 'probe_until', 'span', 'calls', 'failures', 'before_calls', 'before_failures', 'timeouts')
  event(EVENTS, 'model.deployment.opened', base, { 'opened', times, 'error_code', note.result })
end

-- Count a call's result in the window, and open the circuit where too many fail.
local function count_result(key, d, note, base, failed)
  local span = math.floor(NOW / tonumber(note.window_ms))
  local calls, failures, before_calls, before_failures = 0, 0, 0, 0
  if n(d.span) == span then
    calls, failures, before_calls, before_failures = n(d.calls), n(d.failures), n(d.before_calls), n(d.before_failures)
  elseif n(d.span) == span - 1 then
    before_calls, before_failures = n(d.calls), n(d.failures)
  end
  calls, failures = calls + 1, failures + (failed and 1 or 0)
  local timeouts = note.result == 'timeout' and n(d.timeouts) + 1 or 0
  local all, bad = calls + before_calls, failures + before_failures
  if failed and ((all >= tonumber(note.min_calls) and bad / all >= tonumber(note.error_rate))
      or timeouts >= tonumber(note.timeouts)) then
    open_circuit(key, note, base, 1)
  else
    redis.call('HSET', key, 'span', span, 'calls', calls, 'failures', failures,
      'before_calls', before_calls, 'before_failures', before_failures, 'timeouts', timeouts)
  end
end

-- Note how a call ended; `base`: the fields of an event about it.
local function leave(key, note, base)
  local d, failed = hash(key), note.result == 'error' or note.result == 'timeout'
  if note.blocked_ms ~= '0' then
    local blocked_until = math.max(n(d.blocked_until), NOW + tonumber(note.blocked_ms))
    redis.call('HSET', key, 'blocked_until', digits(blocked_until))
    redis.call('PEXPIRE', key, DEPLOYMENT_TTL_MS)
  end
  if note.window_ms == '' then
    return
  end
  if d.open_until then
    if d.probe ~= a.token then
      return -- began before the circuit opened
    elseif failed then
      open_circuit(key, note, base, n(d.opened) + 1)
    elseif note.result == 'ok' then
      redis.call('HDEL', key, 'open_until', 'opened', 'probe', 'probe_until')
      event(EVENTS, 'model.deployment.closed', base, { 'opened', n(d.opened) })
    else
      redis.call('HDEL', key, 'probe', 'probe_until')
    end
  elseif note.result ~= 'none' then
    count_result(key, d, note, base, failed)
  end
  redis.call('PEXPIRE', key, DEPLOYMENT_TTL_MS)
end

-- The same ahead of the attempt's close, which then does not count it again.
local function leave_early(key, attempt, note, base)
  if rec.noted ~= attempt then
    leave(key, note, base)
    redis.call('HSET', RECORD, 'noted', attempt)
  end
end
