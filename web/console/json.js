// Cuts JSON into its parts without reading numbers: JSON.parse would round them, and would lose the spelling.

const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
const NESTED = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}]/g;
const PLAIN = /[^,\]}\s]+/y;
const SPACE = /\s*/y;

function skip(text, at) {
  SPACE.lastIndex = at;
  SPACE.exec(text);
  return SPACE.lastIndex;
}

// Returns the end of the value that begins at this place.
function endOf(text, at) {
  const pattern = text[at] === '"' ? STRING : PLAIN;
  if (text[at] !== "{" && text[at] !== "[") {
    pattern.lastIndex = at;
    if (!pattern.exec(text)) throw new SyntaxError(`no JSON at ${at}`);
    return pattern.lastIndex;
  }
  NESTED.lastIndex = at;
  for (let depth = 0; ;) {
    const found = NESTED.exec(text)?.[0];
    if (found === undefined) throw new SyntaxError("JSON ends early");
    if (found === "{" || found === "[") depth++;
    if ((found === "}" || found === "]") && --depth === 0) return NESTED.lastIndex;
  }
}

// Returns the members of an object, each as its JSON.
export function members(text) {
  const found = {};
  let at = skip(text, text.indexOf("{") + 1);
  while (at < text.length && text[at] !== "}") {
    const nameEnd = endOf(text, at);
    const begin = skip(text, skip(text, nameEnd) + 1);
    const end = endOf(text, begin);
    found[JSON.parse(text.slice(at, nameEnd))] = text.slice(begin, end);
    at = skip(text, end);
    if (text[at] === ",") at = skip(text, at + 1);
  }
  return found;
}

// Returns the items of an array, each as its JSON.
export function items(text) {
  const found = [];
  let at = skip(text, text.indexOf("[") + 1);
  while (at < text.length && text[at] !== "]") {
    const end = endOf(text, at);
    found.push(text.slice(at, end));
    at = skip(text, end);
    if (text[at] === ",") at = skip(text, at + 1);
  }
  return found;
}

// Reads an envelope. Its data stays as it was published: JSON as it is spelled, text as it is.
export function eventOf(text) {
  const raw = members(text);
  const read = (name) => (raw[name] === undefined ? undefined : JSON.parse(raw[name]));
  const data = raw.data ?? "";
  const type = read("type");
  return {
    feed: read("feed"),
    id: read("id") ?? null,
    type: type === "message" ? "" : type ?? "",
    time: read("time"),
    key: read("key"),
    removed: read("removed"),
    data: data.startsWith('"') ? JSON.parse(data) : data,
    json: raw.data !== undefined && !data.startsWith('"'),
    envelope: text,
  };
}
