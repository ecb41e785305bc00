// Reads feeds and types from the page's address, and makes the addresses of the pages and of the API.

const ROOT = new URL("../", import.meta.url);
const API = new URL("v1/", ROOT);
export const ROOT_PATH = ROOT.pathname;
export const API_PATH = API.pathname;
const DEFAULT_FEED = "demo";
export const READY = new URL("readyz", ROOT).href;

// Colons and commas are legal in a path and a fragment, and easier to read as they are.
const plain = (text) => encodeURIComponent(text).replace(/%(3A|2C|40|2F|3D)/g, decodeURIComponent);

// A page of one feed or several is at /feeds/{names}; the types to show are in the fragment.
export function readPlace() {
  const params = new URLSearchParams(location.hash.slice(1));
  const feeds = parseFeeds(unescaped(location.pathname.slice(new URL("feeds/", ROOT).pathname.length)));
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

// A name has no comma, so a comma separates two names. A space belongs to a bad name, which the server refuses by name.
export function parseFeeds(text) {
  return [...new Set(text.split(",").map((name) => name.trim()).filter(Boolean))];
}

// Whether the name of a feed may begin so.
export const isBeginning = (text) => /^[A-Za-z0-9][A-Za-z0-9._:@~-]{0,254}$/.test(text);

function parseTypes(text) {
  return [...new Set(text.split(",").map((type) => type.trim()).filter((type) => /^[A-Za-z0-9._:/-]{1,100}$/.test(type)))];
}

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
