-- Take an entry off an ingress that is not to be run: to the dead letters where there is a reason, with an error reply
-- where its agent signed it.
--
-- KEYS: 1, 2: see ingress.lua; 3 dead, 4 replies
-- args: entry, reason (empty: no dead letter), replies (one entry's fields, or none), reply_ttl_ms, keep_ms;
--   ARGV[2..]: the entry's fields, flat; the reply's data is the last
-- returns: {'turned_away'} | {'gone'} (another has dealt with it)

if not take_off(a.entry) then
  return { 'gone' }
end
if a.reason ~= '' then
  local fields = {}
  for i = 2, #ARGV - #a.replies do
    fields[#fields + 1] = ARGV[i]
  end
  bury(KEYS[3], a.entry, a.reason, fields)
end
if #a.replies == 1 then
  local reply = { 'MINID', '~', digits(SERVER_NOW - tonumber(a.reply_ttl_ms)), '*' }
  for _, value in ipairs(a.replies[1]) do
    reply[#reply + 1] = value
  end
  reply[#reply + 1] = 'data'
  reply[#reply + 1] = ARGV[#ARGV]
  redis.call('XADD', KEYS[4], unpack(reply))
  redis.call('PEXPIRE', KEYS[4], a.reply_ttl_ms)
end
return { 'turned_away' }
