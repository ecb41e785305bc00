// Sends one event until it is known what became of it.

import { eventsURL } from "./place.js";
import { problemOf } from "./problem.js";

const PAUSES = [1000, 2000, 4000, 8000];
const PAUSE_MOST = 30000;
const ANSWER = 15000;

// A key makes an event one that can be sent again. crypto.randomUUID is for secure origins alone.
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class PublishError extends Error {
  // unknown: nobody can tell whether the event is stored.
  constructor(message, unknown) {
    super(message);
    this.unknown = unknown;
  }
}

// Answers {feed, id, time, replayed}, {feed} for an ephemeral event, or throws a PublishError.
// onWait(problem) is called before each pause.
export async function deliver(feed, draft, key, onWait) {
  let unknown = false;
  for (let attempt = 0; ; attempt++) {
    const outcome = await send(feed, draft, key);
    if (outcome.answer) return outcome.answer;
    unknown ||= outcome.unknown;
    // Without a key, an event that is sent again could arrive twice.
    if (!outcome.again || draft.ephemeral || attempt === PAUSES.length) throw new PublishError(outcome.problem, unknown);
    onWait(outcome.problem);
    const pause = Math.min(Math.max(PAUSES[attempt], outcome.wait), PAUSE_MOST);
    await new Promise((resolve) => { setTimeout(resolve, pause); });
  }
}

async function send(feed, { data, type, json, close, ephemeral }, key) {
  const headers = { "Content-Type": json ? "application/json" : "text/plain; charset=utf-8" };
  if (type) headers["Event-Type"] = type;
  if (!ephemeral) headers["Idempotency-Key"] = key;
  // A header that cannot be sent fails in the browser, as if it were the network.
  if (/[^\x20-\x7e]/.test(type)) return { problem: "A type is made of letters, digits and . _ : / -" };
  try {
    const response = await fetch(eventsURL(feed, optionsOf({ close, ephemeral })), { method: "POST", headers, body: data, signal: AbortSignal.timeout(ANSWER) });
    if (response.status === 202) return { answer: { feed } };
    if (response.ok) return { answer: { ...(await response.json()), replayed: response.headers.has("Idempotency-Replayed") } };
    return refused(response);
  } catch {
    return { problem: "The server cannot be reached.", again: true, unknown: true, wait: 0 };
  }
}

export function optionsOf({ close, ephemeral }) {
  return { ...(close && { close: "true" }), ...(ephemeral && { ephemeral: "true" }) };
}

async function refused(response) {
  const { status } = response;
  const failed = status >= 500 && status !== 501;
  let stored;
  try {
    ({ stored } = await response.clone().json());
  } catch {
    // Not a problem of ours: a proxy may have answered instead.
  }
  return {
    problem: await problemOf(response),
    again: failed || [408, 425, 429].includes(status),
    unknown: failed && stored !== "no",
    wait: 1000 * (Number.parseInt(response.headers.get("Retry-After"), 10) || 0),
  };
}
