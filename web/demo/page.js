// What the two parts of the page share.

export const at = (id) => document.getElementById(id);

export function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

export function write(place, text) {
  if (place.textContent !== String(text)) place.textContent = text;
}

export function showState(place, state, label) {
  place.dataset.state = state;
  write(place.querySelector(".label"), label);
}

// The page's address names its feeds, so that a reload finds them, and another window as well.
export function feedInAddress(kind) {
  const name = new URLSearchParams(location.hash.slice(1)).get(kind) ?? "";
  return new RegExp(`^demo:${kind}:[a-z0-9]{1,40}$`).test(name) ? name : null;
}

export function putInAddress(kind, feed) {
  const params = new URLSearchParams(location.hash.slice(1));
  params.set(kind, feed);
  history.replaceState(history.state, "", `#${String(params).replaceAll("%3A", ":")}`);
}

export function newName(kind) {
  return `demo:${kind}:${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// Returns why a request failed, "" if it did not.
export async function problemWith(request) {
  let response;
  try {
    response = await request;
  } catch {
    return "The server cannot be reached.";
  }
  if (response.ok) return "";
  try {
    const { detail, title } = await response.json();
    return `${detail || title}.`;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

// An EventSource that has stopped for good was refused; any other comes back by itself.
export const isRefused = (source) => source.readyState === EventSource.CLOSED;
