// The official TypeScript SDK, pointed at the server by baseURL.
import assert from 'node:assert'
import { describe, test } from 'node:test'
import Cloudflare from 'cloudflare'
import { ACCOUNT, TOKEN, URL_, freePort, namespace, scratch, seconds, serve, unique } from './lib.mjs'

const account_id = ACCOUNT
const client = (apiToken = TOKEN, url = URL_) => new Cloudflare({ baseURL: `${url}/client/v4`, apiToken, maxRetries: 0 })
const kv = client().kv.namespaces

/** The call fails with this HTTP status and this code in the envelope. */
async function fails(promise, status, code) {
  const error = await promise.then(
    () => assert.fail('the call succeeded'),
    (error) => error,
  )
  assert.equal(error.status, status, error.message)
  if (code) assert.equal(error.errors?.[0]?.code, code, error.message)
  return error
}

async function all(pages) {
  const items = []
  for await (const item of pages) items.push(item)
  return items
}

describe('sdk: namespaces', () => {
  test('create, get, rename, delete', async () => {
    const title = unique('sdk é')
    const made = await kv.create({ account_id, title })
    assert.match(made.id, /^[0-9a-f]{32}$/)
    assert.equal(made.title, title)
    assert.equal(made.supports_url_encoding, true)
    assert.deepEqual(await kv.get(made.id, { account_id }), made)
    const renamed = await kv.update(made.id, { account_id, title: `${title} 2` })
    assert.equal(renamed?.title ?? `${title} 2`, `${title} 2`)
    assert.equal((await kv.get(made.id, { account_id })).title, `${title} 2`)
    await kv.delete(made.id, { account_id })
    await fails(kv.get(made.id, { account_id }), 404, 10013)
    await fails(kv.delete(made.id, { account_id }), 404, 10013)
    await fails(kv.keys.list(made.id, { account_id }), 404, 10013)
  })

  test('a title that is taken is refused, and free again after a delete', async () => {
    const title = unique('taken')
    const first = await kv.create({ account_id, title })
    await fails(kv.create({ account_id, title }), 400, 10014)
    const other = await kv.create({ account_id, title: unique('other') })
    await fails(kv.update(other.id, { account_id, title }), 400, 10014)
    await kv.delete(first.id, { account_id })
    assert.notEqual((await kv.create({ account_id, title })).id, first.id)
  })

  test('a missing title is refused', async () => {
    await fails(kv.create({ account_id }), 400, 10019)
  })

  test('list: order, direction, pages', async () => {
    const port = await freePort()
    const server = await serve(scratch(), port)
    const own = client(TOKEN, `http://127.0.0.1:${port}`).kv.namespaces
    const made = []
    for (const title of ['c', 'a', 'g', 'e', 'b', 'f', 'd']) made.push(await own.create({ account_id, title }))
    const titles = async (query) => (await all(own.list({ account_id, ...query }))).map((n) => n.title).join('')
    assert.equal(await titles({ order: 'title', direction: 'asc' }), 'abcdefg')
    assert.equal(await titles({ order: 'title', direction: 'asc', per_page: 3 }), 'abcdefg')
    assert.equal(await titles({ order: 'title', direction: 'desc', per_page: 1000 }), 'gfedcba')
    const ids = (await all(own.list({ account_id, order: 'id', direction: 'asc' }))).map((n) => n.id)
    assert.deepEqual(ids, made.map((n) => n.id).sort())
    const page = await own.list({ account_id, order: 'title', direction: 'asc', per_page: 3, page: 3 })
    assert.deepEqual(page.result.map((n) => n.title), ['g'])
    assert.equal(page.result_info.total_count, 7)
    assert.equal(page.result_info.count, 1)
    server.kill('SIGTERM')
    await server.ended
  })
})

