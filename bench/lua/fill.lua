-- The preload: every key once, in order, through the seed API, on all connections of wrk.
--
--   wrk -s fill.lua URL -- keys key_prefix end
--
-- With an `end`, a moment on the monotonic clock in seconds, each key gets the TTL that is left
-- until then. Says FILLED when all keys are stored; wrk is then to be interrupted (SIGINT).

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long seconds; long nanoseconds; } fill_time;
  int clock_gettime(int clock, fill_time *now);
]])

local MONOTONIC = 1
-- A connection sends its next request after the answer to its last. When so many more than the keys
-- were sent, every connection has been answered since the last key was.
local SPARE = 2000

local keys, prefix, ends, template, at = 0, "", nil, "", 0
local now = ffi.new("fill_time")

local function left()
  ffi.C.clock_gettime(MONOTONIC, now)
  return ends - tonumber(now.seconds) - tonumber(now.nanoseconds) / 1e9
end

local function body(number, ttl)
  local pair = ('{"key":"%s:%012d","value":"value:%026d"'):format(prefix, number, number)
  -- Blanks before a number are JSON, and make all bodies equally long.
  return pair .. (ends and (',"ttl":%12.3f}'):format(ttl) or "}")
end

function init(args)
  keys, prefix, ends = tonumber(args[1]), args[2], tonumber(args[3])
  local headers = { ["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json" }
  local sample = body(0, 1)
  template = wrk.format("POST", "/set", headers, sample):sub(1, -#sample - 1)
end

function request()
  local number = at % keys
  at = at + 1
  if at == keys + SPARE then
    io.stdout:write("FILLED\n")
    io.stdout:flush()
  end
  return template .. body(number, ends and left())
end

function done(summary)
  local e = summary.errors
  print(("FAILED %d"):format(e.connect + e.read + e.write + e.timeout + e.status))
end
