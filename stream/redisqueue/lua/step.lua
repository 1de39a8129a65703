-- Makes one step in the life of an alert, once.
--
-- KEYS[1] state of the alert
-- ARGV[1] verb
-- ARGV[2] actor
-- ARGV[3] 'owner' when only the one who took the alert may do it; 'anyone' when
--         anybody may, who then is the owner
-- ARGV[4] the deed: who, when and why, JSON
-- ARGV[5] number of queues that the actor may see
-- ARGV[6] … these queues, then the permitted transitions of the verb: from, to, …
--
-- Returns {0} for an alert that is not there or in none of these queues;
-- {1, state, owner, queue, list, entry, step, to, deed} when the step is made;
-- {2, … the same} when the verb was done before: step, to and deed tell how;
-- {3, state, owner} when the verb may not follow now, or not by this actor.
-- state and owner are those before the step.
local s = redis.call('HMGET', KEYS[1], 'state', 'owner', 'queue', 'list', 'entry', 'step', 'did:' .. ARGV[1])
local state, owner, queue, list, entry, step, did = unpack(s)
if not state then
  return {0}
end
owner = owner or ''

local n = tonumber(ARGV[5])
local seen = false
for i = 6, 5 + n do
  seen = seen or ARGV[i] == queue
end
if not seen then
  return {0}
end

if did then
  local how = redis.call('HMGET', KEYS[1], 'to:' .. did, 'deed:' .. did)
  return {2, state, owner, queue, list, entry, did, how[1], how[2]}
end

local to
for i = 6 + n, #ARGV, 2 do
  if ARGV[i] == state then
    to = ARGV[i + 1]
  end
end
if not to or (ARGV[3] == 'owner' and owner ~= ARGV[2]) then
  return {3, state, owner}
end

step = string.format('%.0f', step + 1)
redis.call('HSET', KEYS[1], 'state', to, 'step', step,
  'did:' .. ARGV[1], step, 'to:' .. step, to, 'deed:' .. step, ARGV[4])
if ARGV[3] == 'anyone' then
  redis.call('HSET', KEYS[1], 'owner', ARGV[2])
end
return {1, state, owner, queue, list, entry, step, to, ARGV[4]}
