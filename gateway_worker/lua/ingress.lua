-- Shared by the scripts that empty an isolated agent's ingress. Whatever stands in it was written by somebody who is
-- not trusted: its ids say nothing, and it may be emptied at any moment. So there is no cursor and no group: what is in
-- the stream is what is left to do, and each script takes off what it deals with.
--
-- KEYS: 1 ingress, 2 state (hash: `reader` and `until`, whose turn it is; `minute`, `taken`, `letters`, what was done
--   in this minute)

local INGRESS, STATE = KEYS[1], KEYS[2]
local STATE_TTL_MS = 86400000
local LETTERS_A_MINUTE = 10
local LETTER_BYTES = 4096

-- Add to what was done in this minute; how much that is now.
local function count(what, more)
  local minute = digits(math.floor(SERVER_NOW / 60000))
  if redis.call('HGET', STATE, 'minute') ~= minute then
    redis.call('HSET', STATE, 'minute', minute, 'taken', 0, 'letters', 0)
  end
  redis.call('PEXPIRE', STATE, STATE_TTL_MS)
  return redis.call('HINCRBY', STATE, what, more)
end

-- A stream with nothing in it is deleted, and its ids with it: the highest one stops its agent until then, not for good.
local function tidy()
  if redis.call('XLEN', INGRESS) == 0 then
    redis.call('DEL', INGRESS)
    return true
  end
  return false
end

-- Take an entry off; false if another has done so, or its agent has.
local function take_off(entry)
  local there = redis.call('XDEL', INGRESS, entry) == 1
  tidy()
  if there then
    count('taken', 1)
  end
  return there
end

-- A copy among the dead letters: few a minute and cut short, as there may be any amount of rubbish.
local function bury(dead, entry, reason, fields)
  if count('letters', 1) > LETTERS_A_MINUTE then
    return
  end
  local letter, room = { 'reason', reason, 'entry', entry, 'ingress', INGRESS }, LETTER_BYTES
  for i = 1, #fields - 1, 2 do
    local name = string.sub(fields[i], 1, room)
    local value = string.sub(fields[i + 1], 1, room - #name)
    letter[#letter + 1], letter[#letter + 2] = name, value
    room = room - #name - #value
    if room <= 0 or #letter >= 64 then
      break
    end
  end
  redis.call('XADD', dead, 'MINID', '~', digits(SERVER_NOW - tonumber(a.keep_ms)), '*', unpack(letter))
end
