"""Alerts: what people must hear of soon, found in audit records by rules, and delivered as webhooks.

The records are the outbox: nothing is added to an exchange or an upload. One process at a time (`worker.py`) reads the
records that were appended, asks the rules (`rules.py`, pure) and queues what they find in state, for each receiver
(`receivers.py`) by itself; then it delivers (`webhooks.py`), until a receiver has taken each.
"""
