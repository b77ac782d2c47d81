-- wrk's load for the soak: sets with and without an end, reads and deletes, of 90 000 keys.
local value = string.rep("x", 16384)
local hosts = { ["Content-Type"] = "text/plain" }

function init(args)
  math.randomseed(os.time() + tonumber(tostring({}):sub(8), 16) % 100000)
end

function request()
  local key = "/v1/keys/soak-" .. math.random(90000)
  local kind = math.random(100)
  if kind <= 45 then
    return wrk.format("GET", key)
  elseif kind <= 53 then
    return wrk.format("DELETE", key)
  end
  local size = kind <= 90 and math.random(400) or math.random(16384)
  local ttl = kind <= 75 and ("?ttl=" .. math.random(5)) or ""
  return wrk.format("PUT", key .. ttl, hosts, value:sub(1, size))
end