describe('sdk: values', () => {
  const write = (namespace_id, key, value, more = {}) => kv.values.update(key, { account_id, namespace_id, value, ...more })
  const read = async (namespace_id, key) => (await kv.values.get(key, { account_id, namespace_id })).text()
  const meta = (namespace_id, key) => kv.metadata.get(key, { account_id, namespace_id })

  test('write, read, overwrite, delete', async () => {
    const ns = await namespace()
    for (const key of ['plain', 'a/b c?d', 'é 日本 😀', '100%+&=#', '%2F', 'x'.repeat(512)]) {
      await write(ns, key, `value of ${key}`)
      assert.equal(await read(ns, key), `value of ${key}`)
      await write(ns, key, 'second')
      assert.equal(await read(ns, key), 'second')
      await kv.values.delete(key, { account_id, namespace_id: ns })
      await kv.values.delete(key, { account_id, namespace_id: ns })
      await fails(read(ns, key), 404, 10009)
    }
  })

  test('bytes survive', async () => {
    const ns = await namespace()
    const bytes = Uint8Array.from({ length: 70000 }, (_, i) => i % 256)
    await write(ns, 'bytes', new File([bytes], 'bytes'))
    const response = await kv.values.get('bytes', { account_id, namespace_id: ns })
    assert.equal(response.headers.get('content-type'), 'application/octet-stream')
    assert.equal(response.headers.get('expiration'), null)
    assert.deepEqual(new Uint8Array(await response.arrayBuffer()), bytes)
  })

  test('metadata: set, read, dropped by a plain write', async () => {
    const ns = await namespace()
    await write(ns, 'k', 'v', { metadata: '{"a":[1,null],"é":"😀"}' })
    assert.deepEqual(await meta(ns, 'k'), { a: [1, null], é: '😀' })
    assert.equal(await read(ns, 'k'), 'v')
    await write(ns, 'k', 'v2')
    assert.equal(await meta(ns, 'k'), null)
  })

  test('expiration_ttl and expiration', async () => {
    const ns = await namespace()
    const expires = async (key) => Number((await kv.values.get(key, { account_id, namespace_id: ns })).headers.get('expiration'))
    const before = seconds()
    await write(ns, 'ttl', 'v', { expiration_ttl: 300 })
    const at = await expires('ttl')
    // The server's clock is coarse: it may still be in the second before.
    assert.ok(at >= before + 299 && at <= seconds() + 300, `${at}`)
    await write(ns, 'at', 'v', { expiration: before + 1000 })
    assert.equal(await expires('at'), before + 1000)
    await write(ns, 'both', 'v', { expiration: before + 9000, expiration_ttl: 100 })
    assert.ok((await expires('both')) < before + 200)
    await fails(write(ns, 'short', 'v', { expiration_ttl: 30 }), 400, 10034)
    await fails(write(ns, 'past', 'v', { expiration: before - 5 }), 400, 10033)
    await fails(read(ns, 'short'), 404, 10009)
  })

  test('what is missing is 404', async () => {
    const ns = await namespace()
    await fails(read(ns, 'none'), 404, 10009)
    await fails(meta(ns, 'none'), 404, 10009)
    await fails(read('f'.repeat(32), 'none'), 404, 10013)
  })

  test('a wrong or missing token is 401', async () => {
    const ns = await namespace()
    await write(ns, 'secret', 'v')
    const wrong = client('wrong').kv.namespaces
    await fails(wrong.values.get('secret', { account_id, namespace_id: ns }), 401, 10000)
    await fails(wrong.values.delete('secret', { account_id, namespace_id: ns }), 401, 10000)
    await fails(wrong.create({ account_id, title: unique('denied') }), 401, 10000)
    await fails(wrong.list({ account_id }), 401, 10000)
    assert.equal(await read(ns, 'secret'), 'v')
  })
})

