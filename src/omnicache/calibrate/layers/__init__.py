"""The Layered Cache: which layer is reused at which step, from what each such cell costs and saves."""
