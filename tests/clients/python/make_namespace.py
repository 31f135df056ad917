"""Makes a namespace of this title and prints its id."""
import os
import sys

from cloudflare import Cloudflare

client = Cloudflare(
    base_url=os.environ["RIMSTONE_URL"] + "/client/v4", api_token=os.environ["RIMSTONE_TOKEN"]
)
print(client.kv.namespaces.create(account_id="a", title=sys.argv[1]).id)
