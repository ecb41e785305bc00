// What the page's address says: which feed, which types; and the addresses of the API.

const API = new URL("v1/", document.baseURI);
const DEFAULT_FEED = "demo";

// The fragment, not the query: a feed's name then stays out of access logs.
export function readPlace() {
  const params = new URLSearchParams(location.hash.slice(1));
  return {
    feed: (params.get("feed") ?? "").trim() || DEFAULT_FEED,
    types: parseTypes(params.get("types") ?? ""),
  };
}

export function placeOf(feed, types) {
  // Colons and commas are common in here, legal in a fragment, and easier to read as they are.
  const plain = (text) => encodeURIComponent(text).replace(/%(3A|2C|40|2F)/g, decodeURIComponent);
  return `#feed=${plain(feed)}` + (types.length ? `&types=${plain(types.join(","))}` : "");
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

export function eventsURL(feed, params = {}) {
  const url = new URL(`feeds/${encodeURIComponent(feed)}/events`, API);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  return url.href.replace(/%(3A|40)/g, decodeURIComponent);
}
