-- New keys, each once, scattered over the order of keys, through the seed API.
--
--   wrk -s insert.lua URL -- key_prefix
--
-- Says how many requests were answered, and how many of them failed.

-- A prime, and a number that is prime to it: every step is a key that was not there before.
local MODULUS, STEP = 999999000001, 386266131

local prefix, template, at = "", "", 0

local function body(number)
  return ('{"key":"%s:%012d","value":"value:%026d"}'):format(prefix, number, number)
end

function init(args)
  prefix = args[1]
  local headers = { ["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json" }
  local sample = body(0)
  template = wrk.format("POST", "/set", headers, sample):sub(1, -#sample - 1)
end

function request()
  at = (at + STEP) % MODULUS
  return template .. body(at)
end

function done(summary)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.timeout + e.status
  print(("INSERTED %d FAILED %d"):format(summary.requests, failed))
end
