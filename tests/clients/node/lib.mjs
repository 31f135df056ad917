// Shared by the Node tests: the server under test, namespaces, and workerd.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { build } from 'esbuild'
import workerdModule from 'workerd'

export const URL_ = process.env.RIMSTONE_URL
export const TOKEN = process.env.RIMSTONE_TOKEN
export const BIN = process.env.RIMSTONE_BIN
export const ACCOUNT = '0123456789abcdef0123456789abcdef'
export const MAX_VALUE = 25 * 1024 * 1024
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
export const seconds = () => Math.floor(Date.now() / 1000)

const workerdPath = workerdModule.default ?? workerdModule
let counter = 0
export const unique = (what) => `${what}-${process.pid}-${++counter}`

export function freePort() {
  return new Promise((ok, fail) => {
    const probe = createServer()
    probe.on('error', fail)
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address()
      probe.close(() => ok(port))
    })
  })
}

export function scratch() {
  const dir = mkdtempSync(join(tmpdir(), 'rimstone-clients-'))
  process.on('exit', () => rmSync(dir, { recursive: true, force: true }))
  return dir
}

export const base = (url = URL_) => `${url}/client/v4/accounts/${ACCOUNT}/storage/kv/namespaces`

/** One plain REST call, for what a test needs around the client it is about. */
export async function rest(method, path, body, { url = URL_, token = TOKEN, headers = {} } = {}) {
  const raw = typeof body === 'string' || body instanceof Uint8Array || body instanceof FormData
  const response = await fetch(base(url) + path, {
    method,
    headers: { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...headers },
    body: body === undefined || raw ? body : JSON.stringify(body),
  })
  const text = await response.text()
  let json
  try {
    json = JSON.parse(text)
  } catch {}
  return { status: response.status, headers: response.headers, text, json }
}

export async function namespace(title = unique('ns'), options) {
  const { json, text } = await rest('POST', '', { title }, options)
  if (!json?.success) throw new Error(`cannot create namespace ${title}: ${text}`)
  return json.result.id
}

const running = new Set()
after(() => running.forEach((child) => child.kill('SIGKILL')))

export function start(command, args, env = {}, cwd = undefined) {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  child.output = ''
  child.stdout.on('data', (data) => (child.output += data))
  child.stderr.on('data', (data) => (child.output += data))
  child.ended = new Promise((done) => child.on('close', () => (running.delete(child), done())))
  return child
}

export async function ready(child, url, headers = {}) {
  for (let i = 0; i < 300; i++) {
    if (child.exitCode !== null) throw new Error(`ended while starting:\n${child.output}`)
    try {
      const response = await fetch(url, { headers })
      await response.arrayBuffer()
      return
    } catch {
      await sleep(50)
    }
  }
  throw new Error(`not ready at ${url}:\n${child.output}`)
}

/** A server of the test's own, apart from the one of the run. */
export async function serve(data, port) {
  const child = start(BIN, ['serve', '--data', data, '--listen', `127.0.0.1:${port}`])
  await ready(child, `http://127.0.0.1:${port}/client/v4/`)
  return child
}

/** A Worker in the real workerd with one KV binding per entry of `bindings`:
 *  NAME -> { ns, token, port }. Returns { url, stop }. */
export async function workerd(entry, bindings) {
  const dir = scratch()
  await build({
    entryPoints: [entry],
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    mainFields: ['module', 'main'],
    conditions: ['workerd', 'worker', 'browser'],
    external: ['node:*', '__STATIC_CONTENT_MANIFEST'],
    outfile: join(dir, 'worker.mjs'),
    logLevel: 'error',
  })
  const port = await freePort()
  const server = new URL(URL_).port
  const services = Object.entries(bindings).map(([name, b]) => {
    const headers = [`(name = "x-kv-namespace", value = ${JSON.stringify(b.ns)})`]
    const token = 'token' in b ? b.token : TOKEN
    if (token) headers.push(`(name = "Authorization", value = ${JSON.stringify(`Bearer ${token}`)})`)
    return `(name = "${name}", external = (address = "127.0.0.1:${b.port ?? server}",
      http = (injectRequestHeaders = [${headers.join(', ')}])))`
  })
  writeFileSync(join(dir, 'config.capnp'), `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main), ${services.join(', ')}],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);
const main :Workerd.Worker = (
  modules = [
    (name = "worker", esModule = embed "worker.mjs"),
    (name = "__STATIC_CONTENT_MANIFEST", text = "{\\"index.html\\":\\"index.abc123.html\\",\\"app.js\\":\\"app.def456.js\\"}"),
  ],
  compatibilityDate = "2025-09-01",
  compatibilityFlags = ["nodejs_compat"],
  bindings = [${Object.keys(bindings).map((n) => `(name = "${n}", kvNamespace = "${n}")`).join(', ')}],
);
`)
  const child = start(workerdPath, ['serve', join(dir, 'config.capnp')])
  const url = `http://127.0.0.1:${port}`
  await ready(child, `${url}/names`)
  return { url, child, stop: () => (child.kill('SIGKILL'), child.ended) }
}

/** Runs every case of a Worker that speaks the protocol of worker/cases.mjs. */
export async function runCases(t, worker) {
  const names = await (await fetch(`${worker.url}/names`)).json()
  for (const name of names) {
    await t.test(name, async () => {
      const response = await fetch(`${worker.url}/run?name=${encodeURIComponent(name)}`)
      const text = await response.text()
      if (response.status !== 200) throw new Error(text)
    })
  }
}
