// The real wrangler, pointed at the server by its environment alone.
import assert from 'node:assert'
import { writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { ACCOUNT, TOKEN, URL_, rest, scratch, seconds, start, unique } from './lib.mjs'

const bin = resolve('node_modules/wrangler/bin/wrangler.js')
const home = scratch()

async function wrangler(...args) {
  const child = start(process.execPath, [bin, 'kv', ...args], {
    CLOUDFLARE_API_BASE_URL: `${URL_}/client/v4`,
    CLOUDFLARE_API_TOKEN: TOKEN,
    CLOUDFLARE_ACCOUNT_ID: ACCOUNT,
    WRANGLER_SEND_METRICS: 'false',
    WRANGLER_LOG_PATH: join(home, 'logs'),
    XDG_CONFIG_HOME: home,
    NO_COLOR: '1',
    CI: 'true',
  }, home)
  await child.ended
  return { code: child.exitCode, text: child.output }
}

async function works(...args) {
  const { code, text } = await wrangler(...args)
  assert.equal(code, 0, `wrangler kv ${args.join(' ')}\n${text}`)
  return text
}

/** The JSON in what wrangler printed, between its messages. */
const json = (text) => JSON.parse(text.match(/^[[{][^]*^[\]}]$/m)[0])

async function find(title) {
  const { json } = await rest('GET', '?per_page=1000')
  return json.result.find((n) => n.title === title)?.id
}

test('wrangler', async (t) => {
  const title = unique('wrangler')
  const file = (name, content) => (writeFileSync(join(home, name), content), join(home, name))
  let ns
  let remote

  await t.test('namespace create; the title is then taken', async () => {
    await works('namespace', 'create', title)
    ns = await find(title)
    assert.ok(ns)
    remote = ['--namespace-id', ns, '--remote']
    const again = await wrangler('namespace', 'create', title)
    assert.notEqual(again.code, 0)
    assert.match(again.text, /already exists/)
  })

  await t.test('namespace list', async () => {
    const listed = json(await works('namespace', 'list'))
    assert.ok(listed.some((n) => n.id === ns && n.title === title))
  })

  await t.test('key put: text, and key get', async () => {
    await works('key', 'put', 'a/b c?d+é', 'text ✓', ...remote)
    assert.equal((await rest('GET', `/${ns}/values/${encodeURIComponent('a/b c?d+é')}`)).text, 'text ✓')
    assert.match(await works('key', 'get', 'a/b c?d+é', '--text', ...remote), /text ✓/)
  })

  await t.test('key put: --path, --metadata, --ttl', async () => {
    const bytes = Uint8Array.from({ length: 4096 }, (_, i) => i % 256)
    const before = seconds()
    const metadata = { by: 'wrangler', é: [1, null] }
    await works('key', 'put', 'file', '--path', file('bytes', bytes), '--metadata', JSON.stringify(metadata), '--ttl', '600', ...remote)
    const response = await fetch(`${URL_}/client/v4/accounts/${ACCOUNT}/storage/kv/namespaces/${ns}/values/file`, {
      headers: { Authorization: `Bearer ${TOKEN}` },
    })
    assert.deepEqual(new Uint8Array(await response.arrayBuffer()), bytes)
    const at = Number(response.headers.get('expiration'))
    assert.ok(at >= before + 600 && at <= seconds() + 600, `${at}`)
    assert.deepEqual((await rest('GET', `/${ns}/metadata/file`)).json.result, metadata)
  })

  await t.test('key list', async () => {
    const listed = json(await works('key', 'list', ...remote))
    assert.deepEqual(listed.map((k) => k.name), ['a/b c?d+é', 'file'])
    assert.deepEqual(listed[1].metadata, { by: 'wrangler', é: [1, null] })
    assert.ok(listed[1].expiration > seconds())
  })

  await t.test('key delete, and get of what is gone', async () => {
    await works('key', 'delete', 'a/b c?d+é', ...remote)
    assert.equal((await rest('GET', `/${ns}/values/${encodeURIComponent('a/b c?d+é')}`)).status, 404)
    const gone = await wrangler('key', 'get', 'a/b c?d+é', ...remote)
    assert.match(gone.text, /404|not found/i)
  })

  const entries = Array.from({ length: 1200 }, (_, i) => ({ key: `bulk/${i}`, value: `value ${i}`, metadata: { i } }))
  const keys = entries.map((e) => e.key)

  await t.test('bulk put of 1,200 keys', async () => {
    await works('bulk', 'put', file('put.json', JSON.stringify(entries)), ...remote)
    const first = (await rest('GET', `/${ns}/keys?prefix=bulk/`)).json
    const second = (await rest('GET', `/${ns}/keys?prefix=bulk/&cursor=${encodeURIComponent(first.result_info.cursor)}`)).json
    const listed = [...first.result, ...second.result]
    assert.deepEqual(listed.map((k) => k.name), [...keys].sort())
    assert.deepEqual(listed.find((k) => k.name === 'bulk/1199').metadata, { i: 1199 })
  })

  await t.test('bulk get', async () => {
    const some = [...keys.slice(0, 98), 'bulk/none']
    const text = await works('bulk', 'get', file('get.json', JSON.stringify(some)), ...remote)
    const values = json(text)
    assert.deepEqual(values['bulk/97']?.value ?? values['bulk/97'], 'value 97')
    assert.equal(values['bulk/none']?.value ?? null, null)
  })

  await t.test('bulk delete of 1,200 keys', async () => {
    await works('bulk', 'delete', file('delete.json', JSON.stringify(keys)), '--force', ...remote)
    assert.deepEqual((await rest('GET', `/${ns}/keys`)).json.result.map((k) => k.name), ['file'])
  })

  await t.test('namespace rename and delete', async () => {
    await works('namespace', 'rename', title, '--new-name', `${title}-2`)
    assert.equal(await find(`${title}-2`), ns)
    await works('namespace', 'delete', '--namespace-id', ns, '--skip-confirmation')
    assert.equal((await rest('GET', `/${ns}`)).status, 404)
  })
})
