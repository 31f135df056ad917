// A Worker that is a list of cases: GET /names lists them, GET /run?name= runs one.
import assert from 'node:assert'

export const serveCases = (cases) => ({
  async fetch(request, env) {
    const url = new URL(request.url)
    if (url.pathname === '/names') return Response.json(Object.keys(cases))
    const name = url.searchParams.get('name')
    try {
      await cases[name](env, url)
      return new Response('ok')
    } catch (error) {
      return new Response(error.stack ?? String(error), { status: 500 })
    }
  },
})

export async function fails(promise, message, name) {
  let error
  try {
    await promise
  } catch (caught) {
    error = caught
  }
  assert.ok(error, `should have failed with: ${message}`)
  if (message instanceof RegExp) assert.match(error.message, message)
  else assert.strictEqual(error.message, message)
  if (name) assert.strictEqual(error.name, name)
}
