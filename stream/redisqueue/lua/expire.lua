-- Removes from a queue what its retention no longer allows.
--
-- KEYS[1] stream of the queue
-- KEYS[2] sorted set of members put before
-- ARGV[1] milliseconds that the stream keeps messages
-- ARGV[2] milliseconds that the set remembers members
--
-- Returns 1 when all is removed, 0 when it must be called again.
if trim(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then
  return 0
end
return 1
