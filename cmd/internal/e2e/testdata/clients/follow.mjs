// Follows a feed in three ways, and prints a line of JSON for each event and for each
// end of a stream: node follow.mjs URL URL-THROUGH-THE-PROXY
import { fetchEventSource } from "@microsoft/fetch-event-source"

// fetch-event-source is made for browsers.
globalThis.window = globalThis
globalThis.document = new EventTarget()
const [direct, proxied] = process.argv.slice(2)
const say = what => console.log(JSON.stringify(what))

// follow returns when fetch-event-source does: after a clean end.
async function follow(who, url) {
  await fetchEventSource(url, {
    openWhenHidden: true,
    onmessage(m) {
      if (m.event === "") say({ who, id: Number(m.id), data: m.data })
      else if (m.event === "feed.closed") say({ who, closed: true })
    },
    onerror(error) { say({ who, end: "error", error: String(error) }) }, // and it comes back
    onclose() { say({ who, end: "clean" }) },
  })
}

// read reads the feed with fetch alone, until a stream of it ends cleanly.
async function read(who, url) {
  let last = "0"
  for (;;) {
    try {
      const response = await fetch(url, { headers: { Accept: "text/event-stream", "Last-Event-ID": last } })
      let text = ""
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        text += chunk
        for (let at; (at = text.indexOf("\n\n")) >= 0; text = text.slice(at + 2)) {
          const block = text.slice(0, at)
          const id = /^id: (.*)$/m.exec(block)
          if (id) last = id[1]
          if (!/^event: /m.test(block)) say({ who, id: Number(last), data: /^data: (.*)$/m.exec(block)[1] })
        }
      }
      say({ who, end: "clean" })
      return
    } catch (error) {
      say({ who, end: "error", error: String(error) })
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }
}

await Promise.all([
  follow("direct", direct + "?from=start"),
  follow("proxied", proxied + "?from=start"),
  read("fetch", direct),
])
say({ who: "all", closed: true })
