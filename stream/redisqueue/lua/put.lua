-- Puts one message into a queue, once.
--
-- KEYS[1] stream of the queue
-- KEYS[2] sorted set: members of messages put before, by the time of their id
-- KEYS[3] fence of the queue
-- ARGV[1] member that stands for the message
-- ARGV[2] version of the lists behind the message; '' when no fence concerns it
-- ARGV[3] '' to take the next id; or the milliseconds at which a message that is
--         put back was first put
-- ARGV[4] milliseconds that the stream keeps messages
-- ARGV[5] milliseconds that the set remembers members
-- ARGV[6] … fields and values of the message
--
-- Returns {0, id} when it was put, {1} when it was there, {2, fence} when the
-- fence is above the version; in the last two cases nothing has changed.
--
-- Whether it was there is asked first: a call repeated after its answer was lost
-- must hear that its alert is in the queue, even if a fence has risen since.
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return {1}
end
if ARGV[2] ~= '' then
  local fence = redis.call('GET', KEYS[3])
  if fence and tonumber(ARGV[2]) < tonumber(fence) then
    return {2, fence}
  end
end

local args = {'XADD', KEYS[1], '*'}
for i = 6, #ARGV do
  args[#args + 1] = ARGV[i]
end
local id
if ARGV[3] ~= '' then
  -- As close to the first id as the order of the stream allows, so that it is
  -- kept no longer for having been put back.
  local at = ARGV[3] .. '-0'
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  if #last > 0 then
    local ms, seq = string.match(last[1][1], '^(%d+)-(%d+)$')
    if tonumber(ms) >= tonumber(ARGV[3]) then
      at = ms .. '-' .. string.format('%.0f', seq + 1)
    end
  end
  args[3] = at
  id = redis.pcall(unpack(args))
  if type(id) == 'table' then -- an entry above it was there and has been removed
    args[3] = '*'
    id = nil
  end
end
id = id or redis.call(unpack(args))
redis.call('ZADD', KEYS[2], string.match(id, '^%d+'), ARGV[1])
trim(KEYS[1], KEYS[2], ARGV[4], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return {0, id}
