"""The kit for testing workflows, stores and this library itself."""
