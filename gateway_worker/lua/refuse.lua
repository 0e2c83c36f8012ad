-- End a delivery that is not called: an error reply, the terminal event and XACK. A dead attempt is charged; one of
-- this delivery's own, whose admission was answered too late, was not called and costs nothing.
--
-- KEYS: see request.lua
-- args: see request.lua; besides: id, called ('1': this delivery may have called), fields (of the terminal event),
--   reason (of a dead letter to be written too, or empty), keep_ms; then ARGV after the replies' data: the entry's fields
--   accepted_only ('1': only what was submitted or admitted; a stranger's entry has no end to be written)
-- returns: {'refused'} | {'lost'} | {'duplicate'} | {'stranger'} (nothing written)

-- A copy of the entry among the dead letters.
local function bury()
  local letter = { 'reason', a.reason, 'entry', a.entry }
  for i = #a.replies + 2, #ARGV do
    letter[#letter + 1] = ARGV[i]
  end
  redis.call('XADD', DEAD, 'MINID', '~', digits(SERVER_NOW - tonumber(a.keep_ms)), '*', unpack(letter))
end

local answer = not_to_be_run()
if answer then
  return answer
end
local held = reservation()
if a.accepted_only == '1' and not rec.state and not held then
  return { 'stranger' }
end
if held and rec.token == a.token and a.called == '0' then
  charge(held, '0', a.model, cjson.decode(a.base))
elseif held then
  charge_lost_attempt()
end
local fields = { 'attempt', held and held.attempt or rec.attempt or '0' }
for _, value in ipairs(a.fields) do
  fields[#fields + 1] = value
end
finish('failed', fields)
if a.reason ~= '' then
  bury()
end
return { 'refused' }
