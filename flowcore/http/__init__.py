"""The HTTP surface: routes and problem documents, the same under Lambda and under a local server."""
