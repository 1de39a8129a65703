-- Puts back one step of an alert, as the hits topic tells it.
--
-- KEYS[1] state of the alert
-- ARGV[1] number of the step, 2 or more
-- ARGV[2] state after it
-- ARGV[3] verb that led there; for a later read of the passage 'rev:' and its revision
-- ARGV[4] actor
-- ARGV[5] 'owner' or 'anyone', see step.lua; 'nobody' for a read
-- ARGV[6] the deed, JSON
-- ARGV[7] … fields and values of what its passage has shown, see revise.lua
--
-- Returns {0} when the alert is not there, {1, list, entry} when the step is put
-- back, {2, list, entry} when the alert is that far or further. A gap in the steps is
-- no obstacle: what came later is true.
local state, owner, list, entry, step = unpack(redis.call('HMGET', KEYS[1], 'state', 'owner', 'list', 'entry', 'step'))
if not state then
  return {0}
end
if tonumber(step) >= tonumber(ARGV[1]) then
  return {2, list, entry}
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'step', ARGV[1],
  'did:' .. ARGV[3], ARGV[1], 'to:' .. ARGV[1], ARGV[2], 'deed:' .. ARGV[1], ARGV[6], unpack(ARGV, 7))
if ARGV[5] == 'anyone' or (ARGV[5] == 'owner' and not owner) then
  redis.call('HSET', KEYS[1], 'owner', ARGV[4])
end
return {1, list, entry}
