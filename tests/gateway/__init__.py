"""Tests of `broker/gateway`."""
