"""Everything on one laptop, no cloud: a CI that signs, a registry that stores, the broker between them, real clients.

Nothing here is part of a broker in production: only the verb of that name uses it. What stands in for the world is as
like it as can be. Claims have every name and JSON type that the providers send, the registry is a real pypiserver, the
clients are the real ones, and all of it speaks over real sockets with a real certificate.
"""
