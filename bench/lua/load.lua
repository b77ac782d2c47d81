-- The load: requests over random keys, made before the clock starts, then sent in turn.
--
--   wrk -s load.lua URL -- keys requests read_percent  method path type body fields  (and again)
--
-- The first five describe a read, the others a write; `$k` stands for a key of 16 bytes, `$v` for a
-- value of 32, `$b(N)` for N bytes, `$n` for the request's number, and `$c` for one of 2,000
-- clients. `fields` are header lines, separated by `|`. The seed is fixed: all servers get the same
-- sequence.

local requests, size, at = {}, 0, 0
local worker

local function bytes(count)
  return ("x"):rep(tonumber(count))
end

local function fill(template, key, value)
  return (template:gsub("%$k", key):gsub("%$v", value):gsub("%$b(%b())", function(count)
    return bytes(count:sub(2, -2))
  end))
end

local function add_fields(headers, fields, index)
  for name, content in fields:gmatch("([^:|]+): ([^|]*)") do
    headers[name] = content:gsub("%$n", ("%032d"):format(index)):gsub("%$c", ("%040d"):format(index % 2000))
  end
end

local function make(index, method, path, media_type, body, fields, keys)
  local number = math.random(0, keys - 1)
  local key, value = ("key:%012d"):format(number), ("value:%026d"):format(number)
  local headers = { ["Host"] = wrk.headers["Host"] }
  if body ~= "" then
    headers["Content-Type"] = media_type
  end
  add_fields(headers, fields, index)
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
    local from = math.random(100) <= reads and 4 or 9
    requests[i] = make(i, args[from], args[from + 1], args[from + 2], args[from + 3], args[from + 4], keys)
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
