// A room is a feed. Keep the id of the last message, and come back
// with it: you miss none. 0 is before the first, "" is from now on.
export function follow(room, lastId, show) {
  const url = `v1/feeds/${room}/events?lastEventId=${lastId}`;
  const source = new EventSource(url);
  source.onmessage = (e) => show(e.lastEventId, e.data);
  return source;
}

export const say = (room, data) => fetch(`v1/feeds/${room}/events`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(data),
});
