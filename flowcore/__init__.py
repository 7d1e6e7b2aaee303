"""Durable, waiting workflows on AWS, written in Python."""
