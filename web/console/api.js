// Requests to the API, with the visitor's token.

import { eventsURL, feedURL } from "./place.js";
import { items, members, eventOf } from "./json.js";
import { problemOf } from "./problem.js";

export const NEWEST = Number.MAX_SAFE_INTEGER;

let token = "";
export const useToken = (text) => { token = text; };
export const tokenInUse = () => token;

// A Refusal is an answer other than success. Its status is 0 if there was no answer.
export class Refusal extends Error {
  constructor(status, message, challenge) {
    super(message);
    this.status = status;
    this.challenge = challenge;
  }
}

export const authorization = (text) => (text ? { Authorization: `Bearer ${text}` } : {});

export async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { cache: "no-store", ...options, headers: { ...authorization(token), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server cannot be reached", null);
  }
  if (!response.ok) throw await refusalOf(response);
  return response;
}

export async function refusalOf(response) {
  return new Refusal(response.status, await problemOf(response), response.headers.get("WWW-Authenticate"));
}

// Answers that stay the same when the page asks again.
export const isFinal = (status) => (status >= 400 && status < 500 && ![408, 425, 429].includes(status)) || status === 501;

// Returns a page of a feed's events, oldest first: {events, cursor, first, last, closed}.
export async function pageOfEvents(feed, params) {
  const response = await ask(eventsURL(feed, params), { headers: { Accept: "application/json" } });
  const page = members(await response.text());
  return {
    events: items(page.events).map(eventOf),
    cursor: Number(JSON.parse(page.cursor)),
    first: Number(page.first),
    last: Number(page.last),
    closed: page.closed === "true",
  };
}

export const infoOf = async (feed) => (await ask(feedURL(feed))).json();

// Returns the id of the first event at or after a time: a stream from there begins with its cursor.
export async function idAt(feed, time) {
  const asking = new AbortController();
  const response = await ask(eventsURL(feed, { from: time.toISOString() }), { headers: { Accept: "application/x-ndjson" }, signal: asking.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let text = "";
    while (!text.includes("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Refusal(0, "The stream ended before it began", null);
      text += value;
    }
    return Number(JSON.parse(text.slice(0, text.indexOf("\n"))).cursor) + 1;
  } finally {
    asking.abort();
  }
}
