using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "rimstone", external = (
      address = "127.0.0.1:8787",
      http = (injectRequestHeaders = [
        (name = "x-kv-namespace", value = "example"),
        # With RIMSTONE_TOKEN set: (name = "Authorization", value = "Bearer <token>"),
      ]),
    )),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2025-09-01",
  bindings = [(name = "KV", kvNamespace = "rimstone")],
);
