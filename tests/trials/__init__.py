"""What takes minutes, or a quiet machine: each a module of its own, run by hand."""
