"""Whether a wrong token takes longer the later it is wrong: medians of two kinds of requests, in turns.

An error if they differ by more than a microsecond."""
import socket
import statistics
import sys
import time
from urllib.parse import urlsplit

url, token, count = urlsplit(sys.argv[1]), sys.argv[2], int(sys.argv[3])
connection = socket.create_connection((url.hostname, url.port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def request(token):
    head = f"GET /client/v4/user/tokens/verify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    return head.encode()


def ask(bytes):
    began = time.perf_counter_ns()
    connection.sendall(bytes)
    answer = connection.recv(4096)
    took = time.perf_counter_ns() - began
    assert answer.startswith(b"HTTP/1.1 401") and answer.endswith(b"}"), answer
    return took


kinds = [request("!" + token[1:]), request(token[:-1] + "!")]
for _ in range(500):
    [ask(kind) for kind in kinds]
times = [[], []]
for turn in range(count):
    for kind in (0, 1) if turn % 2 else (1, 0):
        times[kind].append(ask(kinds[kind]))
first, last = (statistics.median(taken) / 1000 for taken in times)
print(f"wrong first byte: {first:.3f} us, wrong last byte: {last:.3f} us, {count} requests each")
sys.exit(abs(first - last) > 1)
