// unstorage over REST, pointed at the server by apiURL.
import assert from 'node:assert'
import { test } from 'node:test'
import { createStorage } from 'unstorage'
import driver from 'unstorage/drivers/cloudflare-kv-http'
import { ACCOUNT, TOKEN, URL_, namespace, rest, seconds } from './lib.mjs'

const over = (namespaceId, more = {}) =>
  createStorage({ driver: driver({ accountId: ACCOUNT, apiToken: TOKEN, apiURL: URL_, namespaceId, ...more }) })

test('unstorage http: set, get, has, remove', async () => {
  const ns = await namespace()
  const storage = over(ns)
  assert.equal(await storage.getItem('none'), null)
  assert.equal(await storage.hasItem('none'), false)
  const values = { text: 'plain ✓', number: 42, flag: false, object: { a: [1, 'é'], b: null }, 'deep:er:key': 'x' }
  for (const [key, value] of Object.entries(values)) {
    await storage.setItem(key, value)
    assert.deepEqual(await storage.getItem(key), value, key)
    assert.equal(await storage.hasItem(key), true, key)
  }
  assert.equal((await rest('GET', `/${ns}/values/text`)).text, 'plain ✓', 'the body is kept as it was sent')
  await storage.removeItem('text')
  await storage.removeItem('text')
  assert.equal(await storage.hasItem('text'), false)
  assert.equal(await storage.getItem('text'), null)
})

test('unstorage http: raw bytes', async () => {
  const storage = over(await namespace())
  const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i % 256)
  await storage.setItemRaw('raw', bytes)
  assert.deepEqual(new Uint8Array(await storage.getItemRaw('raw')), bytes)
})

test('unstorage http: ttl and getMeta', async () => {
  const ns = await namespace()
  const storage = over(ns)
  const before = seconds()
  await storage.setItem('ttl', 'v', { ttl: 10 })
  const at = Number((await rest('GET', `/${ns}/values/ttl`)).headers.get('expiration'))
  assert.ok(at >= before + 60 && at <= seconds() + 60, 'the driver raises a ttl to 60 seconds')
  await storage.setMeta('ttl', { by: 'unstorage' })
  assert.deepEqual(await storage.getMeta('ttl'), { by: 'unstorage' })
  assert.deepEqual(await storage.getMeta('none'), {})
})

test('unstorage http: getKeys and clear, with a base and over pages', async () => {
  const ns = await namespace()
  const storage = over(ns)
  const body = Array.from({ length: 1500 }, (_, i) => ({ key: `a:${i}`, value: `${i}` }))
  body.push({ key: 'b:1', value: 'b' }, { key: 'ab', value: 'ab' })
  await rest('PUT', `/${ns}/bulk`, body)
  const names = body.map((e) => e.key).sort()
  assert.deepEqual((await storage.getKeys()).sort(), names)
  assert.deepEqual((await storage.getKeys('a')).sort(), names.filter((k) => k.startsWith('a:')))
  const based = over(ns, { base: 'b' })
  assert.equal(await based.getItem('1'), 'b')
  await over(ns, { base: 'a' }).clear()
  assert.deepEqual((await storage.getKeys()).sort(), ['ab', 'b:1'])
  await storage.clear()
  assert.deepEqual(await storage.getKeys(), [])
})

test('unstorage http: a wrong token is an error, not a missing key', async () => {
  const storage = over(await namespace(), { apiToken: 'wrong' })
  await assert.rejects(storage.getItem('k'), /401/)
  await assert.rejects(storage.setItem('k', 'v'), /401/)
  await assert.rejects(storage.hasItem('k'), /401/)
})