describe('sdk: keys', () => {
  test('prefix, limit, paging, expiration and metadata', async () => {
    const ns = await namespace()
    const name = (i) => `p/${String(i).padStart(3, '0')}`
    const body = Array.from({ length: 95 }, (_, i) => ({ key: name(i), value: 'v' }))
    const expiration = seconds() + 5000
    body.push({ key: 'q é+ ', value: 'v', metadata: { n: 1 }, expiration })
    await kv.bulkUpdate(ns, { account_id, body })
    const names = async (query) => (await all(kv.keys.list(ns, { account_id, ...query }))).map((k) => k.name)
    assert.equal((await names({})).length, 96)
    assert.deepEqual(await names({ prefix: 'p/', limit: 10 }), body.slice(0, 95).map((e) => e.key))
    assert.deepEqual(await names({ prefix: 'p/01', limit: 10 }), Array.from({ length: 10 }, (_, i) => name(10 + i)))
    assert.deepEqual(await names({ prefix: 'nothing' }), [])
    const first = await kv.keys.list(ns, { account_id, limit: 20 })
    assert.equal(first.result.length, 20)
    assert.equal(first.result_info.count, 20)
    const next = await kv.keys.list(ns, { account_id, limit: 50, cursor: first.result_info.cursor })
    assert.equal(next.result[0].name, name(20), 'the limit may change between pages')
    const [last] = (await kv.keys.list(ns, { account_id, prefix: 'q é+ ' })).result
    assert.deepEqual(last, { name: 'q é+ ', expiration, metadata: { n: 1 } })
    assert.deepEqual(first.result[0], { name: name(0) })
    for (const limit of [9, 1001]) await fails(kv.keys.list(ns, { account_id, limit }), 400)
    await fails(kv.keys.list(ns, { account_id, cursor: '!nonsense!' }), 400)
  })
})

describe('sdk: bulk', () => {
  test('update, get, delete', async () => {
    const ns = await namespace()
    const body = [
      { key: 'text', value: 'one', metadata: { a: 1 } },
      { key: 'json', value: '{"b":[2]}', expiration_ttl: 600 },
      { key: 'base64', value: Buffer.from('three').toString('base64'), base64: true },
    ]
    const wrote = await kv.bulkUpdate(ns, { account_id, body })
    assert.equal(wrote.successful_key_count, 3)
    assert.deepEqual(wrote.unsuccessful_keys, [])
    const keys = ['text', 'json', 'base64', 'none']
    const got = await kv.bulkGet(ns, { account_id, keys })
    assert.deepEqual(got.values, { text: 'one', json: '{"b":[2]}', base64: 'three', none: null })
    const json = await kv.bulkGet(ns, { account_id, keys: ['json'], type: 'json' })
    assert.deepEqual(json.values, { json: { b: [2] } })
    const { values } = await kv.bulkGet(ns, { account_id, keys, withMetadata: true })
    assert.equal(values.text.value, 'one')
    assert.deepEqual(values.text.metadata, { a: 1 })
    assert.equal(values.json.metadata ?? null, null)
    assert.equal(values.none, null)
    const gone = await kv.bulkDelete(ns, { account_id, body: ['text', 'json', 'never'] })
    assert.equal(gone.successful_key_count, 3)
    assert.deepEqual((await all(kv.keys.list(ns, { account_id }))).map((k) => k.name), ['base64'])
  })

  test('10,000 keys in one request', async () => {
    const ns = await namespace()
    const body = Array.from({ length: 10000 }, (_, i) => ({ key: `k${i}`, value: `v${i}` }))
    assert.equal((await kv.bulkUpdate(ns, { account_id, body })).successful_key_count, 10000)
    assert.equal((await all(kv.keys.list(ns, { account_id }))).length, 10000)
    const got = await kv.bulkGet(ns, { account_id, keys: ['k0', 'k4999', 'k9999'] })
    assert.deepEqual(got.values, { k0: 'v0', k4999: 'v4999', k9999: 'v9999' })
    await kv.bulkDelete(ns, { account_id, body: body.map((e) => e.key) })
    assert.equal((await all(kv.keys.list(ns, { account_id }))).length, 0)
  })

  test('limits', async () => {
    const ns = await namespace()
    const keys = Array.from({ length: 101 }, (_, i) => `k${i}`)
    await fails(kv.bulkGet(ns, { account_id, keys }), 400)
    await fails(kv.bulkGet(ns, { account_id, keys: [] }), 400)
    const body = Array.from({ length: 10001 }, (_, i) => ({ key: `k${i}`, value: '' }))
    await fails(kv.bulkUpdate(ns, { account_id, body }), 400)
  })
})
