-- Shared by every script: named arguments, the clock, windows, the queue, cancellations, events.
-- ARGV[1] is a JSON object of named arguments, all text; raw payloads follow it.

local a = cjson.decode(ARGV[1])

-- A number as whole digits; tostring would write 1e+15.
local function digits(number)
  return string.format('%.0f', number)
end

local function redis_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Milliseconds since the epoch. Stream ids go by SERVER_NOW; windows and events by NOW, which a test can set.
local SERVER_NOW = redis_ms()
local NOW = a.now ~= '' and tonumber(a.now) or SERVER_NOW
local DAY = 86400000

-- The UTC day of a time as YYYY-MM-DD (civil_from_days, H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
local function window_of(ms)
  local z = math.floor(ms / DAY) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02d', year, month, day)
end

-- Whole seconds until the window of a time ends.
local function seconds_left(ms)
  return math.ceil((DAY - ms % DAY) / 1000)
end

-- Nano-dollars (digits, perhaps with a minus) as exact dollars: 2500 becomes 0.0000025.
local function usd(nano)
  local sign, number = string.match(nano, '^(-?)(%d+)$')
  number = string.rep('0', 10 - #number) .. number
  local fraction = string.gsub(string.sub(number, -9), '0+$', '')
  local whole = sign .. string.sub(number, 1, -10)
  return fraction == '' and whole or whole .. '.' .. fraction
end

-- A hash as a table.
local function hash(key)
  local flat, found = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    found[flat[i]] = flat[i + 1]
  end
  return found
end

-- Requests on the stream that nobody has taken, as far as is known, and that nobody has finished.
-- lag is nil after an XDEL or a XADD with an id of one's own; the length is then the safe side of the second.
local function queue_depth(stream, name)
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = {}
    for i = 1, #flat, 2 do
      group[flat[i]] = flat[i + 1]
    end
    if group.name == name then
      local lag = type(group.lag) == 'number' and group.lag or nil
      return lag or 0, (lag or redis.call('XLEN', stream)) + group.pending
    end
  end
  local length = redis.call('XLEN', stream)
  return length, length
end

-- Put the envelope whose fields are ARGV[2..] on the request stream, with the record that makes its id known.
local function enqueue(requests, record, ttl_ms)
  local fields = {}
  for i = 2, #ARGV do
    fields[#fields + 1] = ARGV[i]
  end
  local entry = redis.call('XADD', requests, '*', unpack(fields))
  redis.call('HSET', record, 'state', 'queued', 'entry', entry)
  redis.call('PEXPIRE', record, ttl_ms)
  return entry
end

-- Mark a request as cancelled and tell the workers, once: 'asked', or 'over' (final, or never seen).
local function ask_to_cancel(record, control, keep_ms)
  local state = redis.call('HGET', record, 'state')
  if state ~= 'queued' and state ~= 'running' then
    return 'over'
  end
  if redis.call('HSETNX', record, 'cancel', '1') == 1 then
    local oldest = digits(SERVER_NOW - tonumber(keep_ms))
    redis.call('XADD', control, 'MINID', '~', oldest, '*', 'principal', a.principal, 'id', a.id)
    redis.call('PEXPIRE', control, keep_ms)
  end
  return 'asked'
end

-- The newest event of this script; its id is the proof that the script was carried out and kept.
local told = ''

-- Append an event: its type and time, then the lists of fields in order.
local function event(stream, kind, ...)
  local fields = { 'event_type', kind, 'ts', digits(NOW) }
  for _, list in ipairs({ ... }) do
    for _, value in ipairs(list) do
      fields[#fields + 1] = value
    end
  end
  told = redis.call('XADD', stream, '*', unpack(fields))
  return told
end
