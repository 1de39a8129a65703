-- Raises the fence of a queue.
--
-- KEYS[1] fence of the queue
-- ARGV[1] version below which the queue takes no alert
--
-- Returns the fence that now stands: a lower one than before changes nothing.
local old = redis.call('GET', KEYS[1])
if old and tonumber(old) >= tonumber(ARGV[1]) then
  return old
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
