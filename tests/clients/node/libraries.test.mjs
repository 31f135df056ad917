// unstorage and kv-asset-handler on a KV binding, inside a Worker in the real workerd.
import assert from 'node:assert'
import { test } from 'node:test'
import { namespace, rest, runCases, workerd } from './lib.mjs'

test('workerd: libraries on the binding', async (t) => {
  const site = await namespace()
  const files = { 'index.abc123.html': '<h1>home</h1>', 'app.def456.js': 'let é = 1' }
  for (const [name, text] of Object.entries(files)) assert.equal((await rest('PUT', `/${site}/values/${name}`, text)).status, 200)
  const worker = await workerd('worker/libraries.mjs', { KV: { ns: await namespace() }, SITE: { ns: site } })
  await runCases(t, worker)
  await worker.stop()
})
