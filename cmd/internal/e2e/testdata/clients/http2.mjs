// Follows a feed over HTTP/2 with Node's own client and with undici, and prints a line of
// JSON for each event and for each stream that breaks: node http2.mjs URL FEED. On the
// connection of each stream, it publishes to a feed of its own and reads a page of it.
import diagnostics from "node:diagnostics_channel"
import http2 from "node:http2"
import { once } from "node:events"
import { Agent, request } from "undici"

const [url, feed] = process.argv.slice(2)
const say = what => console.log(JSON.stringify(what))
const pause = () => new Promise(resolve => setTimeout(resolve, 30))

// follow follows the feed with connect, which returns a new connection. A connection has
// ask, which returns the status and the body of an answer.
async function follow(who, connect) {
  let last = "0", published = 0
  for (let closed = false; !closed;) {
    let connection
    try {
      connection = await connect()
      const stream = await connection.ask("GET", `/v1/feeds/${feed}/events`, { accept: "text/event-stream", "last-event-id": last })
      if (stream.status !== 200) throw new Error(`the stream: ${stream.status}`)
      let text = ""
      const decoder = new TextDecoder()
      for await (const chunk of stream.body) {
        text += decoder.decode(chunk, { stream: true })
        for (let at; (at = text.indexOf("\n\n")) >= 0; text = text.slice(at + 2)) {
          const block = text.slice(0, at)
          const type = /^event: (.*)$/m.exec(block)?.[1]
          last = /^id: (.*)$/m.exec(block)?.[1] ?? last
          if (!type) say({ who, id: Number(last), data: /^data: (.*)$/m.exec(block)[1] })
          if (type === "feed.closed") closed = true
          if (type === "feed.open") published = await visit(who, connection, published + 1)
        }
      }
      say({ who, end: "clean" })
    } catch (error) {
      if (error instanceof Wrong) throw error
      say({ who, end: "error", error: String(error) })
      await pause()
    } finally {
      await connection?.close()
    }
  }
}

class Wrong extends Error {}

// visit publishes event n and reads it, while the stream is open.
async function visit(who, connection, n) {
  const text = async answer => {
    let text = ""
    for await (const chunk of answer.body) text += chunk
    return text
  }
  const post = await connection.ask("POST", `/v1/feeds/by-${who}/events`, { "idempotency-key": `${who}-${n}` }, `${who} ${n}`)
  const posted = await text(post)
  if (post.status !== 201 || JSON.parse(posted).id !== n) throw new Wrong(`the publish: ${post.status} ${posted}`)
  const get = await connection.ask("GET", `/v1/feeds/by-${who}/events?after=${n - 1}`, { accept: "application/json" })
  const page = await text(get)
  if (get.status !== 200 || JSON.parse(page).events[0].data !== `${who} ${n}`) throw new Wrong(`the page: ${get.status} ${page}`)
  if (connection.count() !== 1) throw new Wrong(`it took ${connection.count()} connections`)
  return n
}

async function connectNode() {
  const session = http2.connect(url)
  session.on("error", () => {}) // its streams have it, too
  await once(session, "connect")
  return {
    async ask(method, path, headers, body) {
      const stream = session.request({ ":method": method, ":path": path, ...headers }, { endStream: body === undefined })
      if (body !== undefined) stream.end(body)
      const [head] = await once(stream, "response")
      return { status: head[":status"], body: stream }
    },
    count: () => 1,
    close: () => session.destroy(),
  }
}

let connected = 0
diagnostics.subscribe("undici:client:connected", ({ socket }) => {
  connected++
  if (socket.alpnProtocol !== "h2") throw new Wrong(`undici speaks ${socket.alpnProtocol}`)
})

async function connectUndici() {
  connected = 0
  const dispatcher = new Agent({ allowH2: true, connections: 1, pipelining: 100 })
  return {
    async ask(method, path, headers, body) {
      const answer = await request(url + path, { method, headers, body, dispatcher, idempotent: true }) // or it waits for the stream
      return { status: answer.statusCode, body: answer.body }
    },
    count: () => connected,
    close: () => dispatcher.destroy(),
  }
}

await Promise.all([follow("http2", connectNode), follow("undici", connectUndici)])
