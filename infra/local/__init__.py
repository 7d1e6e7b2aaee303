"""The embedded local stack: template.yaml on loopback, without Docker and without an account.

Handlers run in processes of their own, as on Lambda; schedules fire, messages are redelivered, time can be moved.
Only the adapters are local: the resources come from the template. ``stack.py`` is the door; README.md one floor up
tells the rest.
"""
