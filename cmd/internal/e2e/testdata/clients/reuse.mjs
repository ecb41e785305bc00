// Reads a stream to its clean end and publishes on the same connection, again and
// again: node reuse.mjs URL FEED ROUNDS. The feed is closed.
import diagnostics from "node:diagnostics_channel"
import { Agent, request } from "undici"

const [url, feed, rounds] = process.argv.slice(2)
let connections = 0
diagnostics.subscribe("undici:client:connected", () => connections++)

// once does it with a function that returns the status and the text of an answer.
async function once(ask, who, round) {
  const stream = await ask("GET", `${url}/v1/feeds/${feed}/events?from=start`)
  if (stream.status !== 200 || !stream.text.includes("event: feed.closed\n")) throw new Error(`${who}: the stream: ${stream.status} ${stream.text}`)
  const published = await ask("POST", `${url}/v1/feeds/${who}/events`, `${who} ${round}`)
  if (published.status !== 201 || JSON.parse(published.text).id !== round) throw new Error(`${who}: the publish: ${published.status} ${published.text}`)
}

const dispatcher = new Agent({ connections: 1, pipelining: 1 })
const clients = {
  undici: async (method, url, body) => {
    const r = await request(url, { method, body, dispatcher })
    return { status: r.statusCode, text: await r.body.text() }
  },
  fetch: async (method, url, body) => {
    const r = await fetch(url, { method, body })
    return { status: r.status, text: await r.text() }
  },
}
for (const [who, ask] of Object.entries(clients)) {
  connections = 0
  for (let round = 1; round <= rounds; round++) await once(ask, who, round)
  console.log(JSON.stringify({ who, rounds: Number(rounds), connections }))
}
await dispatcher.close()
