// Reads a bare stream as AI clients do, with eventsource-parser: all data is JSON of the
// application, whatever event: says. It comes back until it gets 204, and prints the
// data and how often a stream broke: node bare.mjs URL
import { EventSourceParserStream } from "eventsource-parser/stream"

const [url] = process.argv.slice(2)
const data = []
let last = "", breaks = 0, location
for (;;) {
  try {
    const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) }
    const response = await fetch(location ? new URL(location, url) : url, { headers })
    if (response.status === 204) break
    if (response.status !== 200) throw new Error(`status ${response.status}`)
    location = response.headers.get("location")
    const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
    for await (const event of events) {
      data.push(JSON.parse(event.data))
      last = event.id
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw error
    breaks++
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
console.log(JSON.stringify({ data, breaks }))
