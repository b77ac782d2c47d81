// The official client from npm, unmodified, against the service that KEYRACK_URL names.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test from "node:test";

const { Redis } = createRequire(`${process.env.KEYRACK_UPSTASH_JS}/`)("@upstash/redis");
const [url, token] = [process.env.KEYRACK_URL, process.env.KEYRACK_TOKEN];
const redis = new Redis({ url, token });
const plain = new Redis({ url, token, automaticDeserialization: false, responseEncoding: false });

test.beforeEach(() => redis.flushdb());

/** Counts the requests that a client makes while something runs. */
async function requestsOf(run) {
  const real = globalThis.fetch;
  const seen = [];
  globalThis.fetch = (...about) => {
    seen.push(String(about[0]));
    return real(...about);
  };
  try {
    await run();
  } finally {
    globalThis.fetch = real;
  }
  return seen;
}

test("values come back as what they were", async () => {
  for (const value of [
    "text", "\u00fc \u{1f600}", "", "OK", "null", 17, 1.5, true, false,
    { name: "\u00fc", list: [1, "2", null], deep: { a: {} } }, [1, 2, 3],
  ]) {
    assert.equal(await redis.set("k", value), "OK");
    const expected = value === "null" ? null : value;
    assert.deepEqual(await redis.get("k"), expected);
  }
  assert.equal(await redis.get("missing"), null);
  assert.equal(await redis.set("big", "123456789012345678"), "OK");
  assert.equal(await redis.get("big"), "123456789012345678");
});

test("values come back as they are without what the client makes of them", async () => {
  await plain.set("k", '{"a":1}');
  assert.equal(await plain.get("k"), '{"a":1}');
  await plain.set("long", "\u00e4".repeat(100_000));
  assert.equal((await plain.get("long")).length, 100_000);
  assert.equal(await plain.strlen("long"), 200_000);
});

test("the options of set are kept", async () => {
  assert.equal(await redis.set("k", "1", { nx: true, ex: 100 }), "OK");
  assert.equal(await redis.set("k", "2", { nx: true }), null);
  assert.equal(await redis.set("k", "3", { xx: true, get: true, keepTtl: true }), 1);
  const left = await redis.ttl("k");
  assert.ok(left > 0 && left <= 100, String(left));
  assert.equal(await redis.set("k", "4", { px: 200_000 }), "OK");
  assert.ok((await redis.pttl("k")) > 100_000);
  const end = Math.floor(Date.now() / 1000) + 500;
  assert.equal(await redis.set("k", "5", { exat: end }), "OK");
  assert.ok((await redis.ttl("k")) > 400);
  assert.equal(await redis.set("k", "6", { pxat: Date.now() + 300_000 }), "OK");
  assert.ok((await redis.ttl("k")) > 200);
  assert.equal(await redis.set("missing", "7", { xx: true }), null);
});

test("strings can be changed where they are", async () => {
  assert.equal(await redis.append("k", "hello"), 5);
  assert.equal(await redis.append("k", " world"), 11);
  assert.equal(await redis.getrange("k", -5, -1), "world");
  assert.equal(await redis.setrange("k", 6, "there"), 11);
  assert.equal(await redis.getset("k", "new"), "hello there");
  assert.equal(await redis.getdel("k"), "new");
  assert.equal(await redis.getdel("k"), null);
  assert.equal(await redis.setex("k", 100, "v"), "OK");
  assert.equal(await redis.psetex("p", 100_000, "v"), "OK");
  assert.equal(await redis.getex("k", { persist: true }), "v");
  assert.equal(await redis.ttl("k"), -1);
  assert.equal(await redis.getex("k", { ex: 50 }), "v");
  assert.ok((await redis.ttl("k")) > 0);
  assert.equal(await redis.setnx("k", "w"), 0);
});

test("counters count", async () => {
  assert.equal(await redis.incr("n"), 1);
  assert.equal(await redis.incrby("n", 41), 42);
  assert.equal(await redis.decr("n"), 41);
  assert.equal(await redis.decrby("n", 40), 1);
  assert.equal(await redis.incrbyfloat("n", 0.5), 1.5);
  await redis.set("word", "x");
  await assert.rejects(redis.incr("word"), /ERR value is not an integer or out of range/);
});

test("many keys go together", async () => {
  assert.equal(await redis.mset({ a: 1, b: { c: 2 }, "\u00fc": "x" }), "OK");
  assert.deepEqual(await redis.mget("a", "b", "missing", "\u00fc"), [1, { c: 2 }, null, "x"]);
  assert.equal(await redis.msetnx({ a: 2, z: 2 }), 0);
  assert.equal(await redis.msetnx({ y: 2, z: 2 }), 1);
  assert.equal(await redis.exists("a", "a", "missing"), 2);
  assert.equal(await redis.touch("a", "b"), 2);
  assert.equal(await redis.del("a", "missing"), 1);
  assert.equal(await redis.unlink("b", "y"), 2);
  assert.equal(await redis.dbsize(), 2);
});

