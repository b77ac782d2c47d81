-- The load: requests over random keys, made before the clock starts, then sent in turn.
--
--   wrk -s load.lua URL -- keys requests read_percent  method path type body  method path type body
--
-- The first four of the eight describe a read, the others a write; `$k` stands for a key of
-- 16 bytes and `$v` for a value of 32. The seed is fixed: all servers get the same sequence.

local requests, size, at = {}, 0, 0
local worker

local function fill(template, key, value)
  return (template:gsub("%$k", key):gsub("%$v", value))
end

local function make(method, path, media_type, body, keys)
  local number = math.random(0, keys - 1)
  local key, value = ("key:%012d"):format(number), ("value:%026d"):format(number)
  local headers = { ["Host"] = wrk.headers["Host"] }
  if body ~= "" then
    headers["Content-Type"] = media_type
  end
  return wrk.format(method, fill(path, key, value), headers, body ~= "" and fill(body, key, value) or nil)
end

function setup(thread)
  worker = thread
end

function init(args)
  local keys, reads = tonumber(args[1]), tonumber(args[3])
  size = tonumber(args[2])
  math.randomseed(20)
  for i = 1, size do
    local from = math.random(100) <= reads and 4 or 8
    requests[i] = make(args[from], args[from + 1], args[from + 2], args[from + 3], keys)
  end
  collectgarbage()
  ready = os.clock()
end

function request()
  at = at % size + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  print(("RESULT %d %d %d %d %d %.6f"):format(
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout + e.status, os.clock() - worker:get("ready")))
end
