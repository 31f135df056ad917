export default {
  async fetch(request, { KV }) {
    const visits = Number((await KV.get('visits')) ?? 0) + 1
    await KV.put('visits', visits, { metadata: { at: Date.now() } })
    return new Response(`visit ${visits}\n`)
  },
}
