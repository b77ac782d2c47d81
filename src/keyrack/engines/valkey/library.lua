-- What Keyrack does inside Valkey: every change of a shard is one call of a function here, and so
-- atomic. `library.py` puts a first line before this text and replaces @ in it by a hash.
--
-- A shard's keys have a name in common up to one letter, and a slot through the tag in it:
--   s          state: last revision, number of events, revision up to which events are gone,
--              number of the shard, number of shards; in a cluster also how many of i, e, x, y, z, v,
--              r, f, o there are
--   k..KEY     a user's record (engines/record.py), with an expiry of Valkey's own
--   l..NAME    a lock's record; likewise
--   a..NAME    a remembered outcome; likewise
--   i          sorted set of all keys, score 0: the order of lists
--   x, y       sorted sets of the keys and locks that end, scored with their end (ms)
--   z          in a cluster: the same for remembered outcomes
--   v          sorted set of the keys of which there is only a stale copy, scored with its end; they
--              are in none of i and x
--   q..NUMBER..KEY  a record in the trash: NUMBER is its undo's, 8 bytes; it ends as the undo does, or
--              as the key would have
--   r          sorted set of NUMBER..KEY of what is in the trash, and of NUMBER of the undos, scored
--              with the end
--   j..NUMBER  sorted set of the keys that an undo has in the trash, score 0
--   f          hash of the undos: NUMBER to what is known of it
--   o          sorted set of NUMBER of the undos, scored with the number
--   e          stream of events: one entry for each call, its id the revision of its last event
--   w          who sweeps
--   n          not a key: the channel on which changes are told
-- All functions get the name of `s` as their key: the others follow from it and share its slot. In
-- a cluster they get a second one, explained below. Their first arguments are the clock (ms; empty: the server's), the number of the shard, and
-- the number of shards.
--
-- Revisions: a hybrid logical clock. The next one is the last one of the shard plus the number of
-- shards, or the server's clock in microseconds if that is more, rounded so that its remainder is
-- the number of the shard. So one number orders all shards, no two shards give the same one, and a
-- server that lost its last writes gives none of them again. A process sends along what it has seen
-- of other shards, so that what it does later has a greater revision wherever that is done.
--
-- A key's time is over in the millisecond of its end. Valkey's own expiry is set a millisecond
-- earlier, as it still serves a key in the millisecond that it names. Such a record is gone at once,
-- and its entry in x or y is there until somebody writes its event: a sweep, or the next change.

-- In a cluster a slot can move to another server key by key. Meanwhile each server has a part of the
-- shard, and the rest would look as if it did not exist. Nothing is done then, and this is how it is
-- noticed. As long as the servers know that the slot is on the move, they refuse a call that names
-- several keys of which they lack one, with TRYAGAIN, or send it on to the other server, which
-- lacks one as well. So each call names a second key that is never there. Servers do not always
-- know: a replica that takes over may not have heard of it, and tools that repair an interrupted
-- move close the slot before they bring the keys. So each part says which others must be there: `s`
-- how many of the indexes, and the indexes which records. Where one is missing, the call ends with
-- KEYRACKMOVING, or the write is refused. Whoever called asks the other servers then. If none has
-- anything of the slot, the part is lost or was never there: the call is made again, with + in place
-- of - in the second key, and what is missing counts as gone. So it does where servers evict keys.

local SET, DELETE, EXPIRE, LOCK, UNLOCK = 1, 2, 3, 5, 6
local SETS = {k = SET, l = LOCK}
local DELETES = {k = DELETE, l = UNLOCK}
local EXPIRES = {k = EXPIRE, l = UNLOCK}
local ENDS = {k = 'x', l = 'y'}
local NEVER_ENDS = '9000000000000000' -- ms, later than any end
local NAMED = {k = 'i', l = 'y', a = 'z', t = 'u'} -- where a record is named besides, in a cluster
local STATE = '>I8I8I8I2I2'
local STATE_SIZE = 28
local KEEP = '-1' -- in place of a TTL: the end that the key has
local MOST_STEPS = 5000
local STALE, COPY = 253, 252 -- tags of records that keep a stale copy, and of such copies
local STALE_HEAD = 33 -- bytes of such a record in front of the tag that it would have otherwise
local CACHED = 123 -- tag of a record that caches may keep, without its end
local CACHE = 10 -- bytes of such a record in front of the tag that it would have otherwise
local HEAD = 25 -- bytes that say when a record ends, and its stale copy
local RUN = 43 -- what the head of a run begins with: a plus sign
local LEASE = '\255' -- what the names of locks begin with that are leases of keys
local BYTES = {} -- all strings of one byte, by their value
local HEADS = {} -- heads of events, by change and size of the key: few, and made for each write

-- While a library is loaded nothing is there but `register_function`: the rest is bound later.
local call, byte, char, sub, format, floor, pack, unpack_struct

local function bind()
  call = redis.call
  byte, char, sub, format = string.byte, string.char, string.sub, string.format
  floor, pack, unpack_struct = math.floor, struct.pack, struct.unpack
  for value = 0, 255 do BYTES[value] = char(value) end
end

-- The shard

local function aligned(shard, microseconds)
  return microseconds - microseconds % shard.step + shard.number
end

local function parts_of(shard)
  local base = shard.base
  return call('EXISTS', base .. 'i', base .. 'e', base .. 'x', base .. 'y', base .. 'z', base .. 'v',
    base .. 'r', base .. 'f', base .. 'o')
end

local function make_sure_of_all_parts(shard, state)
  if state and #state > STATE_SIZE then
    shard.parts = byte(state, STATE_SIZE + 1)
    if parts_of(shard) ~= shard.parts then
      error({err = 'KEYRACKMOVING a part of the shard is not here'})
    end
  elseif not state then
    error({err = 'KEYRACKMOVING nothing of the shard is here'})
  end
end

local function open(keys, args)
  if not call then bind() end
  local shard = {
    base = sub(keys[1], 1, -2),
    number = tonumber(args[2]),
    step = tonumber(args[3]),
    spread = keys[2] ~= nil, -- over the servers of a cluster
    wary = keys[2] ~= nil and sub(keys[2], -1) == '-', -- of parts that may be elsewhere
    physical = 0,
    native = args[1] == '',
    changes = {}, -- of each event head and key
    count = 0,
    ending = {}
  }
  local state = call('GET', keys[1])
  shard.records, shard.index = shard.base .. 'k', shard.base .. 'i'
  if shard.wary then make_sure_of_all_parts(shard, state) end
  local time = (shard.native or not state) and call('TIME')
  local microseconds = time and time[1] * 1000000 + time[2]
  if shard.native then
    shard.now = floor(microseconds / 1000)
    shard.physical = aligned(shard, microseconds)
  else
    shard.now = tonumber(args[1])
  end
  if state then
    local number, step
    shard.last, shard.events, shard.gone, number, step = unpack_struct(STATE, state)
    if number ~= shard.number or step ~= shard.step then
      error({err = format('KEYRACKSHARDS %d', step)})
    end
  else
    shard.last, shard.events, shard.gone = aligned(shard, microseconds), 0, aligned(shard, microseconds)
    shard.fresh = true
  end
  return shard
end

-- Whatever is noted from now on has a revision above this one.
local function go_above(shard, revision)
  local least = aligned(shard, revision) + shard.step
  if shard.step > 1 and least > shard.physical then shard.physical = least end
end

local function save(shard)
  local state = pack(STATE, shard.last, shard.events, shard.gone, shard.number, shard.step)
  if shard.spread then state = state .. char(parts_of(shard)) end
  call('SET', shard.base .. 's', state)
end

local function note(shard, change, key)
  local revision = shard.last + shard.step
  if revision < shard.physical then revision = shard.physical end
  shard.last = revision
  local count, size = shard.count, #key
  local mark = change * 65536 + size
  local head = HEADS[mark]
  if not head then
    head = char(change, floor(size / 256), size % 256)
    HEADS[mark] = head
  end
  shard.changes[2 * count + 1], shard.changes[2 * count + 2] = head, key
  shard.count = count + 1
  return revision
end

-- Take notes back, all but the first so many.
local function forget(shard, count, last)
  shard.count, shard.last = count, last
end

local function finish(shard)
  local count = shard.count
  if count > 0 then
    local id = format('%.0f', shard.last)
    call('XADD', shard.base .. 'e', id .. '-0', 'e',
      pack('>I8I4', shard.now, count) .. table.concat(shard.changes, '', 1, 2 * count))
    shard.events = shard.events + count
    call('SPUBLISH', shard.base .. 'n', id)
  end
  if count > 0 or shard.fresh or (shard.spread and parts_of(shard) ~= shard.parts) then
    save(shard)
  end
end

-- Records

local function end_of(head)
  if byte(head, 9) < 128 then return 0 end
  return (unpack_struct('>I8', head, 10))
end

-- Whether any record of a kind ends: most stores have no TTL at all, and are spared the look-ups.
local function any_ends(shard, kind)
  local known = shard.ending[kind]
  if known == nil then
    known = ENDS[kind] ~= nil and call('EXISTS', shard.base .. ENDS[kind]) == 1
    shard.ending[kind] = known
  end
  return known
end

-- Whether there is any stale copy: most stores have none.
local function any_copies(shard)
  if shard.copies == nil then shard.copies = call('EXISTS', shard.base .. 'v') == 1 end
  return shard.copies
end

local function is_copy(head)
  return byte(head, 9) == COPY
end

-- When the stale copy of a record goes, 0 where none is kept; and when the record was stored.
local function stale_until(head)
  local tag = byte(head, 9)
  if tag ~= STALE and tag ~= COPY then return 0 end
  return (unpack_struct('>I8', head, 18))
end

local function stored_at(raw)
  if stale_until(raw) == 0 then return 0 end
  return (unpack_struct('>I8', raw, 26))
end

-- Whether a record that is not here must be somewhere.
local function is_elsewhere(shard, kind, key)
  if not shard.wary then return false end
  if kind == 'k' and any_copies(shard) then
    local copy = call('ZSCORE', shard.base .. 'v', key)
    if copy and tonumber(copy) > shard.now then return true end
  end
  local score = call('ZSCORE', shard.base .. NAMED[kind], key)
  if not score or kind == 'k' then return score ~= false end
  return tonumber(score) > shard.now
end

-- The beginning of a record that counts (nil: there is none), whether one was there that ended ('copy':
-- and is a stale copy by now), and whether there must be one that is not here.
local function look(shard, kind, key)
  local draft = shard.drafts and shard.order[1] and shard.drafts[kind .. key]
  if draft then return draft.raw and sub(draft.raw, 1, HEAD) or nil, false end
  local head = call('GETRANGE', shard.base .. kind .. key, 0, HEAD - 1)
  if head == '' then
    local ends = any_ends(shard, kind) and call('ZSCORE', shard.base .. ENDS[kind], key)
    if ends and (not shard.wary or tonumber(ends) <= shard.now) then return nil, true end
    return nil, false, is_elsewhere(shard, kind, key)
  end
  local ends = end_of(head)
  if ends > 0 and ends <= shard.now then return nil, is_copy(head) and 'copy' or true end
  return head, false
end

local function whole(shard, kind, key)
  local draft = shard.drafts and shard.drafts[kind .. key]
  if draft then return draft.raw end
  return call('GET', shard.base .. kind .. key)
end

-- `stale` is when its stale copy goes, 0 where none is kept; `stored` is asked for only then.
local function compose(revision, ends, rest, stale, stored)
  if stale and stale > 0 then
    return pack('>I8BI8I8I8', revision, STALE, ends, stale, stored) .. rest
  end
  if ends == 0 then return pack('>I8', revision) .. rest end
  return pack('>I8BI8', revision, byte(rest, 1) + 128, ends) .. sub(rest, 2)
end

local function draft_of(shard, kind, key, raw, ends, stale)
  local name = kind .. key
  if not shard.drafts[name] then shard.order[#shard.order + 1] = name end
  shard.drafts[name] = {raw = raw, ends = ends, stale = stale}
end

local function put(shard, kind, key, raw, ends, existed, stale)
  if shard.drafts then return draft_of(shard, kind, key, raw, ends, stale) end
  if ends > 0 then
    if shard.native then
      call('SET', shard.base .. kind .. key, raw, 'PXAT', math.max(ends, stale or 0) - 1)
    else
      call('SET', shard.base .. kind .. key, raw)
    end
    if ENDS[kind] then
      call('ZADD', shard.base .. ENDS[kind], ends, key)
      shard.ending[kind] = true
    end
  else
    call('SET', shard.base .. kind .. key, raw)
    if any_ends(shard, kind) then call('ZREM', shard.base .. ENDS[kind], key) end
  end
  if kind == 'k' and not existed then
    call('ZADD', shard.base .. 'i', '0', key)
    if any_copies(shard) then call('ZREM', shard.base .. 'v', key) end
  end
  if kind == 't' and not existed then call('ZADD', shard.base .. 'u', NEVER_ENDS, key) end
end

local function drop(shard, kind, key)
  if shard.drafts then return draft_of(shard, kind, key, nil, 0) end
  call('UNLINK', shard.base .. kind .. key)
  if kind == 'k' then
    call('ZREM', shard.base .. 'i', key)
    if any_copies(shard) then call('ZREM', shard.base .. 'v', key) end
  end
  if kind == 't' then call('ZREM', shard.base .. 'u', key) end
  if any_ends(shard, kind) then call('ZREM', shard.base .. ENDS[kind], key) end
end

-- Conditions: twice (match, none-match) `-` for not given, `*` for any, or `=`, a count of 2 bytes
-- and so many revisions of 8 bytes. `<` and the greatest revision may be in front of them.

local function names(condition, at, revision)
  local mark = byte(condition, at)
  if mark == 42 then return revision ~= nil, at + 1 end
  local count = unpack_struct('>I2', condition, at + 1)
  local found = false
  for i = 0, count - 1 do
    if sub(condition, at + 3 + 8 * i, at + 10 + 8 * i) == revision then found = true end
  end
  return found, at + 3 + 8 * count
end

local function holds(shard, condition, head)
  local revision = head and sub(head, 1, 8)
  if head and shard.drafts and unpack_struct('>I8', head) > shard.before then
    revision = '' -- set in this write: there is no revision yet that anybody could have named
  end
  if byte(condition, 1) == 60 then
    if head and revision ~= '' and unpack_struct('>I8', head) > (unpack_struct('>I8', condition, 2)) then
      return false
    end
    condition = sub(condition, 10)
  end
  local at, found = 2, nil
  if byte(condition, 1) ~= 45 then
    found, at = names(condition, 1, revision or nil)
    if not found then return false end
  end
  if byte(condition, at) == 45 then return true end
  found = names(condition, at, revision or nil)
  return not found
end

-- Numbers of 64 bits, as two parts with ten digits in the lower: Lua's own have 53.

local TEN = 10000000000

local function parts_of(text)
  local negative = byte(text, 1) == 45
  local digits = negative and sub(text, 2) or text
  local high, low = tonumber(sub(digits, 1, -11)) or 0, tonumber(sub(digits, -10))
  if negative then return -high, -low end
  return high, low
end

local function number_fits(high, low)
  local least_low = (high < 0 or low < 0) and 6854775808 or 6854775807
  local size = math.abs(high)
  return size < 922337203 or (size == 922337203 and math.abs(low) <= least_low)
end

local function is_number(text)
  if not string.find(text, '^%-?%d+$') or #text > 20 then return false end
  if string.find(text, '^%-?0%d') or text == '-0' then return false end
  return number_fits(parts_of(text))
end

local function sum(one, other)
  local high, low = parts_of(one)
  local high_too, low_too = parts_of(other)
  high, low = high + high_too, low + low_too
  if low >= TEN then high, low = high + 1, low - TEN end
  if low <= -TEN then high, low = high - 1, low + TEN end
  if high > 0 and low < 0 then high, low = high - 1, low + TEN end
  if high < 0 and low > 0 then high, low = high + 1, low - TEN end
  if not number_fits(high, low) then return nil end
  if high == 0 then return format('%.0f', low) end
  return format('%.0f%010.0f', high, math.abs(low))
end

-- Operations. Each returns a result, or nil and why it is refused. A result is twice the revision,
-- plus one where the key existed; {record} of a get; {result, number} of an add.

local function end_after(shard, ttl)
  return ttl > 0 and shard.now + ttl or 0
end

local function set_it(shard, kind, key, ends, rest, head, ended, stale)
  local revision = 0
  if SETS[kind] then
    if ended == true then note(shard, EXPIRES[kind], key) end
    revision = note(shard, SETS[kind], key)
  end
  put(shard, kind, key, compose(revision, ends, rest, stale, shard.now), ends, head ~= nil, stale)
  return revision * 2 + (head and 1 or 0)
end

-- What follows the end in a record: tag without the mark of a TTL, type, value.
local function rest_of(raw)
  local tag = byte(raw, 9)
  if tag < 128 then return sub(raw, 9) end
  if tag == STALE or tag == COPY then return sub(raw, STALE_HEAD + 1) end
  return char(tag - 128) .. sub(raw, 18)
end

-- When the stale copy goes of a record that ends at `ends` from now on.
local function stale_after(ends, stale_ms)
  return ends > 0 and stale_ms > 0 and ends + stale_ms or 0
end

local function stale_ms_of(head)
  local stale = stale_until(head)
  return stale > 0 and stale - end_of(head) or 0
end

-- Whoever recomputes a key has begun before it is deleted.
local function end_lease(shard, key)
  if not any_ends(shard, 'l') then return end
  local name = LEASE .. key
  if look(shard, 'l', name) then
    drop(shard, 'l', name)
    note(shard, UNLOCK, name)
  end
end

-- The trash. An undo is 6 numbers of 8 bytes (since, until, deleted, restored, ended, gone), and what
-- was given with it. Names that are in `r` and not there have ended, or were moved to another server.

local UNDO = '>I8I8I8I8I8I8'
local UNDO_SIZE = 48

local function undo_of(shard, name)
  local raw = call('HGET', shard.base .. 'f', name)
  if not raw then return nil end
  local undo = {name = name, about = sub(raw, UNDO_SIZE + 1)}
  undo.since, undo.till, undo.deleted, undo.restored, undo.ended, undo.gone = unpack_struct(UNDO, raw)
  return undo
end

local function put_undo(shard, undo)
  local counts = pack(UNDO, undo.since, undo.till, undo.deleted, undo.restored, undo.ended, undo.gone)
  call('HSET', shard.base .. 'f', undo.name, counts .. undo.about)
end

local function begin_undo(shard, number, name, till, about)
  call('ZADD', shard.base .. 'o', format('%.0f', number), name)
  call('ZADD', shard.base .. 'r', till, name)
  return {name = name, about = about, since = shard.now, till = till,
    deleted = 0, restored = 0, ended = 0, gone = 0}
end

local function count_undo(shard, name, what)
  local undo = undo_of(shard, name)
  if not undo then return end
  undo[what] = undo[what] + 1
  put_undo(shard, undo)
end

-- Put a record into the trash: `raw` is its bytes, nil where it is still in its key's place.
local function keep(shard, kept)
  local undo = undo_of(shard, kept.name)
  if not undo then undo = begin_undo(shard, kept.number, kept.name, kept.till, kept.about) end
  undo.deleted = undo.deleted + 1
  -- Of a key that is deleted twice the later record is kept.
  if call('ZSCORE', shard.base .. 'r', kept.name .. kept.key) then undo.gone = undo.gone + 1 end
  put_undo(shard, undo)
  local ends = kept.ends > 0 and math.min(kept.ends, undo.till) or undo.till
  local trash = shard.base .. 'q' .. kept.name .. kept.key
  if kept.raw then
    call('SET', trash, kept.raw)
  else
    call('RENAME', shard.records .. kept.key, trash)
  end
  if shard.native then call('PEXPIREAT', trash, ends - 1) end
  call('ZADD', shard.base .. 'r', ends, kept.name .. kept.key)
  call('ZADD', shard.base .. 'j' .. kept.name, 0, kept.key)
  return undo.till
end

local function out_of_trash(shard, name, key)
  call('UNLINK', shard.base .. 'q' .. name .. key)
  call('ZREM', shard.base .. 'r', name .. key)
  call('ZREM', shard.base .. 'j' .. name, key)
end

-- At its end an undo has nothing left in the trash that would not have ended, too.
local function end_undo(shard, name)
  call('ZREM', shard.base .. 'r', name)
  call('ZREM', shard.base .. 'o', name)
  call('HDEL', shard.base .. 'f', name)
end

-- What came of one record of the trash: its time is over, or its room was needed.
local function drop_trash(shard, member, score, what)
  if #member == 8 then return end_undo(shard, member) end
  local name, key = sub(member, 1, 8), sub(member, 9)
  out_of_trash(shard, name, key)
  local undo = undo_of(shard, name)
  if undo and not (what == 'ended' and score >= undo.till) then
    undo[what] = undo[what] + 1
    put_undo(shard, undo)
  end
end

-- Arguments of a discard: when the undo ends, its number (0: a new one), what to keep with it, and
-- whether to keep anything at all. A result is {twice the revision, plus one; when the undo ends}.
local function discard_it(shard, key, head, args, at)
  local till, number, about, keeps = tonumber(args[at]), tonumber(args[at + 1]), args[at + 2], args[at + 3]
  local ends = end_of(head)
  local raw = shard.drafts and whole(shard, 'k', key) or nil
  local revision, joins = note(shard, DELETE, key), number > 0 or shard.undo
  if number == 0 then number = shard.undo or revision end
  shard.undo = number
  local name = pack('>I8', number)
  local kept = {key = key, number = number, name = name, till = till, about = about, ends = ends, raw = raw}
  if keeps ~= '1' or till <= shard.now then
    local undo = undo_of(shard, name)
    if not undo and joins and till > shard.now then undo = begin_undo(shard, number, name, till, about) end
    if undo then
      undo.deleted, undo.gone = undo.deleted + 1, undo.gone + 1
      put_undo(shard, undo)
    end
    drop(shard, 'k', key)
    return {revision * 2 + 1, '0'}
  end
  if shard.drafts then
    shard.kept[#shard.kept + 1] = kept
    local undo = undo_of(shard, name)
    till = undo and undo.till or till
  else
    till = keep(shard, kept)
  end
  drop(shard, 'k', key)
  return {revision * 2 + 1, format('%.0f', till)}
end

local OPERATIONS = {
  s = function(shard, kind, key, head, ended, args, at)
    local ttl, ends, stale = args[at], 0, 0
    if ttl ~= KEEP then
      ends = end_after(shard, tonumber(ttl))
    elseif head then
      ends, stale = end_of(head), stale_until(head)
    end
    return set_it(shard, kind, key, ends, args[at + 1], head, ended, stale)
  end,
  S = function(shard, kind, key, head, ended, args, at)
    local ends = end_after(shard, tonumber(args[at]))
    local stale = stale_after(ends, tonumber(args[at + 1]))
    return set_it(shard, kind, key, ends, args[at + 2], head, ended, stale)
  end,
  d = function(shard, kind, key, head, ended)
    if kind == 'k' then end_lease(shard, key) end
    if ended then
      drop(shard, kind, key)
      if ended == true and EXPIRES[kind] then note(shard, EXPIRES[kind], key) end
      return 0
    end
    if not head then return 0 end
    drop(shard, kind, key)
    return DELETES[kind] and note(shard, DELETES[kind], key) * 2 + 1 or 1
  end,
  D = function(shard, kind, key, head, ended, args, at)
    end_lease(shard, key)
    if ended then
      drop(shard, kind, key)
      if ended == true then note(shard, EXPIRE, key) end
      return 0
    end
    if not head then return 0 end
    return discard_it(shard, key, head, args, at)
  end,
  U = function(shard, kind, key, head, ended, args, at)
    local name = pack('>I8', tonumber(args[at]))
    local ends = call('ZSCORE', shard.base .. 'r', name .. key)
    if not ends or tonumber(ends) <= shard.now then return 0 end -- counted when it is swept
    if head then return 1 end
    local raw = call('GET', shard.base .. 'q' .. name .. key)
    if not raw then
      if shard.wary then return nil, 'moving' end
      drop_trash(shard, name .. key, tonumber(ends), 'gone')
      return 0
    end
    if ended == true then note(shard, EXPIRE, key) end
    out_of_trash(shard, name, key)
    count_undo(shard, name, 'restored')
    local revision, till, stale = note(shard, SET, key), end_of(raw), stale_until(raw)
    put(shard, kind, key, compose(revision, till, rest_of(raw), stale, stored_at(raw)), till, false, stale)
    return revision * 2
  end,
  g = function(shard, kind, key, head)
    return {head and whole(shard, kind, key) or false}
  end,
  a = function(shard, kind, key, head, ended, args, at)
    local before, tag_and_type, ttl = args[at + 1], '\0', tonumber(args[at + 2])
    local new_ttl = tonumber(args[at + 3])
    local ends, stale = end_after(shard, (not head and new_ttl > 0) and new_ttl or ttl), 0
    if head then
      local raw = whole(shard, kind, key)
      local rest = rest_of(raw)
      local tag = byte(rest, 1) == CACHED and CACHE + 1 or 1
      local begins = byte(rest, tag) == 127 and tag + 2 + byte(rest, tag + 1) or tag + 1
      tag_and_type, before = sub(rest, 1, begins - 1), sub(rest, begins)
      if not is_number(before) then return nil, 'number' end
      if ttl == 0 then ends = end_of(head) end
      stale = stale_after(ends, stale_ms_of(raw))
    end
    local number = sum(before, args[at])
    if not number then return nil, 'overflow' end
    return {set_it(shard, kind, key, ends, tag_and_type .. number, head, ended, stale), number}
  end,
  t = function(shard, kind, key, head, _, args, at)
    if not head then return nil, 'missing' end
    local raw, ttl = whole(shard, kind, key), tonumber(args[at])
    local revision = unpack_struct('>I8', raw)
    local ends, stale_ms = end_after(shard, ttl), tonumber(args[at + 1])
    if stale_ms < 0 then stale_ms = stale_ms_of(raw) end
    local stale = stale_after(ends, stale_ms)
    put(shard, kind, key, compose(revision, ends, rest_of(raw), stale, stored_at(raw)), ends, true, stale)
    return revision * 2 + 1
  end,
  c = function(_, _, _, head) return head and 1 or 0 end
}
-- How many arguments each takes. `arguments.py` has their names, and a test that both agree.
local ARGUMENTS = {
  s = 4, -- what, key, ttl, rest
  d = 2, -- what, key
  g = 2, -- what, key
  D = 6, -- what, key, until, undo, about, keep
  U = 3, -- what, key, undo
  S = 5, -- what, key, ttl, stale, rest
  a = 6, -- what, key, delta, initial, ttl, new_ttl
  t = 4, -- what, key, ttl, stale
  c = 2, -- what, key
  r = 4, -- what, name, fingerprint, ttl
}

-- A read without condition: nearly every operation of a batch that reads.
local function get_plainly(shard, key)
  if shard.drafts and shard.order[1] and shard.drafts['k' .. key] then
    return {shard.drafts['k' .. key].raw or false}
  end
  local raw = call('GET', shard.base .. 'k' .. key)
  if not raw then
    local _, _, elsewhere = look(shard, 'k', key)
    if elsewhere then return nil, 'moving' end
    return {false}
  end
  local ends = end_of(raw)
  return {(ends == 0 or ends > shard.now) and raw}
end

local function operate(shard, args, at)
  local what, key = args[at], args[at + 1]
  if what == 'gk' then return get_plainly(shard, key) end
  local kind = sub(what, 2, 2)
  local head, ended, elsewhere = look(shard, kind, key)
  if elsewhere then return nil, 'moving' end
  if #what > 2 and not holds(shard, sub(what, 3), head) then
    return nil, 'condition', head
  end
  local result, why = OPERATIONS[sub(what, 1, 1)](shard, kind, key, head, ended, args, at + 2)
  return result, why, head
end

-- Writes. An outcome is the result of the only operation when that is a number, else a list of
-- results, or {why, index, revision or -1}. Where a lock was held otherwise than a condition says,
-- its record and the present clock follow: it may be free by the time that somebody asks.

local function refusal(why, index, head)
  return {why, index, (head and why ~= 'missing') and (unpack_struct('>I8', head)) or -1}
end

local function refusal_of(shard, why, index, head, what, key)
  local found = refusal(why, index, head)
  if why == 'condition' and head and sub(what, 2, 2) == 'l' then
    found[4], found[5] = whole(shard, 'l', key), shard.now
  end
  return found
end

-- A set of a run by itself. Setting tells whether the key was
-- there, for the price of a copy of the old value. Only where there was none the indexes are asked:
-- a key that is new in `i` is in no other, and needs no look. What had ended and left its name there
-- is set once more, behind the event of its end.
local function set_plainly(shard, key, ttl, rest)
  local name, before = shard.records .. key, shard.last
  local ends, old = ttl == '0' and 0 or end_after(shard, tonumber(ttl)), nil
  local revision = note(shard, SET, key)
  local raw = compose(revision, ends, rest)
  if ends > 0 and shard.native then
    old = call('SET', name, raw, 'GET', 'PXAT', ends - 1)
  else
    old = call('SET', name, raw, 'GET')
  end
  local had_end = old and end_of(old) or 0
  local again, copied = had_end > 0 and had_end <= shard.now, false
  if again and is_copy(old) then
    again, copied = false, true
    call('ZADD', shard.index, '0', key)
    call('ZREM', shard.base .. 'v', key)
  end
  if not old and call('ZADD', shard.index, '0', key) == 0 then
    again = any_ends(shard, 'k') and call('ZSCORE', shard.base .. 'x', key)
    if shard.wary and not (again and tonumber(again) <= shard.now) then
      call('UNLINK', name)
      forget(shard, shard.count - 1, before)
      return refusal('moving', 0)
    end
  elseif not old and any_copies(shard) then
    call('ZREM', shard.base .. 'v', key) -- Valkey has removed it itself, at its end
  end
  if again then
    forget(shard, shard.count - 1, before)
    return set_it(shard, 'k', key, ends, rest, nil, true)
  end
  if ends > 0 then
    call('ZADD', shard.base .. 'x', ends, key)
    shard.ending.k = true
  elseif had_end > 0 then
    call('ZREM', shard.base .. 'x', key)
  end
  return revision * 2 + (old and not copied and 1 or 0)
end

-- Runs: sets without condition, outside of a batch, of short values under keys that all differ. The
-- server is called a few times for all of them, where nothing has to be known of each key but whether
-- it was there: nothing has ended that has no event yet, and there are no stale copies.

local function is_calm(shard)
  if shard.calm == nil then
    local ended = any_ends(shard, 'k') and call('ZCOUNT', shard.base .. 'x', '-inf', shard.now) > 0
    shard.calm = not ended and not any_copies(shard)
  end
  return shard.calm
end

-- How many of the keys are there, and a score for each that is, unless it is all or none. Nil where the
-- index names records that are missing.
local function count_there(shard, names, keys)
  local there = call('EXISTS', unpack(names))
  if there == #names or (there == 0 and not shard.wary) then return there end
  local scores, indexed = call('ZMSCORE', shard.index, unpack(keys)), 0
  for i = 1, #keys do
    if scores[i] then indexed = indexed + 1 end
  end
  if indexed == there then return there, scores end
end

-- `ttls` has 8 bytes for each key, or none where no key ends.
local function store_run(shard, names, keys, args, at, ttls)
  local pairs_of, unending, ending, known, high = {}, keys, {}, nil, nil
  if ttls ~= '' then unending = {} end
  for i, key in ipairs(keys) do
    local revision, rest = note(shard, SET, key), args[at + 2 * i + 1]
    local ends = ttls == '' and 0 or end_after(shard, (unpack_struct('>I8', ttls, 8 * i - 7)))
    local place = #pairs_of
    if ends > 0 then
      local raw = compose(revision, ends, rest)
      if shard.native then
        call('SET', names[i], raw, 'PXAT', ends - 1)
      else
        call('SET', names[i], raw)
      end
      ending[#ending + 1], ending[#ending + 2] = ends, key
    else
      local low = revision % 256
      if revision - low ~= known then
        known, high = revision - low, sub(pack('>I8', revision), 1, 7)
      end
      pairs_of[place + 1], pairs_of[place + 2] = names[i], high .. BYTES[low] .. rest
      if ttls ~= '' then unending[#unending + 1] = key end
    end
  end
  if #pairs_of > 0 then call('MSET', unpack(pairs_of)) end
  if #unending > 0 and any_ends(shard, 'k') then call('ZREM', shard.base .. 'x', unpack(unending)) end
  if #ending > 0 then
    call('ZADD', shard.base .. 'x', unpack(ending))
    shard.ending.k = true
  end
end

local function index_run(shard, keys, scores)
  local added = {}
  for i, key in ipairs(keys) do
    if not (scores and scores[i]) then added[#added + 1], added[#added + 2] = '0', key end
  end
  call('ZADD', shard.index, unpack(added))
end

-- One by one. Returns an outcome for each.
local function set_each(shard, keys, args, at, ttls)
  local outcomes = {}
  for i, key in ipairs(keys) do
    local ttl = ttls == '' and 0 or unpack_struct('>I8', ttls, 8 * i - 7)
    outcomes[i] = set_plainly(shard, key, format('%.0f', ttl), args[at + 2 * i + 1])
  end
  return outcomes
end

-- `at` is where the head of a run is, behind it the TTLs, then keys and rests in turn. Returns an outcome
-- for each set, or the first one's where those of the others differ from it by their revisions alone.
local function set_run(shard, args, at, count)
  local keys, names, ttls = {}, {}, args[at + 1]
  for i = 1, count do
    local key = args[at + 2 * i]
    keys[i], names[i] = key, shard.records .. key
  end
  local there, scores = nil, nil
  if is_calm(shard) then there, scores = count_there(shard, names, keys) end
  if not there then return set_each(shard, keys, args, at, ttls) end
  local first = shard.last + shard.step
  if first < shard.physical then first = shard.physical end
  store_run(shard, names, keys, args, at, ttls)
  if there < count then index_run(shard, keys, scores) end
  if not scores then return first * 2 + (there > 0 and 1 or 0) end
  local outcomes = {}
  for i = 1, count do outcomes[i] = (first + (i - 1) * shard.step) * 2 + (scores[i] and 1 or 0) end
  return outcomes
end

local function write_one(shard, args, at)
  local result, why, head = operate(shard, args, at)
  if not result then return refusal_of(shard, why, 0, head, args[at], args[at + 1]) end
  if type(result) == 'number' then return result end
  return {result}
end

local function forget_drafts(shard)
  shard.drafts, shard.order, shard.kept = nil, nil, nil
end

local function write_drafts(shard)
  local drafts, order, kept = shard.drafts, shard.order, shard.kept
  forget_drafts(shard)
  for _, one in ipairs(kept) do keep(shard, one) end
  for _, name in ipairs(order) do
    local draft, kind, key = drafts[name], sub(name, 1, 1), sub(name, 2)
    if draft.raw then
      put(shard, kind, key, draft.raw, draft.ends, false, draft.stale)
    else
      drop(shard, kind, key)
    end
  end
end

-- All or none: changes are drafts until the last operation was not refused.
local function write_all(shard, args, at, count)
  shard.drafts, shard.order, shard.before, shard.kept = {}, {}, shard.last, {}
  local count_before = shard.count
  local results = {}
  for index = 1, count do
    local result, why = operate(shard, args, at)
    if not result then
      forget_drafts(shard)
      forget(shard, count_before, shard.before)
      local head = look(shard, sub(args[at], 2, 2), args[at + 1])
      return refusal_of(shard, why, index - 1, head, args[at], args[at + 1])
    end
    results[index] = result
    at = at + ARGUMENTS[sub(args[at], 1, 1)]
  end
  write_drafts(shard)
  return results
end

local function write_some(shard, args, at, count)
  shard.undo = nil
  if count == 1 then return write_one(shard, args, at) end
  return write_all(shard, args, at, count)
end

local function name_answer(shard, key, ttl)
  local names = shard.base .. 'z'
  local over = call('ZRANGEBYSCORE', names, '-inf', shard.now, 'LIMIT', 0, 4)
  if #over > 0 then call('ZREM', names, unpack(over)) end
  call('ZADD', names, shard.now + ttl, key)
end

-- A write with a name: done once, its outcome kept beside what it did.
local function write_once(shard, args, at, count)
  local key, fingerprint, ttl = args[at + 1], args[at + 2], tonumber(args[at + 3])
  local head, _, elsewhere = look(shard, 'a', key)
  if elsewhere then return refusal('moving', 0) end
  if head then
    local kept = rest_of(whole(shard, 'a', key))
    local size = unpack_struct('>I2', kept, 2)
    if sub(kept, 4, 3 + size) ~= fingerprint then return refusal('reused', 0) end
    return cmsgpack.unpack(sub(kept, 4 + size))
  end
  local outcome = write_some(shard, args, at + 4, count - 1)
  if type(outcome) == 'table' and type(outcome[1]) == 'string' then
    if args[at] == 'rd' or outcome[1] == 'moving' then return outcome end
  end
  local kept = '\0' .. pack('>I2', #fingerprint) .. fingerprint .. cmsgpack.pack(outcome)
  set_it(shard, 'a', key, end_after(shard, ttl), kept)
  if shard.spread then name_answer(shard, key, ttl) end
  return outcome
end

-- `seen` is a revision that all of this is to be above. Operations follow, and runs of sets.
-- Reply: clock, last revision, then an outcome for each write, or what `set_run` returns for a run.
local function write(keys, args)
  local shard = open(keys, args)
  local seen, at = args[4], 5
  local reply = {shard.now, 0}
  go_above(shard, tonumber(seen))
  local number, what = 2, args[at]
  while what do
    local count, outcome = 1, nil
    if byte(what, 1) == RUN then
      count = tonumber(sub(what, 2))
      outcome = set_run(shard, args, at, count)
      at = at + 2 + 2 * count
    else
      if byte(what, 1) == 35 then
        count = tonumber(sub(what, 2))
        at = at + 1
      end
      if count > 0 and byte(args[at], 1) == 114 then
        outcome = write_once(shard, args, at, count)
      else
        outcome = write_some(shard, args, at, count)
      end
      for _ = 1, count do at = at + ARGUMENTS[sub(args[at], 1, 1)] end
    end
    number = number + 1
    reply[number] = outcome
    what = args[at]
  end
  finish(shard)
  reply[2] = shard.last
  return reply
end

-- Lists

-- The least string greater than all that begin with a prefix, nil if there is none.
local function successor(prefix)
  local size = #prefix
  while size > 0 and byte(prefix, size) == 255 do size = size - 1 end
  if size == 0 then return nil end
  return sub(prefix, 1, size - 1) .. char(byte(prefix, size) + 1)
end

local function folder_of(key, prefix, delimiter)
  if delimiter == '' then return nil end
  local _, finish_at = string.find(key, delimiter, #prefix + 1, true)
  return finish_at and sub(key, 1, finish_at)
end

-- The first and the last bound of what is left of a list, in the notation of ZRANGEBYLEX; nil when
-- nothing is. `after` without its first letter goes on behind; empty, it begins.
local function bounds(prefix, after, reverse, delimiter)
  local finish_at = successor(prefix)
  local low = prefix == '' and '-' or '[' .. prefix
  local high = finish_at and '(' .. finish_at or '+'
  if after == '' then return reverse and high or low, reverse and low or high end
  after = sub(after, 2)
  if reverse then
    if not finish_at or after < finish_at then high = '(' .. after end
    return high, low
  end
  if after < prefix then return low, high end
  if folder_of(after, prefix, delimiter) == after then
    local behind = successor(after)
    return behind and '[' .. behind, high
  end
  return '(' .. after, high
end

local function live(shard, key)
  local raw = call('GET', shard.base .. 'k' .. key)
  if not raw then
    if not shard.wary then return nil end
    local ends = call('ZSCORE', shard.base .. 'x', key)
    if ends and tonumber(ends) <= shard.now then return nil end
    error({err = 'KEYRACKMOVING a record of the shard is not here'})
  end
  local ends = end_of(raw)
  if ends > 0 and ends <= shard.now then return nil end
  return raw
end

-- `after` is empty at the beginning, `backwards` 1 for the other direction.
-- Reply: clock, last revision, where to go on, folders, then keys and records in turn.
local function scan(keys, args)
  local shard = open(keys, args)
  local prefix, after, limit, backwards, delimiter, most_bytes = unpack(args, 4)
  local reverse = backwards == '1'
  limit, most_bytes = tonumber(limit), tonumber(most_bytes)
  local command = reverse and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
  local start, stop = bounds(prefix, after, reverse, delimiter)
  local folders, reply = {}, {shard.now, shard.last, false, false}
  local found, size, steps, last = 0, 0, 0, false
  local ahead = delimiter == '' and limit + 1 or 2 -- names to read at once: few where folders come
  reply[4] = folders
  while start do
    local wanted = math.min(ahead, limit - found + 1)
    local page = call(command, shard.base .. 'i', start, stop, 'LIMIT', 0, wanted)
    local folder = nil
    for _, key in ipairs(page) do
      if not (folder and sub(key, 1, #folder) == folder) then
        folder = nil
        if found >= limit or size > most_bytes or steps > MOST_STEPS then
          reply[3] = last
          return reply
        end
        steps = steps + 1
        local raw = live(shard, key)
        if raw then
          found = found + 1
          folder = folder_of(key, prefix, delimiter)
          last = folder or key
          if folder then
            folders[#folders + 1] = folder
          else
            reply[#reply + 1] = key
            reply[#reply + 1] = raw
            size = size + #raw
          end
        else
          last = key
        end
      end
    end
    if #page < wanted then return reply end
    ahead = folder and 1 or ahead * 2
    if not folder then
      start = '(' .. page[#page]
    elseif reverse then
      start = '(' .. folder
    else
      local behind = successor(folder)
      start = behind and '[' .. behind
    end
  end
  return reply
end

-- Reply: clock, number, where to go on.
-- With few ended keys about, all are counted at once: the index knows its ranks.
local function count(keys, args)
  local shard = open(keys, args)
  local prefix, after, steps = unpack(args, 4)
  steps = tonumber(steps)
  local start, stop = bounds(prefix, after, false, '')
  local index, ends = shard.base .. 'i', shard.base .. 'x'
  local ended = call('ZCOUNT', ends, '-inf', shard.now)
  if ended <= steps then
    local number = call('ZLEXCOUNT', index, start, stop)
    if ended == 0 then return {shard.now, number, false} end
    for _, key in ipairs(call('ZRANGEBYSCORE', ends, '-inf', shard.now)) do
      local begins = sub(key, 1, #prefix) == prefix
      if begins and (after == '' or key > sub(after, 2)) then number = number - 1 end
    end
    return {shard.now, number, false}
  end
  local number, page = 0, call('ZRANGEBYLEX', index, start, stop, 'LIMIT', 0, steps)
  for _, key in ipairs(page) do
    local score = call('ZSCORE', ends, key)
    if not score or tonumber(score) > shard.now then number = number + 1 end
  end
  return {shard.now, number, #page == steps and page[#page] or false}
end

-- Upkeep

local function next_due(shard)
  local due = nil
  for _, ends in ipairs({'x', 'y', 'v', 'r'}) do
    local first = call('ZRANGE', shard.base .. ends, 0, 0, 'WITHSCORES')
    if first[2] and (not due or tonumber(first[2]) < due) then due = tonumber(first[2]) end
  end
  return due or false
end

-- What has ended and is to be kept as a stale copy: its names and its tag change, and nothing else.
local function keep_copy(shard, key)
  local name = shard.base .. 'k' .. key
  local head = call('GETRANGE', name, 0, HEAD - 1)
  local stale = head ~= '' and not is_copy(head) and stale_until(head) or 0
  if stale <= shard.now then return false end
  call('SETRANGE', name, 8, char(COPY))
  call('ZREM', shard.index, key)
  call('ZREM', shard.base .. 'x', key)
  call('ZADD', shard.base .. 'v', stale, key)
  return true
end

local function ended(shard, kind, limit)
  return call('ZRANGEBYSCORE', shard.base .. ENDS[kind], '-inf', shard.now,
    'WITHSCORES', 'LIMIT', 0, limit)
end

local function over(shard, index, limit)
  return call('ZRANGEBYSCORE', shard.base .. index, '-inf', shard.now, 'WITHSCORES', 'LIMIT', 0, limit)
end

-- `seen` is a revision that all of this is to be above, `me` who sweeps, `lease_ms` for how long the
-- others leave it to them. Reply: clock, number of keys and locks that were removed, when the next one ends,
-- last revision.
local function sweep(keys, args)
  local shard = open(keys, args)
  local seen, limit, me, lease_ms = unpack(args, 4)
  limit = tonumber(limit)
  go_above(shard, tonumber(seen))
  local due = next_due(shard)
  if not due or due > shard.now then return {shard.now, 0, due, shard.last} end
  local sweeper = call('GET', shard.base .. 'w')
  if sweeper and sweeper ~= me then return {shard.now, 0, due, shard.last} end
  call('SET', shard.base .. 'w', me, 'PX', lease_ms)
  local removed = 0
  for _, kind in ipairs({'k', 'l'}) do
    local page = ended(shard, kind, limit - removed)
    for i = 1, #page, 2 do
      shard.ending[kind] = true
      if kind == 'l' or not keep_copy(shard, page[i]) then drop(shard, kind, page[i]) end
      note(shard, EXPIRES[kind], page[i])
      removed = removed + 1
    end
    if removed >= limit then break end
  end
  if removed < limit then
    local copies = over(shard, 'v', limit - removed)
    for i = 1, #copies, 2 do
      local head = call('GETRANGE', shard.records .. copies[i], 0, HEAD - 1)
      if head ~= '' and is_copy(head) then call('UNLINK', shard.records .. copies[i]) end
      call('ZREM', shard.base .. 'v', copies[i])
      removed = removed + 1
    end
  end
  if removed < limit then
    local trash = over(shard, 'r', limit - removed)
    for i = 1, #trash, 2 do
      drop_trash(shard, trash[i], tonumber(trash[i + 1]), 'ended')
      removed = removed + 1
    end
  end
  finish(shard)
  due = next_due(shard)
  if not due or due > shard.now then call('UNLINK', shard.base .. 'w') end
  return {shard.now, removed, due, shard.last}
end

-- `me` is who wants to see to the whole store, `lease_ms` for how long the others leave it to them.
-- Reply: whether they have it.
local function lease(keys, args)
  local me, lease_ms = unpack(args, 4)
  local name = string.sub(keys[1], 1, -2) .. 'w'
  local holder = redis.call('GET', name)
  if holder and holder ~= me then return 0 end
  redis.call('SET', name, me, 'PX', lease_ms)
  return 1
end

-- Reply: clock, when the next one ends, then the ends of those that are over.
local function due(keys, args)
  local shard = open(keys, args)
  local limit = unpack(args, 4)
  local reply = {shard.now, next_due(shard)}
  for _, kind in ipairs({'k', 'l'}) do
    local page = ended(shard, kind, tonumber(limit))
    for i = 2, #page, 2 do reply[#reply + 1] = tonumber(page[i]) end
  end
  for _, index in ipairs({'v', 'r'}) do
    local page = over(shard, index, tonumber(limit))
    for i = 2, #page, 2 do reply[#reply + 1] = tonumber(page[i]) end
  end
  return reply
end

local function oldest(shard, limit)
  return call('XRANGE', shard.base .. 'e', '-', '+', 'COUNT', limit)
end

-- The same, few at a time: entries can be long, and are copied.
local function each_oldest(shard, limit)
  local start, page, at, left = '-', {}, 0, tonumber(limit)
  return function()
    at = at + 1
    if at > #page and left > 0 then
      page, at = call('XRANGE', shard.base .. 'e', start, '+', 'COUNT', math.min(left, 8)), 1
      left = #page == 8 and left - 8 or 0
      if #page > 0 then start = '(' .. page[#page][1] end
    end
    return page[at]
  end
end

local function size_of(entry)
  return (unpack_struct('>I4', entry[2][2], 9))
end

-- `limit` is of entries, `kept` how many events are kept at least. Reply: entries removed.
local function trim(keys, args)
  local shard = open(keys, args)
  local limit, kept = unpack(args, 4)
  kept = tonumber(kept)
  local ids = {}
  if shard.events <= kept then return 0 end
  for entry in each_oldest(shard, limit) do
    local size = size_of(entry)
    if shard.events - size < kept then break end
    ids[#ids + 1] = entry[1]
    shard.events = shard.events - size
    shard.gone = tonumber(string.match(entry[1], '^%d+'))
  end
  if #ids > 0 then
    call('XDEL', shard.base .. 'e', unpack(ids))
    save(shard)
  end
  return #ids
end

-- Reply: for each of the oldest entries its revision and its number of events.
local function log(keys, args)
  local shard = open(keys, args)
  local limit = unpack(args, 4)
  local reply = {}
  for _, entry in ipairs(oldest(shard, limit)) do
    reply[#reply + 1] = tonumber(string.match(entry[1], '^%d+'))
    reply[#reply + 1] = size_of(entry)
  end
  return reply
end

local function raise_to(shard, revision)
  local least = aligned(shard, revision)
  if least < revision then least = least + shard.step end
  if least > shard.last then
    shard.last = least
    save(shard)
  elseif shard.fresh then
    save(shard)
  end
end

-- Whether an event with this revision was written here, or may have been: it is forgotten, or there
-- was none yet. A server that took over from another one may lack its last events, and have others.
local function is_known(shard, revision)
  if revision <= shard.gone or revision == shard.last then return true end
  local entry = call('XRANGE', shard.base .. 'e', format('%.0f', revision), '+', 'COUNT', 1)[1]
  if not entry then return false end
  local ahead = tonumber(string.match(entry[1], '^%d+')) - revision
  return ahead % shard.step == 0 and ahead / shard.step < size_of(entry)
end

-- Whatever this shard does from now on gets a greater revision than `least`; `told` is the
-- revision of an event. Reply: clock, last revision, revision up to which events are gone, whether
-- that event is known.
local function raise(keys, args)
  local shard = open(keys, args)
  local least, told = unpack(args, 4)
  local known = is_known(shard, tonumber(told))
  raise_to(shard, tonumber(least))
  return {shard.now, shard.last, shard.gone, known and 1 or 0}
end

-- Arguments are names of records, without what all names of the shard have in common. Reply: records.
local function read(keys, args)
  local shard = open(keys, args)
  local reply = {}
  for i = 4, #args do
    local name = args[i]
    local _, _, elsewhere = look(shard, sub(name, 1, 1), sub(name, 2))
    if elsewhere then error({err = 'KEYRACKMOVING a record of the shard is not here'}) end
    reply[i - 3] = call('GET', shard.base .. name)
  end
  return reply
end

-- Reply: clock, last revision, then id and events of the oldest entries after a revision.
local function events(keys, args)
  local shard = open(keys, args)
  local after, limit = unpack(args, 4)
  local reply = {shard.now, shard.last}
  local start = format('%.0f', tonumber(after) + 1)
  for _, entry in ipairs(call('XRANGE', shard.base .. 'e', start, '+', 'COUNT', limit)) do
    reply[#reply + 1] = tonumber(string.match(entry[1], '^%d+'))
    reply[#reply + 1] = entry[2][2]
  end
  return reply
end

-- The same. The shard is raised to `least`; `read_before` is the revision of an event that was read
-- before. Where it is not known, all events of before count as gone, whoever asks for them.
local function events_raising(keys, args)
  local shard = open(keys, args)
  local _, _, least, read_before = unpack(args, 4)
  local known = is_known(shard, tonumber(read_before))
  raise_to(shard, tonumber(least))
  if not known then
    shard.gone = shard.last
    save(shard)
  end
  return events(keys, args)
end

-- `below` is a revision to stay below (empty: none), `most` how many entries to read at most.
-- Reply: what to stay below to go on, then revision, change and time of each event, newest first.
local function events_of(keys, args)
  local shard = open(keys, args)
  local key, below, limit, most = unpack(args, 4)
  limit, most = tonumber(limit), tonumber(most)
  local stream, start, before = shard.base .. 'e', '+', tonumber(below)
  if before then
    local first = call('XRANGE', stream, below, '+', 'COUNT', 1)[1]
    start = first and first[1] or '+'
  end
  local entries, reply = call('XREVRANGE', stream, start, '-', 'COUNT', most), {false}
  for _, entry in ipairs(entries) do
    local last, packed = tonumber(string.match(entry[1], '^%d+')), entry[2][2]
    if string.find(packed, key, 1, true) then
      local time, number, at = unpack_struct('>I8I4', packed)
      local found = {}
      for i = number - 1, 0, -1 do
        local change, size = unpack_struct('>BI2', packed, at)
        local revision = last - i * shard.step
        if sub(packed, at + 3, at + 2 + size) == key and (not before or revision < before) then
          found[#found + 1] = {revision, change, time}
        end
        at = at + 3 + size
      end
      for i = #found, 1, -1 do
        reply[#reply + 1] = found[i]
        if #reply > limit then
          reply[1] = found[i][1]
          return reply
        end
      end
    end
  end
  if #entries == most then
    local entry = entries[most]
    local last = tonumber(string.match(entry[1], '^%d+'))
    reply[1] = last - (size_of(entry) - 1) * shard.step
  end
  return reply
end

-- Reply: keys that begin with a prefix and of which there is a stale copy, or may be when their end
-- is noted.
local function copies(keys, args)
  local shard = open(keys, args)
  local prefix = unpack(args, 4)
  local reply = {}
  local function take(names)
    for _, key in ipairs(names) do
      if sub(key, 1, #prefix) == prefix then reply[#reply + 1] = key end
    end
  end
  take(call('ZRANGE', shard.base .. 'v', '0', '-1'))
  take(call('ZRANGEBYSCORE', shard.base .. 'x', '-inf', shard.now))
  return reply
end

-- Arguments are keys. Reply: for each 1 where its time is not over, else 0.
local function fresh(keys, args)
  local shard, reply = open(keys, args), {}
  for i = 4, #args do
    local head, _, elsewhere = look(shard, 'k', args[i])
    if elsewhere then error({err = 'KEYRACKMOVING a record of the shard is not here'}) end
    reply[i - 3] = head and 1 or 0
  end
  return reply
end

-- Reply: clock, last revision, revision up to which events are gone, events, keys, keys that end, stale
-- copies, records in the trash.
local function state(keys, args)
  local shard = open(keys, args)
  return {shard.now, shard.last, shard.gone, shard.events,
    call('ZCARD', shard.base .. 'i'), call('ZCARD', shard.base .. 'x'),
    call('ZCARD', shard.base .. 'v'),
    call('ZCARD', shard.base .. 'r') - call('ZCARD', shard.base .. 'o')}
end

-- `most` is how many records to drop at most, those that end first. Where there is none, undos go, of
-- which nothing can be put back. Reply: how many went.
local function empty_trash(keys, args)
  local shard = open(keys, args)
  local most = unpack(args, 4)
  local undos, dropped = {}, 0
  for _, member in ipairs(call('ZRANGE', shard.base .. 'r', 0, tonumber(most) - 1)) do
    if #member == 8 then
      undos[#undos + 1] = member
    else
      drop_trash(shard, member, 0, 'gone')
      dropped = dropped + 1
    end
  end
  if dropped == 0 then
    for _, name in ipairs(undos) do end_undo(shard, name) end
    dropped = #undos
  end
  finish(shard)
  return dropped
end

-- `below` is a number to stay below (empty: none). Reply: clock, then numbers of undos and what is
-- known of them in turn, those of the newest first.
local function undos(keys, args)
  local shard, reply = open(keys, args), {}
  local below, most = unpack(args, 4)
  reply[1] = shard.now
  local start = below == '' and '+inf' or '(' .. below
  for _, name in ipairs(call('ZREVRANGEBYSCORE', shard.base .. 'o', start, '-inf', 'LIMIT', 0, most)) do
    reply[#reply + 1] = name
    reply[#reply + 1] = call('HGET', shard.base .. 'f', name)
  end
  return reply
end

-- Reply: clock, what is known of an undo.
local function undo(keys, args)
  local shard = open(keys, args)
  local number = unpack(args, 4)
  return {shard.now, call('HGET', shard.base .. 'f', pack('>I8', tonumber(number)))}
end

-- `after` is a key to go on behind, empty at the beginning. Reply: keys that an undo has in the trash,
-- their revisions and sizes in turn; a revision of 0 is of a record that has ended.
local function trashed(keys, args)
  local shard, reply = open(keys, args), {}
  local number, after, most = unpack(args, 4)
  local name = pack('>I8', tonumber(number))
  local start = after == '' and '-' or '(' .. after
  if shard.wary and call('EXISTS', shard.base .. 'j' .. name) == 0 then
    local undo = undo_of(shard, name)
    if undo and undo.deleted > undo.restored + undo.ended + undo.gone then
      error({err = 'KEYRACKMOVING the names of the trash are not here'})
    end
  end
  for _, key in ipairs(call('ZRANGEBYLEX', shard.base .. 'j' .. name, start, '+', 'LIMIT', 0, most)) do
    local record = shard.base .. 'q' .. name .. key
    local head = call('GETRANGE', record, 0, 7)
    reply[#reply + 1] = key
    reply[#reply + 1] = #head == 8 and (unpack_struct('>I8', head)) or 0
    reply[#reply + 1] = call('STRLEN', record)
  end
  return reply
end

-- Takes no arguments. Reply: names and records of the tokens, in turn.
local function tokens(keys, args)
  local shard, reply = open(keys, args), {}
  for _, name in ipairs(call('ZRANGE', shard.base .. 'u', '0', '-1')) do
    reply[#reply + 1] = name
    reply[#reply + 1] = call('GET', shard.base .. 't' .. name)
  end
  return reply
end

-- Arguments are keys. Reply: how many bytes the record of each key has, 0 where there is none.
local function sizes(keys, args)
  local shard, reply = open(keys, args), {}
  for i = 4, #args do reply[i - 3] = call('STRLEN', shard.base .. 'k' .. args[i]) end
  return reply
end

-- Deletes go on while the memory is full: that is all the difference between the first two.
redis.register_function('keyrack_write_@', write)
redis.register_function{function_name = 'keyrack_remove_@', callback = write, flags = {'allow-oom'}}
redis.register_function{function_name = 'keyrack_sweep_@', callback = sweep, flags = {'allow-oom'}}
redis.register_function{function_name = 'keyrack_lease_@', callback = lease, flags = {'allow-oom'}}
redis.register_function{function_name = 'keyrack_trim_@', callback = trim, flags = {'allow-oom'}}
redis.register_function{function_name = 'keyrack_raise_@', callback = raise, flags = {'allow-oom'}}
redis.register_function{
  function_name = 'keyrack_events_raising_@', callback = events_raising, flags = {'allow-oom'}
}
redis.register_function{function_name = 'keyrack_events_@', callback = events, flags = {'no-writes'}}
redis.register_function{
  function_name = 'keyrack_events_of_@', callback = events_of, flags = {'no-writes'}
}
redis.register_function{
  function_name = 'keyrack_tokens_@', callback = tokens, flags = {'no-writes'}
}
redis.register_function{function_name = 'keyrack_read_@', callback = read, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_scan_@', callback = scan, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_count_@', callback = count, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_due_@', callback = due, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_log_@', callback = log, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_sizes_@', callback = sizes, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_fresh_@', callback = fresh, flags = {'no-writes'}}
redis.register_function{
  function_name = 'keyrack_copies_@', callback = copies, flags = {'no-writes'}
}
redis.register_function{
  function_name = 'keyrack_empty_trash_@', callback = empty_trash, flags = {'allow-oom'}
}
redis.register_function{function_name = 'keyrack_undos_@', callback = undos, flags = {'no-writes'}}
redis.register_function{function_name = 'keyrack_undo_@', callback = undo, flags = {'no-writes'}}
redis.register_function{
  function_name = 'keyrack_trashed_@', callback = trashed, flags = {'no-writes'}
}
redis.register_function{function_name = 'keyrack_state_@', callback = state, flags = {'no-writes'}}
