// Sends one event until its outcome is known.

import { eventsURL } from "./place.js";
import { authorization, tokenInUse } from "./api.js";
import { problemOf } from "./problem.js";

const PAUSES = [1000, 2000, 4000, 8000];
const PAUSE_MOST = 30000;
const ANSWER = 15000;

// With a key, an event can be sent again. crypto.randomUUID works on secure origins only.
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class PublishError extends Error {
  // unknown: the event may or may not be stored.
  constructor(message, unknown) {
    super(message);
    this.unknown = unknown;
  }
}

// Returns {feed, id, time, replayed}, {feed} for an ephemeral event, or throws a PublishError.
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
  const headers = { ...authorization(tokenInUse()), "Content-Type": json ? "application/json" : "text/plain; charset=utf-8" };
  if (type) headers["Event-Type"] = type;
  if (!ephemeral) headers["Idempotency-Key"] = key;
  // The browser reports a header that it cannot send as a network error.
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
    // Not a problem from Rejoin: a proxy may have answered instead.
  }
  return {
    problem: await problemOf(response),
    again: failed || [408, 425, 429].includes(status),
    unknown: failed && stored !== "no",
    wait: 1000 * (Number.parseInt(response.headers.get("Retry-After"), 10) || 0),
  };
}
