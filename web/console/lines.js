// Serves the tabs of a browser: those with the same token share one connection, and another one for feeds of the server,
// which also come while the store is away. Over HTTP/1.1 a browser opens at most six connections to a server, and each
// stream would hold one of them.

import { Line } from "./line.js";

const shared = new Map();

// Serves one tab. Its messages are {follow: {cursors, token}}, {leave} and {wake}; it is sent lists of blocks.
export function serve(port) {
  let reader = null;
  const leave = () => {
    if (reader) reader.line?.leave(reader);
    forget();
    reader = null;
  };
  port.onmessage = ({ data }) => {
    if (data.wake) reader?.line?.wake();
    if (data.leave || data.follow) leave();
    if (!data.follow) return;
    const { cursors, token } = data.follow;
    const mine = { cursors: new Map(cursors), token, send: (blocks) => mine === reader && port.postMessage(blocks) };
    reader = mine;
    const own = cursors.every(([feed]) => feed.startsWith("feed."));
    join(mine, lineOf(own ? `figures ${token}` : token, token));
  };
  port.addEventListener("close", leave);
  port.start?.();
}

function join(reader, line) {
  reader.line = line;
  line.join(reader);
}

function lineOf(key, token) {
  if (!shared.has(key)) shared.set(key, new Line(token, refused));
  return shared.get(key);
}

function forget() {
  for (const [key, line] of shared) if (line.size === 0) shared.delete(key);
}

// What one tab asks for may be refused, or be too much for one connection: each then gets a connection and an answer of its own.
function refused(readers, refusal) {
  forget();
  if (readers.length > 1) {
    for (const reader of readers) join(reader, new Line(reader.token, refused));
    return;
  }
  const { status, message: detail, challenge } = refusal;
  for (const reader of readers) reader.send([{ type: "state", state: "failed", status, detail, challenge }]);
}
