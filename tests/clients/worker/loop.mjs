// A small Worker driven from outside: /put?key= (body or ?value=), /get?key=.
export default {
  async fetch(request, { KV }) {
    const url = new URL(request.url)
    const key = url.searchParams.get('key')
    try {
      if (url.pathname === '/put') {
        await KV.put(key, url.searchParams.get('value') ?? (await request.arrayBuffer()))
        return new Response('stored')
      }
      if (url.pathname === '/get') return new Response(await KV.get(key, 'stream'))
      return new Response('hello')
    } catch (error) {
      return new Response(error.message, { status: 500 })
    }
  },
}
