-- What stands first in an ingress, within bounds: nothing is read that may hurt, or that can't be dealt with now.
--
-- KEYS: 1, 2: see ingress.lua; 3 dead
-- args: reader, hold_ms (its turn), max_bytes (of the ingress), max_entry_bytes, max_fields, per_minute, most (entries),
--   keep_ms
-- returns: {'empty'|'taken'|'paced'|'found', dropped (how many entries were too much), {entry, {name, value, ...}}...}
--   taken: it is another reader's turn; paced: its agent has had all that it may have in this minute

local turn = redis.call('HMGET', STATE, 'reader', 'until')
if redis.call('EXISTS', INGRESS) == 0 then
  if turn[1] == a.reader then
    redis.call('HDEL', STATE, 'reader') -- whoever sees the next entry first may have it
  end
  return { 'empty', 0 }
end
if turn[1] and turn[1] ~= a.reader and tonumber(turn[2]) > SERVER_NOW then
  return { 'taken', 0 }
end
redis.call('HSET', STATE, 'reader', a.reader, 'until', digits(SERVER_NOW + tonumber(a.hold_ms)))
local left = tonumber(a.per_minute) - count('taken', 0)

-- Past its bytes the older half goes, and again: measured by the nodes that hold the entries, none of which is read.
local dropped = 0
while redis.call('MEMORY', 'USAGE', INGRESS, 'SAMPLES', 0) > tonumber(a.max_bytes) do
  local half = math.floor(redis.call('XLEN', INGRESS) / 2)
  dropped = dropped + redis.call('XTRIM', INGRESS, 'MAXLEN', half)
  if half == 0 then
    break
  end
end
if dropped > 0 then
  bury(KEYS[3], '', 'ingress overflow: ' .. dropped .. ' entries unread', {})
end
if tidy() then
  return { 'empty', dropped }
elseif left <= 0 then
  return { 'paced', dropped }
end

local function size_of(fields)
  local size = 0
  for _, value in ipairs(fields) do
    size = size + #value
  end
  return size
end

-- One at a time: what is read at once is then never more than what is handed out, and one entry.
local answer, bytes, after = { 'found', 0 }, 0, '-'
for _ = 1, math.min(left, tonumber(a.most)) do
  local item = redis.call('XRANGE', INGRESS, after, '+', 'COUNT', 1)[1]
  if not item then
    break
  end
  local entry, fields = item[1], item[2]
  local size = size_of(fields)
  if size > tonumber(a.max_entry_bytes) or #fields > 2 * tonumber(a.max_fields) then
    bury(KEYS[3], entry, 'too large: ' .. size .. ' bytes in ' .. #fields / 2 .. ' fields', fields)
    take_off(entry)
    dropped = dropped + 1
  else
    answer[#answer + 1] = { entry, fields }
    bytes = bytes + size
  end
  if bytes >= tonumber(a.max_entry_bytes) or entry == '18446744073709551615-18446744073709551615' then
    break
  end
  after = '(' .. entry
end
answer[2] = dropped
return answer
