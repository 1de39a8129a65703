-- Read before put.lua and expire.lua. Removes, a bounded number at a time, what
-- a queue may no longer keep or need no longer remember, and returns whether more
-- may be due. Time is that of the server, so that no process with a wrong clock can
-- empty a queue.
local function trim(stream, seen, keep, remember)
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local min = string.format('%.0f', math.max(0, now - keep))
  -- First whole nodes (100 entries each, unless the server is told otherwise):
  -- cheap, but up to a node too lenient. Once fewer are due than one call takes,
  -- the rest exactly: the law counts days, not nodes.
  local more = redis.call('XTRIM', stream, 'MINID', '~', min, 'LIMIT', 1000) >= 900
  if not more then
    redis.call('XTRIM', stream, 'MINID', '=', min)
  end
  local old = redis.call('ZRANGEBYSCORE', seen, '-inf', string.format('(%.0f', now - remember), 'LIMIT', 0, 100)
  if #old > 0 then
    redis.call('ZREM', seen, unpack(old))
  end
  return more or #old == 100
end

