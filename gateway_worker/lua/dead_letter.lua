-- Move an entry that no worker may run to the dead letters, with the reason and an error reply where one is due.
--
-- KEYS: 1 requests, 2 dead, 3 replies
-- args: group, consumer, entry, reason, keep_ms, reply_ttl_ms, replies (one entry's fields, or none);
--   ARGV[2..]: the entry's fields; the reply's data is the last
-- returns: {'moved'} | {'lost'}

local pending = redis.call('XPENDING', KEYS[1], a.group, a.entry, a.entry, 1)
if pending[1] == nil or pending[1][2] ~= a.consumer then
  return { 'lost' }
end
local last = #ARGV - #a.replies
local letter = { 'reason', a.reason, 'entry', a.entry }
for i = 2, last do
  letter[#letter + 1] = ARGV[i]
end
redis.call('XADD', KEYS[2], 'MINID', '~', digits(SERVER_NOW - tonumber(a.keep_ms)), '*', unpack(letter))
if #a.replies == 1 then
  local reply = a.replies[1]
  reply[#reply + 1] = 'data'
  reply[#reply + 1] = ARGV[#ARGV]
  redis.call('XADD', KEYS[3], '*', unpack(reply))
  redis.call('PEXPIRE', KEYS[3], a.reply_ttl_ms)
end
redis.call('XACK', KEYS[1], a.group, a.entry)
return { 'moved' }
