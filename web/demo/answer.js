// An answer is a feed, and each word an event. The program on the
// server closes the feed after the last word.
export const ask = () => fetch("demo/answers", { method: "POST" });

export function read(feed, show, ended) {
  const source = new EventSource(`v1/feeds/${feed}/events?from=start`);
  source.onmessage = (e) => show(e.lastEventId, e.data);
  source.addEventListener("feed.closed", ended);
  return source;
}

// Ends it for everybody: its readers, and the program.
export const stop = (feed) =>
  fetch(`v1/feeds/${feed}/close`, { method: "POST" });
