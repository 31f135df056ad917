"""Asks a server again and again for some seconds: how long it takes; an error if once over a second."""
import http.client
import sys
import time
from urllib.parse import urlsplit

address, seconds = urlsplit(sys.argv[1]).netloc, float(sys.argv[2])
times, end = [], time.monotonic() + seconds
while time.monotonic() < end:
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/client/v4/user/tokens/verify")
    assert connection.getresponse().read().startswith(b'{"success":true')
    connection.close()
    times.append(time.monotonic() - began)
    time.sleep(0.02)
times.sort()
at = lambda share: 1000 * times[min(len(times) - 1, int(share * len(times)))]
print(f"{len(times)} requests, median {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, longest {at(1):.1f} ms")
sys.exit(at(1) > 1000)
