"""One module a capability: what `make demo` runs."""
