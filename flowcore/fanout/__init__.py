"""A distributed foreach: items of one run that other runs see to, its children, and how they are joined again.

A child is a run of its own that sees to some items of another run's foreach. It works on that run's workflow, under the
keys the items have there, and its records lie in its own partition. When an item is done, whoever drives the child
writes the item's record into the run, once; then tells the join, a set, so that telling twice changes nothing; then,
where that may end the foreach, has somebody look at the run. Only then the child is given back. Whoever dies in
between has left the child's head with a ``due``, and the next one does all of it again.

The run itself, whenever it is looked at, names the same children again and begins those that are missing.

What needs no store is in core/fan.py.
"""
