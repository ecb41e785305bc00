// The application of the examples of docs/ai.md. Its model counts as far as the question
// says. It prints when that is stopped, and what is saved.
import { setTimeout as sleep } from "node:timers/promises"
import { MockLanguageModelV4 } from "ai/test"

export const model = new MockLanguageModelV4({
  doStream: async ({ prompt, abortSignal }) => {
    const words = prompt.at(-1).content[0].text === "short" ? 20 : 1e6
    abortSignal.addEventListener("abort", () => words === 20 || console.log(JSON.stringify({ who: "aborted", aborted: Date.now() })))
    async function* parts() {
      yield { type: "stream-start", warnings: [] }
      yield { type: "text-start", id: "t" }
      for (let i = 1; i <= words && !abortSignal.aborted; i++) {
        yield { type: "text-delta", id: "t", delta: `${i} ` }
        await sleep(2)
      }
      yield { type: "text-end", id: "t" }
      const tokens = { total: words, noCache: words, cacheRead: 0, cacheWrite: 0, text: words, reasoning: 0 }
      yield { type: "finish", finishReason: { unified: "stop", raw: "stop" }, usage: { inputTokens: tokens, outputTokens: tokens } }
    }
    return { stream: ReadableStream.from(parts()) }
  },
})

export async function save(answer, messages) {
  const text = messages.at(-1).parts.filter(part => part.type === "text").map(part => part.text).join("")
  console.log(JSON.stringify({ who: "saved", text }))
}
