// Runs the examples of docs/ai.md, which lie beside it, and prints what they have read
// as lines of JSON:
//
//	node ai.mjs answers FRONT FIRST LAST CHUNKS   publish answers, and read each in four ways
//	node ai.mjs chat FRONT                        ask, join late, stop, and find nothing active
//	node ai.mjs workflow FRONT                    the same with WorkflowChatTransport
//
// FRONT is the address of the proxy in front of Rejoin and the application. All answers
// wait in the middle until there is a line of input.
import { createHash } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { readUIMessageStream } from "ai"
import { chatTransport } from "./chat.mjs"
import { parts } from "./langgraph.mjs"
import { events } from "./openai.mjs"
import { publish } from "./publish.mjs"
import { stop } from "./stop.mjs"
import { workflowTransport } from "./workflow.mjs"

const [mode, front, ...numbers] = process.argv.slice(2)
const [first, last, chunks] = numbers.map(Number)
const say = what => console.log(JSON.stringify(what))
const hash = text => createHash("sha256").update(text).digest("hex")

// The examples are for a page: their addresses begin with a slash.
const realFetch = globalThis.fetch
let newest // the address of the newest stream
globalThis.fetch = async (url, init) => {
  const response = await realFetch(new URL(url, front), init)
  if (response.url.includes("/stream")) newest = response.url
  return response
}
console.error = () => {} // WorkflowChatTransport reports every break

const words = ["word ", "ünï🚀 ", "\n\n", '"quoted" ', "data: x\n\ndata: [DONE]\n", "id: 1\n", "long ".repeat(40), " "]

// source returns the chunks of an answer.
function source(answer) {
  const deltas = Array.from({ length: chunks - 4 }, (_, i) => ({ type: "text-delta", id: "t", delta: `${answer}.${i} ${words[i % words.length]}` }))
  return [{ type: "start", messageId: `m${answer}` }, { type: "text-start", id: "t" }, ...deltas, { type: "text-end", id: "t" }, { type: "finish" }]
}

// typed encodes chunks as a stream. In the middle, it waits for half.
function typed(list, half) {
  let i = 0
  const encoder = new TextEncoder()
  return new ReadableStream({
    async pull(controller) {
      if (i >= list.length) return controller.close()
      if (i >= list.length / 2 && half) {
        await half()
        half = undefined
      }
      const some = list.slice(i, (i += 7))
      controller.enqueue(encoder.encode(some.map(chunk => `data: ${JSON.stringify(chunk)}\n\n`).join("")))
      await sleep(1)
    },
  })
}

const textOf = list => list.filter(chunk => chunk.type === "text-delta").map(chunk => chunk.delta).join("")

// assembled returns the text of the message that the AI SDK makes of a stream.
async function assembled(stream, show = () => {}) {
  let message
  for await (message of readUIMessageStream({ stream, terminateOnError: true })) show(message)
  return message.parts.filter(part => part.type === "text").map(part => part.text).join("")
}

// The ways to read an answer to its end return its text, or all that they have read.
const ways = {
  async default(chat, answer) {
    const transport = chatTransport(chat, answer)
    // It has nowhere else to load a finished message from.
    const { prepareReconnectToStreamRequest: prepare } = transport
    transport.prepareReconnectToStreamRequest = () => ({ api: prepare().api.replace("?closed=204", "") })
    for (;; await sleep(20)) {
      try {
        return { text: await assembled(await transport.reconnectToStream({ chatId: chat })) }
      } catch (error) {
        if (!/terminated|fetch/.test(error.message)) throw error
      }
    }
  },
  async workflow(chat, answer) {
    return { text: await assembled(await workflowTransport(chat, answer).reconnectToStream({ chatId: chat })) }
  },
  async openai(chat, answer) {
    const read = []
    for await (const event of events(`/v1/feeds/${answer}/stream`)) read.push(event)
    return { events: hash(JSON.stringify(read)), text: textOf(read) }
  },
  async langgraph(chat, answer) {
    const read = []
    let last = 0
    for await (const part of parts(front, chat, answer.slice(`chat:${chat}:`.length))) {
      if (Number(part.id) !== ++last) throw new Error(`the id ${part.id} came after ${last - 1}`)
      read.push(part.data)
    }
    return { events: hash(JSON.stringify(read)), text: textOf(read) }
  },
}

// answer publishes an answer and reads it in all ways.
async function answer(number, half) {
  const chat = String(number), feed = `chat:${chat}:answer-1`, list = source(number)
  const published = publish(feed, typed(list, half), () => {})
  const readers = Object.keys(ways).map(async who => {
    const read = await ways[who](chat, feed)
    say({ who, answer: number, text: hash(read.text), events: read.events })
  })
  const response = await published
  say({ who: "source", answer: number, text: hash(textOf(list)), events: hash(JSON.stringify(list)), status: response.status, stored: (await response.json()).events })
  await Promise.all(readers)
}

// answers does so for all of them at once.
async function answers() {
  const goOn = new Promise(resolve => process.stdin.once("data", resolve))
  let waiting = 0
  const half = () => {
    if (++waiting === last - first + 1) say({ who: "half" })
    return goOn
  }
  await Promise.all(Array.from({ length: last - first + 1 }, (_, i) => answer(first + i, half)))
}

const question = text => [{ id: "1", role: "user", parts: [{ type: "text", text }] }]

// chat asks with one transport, joins with another, and stops with neither.
async function chat(newTransport) {
  const page = newTransport("42")
  const ask = text => page.sendMessages({ trigger: "submit-message", chatId: "42", messages: question(text) })
  say({ who: "short", text: await assembled(await ask("short")) })

  let seen = 0
  const begun = deferred()
  const reading = assembled(await ask("long"), () => ++seen > 50 && begun.resolve())
  await begun.promise
  const answer = new URL(newest).pathname.split("/")[3]
  const late = newTransport("42", answer)
  let joined = 0
  const all = deferred()
  const other = assembled(await late.reconnectToStream({ chatId: "42" }), () => ++joined > 60 && all.resolve())
  await all.promise
  const began = Date.now()
  const stopped = await stop(answer)
  const texts = await Promise.all([reading, other])
  say({ who: "stop", status: stopped.status, began, ended: Date.now(), same: texts[0] === texts[1], words: texts[0].split(" ").length })

  const idle = await newTransport("42", answer).reconnectToStream({ chatId: "42" })
  say({ who: "idle", text: idle && await assembled(idle).catch(() => "") })
  const none = newTransport === chatTransport && await newTransport("43").reconnectToStream({ chatId: "43" })
  say({ who: "none", text: none === null ? "null" : String(none) })
}

function deferred() {
  let resolve
  const promise = new Promise(r => (resolve = r))
  return { promise, resolve }
}

switch (mode) {
  case "answers":
    await answers()
    break
  case "chat":
    await chat(chatTransport)
    break
  case "workflow":
    await chat(workflowTransport)
    break
}
process.exit(0)
