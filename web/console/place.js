// Reads feeds and types from the page's address, and makes the addresses of the pages and of the API.

const ROOT = new URL("../", import.meta.url);
const API = new URL("v1/", ROOT);
export const ROOT_PATH = ROOT.pathname;
export const API_PATH = API.pathname;
export const DEFAULT_FEED = "demo";
export const READY = new URL("readyz", ROOT).href;

// Colons and commas are legal in a path and a fragment, and easier to read as they are.
const plain = (text) => encodeURIComponent(text).replace(/%(3A|2C|40|2F|3D)/g, decodeURIComponent);

// A page of one feed or several is at /feeds/{names}; the types to show are in the fragment.
export function readPlace() {
  const params = new URLSearchParams(location.hash.slice(1));
  const inside = location.href.startsWith(new URL("feeds/", ROOT).href) ? location.pathname.slice(new URL("feeds/", ROOT).pathname.length) : "";
  const feeds = parseFeeds(inside ? unescaped(inside) : params.getAll("feed").join(","));
  return { feeds: feeds.length ? feeds : [DEFAULT_FEED], types: parseTypes(params.get("types") ?? "") };
}

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function pageOf(feeds, types = []) {
  return new URL(`feeds/${plain(feeds.join(",")).replaceAll("/", "%2F")}`, ROOT).href + (types.length ? `#types=${plain(types.join(","))}` : "");
}

// Until there was a page for each feed, / named feeds in its fragment.
export const isOldPlace = () => new URLSearchParams(location.hash.slice(1)).has("feed");

// A name has no comma, so a comma separates two names. A space belongs to a bad name, which the server refuses by name.
export function parseFeeds(text) {
  return [...new Set(text.split(",").map((name) => name.trim()).filter(Boolean))];
}

export function parseTypes(text) {
  return [...new Set(text.split(",").map((type) => type.trim()).filter((type) => /^[A-Za-z0-9._:/-]{1,100}$/.test(type)))];
}

// An EventSource fires "open" and "error" itself, "message" is an event without a type, and "feed." belongs to the server.
export const isListenable = (type) => type !== "" && !["open", "error", "message"].includes(type) && !type.startsWith("feed.");

export const feedsURL = (params = {}) => address("feeds", params);
export const feedURL = (feed, params = {}) => address(`feeds/${encodeURIComponent(feed)}`, params);
export const closeURL = (feed) => address(`feeds/${encodeURIComponent(feed)}/close`, {});
// Where to publish to one feed, and where its pages are.
export const eventsURL = (feed, params = {}) => address(`feeds/${encodeURIComponent(feed)}/events`, params);
export const manyURL = (feeds, params = {}) => address("events", { feed: feeds.join(","), ...params });
// Where to follow one feed or several, which have an address of their own.
export const followURL = (feeds, params = {}) => (feeds.length === 1 ? eventsURL(feeds[0], params) : manyURL(feeds, params));

function address(path, params) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  return url.href.replace(/%(3A|40|2C|3D)/g, decodeURIComponent);
}
