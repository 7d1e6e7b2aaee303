"""Small workflows that run as they stand; the tests run each of them."""
