-- Creates the state of an alert that is in its queue, unless there is one.
--
-- KEYS[1] state of the alert
-- ARGV[1] milliseconds that the state is kept
-- ARGV[2] state of a new alert
-- ARGV[3] queue
-- ARGV[4] list
-- ARGV[5] entry
-- ARGV[6] the alert, JSON
-- ARGV[7] … fields and values of what its passage has shown, see revise.lua
--
-- Returns 1 when it was created, 0 when it was there.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'step', '1',
  'queue', ARGV[3], 'list', ARGV[4], 'entry', ARGV[5], 'alert', ARGV[6], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
