"""Durable workflows that wait: for people, for other systems, for days. On AWS Lambda and DynamoDB, in Python."""
