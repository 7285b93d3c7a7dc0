"""The trusted-publishing broker."""

__version__ = "0.1.0"
