"""Policies: what organizations declared, and who is a member of them."""
