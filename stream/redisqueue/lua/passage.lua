-- Notes an alert of a passage, so that a later read of the passage finds it.
--
-- KEYS[1] alerts of the passage: their ids, each followed by a space
-- ARGV[1] id of the alert
-- ARGV[2] milliseconds that they are kept
--
-- Returns 1.
local ids = redis.call('GET', KEYS[1]) or ''
if not string.find(ids, ARGV[1] .. ' ', 1, true) then
  ids = ids .. ARGV[1] .. ' '
end
redis.call('SET', KEYS[1], ids, 'PX', ARGV[2])
return 1
