-- Brings an alert up to a later read of its passage, once for each revision.
--
-- KEYS[1] state of the alert
-- ARGV[1] revision of the read, 1 or more
-- ARGV[2] 'hit' when the read hits the entry of the alert, else 'miss'
-- ARGV[3] the read: plate and country
-- ARGV[4] its syntax, a number, the better the greater
-- ARGV[5] its confidence in thousandths, 0 when not told
-- ARGV[6] by how much it may be less sure than the one before and be believed as much
-- ARGV[7] state from which the read moves the alert
-- ARGV[8] state to which
-- ARGV[9] the deed, JSON: of a miss that the camera reads another plate, of a hit that the
--         alert is amended
-- and for a hit
-- ARGV[10] the deed, JSON: that the camera reads again what hits
-- ARGV[11] digest of the evidence; '' when the read amends nothing
-- ARGV[12] the alert as this read makes it, JSON
--
-- Returns {0} for an alert that is not there; {1} when there is nothing to tell, since the
-- alert shows the same already or has seen a later read;
-- {2, queue, list, entry, step, state, deed, alert} when a step is made; {3, … the same} when
-- this revision has made it before. The state is that after the step.
--
-- Besides what a step keeps, the state has: rev, the last revision seen; reads, syntax and
-- conf of the read that the alert shows; digest, of its evidence; against, '1' while the last
-- read speaks against the alert.
local f = redis.call('HMGET', KEYS[1], 'state', 'queue', 'list', 'entry', 'step',
  'rev', 'reads', 'syntax', 'conf', 'digest', 'against', 'did:rev:' .. ARGV[1])
local state, queue, list, entry, step, rev, reads, syntax, conf, digest, against, did = unpack(f)
if not state then
  return {0}
end
if did then
  local how = redis.call('HMGET', KEYS[1], 'to:' .. did, 'deed:' .. did, 'alert')
  return {3, queue, list, entry, did, how[1], how[2], how[3]}
end
if rev and tonumber(rev) >= tonumber(ARGV[1]) then
  return {1}
end
redis.call('HSET', KEYS[1], 'rev', ARGV[1])

local hit, told = ARGV[2] == 'hit', against == '1'
conf = tonumber(conf or 0)
local sure = tonumber(ARGV[5])
local overrules = tonumber(ARGV[4]) >= tonumber(syntax or 0) and
  (sure == 0 or conf == 0 or sure + tonumber(ARGV[6]) >= conf)
local moves = state == ARGV[7] and (hit or overrules)
local deed = ARGV[9]
if not hit then
  if reads == ARGV[3] or (told and not moves) then
    return {1}
  end
  redis.call('HSET', KEYS[1], 'against', '1')
else
  if told then
    deed = ARGV[10]
  elseif ARGV[11] == '' or digest == ARGV[11] or (reads and reads ~= ARGV[3] and not overrules) then
    return {1}
  end
  redis.call('HSET', KEYS[1], 'against', '', 'reads', ARGV[3], 'syntax', ARGV[4], 'conf', ARGV[5],
    'digest', ARGV[11], 'alert', ARGV[12])
end
local to = state
if moves then
  to = ARGV[8]
end
step = string.format('%.0f', step + 1)
redis.call('HSET', KEYS[1], 'state', to, 'step', step,
  'did:rev:' .. ARGV[1], step, 'to:' .. step, to, 'deed:' .. step, deed)
return {2, queue, list, entry, step, to, deed, redis.call('HMGET', KEYS[1], 'alert')[1]}
