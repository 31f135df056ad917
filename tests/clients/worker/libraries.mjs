// Libraries that sit on a KV binding, inside a Worker.
import assert from 'node:assert'
import { MethodNotAllowedError, NotFoundError, getAssetFromKV } from '@cloudflare/kv-asset-handler'
import { createStorage } from 'unstorage'
import driver from 'unstorage/drivers/cloudflare-kv-binding'
import manifestText from '__STATIC_CONTENT_MANIFEST'
import { serveCases } from './cases.mjs'

const asset = (env, path, init) =>
  getAssetFromKV(
    { request: new Request(`https://site.example${path}`, init), waitUntil() {} },
    { ASSET_NAMESPACE: env.SITE, ASSET_MANIFEST: JSON.parse(manifestText), cacheControl: { bypassCache: true } },
  )

const cases = {
  async 'unstorage: set, get, has, remove'({ KV }) {
    const storage = createStorage({ driver: driver({ binding: KV }) })
    assert.strictEqual(await storage.getItem('none'), null)
    assert.strictEqual(await storage.hasItem('none'), false)
    const values = { text: 'plain ✓', number: 42, flag: false, object: { a: [1, 'é'], b: null }, 'deep:er:key': 'x' }
    for (const [key, value] of Object.entries(values)) {
      await storage.setItem(key, value)
      assert.deepStrictEqual(await storage.getItem(key), value)
      assert.strictEqual(await storage.hasItem(key), true)
    }
    assert.deepStrictEqual((await storage.getKeys()).sort(), Object.keys(values).sort())
    await storage.removeItem('text')
    assert.strictEqual(await storage.getItem('text'), null)
    await storage.setMeta('number', { by: 'unstorage' })
    assert.deepStrictEqual({ ...(await storage.getMeta('number')) }, { by: 'unstorage' })
    await storage.clear()
    assert.deepStrictEqual(await storage.getKeys(), [])
  },
  async 'unstorage: ttl, and keys under a base'({ KV }) {
    const plain = createStorage({ driver: driver({ binding: KV }) })
    const based = createStorage({ driver: driver({ binding: KV, base: 'base' }) })
    const before = Math.floor(Date.now() / 1000)
    await based.setItem('ttl', 'v', { ttl: 120 })
    await plain.setItem('baseless', 'v')
    const [key] = (await KV.list({ prefix: 'base:ttl' })).keys
    assert.ok(key.expiration >= before + 120)
    assert.strictEqual(await plain.getItem('base:ttl'), 'v')
    await based.clear()
    assert.deepStrictEqual(await plain.getKeys(), ['baseless'])
  },
  async 'kv-asset-handler: an asset by its manifest name, with its type'({ SITE, ...env }) {
    const html = await asset({ SITE, ...env }, '/')
    assert.strictEqual(html.status, 200)
    assert.match(html.headers.get('content-type'), /^text\/html/)
    assert.strictEqual(await html.text(), '<h1>home</h1>')
    const js = await asset({ SITE, ...env }, '/app.js')
    assert.match(js.headers.get('content-type'), /javascript/)
    assert.strictEqual(await js.text(), 'let é = 1')
  },
  async 'kv-asset-handler: HEAD, what is missing, a wrong method'(env) {
    assert.strictEqual((await asset(env, '/app.js', { method: 'HEAD' })).status, 200)
    await assert.rejects(asset(env, '/none.png'), NotFoundError)
    await assert.rejects(asset(env, '/app.js', { method: 'POST' }), MethodNotAllowedError)
  },
}

export default serveCases(cases)
