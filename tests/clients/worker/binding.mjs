// Everything of the contract that a Worker sees through a KV binding.
import assert from 'node:assert'
import { fails, serveCases } from './cases.mjs'

const MAX = 25 * 1024 * 1024
const now = () => Math.floor(Date.now() / 1000)
const bytes = (...b) => new Uint8Array(b)
const list = async (kv, options) => (await kv.list(options)).keys.map((k) => k.name)
const entry = async (kv, name) => (await kv.list({ prefix: name })).keys.find((k) => k.name === name)
const streamOf = (...chunks) =>
  new ReadableStream({
    start(c) {
      for (const chunk of chunks) c.enqueue(chunk)
      c.close()
    },
  })

const HARD_KEYS = [
  'a/b/c', '/leading', 'trailing/', '//', '../x', 'a/../b', './a', 'a/.', 'a/..', 'q?x=1', 'h#frag', '100%', '%2F', '%', '%zz', '%00',
  'a+b', 'a b', ' ', 'a&b=c', ':@!$\'()*,;', '"<>\\^`{|}~[]', 'é', '日本語', '😀', '\u0000', '\n', 'bulk/get', 'client/v4', '__proto__',
  'x'.repeat(512), 'é'.repeat(256),
]

const cases = {
  async 'get: missing is null for every type'({ KV }) {
    for (const type of ['text', 'json', 'arrayBuffer', 'stream']) assert.strictEqual(await KV.get('none', type), null)
  },
  async 'get: text, json, arrayBuffer, stream'({ KV }) {
    await KV.put('types', '{"a":[1,"é"]}')
    assert.strictEqual(await KV.get('types'), '{"a":[1,"é"]}')
    assert.strictEqual(await KV.get('types', 'text'), '{"a":[1,"é"]}')
    assert.deepStrictEqual(await KV.get('types', 'json'), { a: [1, 'é'] })
    assert.deepStrictEqual(await KV.get('types', { type: 'json' }), { a: [1, 'é'] })
    assert.strictEqual(new TextDecoder().decode(await KV.get('types', 'arrayBuffer')), '{"a":[1,"é"]}')
    assert.strictEqual(await new Response(await KV.get('types', 'stream')).text(), '{"a":[1,"é"]}')
  },
  async 'get: json of what is not JSON, and an unknown type'({ KV }) {
    await KV.put('notjson', 'nope')
    await fails(KV.get('notjson', 'json'), /./, 'SyntaxError')
    await fails(KV.get('notjson', 'blob'), /./, 'TypeError')
  },
  async 'put: string, ArrayBuffer, view, stream with and without a length'({ KV }) {
    const all = Uint8Array.from({ length: 256 }, (_, i) => i)
    const back = async (k) => new Uint8Array(await KV.get(k, 'arrayBuffer'))
    await KV.put('v', all.buffer)
    assert.deepStrictEqual(await back('v'), all)
    await KV.put('v', all.subarray(10, 20))
    assert.deepStrictEqual(await back('v'), all.slice(10, 20))
    await KV.put('v', streamOf(bytes(0, 255), bytes(13, 10)))
    assert.deepStrictEqual(await back('v'), bytes(0, 255, 13, 10))
    await KV.put('v', new Response('known length').body)
    assert.strictEqual(await KV.get('v'), 'known length')
    await KV.put('v', '')
    assert.strictEqual(await KV.get('v'), '')
    await fails(KV.put('v', {}), /./, 'TypeError')
  },
  async 'put: numbers, booleans and null become text'({ KV }) {
    for (const [v, s] of [[0, '0'], [false, 'false'], [null, 'null'], [1.5, '1.5']]) {
      await KV.put('coerced', v)
      assert.strictEqual(await KV.get('coerced'), s)
    }
  },
  async 'keys: hard names round-trip through put, get, list, bulk get and delete'({ KV }) {
    const prefix = ''
    for (const k of HARD_KEYS) await KV.put(prefix + k, `value of ${k}`)
    for (const k of HARD_KEYS) assert.strictEqual(await KV.get(k), `value of ${k}`, JSON.stringify(k.slice(0, 40)))
    const names = new Set(await list(KV))
    for (const k of HARD_KEYS) assert.ok(names.has(k), `listed ${JSON.stringify(k.slice(0, 40))}`)
    const bulk = await KV.get(HARD_KEYS.filter((k) => k !== '__proto__'))
    for (const k of HARD_KEYS) if (k !== '__proto__') assert.strictEqual(bulk.get(k), `value of ${k}`)
    for (const k of HARD_KEYS) {
      await KV.delete(k)
      assert.strictEqual(await KV.get(k), null, `deleted ${JSON.stringify(k.slice(0, 40))}`)
    }
  },
  async 'keys: case matters'({ KV }) {
    await KV.put('Case', '1')
    await KV.put('case', '2')
    assert.strictEqual(await KV.get('Case'), '1')
    assert.strictEqual(await KV.get('case'), '2')
  },
  async 'keys: empty, dots, too long, lone surrogate'({ KV }) {
    for (const op of [(k) => KV.get(k), (k) => KV.put(k, 'v'), (k) => KV.delete(k)]) {
      await fails(op(''), 'Key name cannot be empty.', 'TypeError')
      await fails(op('.'), '"." is not allowed as a key name.', 'TypeError')
      await fails(op('..'), '".." is not allowed as a key name.', 'TypeError')
    }
    const long = 'x'.repeat(513)
    await fails(KV.get(long), 'KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.')
    await fails(KV.put(long, ''), 'KV PUT failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.')
    await fails(KV.delete(long), 'KV DELETE failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.')
    await fails(KV.get('\ud800'), 'KV GET failed: 400 Could not URL-decode key name')
  },
  async 'metadata: every JSON kind, and none'({ KV }) {
    for (const metadata of [{ a: 1, é: '😀' }, 5, 0, false, true, 'text', '', [1, [2]], 'line\r\nbreak']) {
      await KV.put('meta', 'v', { metadata })
      const got = await KV.getWithMetadata('meta')
      assert.strictEqual(got.value, 'v')
      assert.deepStrictEqual(got.metadata, metadata)
      assert.deepStrictEqual((await entry(KV, 'meta')).metadata, metadata)
      assert.deepStrictEqual((await KV.getWithMetadata(['meta'])).get('meta'), { value: 'v', metadata })
    }
    for (const options of [{}, { metadata: null }]) {
      await KV.put('meta', 'v', options)
      assert.strictEqual((await KV.getWithMetadata('meta')).metadata, null)
      assert.ok(!('metadata' in (await entry(KV, 'meta'))))
    }
    const missing = await KV.getWithMetadata('none')
    assert.strictEqual(missing.value, null)
    assert.strictEqual(missing.metadata, null)
    assert.ok('cacheStatus' in missing)
  },
  async 'metadata: 1024 bytes of JSON pass, 1025 do not, and nothing is stored'({ KV }) {
    await KV.put('metalimit', 'old', { metadata: 'x'.repeat(1022) })
    await fails(KV.put('metalimit', 'new', { metadata: 'x'.repeat(1023) }), 'KV PUT failed: 413 Metadata length of 1025 exceeds limit of 1024.')
    await fails(KV.put('metalimit', 'new', { metadata: 'é'.repeat(512) }), 'KV PUT failed: 413 Metadata length of 1026 exceeds limit of 1024.')
    assert.strictEqual(await KV.get('metalimit'), 'old')
  },
  async 'getWithMetadata: every type'({ KV }) {
    await KV.put('gwm', '[1]', { metadata: { m: 1 } })
    assert.deepStrictEqual((await KV.getWithMetadata('gwm', 'json')).value, [1])
    assert.strictEqual((await KV.getWithMetadata('gwm', 'arrayBuffer')).value.byteLength, 3)
    const s = await KV.getWithMetadata('gwm', 'stream')
    assert.strictEqual(await new Response(s.value).text(), '[1]')
    assert.deepStrictEqual(s.metadata, { m: 1 })
  },
  async 'overwrite drops metadata and expiration'({ KV }) {
    await KV.put('over', '1', { metadata: 'm', expirationTtl: 600 })
    assert.ok((await entry(KV, 'over')).expiration)
    await KV.put('over', '2')
    assert.deepStrictEqual(await entry(KV, 'over'), { name: 'over' })
    const { value, metadata } = await KV.getWithMetadata('over')
    assert.deepStrictEqual([value, metadata], ['2', null])
  },
  async 'expiration: absolute, ttl, ttl wins, listed as seconds'({ KV }) {
    const at = now() + 1000
    await KV.put('exp', 'v', { expiration: at })
    assert.strictEqual((await entry(KV, 'exp')).expiration, at)
    const before = now()
    await KV.put('exp', 'v', { expirationTtl: 60 })
    const ttl = (await entry(KV, 'exp')).expiration
    assert.ok(ttl >= before + 60 && ttl <= now() + 61, `${ttl}`)
    await KV.put('exp', 'v', { expiration: at, expirationTtl: 5000 })
    assert.ok((await entry(KV, 'exp')).expiration >= before + 5000)
    assert.strictEqual(await KV.get('exp'), 'v')
  },
  async 'expiration: what is refused, in the words of the contract'({ KV }) {
    const put = (o) => KV.put('badexp', 'v', o)
    await fails(put({ expirationTtl: 59 }), 'KV PUT failed: 400 Invalid expiration_ttl of 59. Expiration TTL must be at least 60.')
    await fails(put({ expirationTtl: 30 }), 'KV PUT failed: 400 Invalid expiration_ttl of 30. Expiration TTL must be at least 60.')
    await fails(put({ expirationTtl: 0 }), 'KV PUT failed: 400 Invalid expiration_ttl of 0. Please specify integer greater than 0.')
    await fails(put({ expirationTtl: -1 }), 'KV PUT failed: 400 Invalid expiration_ttl of -1. Please specify integer greater than 0.')
    const soon = now() + 30
    await fails(put({ expiration: soon }), `KV PUT failed: 400 Invalid expiration of ${soon}. Expiration times must be at least 60 seconds in the future.`)
    const past = now() - 10
    await fails(put({ expiration: past }), `KV PUT failed: 400 Invalid expiration of ${past}. Please specify integer greater than the current number of seconds since the UNIX epoch.`)
    await fails(put({ expiration: 2147483648 }), /out of range/i, 'TypeError')
    assert.strictEqual(await KV.get('badexp'), null)
  },
  async 'cacheTtl: 30 and more pass, 10 does not'({ KV }) {
    await KV.put('cttl', 'v')
    for (const cacheTtl of [30, 60, 2147483647]) {
      assert.strictEqual(await KV.get('cttl', { cacheTtl }), 'v')
      assert.strictEqual((await KV.get(['cttl'], { cacheTtl })).get('cttl'), 'v')
    }
    await fails(KV.get('cttl', { cacheTtl: 10 }), 'KV GET failed: 400 Invalid cache_ttl of 10. Cache TTL must be at least 30.')
    await fails(KV.get(['cttl'], { cacheTtl: 10 }), 'KV GET_BULK failed: 400 Invalid cache_ttl of 10. Cache TTL must be at least 30.')
  },
  async 'cacheStatus: MISS, then HIT, and never an old value'({ KV }) {
    const cacheTtl = 3600
    for (const value of ['old', 'new']) {
      await KV.put('cstatus', value, { metadata: { value } })
      for (const cacheStatus of ['MISS', 'HIT', 'HIT']) {
        const got = await KV.getWithMetadata('cstatus', { cacheTtl })
        assert.deepStrictEqual({ ...got }, { value, metadata: { value }, cacheStatus })
      }
    }
    await KV.delete('cstatus')
    const gone = await KV.getWithMetadata('cstatus', { cacheTtl })
    assert.deepStrictEqual({ ...gone }, { value: null, metadata: null, cacheStatus: null })
  },
  async 'read-your-writes, whatever the cacheTtl'({ KV }) {
    const cacheTtl = 3600
    for (let i = 0; i < 20; i++) {
      await KV.put('ryw', `${i}`)
      assert.strictEqual(await KV.get('ryw', { cacheTtl }), `${i}`)
      assert.strictEqual((await KV.get(['ryw'], { cacheTtl })).get('ryw'), `${i}`)
      assert.ok(await entry(KV, 'ryw'))
      await KV.delete('ryw')
      assert.strictEqual(await KV.get('ryw', { cacheTtl }), null)
      assert.strictEqual((await KV.get(['ryw'], { cacheTtl })).get('ryw'), null)
      assert.strictEqual(await entry(KV, 'ryw'), undefined)
    }
  },
  async 'delete: existing, missing, twice'({ KV }) {
    await KV.put('del', 'v')
    for (let i = 0; i < 3; i++) assert.strictEqual(await KV.delete('del'), undefined)
    assert.strictEqual(await KV.get('del'), null)
  },
  async 'bulk get: text, json, missing, metadata, falsy values'({ KV }) {
    await KV.put('b1', '{"x":1}', { metadata: { m: 1 } })
    await KV.put('b2', '0')
    await KV.put('b3', 'false')
    await KV.put('b4', 'null')
    assert.deepStrictEqual([...(await KV.get(['b1', 'no', 'b2']))], [['b1', '{"x":1}'], ['no', null], ['b2', '0']])
    assert.deepStrictEqual([...(await KV.get(['b1', 'b2', 'b3', 'b4', 'no'], 'json'))], [['b1', { x: 1 }], ['b2', 0], ['b3', false], ['b4', null], ['no', null]])
    const m = await KV.getWithMetadata(['b1', 'b2', 'b3', 'no'], 'json')
    assert.deepStrictEqual(m.get('b1'), { value: { x: 1 }, metadata: { m: 1 } })
    assert.deepStrictEqual(m.get('b2'), { value: 0, metadata: null })
    assert.deepStrictEqual(m.get('b3'), { value: false, metadata: null })
    assert.strictEqual(m.get('no'), null)
    await KV.put('b5', '')
    assert.strictEqual((await KV.get(['b5'])).get('b5'), '')
    assert.deepStrictEqual((await KV.getWithMetadata(['b5'])).get('b5'), { value: '', metadata: null })
    const hundred = Array.from({ length: 100 }, (_, i) => `h${i}`)
    assert.strictEqual((await KV.get(hundred)).size, 100)
    assert.strictEqual((await KV.get(['b2', 'b2'])).size, 1)
  },
  async 'bulk get: what is refused'({ KV }) {
    const f = (p, m) => fails(p, `KV GET_BULK failed: ${m}`)
    await f(KV.get([]), '400 You must request a minimum of 1 key')
    await f(KV.get(Array.from({ length: 101 }, (_, i) => `k${i}`)), '400 You can request a maximum of 100 keys')
    await f(KV.get(['a'], 'arrayBuffer'), '400 "arrayBuffer" is not a valid type. Use "json" or "text"')
    await f(KV.get(['a', 'x'.repeat(513)]), '414 UTF-8 encoded length of 513 exceeds key length limit of 512.')
    await f(KV.get(['']), '400 Key names must not be empty')
    await KV.put('bj', 'not json')
    await fails(KV.get(['bj'], 'json'), /^KV GET_BULK failed: 400 ./)
  },
  async 'bulk get: more than 25 MB in all is 413'({ KV }) {
    const part = new Uint8Array(9_000_000).fill(97)
    for (const k of ['big1', 'big2', 'big3']) await KV.put(k, part)
    assert.strictEqual((await KV.get(['big1', 'big2'])).get('big2').length, part.length)
    await fails(KV.get(['big1', 'big2', 'big3']), /^KV GET_BULK failed: 413 ./)
    for (const k of ['big1', 'big2', 'big3']) await KV.delete(k)
  },
  async 'list: UTF-8 byte order'({ LIST }) {
    const keys = ['\u{1F600}', '\uFFEE', 'z', 'é', 'a', 'B', '!', ', ', 'aa', 'a\u0000', '1', '10', '2']
    for (const k of keys) await LIST.put('order:' + k, '')
    const order = await list(LIST, { prefix: 'order:' })
    const enc = new TextEncoder()
    const expected = keys.map((k) => 'order:' + k).sort((a, b) => {
      const [x, y] = [enc.encode(a), enc.encode(b)]
      for (let i = 0; i < Math.min(x.length, y.length); i++) if (x[i] !== y[i]) return x[i] - y[i]
      return x.length - y.length
    })
    assert.deepStrictEqual(order, expected)
    assert.ok(order.indexOf('order:\uFFEE') < order.indexOf('order:\u{1F600}'))
  },
  async 'list: prefixes are bytes, not patterns'({ LIST }) {
    for (const k of ['p_a', 'pxa', 'p%a', 'p\\a', 'P_a', 'p+a b&c=d', 'p/é']) await LIST.put(k, '')
    for (const p of ['p_', 'p%', 'p\\', 'P', 'p+a b&', 'p/é']) {
      const got = await list(LIST, { prefix: p })
      assert.ok(got.length === 1 && got[0].startsWith(p), `${p}: ${got}`)
    }
    assert.deepStrictEqual(await list(LIST, { prefix: 'nothing' }), [])
    const prefix = 'l'.repeat(512)
    await LIST.put(prefix, '')
    assert.deepStrictEqual(await list(LIST, { prefix }), [prefix])
    await fails(LIST.list({ prefix: 'l'.repeat(513) }), /^KV GET failed: 414 ./)
  },
  async 'list: nothing there'({ EMPTY }) {
    const { keys, list_complete, cursor } = await EMPTY.list()
    assert.deepStrictEqual([keys, list_complete, cursor], [[], true, undefined])
  },
  async 'list: pages, with a limit that changes and an exact last page'({ LIST }) {
    const keys = Array.from({ length: 25 }, (_, i) => `page:${String(i).padStart(3, '0')}`)
    await Promise.all(keys.map((k) => LIST.put(k, '')))
    const seen = []
    let cursor
    for (const limit of [1, 2, 10, 12]) {
      const page = await LIST.list({ prefix: 'page:', limit, cursor })
      assert.strictEqual(page.keys.length, limit)
      seen.push(...page.keys.map((k) => k.name))
      assert.strictEqual(page.list_complete, seen.length === 25)
      assert.strictEqual('cursor' in page && page.cursor !== undefined, !page.list_complete)
      cursor = page.cursor
    }
    assert.deepStrictEqual(seen, keys)
  },
  async 'list: keys put and deleted while paging'({ LIST }) {
    for (const k of ['b', 'd', 'f', 'h']) await LIST.put('ins:' + k, '')
    const one = await LIST.list({ prefix: 'ins:', limit: 2 })
    await LIST.put('ins:a', '')
    await LIST.put('ins:e', '')
    await LIST.delete('ins:d')
    await LIST.delete('ins:f')
    assert.deepStrictEqual(await list(LIST, { prefix: 'ins:', cursor: one.cursor }), ['ins:e', 'ins:h'])
  },
  async 'list: limits and cursors that are refused'({ LIST }) {
    await LIST.put('some', '')
    assert.ok((await LIST.list({ limit: 1000 })).keys.length)
    assert.ok((await LIST.list({ limit: 0 })).keys.length)
    await fails(LIST.list({ limit: 1001 }), 'KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer less than 1000.')
    await fails(LIST.list({ cursor: 'not a cursor' }), /^KV GET failed: 400 ./)
  },
  async 'list: 1000 keys a page by default'({ LIST }) {
    for (let i = 0; i < 1005; i += 67) await Promise.all(Array.from({ length: 67 }, (_, j) => LIST.put(`many:${i + j}`, '')))
    const one = await LIST.list({ prefix: 'many:' })
    assert.strictEqual(one.keys.length, 1000)
    assert.strictEqual(one.list_complete, false)
    const two = await LIST.list({ prefix: 'many:', cursor: one.cursor })
    assert.strictEqual(two.keys.length, 5)
    assert.strictEqual(two.list_complete, true)
  },
  async 'list: expiration and metadata together'({ LIST }) {
    const expiration = now() + 500
    await LIST.put('both', 'v', { expiration, metadata: { a: [1] } })
    assert.deepStrictEqual(await entry(LIST, 'both'), { name: 'both', expiration, metadata: { a: [1] } })
  },
  async 'value: 25 MiB pass, one byte more is 413, declared or streamed'({ KV }) {
    const value = new Uint8Array(MAX + 1)
    for (let i = 0; i < value.length; i += 4099) value[i] = i
    await KV.put('max', value.subarray(0, MAX))
    const back = new Uint8Array(await KV.get('max', 'arrayBuffer'))
    assert.strictEqual(back.length, MAX)
    for (let i = 0; i < MAX; i += 4099) if (back[i] !== value[i]) assert.fail(`byte ${i}`)
    const message = 'KV PUT failed: 413 Value length of 26214401 exceeds limit of 26214400.'
    await fails(KV.put('max', value), message)
    const half = value.subarray(0, MAX / 2)
    await KV.put('max', streamOf(half, half))
    await fails(KV.put('max', streamOf(half, half, value.subarray(MAX))), /^KV PUT failed: 413 Value length of \d+ exceeds limit of 26214400\.$/)
    assert.strictEqual((await KV.get('max', 'arrayBuffer')).byteLength, MAX)
    await KV.delete('max')
  },
  async 'thirty operations in flight at once'({ KV }) {
    const keys = Array.from({ length: 30 }, (_, i) => `par${i}`)
    await Promise.all(keys.map((k) => KV.put(k, k)))
    assert.deepStrictEqual(await Promise.all(keys.map((k) => KV.get(k))), keys)
    await Promise.all(keys.map((k) => KV.delete(k)))
    assert.deepStrictEqual(await Promise.all(keys.map((k) => KV.get(k))), keys.map(() => null))
  },
  async 'namespaces are apart; the header may hold the title'({ KV, LIST, TITLE }) {
    await KV.put('mine', '1')
    assert.strictEqual(await LIST.get('mine'), null)
    assert.strictEqual(await TITLE.get('mine'), '1')
  },
  async 'unknown namespace and wrong token are errors'({ UNKNOWN, DENIED, NOTOKEN }) {
    for (const KV of [UNKNOWN, DENIED, NOTOKEN]) {
      await fails(KV.put('k', 'v'), /^KV PUT failed: 40[0134] ./)
      await fails(KV.list(), /^KV GET failed: 40[0134] ./)
      await fails(KV.delete('k'), /^KV DELETE failed: 40[0134] ./)
      await fails(KV.get(['k']), /^KV GET_BULK failed: 40[0134] ./)
    }
    for (const KV of [DENIED, NOTOKEN]) await fails(KV.get('k'), /^KV GET failed: 40[13] ./)
  },
}

export default serveCases(cases)
