-- Shared by the scripts that move one request along. They all take the same keys, in this order:
--
-- KEYS: 1 requests, 2 record, 3 open, 4 ledger, 5 spend, 6 counters, 7 events, 8 replies, 9 epoch, 10 dead,
--   11 deployment
-- args: group, consumer, entry, owner (<principal>:<id>), token, base (JSON text: the fields of each event),
--       model, final_ttl_ms, reply_ttl_ms; `replies`: fields of each reply entry but its data, which is ARGV[2..]

local REQUESTS, RECORD, OPEN, LEDGER, SPEND = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local COUNTERS, EVENTS, REPLIES, EPOCH, DEAD = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local DEPLOYMENT = KEYS[11]
local FINAL = { done = true, failed = true, cancelled = true }
local TERMINAL = { done = 'model.request.complete', failed = 'model.request.failed', cancelled = 'model.request.cancelled' }

-- The record. Its agent may write it too: whatever else it was made to be counts as missing.
local function record()
  if redis.call('TYPE', RECORD).ok ~= 'hash' then
    redis.call('DEL', RECORD)
    return {}
  end
  return hash(RECORD)
end

local rec = record()

-- Whether this delivery is still this consumer's: a woken worker may have lost it to another.
local function delivered_here()
  if redis.call('EXISTS', REQUESTS) == 0 then
    return false
  end
  local pending = redis.call('XPENDING', REQUESTS, a.group, a.entry, a.entry, 1)
  return pending[1] ~= nil and pending[1][2] == a.consumer
end

local function append_reply(fields, data)
  local entry = { 'MINID', '~', digits(SERVER_NOW - tonumber(a.reply_ttl_ms)), '*' }
  for _, value in ipairs(fields) do
    entry[#entry + 1] = value
  end
  entry[#entry + 1] = 'data'
  entry[#entry + 1] = data
  return redis.call('XADD', REPLIES, unpack(entry))
end

-- A repeated id is answered with the replies it had.
local function answer_again()
  local start, pages = rec.first, 0
  while start and pages < 16 do
    local page = redis.pcall('XRANGE', REPLIES, start, rec.last or '+', 'COUNT', 1000)
    if page.err then
      return
    end
    for _, item in ipairs(page) do
      local fields = item[2]
      if fields[2] == a.id then
        redis.call('XADD', REPLIES, '*', unpack(fields))
      end
    end
    start = #page == 1000 and '(' .. page[#page][1] or nil
    pages = pages + 1
  end
end

-- What this delivery is, if it is not to be run: {'lost'} or {'duplicate'}, which is acknowledged.
local function not_to_be_run()
  if not delivered_here() then
    return { 'lost' }
  end
  if not rec.state or (not FINAL[rec.state] and rec.entry == a.entry) then
    return nil
  end
  if FINAL[rec.state] and rec.entry ~= a.entry then
    answer_again()
  end
  redis.call('XACK', REQUESTS, a.group, a.entry)
  return { 'duplicate' }
end

-- The end of a request, in one piece: the last replies, the terminal event, the metrics, the acknowledgement, the state.
local function finish(state, fields)
  local first, last = rec.first, rec.last
  for i, reply in ipairs(a.replies) do
    last = append_reply(reply, ARGV[i + 1])
    first = first or last
  end
  redis.call('PEXPIRE', REPLIES, a.reply_ttl_ms)
  local base = cjson.decode(a.base)
  event(EVENTS, TERMINAL[state], base, fields, { 'reply_first', first or '', 'reply_last', last or '' })
  redis.call('HINCRBY', COUNTERS, 'requests|' .. a.model, 1)
  redis.call('XACK', REQUESTS, a.group, a.entry)
  redis.call('HSET', RECORD, 'state', state, 'token', a.token, 'entry', a.entry, 'first', first or '', 'last', last or '')
  redis.call('PEXPIRE', RECORD, a.final_ttl_ms)
end
