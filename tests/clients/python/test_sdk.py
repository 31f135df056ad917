"""The official Python SDK, pointed at the server by base_url."""
import os
import sys
import time
import traceback

import cloudflare
from cloudflare import Cloudflare

ACCOUNT = "0123456789abcdef0123456789abcdef"
BASE = os.environ["RIMSTONE_URL"] + "/client/v4"
TOKEN = os.environ["RIMSTONE_TOKEN"]
client = Cloudflare(base_url=BASE, api_token=TOKEN, max_retries=0)
kv = client.kv.namespaces
counter = 0


def unique():
    global counter
    counter += 1
    return f"python-{os.getpid()}-{counter}"


def namespace():
    return kv.create(account_id=ACCOUNT, title=unique()).id


def fails(call, error, code):
    try:
        call()
    except error as e:
        assert e.errors[0].code == code, e
    else:
        raise AssertionError("the call succeeded")


def write(ns, key, value, **more):
    kv.values.update(key, account_id=ACCOUNT, namespace_id=ns, value=value, **more)


def get(ns, key):
    return kv.values.get(key, account_id=ACCOUNT, namespace_id=ns)


def test_namespaces():
    title = unique()
    made = kv.create(account_id=ACCOUNT, title=title)
    assert len(made.id) == 32 and made.title == title and made.supports_url_encoding
    assert kv.get(made.id, account_id=ACCOUNT).title == title
    fails(lambda: kv.create(account_id=ACCOUNT, title=title), cloudflare.BadRequestError, 10014)
    kv.update(made.id, account_id=ACCOUNT, title=title + " 2")
    listed = {n.id: n.title for n in kv.list(account_id=ACCOUNT, per_page=1000)}
    assert listed[made.id] == title + " 2"
    kv.delete(made.id, account_id=ACCOUNT)
    fails(lambda: kv.get(made.id, account_id=ACCOUNT), cloudflare.NotFoundError, 10013)


def test_values():
    ns = namespace()
    data = bytes(range(256)) * 40
    for key in ["plain", "a/b c?d", "é 日本 😀", "100%+&=#", "x" * 512]:
        write(ns, key, data)
        response = get(ns, key)
        assert response.read() == data, key
        assert response.headers["content-type"] == "application/octet-stream"
        kv.values.delete(key, account_id=ACCOUNT, namespace_id=ns)
        kv.values.delete(key, account_id=ACCOUNT, namespace_id=ns)
        fails(lambda: get(ns, key), cloudflare.NotFoundError, 10009)


def test_metadata_and_expiration():
    ns = namespace()
    before = int(time.time())
    write(ns, "k", b"v", metadata='{"a": [1, "é"]}', expiration_ttl=300)
    assert before + 300 <= int(get(ns, "k").headers["expiration"]) <= time.time() + 300
    assert kv.metadata.get("k", account_id=ACCOUNT, namespace_id=ns) == {"a": [1, "é"]}
    [key] = kv.keys.list(ns, account_id=ACCOUNT)
    assert key.name == "k" and key.metadata == {"a": [1, "é"]} and key.expiration >= before + 300
    write(ns, "k", b"v")
    assert kv.metadata.get("k", account_id=ACCOUNT, namespace_id=ns) is None
    assert "expiration" not in get(ns, "k").headers
    short = lambda: write(ns, "k", b"v", expiration_ttl=30)
    fails(short, cloudflare.BadRequestError, 10034)
    missing = lambda: kv.metadata.get("none", account_id=ACCOUNT, namespace_id=ns)
    fails(missing, cloudflare.NotFoundError, 10009)


def test_keys():
    ns = namespace()
    names = [f"p/{i:03}" for i in range(45)]
    body = [{"key": k, "value": "v"} for k in names + ["q"]]
    kv.bulk_update(ns, account_id=ACCOUNT, body=body)
    listed = lambda **more: [k.name for k in kv.keys.list(ns, account_id=ACCOUNT, **more)]
    assert listed() == names + ["q"]
    assert listed(prefix="p/", limit=10) == names
    assert listed(prefix="none") == []


def test_bulk():
    ns = namespace()
    body = [{"key": f"k{i}", "value": f"v{i}", "metadata": {"i": i}} for i in range(2000)]
    wrote = kv.bulk_update(ns, account_id=ACCOUNT, body=body)
    assert wrote.successful_key_count == 2000 and not wrote.unsuccessful_keys
    got = kv.bulk_get(ns, account_id=ACCOUNT, keys=["k0", "k1999", "none"])
    assert got.values == {"k0": "v0", "k1999": "v1999", "none": None}, got
    gone = kv.bulk_delete(ns, account_id=ACCOUNT, body=[e["key"] for e in body])
    assert gone.successful_key_count == 2000
    assert list(kv.keys.list(ns, account_id=ACCOUNT)) == []


def test_wrong_token():
    ns = namespace()
    wrong = Cloudflare(base_url=BASE, api_token="wrong", max_retries=0)
    call = lambda: wrong.kv.namespaces.values.get("k", account_id=ACCOUNT, namespace_id=ns)
    fails(call, cloudflare.AuthenticationError, 10000)


passed = failed = 0
for name, case in list(globals().items()):
    if not name.startswith("test_"):
        continue
    try:
        case()
        passed += 1
        print(f"ok - python sdk: {name[5:]}")
    except Exception:
        failed += 1
        print(f"not ok - python sdk: {name[5:]}\n{traceback.format_exc()}")
print(f"# pass {passed}\n# fail {failed}")
sys.exit(failed > 0)