test("keys have ends, types and names", async () => {
  await redis.set("k", "v");
  assert.equal(await redis.type("k"), "string");
  assert.equal(await redis.type("missing"), "none");
  assert.equal(await redis.expire("k", 100), 1);
  assert.equal(await redis.expire("k", 50, "GT"), 0);
  assert.equal(await redis.pexpire("k", 200_000), 1);
  assert.equal(await redis.expireat("k", Math.floor(Date.now() / 1000) + 100), 1);
  assert.equal(await redis.pexpireat("k", Date.now() + 100_000), 1);
  assert.equal(await redis.persist("k"), 1);
  assert.equal(await redis.ttl("k"), -1);
  assert.equal(await redis.ttl("missing"), -2);
  assert.equal(await redis.rename("k", "l"), "OK");
  assert.equal(await redis.copy("l", "m"), "COPIED");
  assert.equal(await redis.renamenx("l", "m"), 0);
  await assert.rejects(redis.rename("missing", "x"), /no such key/);
});

test("scan goes through all keys", async () => {
  const pipe = redis.pipeline();
  for (let i = 0; i < 120; i++) pipe.set(`user:${i}`, i);
  pipe.set("other", 1);
  await pipe.exec();
  const found = [];
  let cursor = "0";
  do {
    const [next, some] = await redis.scan(cursor, { match: "user:*", count: 25 });
    found.push(...some);
    cursor = next;
  } while (cursor !== "0");
  assert.equal(new Set(found).size, 120);
  assert.equal((await redis.keys("user:1?")).length, 10);
  assert.ok([...found, "other"].includes(await redis.randomkey()));
});

test("commands of one moment become one pipeline by themselves", async () => {
  let results;
  const seen = await requestsOf(async () => {
    results = await Promise.all([redis.set("a", { b: 1 }), redis.incr("n"), redis.append("n", 5)]);
    results.push(...(await Promise.all([redis.get("a"), redis.get("missing"), redis.ttl("n")])));
  });
  assert.deepEqual(results, ["OK", 1, 2, { b: 1 }, null, -1]);
  assert.deepEqual(seen, [`${url}/pipeline`, `${url}/pipeline`]);
  const many = await Promise.all(Array.from({ length: 2500 }, () => redis.incr("m")));
  assert.equal(new Set(many).size, 2500);
});

test("a pipeline tells of each failure", async () => {
  const pipe = redis.pipeline();
  pipe.set("word", "x").incr("word").get("word");
  const [one, two, three] = await pipe.exec({ keepErrors: true });
  assert.equal(one.result, "OK");
  assert.match(two.error, /not an integer/);
  assert.equal(three.result, "x");
  await assert.rejects(redis.pipeline().incr("word").exec(), /not an integer/);
});

test("a transaction is done as a whole", async () => {
  const results = await redis.multi().set("a", 1).incr("a").mget("a", "b").exec();
  assert.deepEqual(results, ["OK", 2, [2, null]]);
  await assert.rejects(redis.multi().set("a", 9).hset("h", { f: 1 }).exec(), /EXECABORT.*hashes/);
  assert.equal(await redis.get("a"), 2);
});

test("two clients at once lose no count and no transaction", async () => {
  const other = new Redis({ url, token, enableAutoPipelining: false });
  await Promise.all(
    Array.from({ length: 40 }, (_, i) =>
      i % 2 ? other.multi().incr("x").append("y", "a").exec() : other.incr("x"),
    ),
  );
  assert.equal(await redis.get("x"), 40);
  assert.equal(await redis.strlen("y"), 20);
});

test("what is not there is refused with a sentence", async () => {
  await assert.rejects(redis.hset("h", { f: 1 }), /there are no hashes, only strings/);
  await assert.rejects(redis.lpush("l", 1), /there are no lists/);
  await assert.rejects(redis.zadd("z", { score: 1, member: "m" }), /there are no sorted sets/);
  await assert.rejects(redis.json.set("j", "$", {}), /there are no JSON documents/);
  await assert.rejects(redis.eval("return 1", [], []), /no @upstash\/ratelimit/);
});

test("a wrong token is refused", async () => {
  const stranger = new Redis({ url, token: "krk_wrong" });
  await assert.rejects(stranger.get("k"), /WRONGPASS/);
});

test("a client is told what it wrote, and sends that along", async () => {
  const client = new Redis({ url, token, enableAutoPipelining: false });
  await client.set("k", "v");
  const written = client.client.upstashSyncToken;
  assert.match(written, /^[0-9]+$/);
  assert.equal(await client.get("k"), "v");
  assert.equal(client.client.upstashSyncToken, written);
});

test("ping, echo and time answer", async () => {
  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.echo("h\u00e4"), "h\u00e4");
  const [seconds] = await redis.time();
  assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 300);
});
