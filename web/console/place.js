// Reads feeds and types from the page's address, and makes the addresses of the API.

const API = new URL("v1/", document.baseURI);
const DEFAULT_FEED = "demo";

// Uses the fragment, not the query, so that access logs have no names of feeds.
export function readPlace() {
  const params = new URLSearchParams(location.hash.slice(1));
  const feeds = parseFeeds(params.getAll("feed").join(","));
  return {
    feeds: feeds.length ? feeds : [DEFAULT_FEED],
    types: parseTypes(params.get("types") ?? ""),
  };
}

export function placeOf(feeds, types) {
  // Colons and commas are common in here, legal in a fragment, and easier to read as they are.
  const plain = (list) => encodeURIComponent(list.join(",")).replace(/%(3A|2C|40|2F)/g, decodeURIComponent);
  return `#feed=${plain(feeds)}` + (types.length ? `&types=${plain(types)}` : "");
}

// A name has neither commas nor spaces, so either can separate two names.
export function parseFeeds(text) {
  return [...new Set(text.split(/[\s,]+/).filter(Boolean))];
}

// An EventSource fires "open" and "error" itself, "message" is an event without a type,
// and "feed." belongs to the server: none of them is a type to listen to.
export function isListenable(type) {
  return /^[A-Za-z0-9._:/-]{1,100}$/.test(type)
    && !["open", "error", "message"].includes(type)
    && !type.startsWith("feed.");
}

export function parseTypes(text) {
  return [...new Set(text.split(",").map((type) => type.trim()).filter(isListenable))];
}

// Where to publish to one feed.
export function eventsURL(feed, params = {}) {
  return address(`feeds/${encodeURIComponent(feed)}/events`, params);
}

// Where to follow one feed or several, which have an address of their own.
export function followURL(feeds, params = {}) {
  return feeds.length === 1 ? eventsURL(feeds[0], params) : address("events", { feed: feeds.join(","), ...params });
}

function address(path, params) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  return url.href.replace(/%(3A|40|2C|3D)/g, decodeURIComponent);
}
