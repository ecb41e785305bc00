"""Reads a stream to its clean end and publishes on the same connection, again and
again: python3 reuse.py HOST PORT FEED ROUNDS. The feed is closed."""
import http.client
import json
import sys

host, port, feed, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
connection = http.client.HTTPConnection(host, port, timeout=20)
connections = set()


def ask(method, path, body=None):
    connection.request(method, path, body)
    connections.add(connection.sock.getsockname())
    response = connection.getresponse()
    return response.status, response.read().decode()


for i in range(1, rounds + 1):
    status, text = ask("GET", f"/v1/feeds/{feed}/events?from=start")
    assert status == 200 and "event: feed.closed\n" in text, (status, text)
    status, text = ask("POST", "/v1/feeds/python/events", f"python {i}")
    assert status == 201 and json.loads(text)["id"] == i, (status, text)
print(json.dumps({"who": "python", "rounds": rounds, "connections": len(connections)}))
