// A real Worker in the real workerd, bound to the server by kvNamespace.
import assert from 'node:assert'
import { test } from 'node:test'
import { TOKEN, freePort, namespace, rest, runCases, scratch, serve, sleep, unique, workerd } from './lib.mjs'

test('workerd: the binding', async (t) => {
  const title = unique('worker')
  const ns = await namespace(title)
  const worker = await workerd('worker/binding.mjs', {
    KV: { ns },
    TITLE: { ns: title },
    LIST: { ns: await namespace() },
    EMPTY: { ns: await namespace() },
    UNKNOWN: { ns: 'f'.repeat(32) },
    DENIED: { ns, token: 'wrong' },
    NOTOKEN: { ns, token: '' },
  })
  await runCases(t, worker)
  await worker.stop()
})

test('workerd: what REST writes a Worker reads, and the reverse', async () => {
  const ns = await namespace()
  const worker = await workerd('worker/loop.mjs', { KV: { ns } })
  assert.equal((await rest('PUT', `/${ns}/values/a%2Fb`, 'from rest')).status, 200)
  assert.equal(await (await fetch(`${worker.url}/get?key=a%2Fb`)).text(), 'from rest')
  await fetch(`${worker.url}/put?key=c%2Fd&value=from+worker`)
  const got = await rest('GET', `/${ns}/values/c%2Fd`)
  assert.equal(got.text, 'from worker')
  assert.equal(got.headers.get('content-type'), 'application/octet-stream')
  assert.equal((await rest('DELETE', `/${ns}`)).status, 200)
  assert.equal((await fetch(`${worker.url}/put?key=x&value=y`)).status, 500, 'a dropped namespace takes no writes')
  await worker.stop()
})

test('workerd: kill -9 while a Worker writes; every acknowledged key is there', async () => {
  const data = scratch()
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let server = await serve(data, port)
  const ns = await namespace('crash', { url, token: TOKEN })
  const worker = await workerd('worker/loop.mjs', { KV: { ns, port } })
  const acknowledged = new Map()
  for (let round = 0; round < 3; round++) {
    let writing = true
    let refused = 0
    const writers = Array.from({ length: 8 }, async (_, w) => {
      for (let i = 0; writing; i++) {
        const key = `r${round}w${w}i${i}`
        const value = `${key}:${'v'.repeat((i * 37) % 3000)}`
        const ok = await fetch(`${worker.url}/put?key=${key}`, { method: 'POST', body: value }).then((r) => r.text(), () => '')
        if (ok === 'stored') acknowledged.set(key, value)
        else if (++refused >= 3) return
      }
    })
    await sleep(700)
    server.kill('SIGKILL')
    await server.ended
    await sleep(100)
    writing = false
    await Promise.all(writers)
    server = await serve(data, port)
    const names = [...acknowledged.keys()]
    assert.ok(names.some((k) => k.startsWith(`r${round}`)), `round ${round} acknowledged something`)
    for (let i = 0; i < names.length; i += 100) {
      const keys = names.slice(i, i + 100)
      const { json } = await rest('POST', `/${ns}/bulk/get`, { keys }, { url })
      for (const k of keys) assert.equal(json.result.values[k], acknowledged.get(k), `${k} was acknowledged`)
    }
    const probe = names.at(-1)
    assert.equal(await (await fetch(`${worker.url}/get?key=${probe}`)).text(), acknowledged.get(probe))
  }
  await worker.stop()
  server.kill('SIGTERM')
  await server.ended
  assert.equal(server.exitCode, 0, 'SIGTERM stops the server gracefully')
})
